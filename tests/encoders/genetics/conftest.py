"""Small real genomes: FASTA, bgzipped and indexed VCF, BED; and bcftools consensus to compare with."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pysam
import pytest

Record = tuple  # (contig, 1-based position, REF, ALT, genotypes)


class GenomeFiles:
    """Writes the files of a small genome into a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def fasta(self, contigs: dict[str, str], name: str = "reference.fa") -> Path:
        path = self.folder / name
        lines = []
        for contig, bases in contigs.items():
            lines += [f">{contig} a description", *(bases[at : at + 60] for at in range(0, len(bases), 60))]
        path.write_text("\n".join(lines) + "\n")
        return path

    def vcf_text(
        self,
        records: Sequence[Record],
        *,
        samples: Sequence[str] = ("p1", "p2"),
        contigs: dict[str, int] | None = None,
        layout: str = "GT",
    ) -> str:
        lengths = contigs if contigs is not None else dict.fromkeys((r[0] for r in records), 10_000)
        header = ["##fileformat=VCFv4.2", '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">']
        header += ['##FORMAT=<ID=DP,Number=1,Type=Integer,Description="depth">']
        header += [f"##contig=<ID={name},length={length}>" for name, length in lengths.items()]
        header += [
            "\t".join(
                ["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *list(samples)]
            )
        ]
        rows = [
            "\t".join([contig, str(position), ".", ref, alt, ".", ".", ".", layout, *genotypes])
            for contig, position, ref, alt, genotypes in records
        ]
        return "\n".join(header + rows) + "\n"

    def vcf(
        self, records: Sequence[Record], *, name: str = "cohort.vcf.gz", index: bool = True, **kw
    ) -> Path:
        plain, path = self.folder / "plain.vcf", self.folder / name
        plain.write_text(self.vcf_text(records, **kw))
        pysam.tabix_compress(str(plain), str(path), force=True)
        plain.unlink()
        if index:
            pysam.tabix_index(str(path), preset="vcf", force=True)
        return path

    def bed(self, *lines: str, name: str = "windows.bed") -> Path:
        path = self.folder / name
        path.write_text("".join(f"{line}\n" for line in lines))
        return path


@pytest.fixture
def files(tmp_path: Path) -> GenomeFiles:
    folder = tmp_path / "genome"
    folder.mkdir()
    return GenomeFiles(folder)


# In a process of its own: some inputs make bcftools abort, which would end the tests with it.
CONSENSUS = """
import json, sys
import pysam.bcftools
for fasta, vcf, sample, haplotype, options in json.load(sys.stdin):
    text = pysam.bcftools.consensus("-f", fasta, "-s", sample, "-H", str(haplotype), *options, vcf)
    print("".join(text.splitlines()[1:]))
"""


@pytest.fixture(scope="session")
def bcftools_consensus() -> Callable[[list], list[str]]:
    """(fasta, vcf, sample, 1 or 2, options) of many calls -> their sequences."""

    def consensus(jobs: list) -> list[str]:
        told = json.dumps([[str(fasta), str(vcf), *rest] for fasta, vcf, *rest in jobs])
        run = subprocess.run(
            [sys.executable, "-c", CONSENSUS], input=told, capture_output=True, text=True, check=False
        )
        assert run.returncode == 0, run.stderr[-2000:]
        return run.stdout.split("\n")[: len(jobs)]

    return consensus
