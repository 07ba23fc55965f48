"""Genetic files of a synthetic cohort: reference FASTA, gene windows, phased variants with their index."""

import os
import tempfile
from pathlib import Path

import numpy as np

from encoders.cohort.synthetic.genomes import Genomes, Window
from encoders.runs.artifact import PRIVATE, write_text
from encoders.runs.errors import InputError

LINE = 60  # bases per FASTA line


def check_pysam() -> None:
    """Fail early, in words, where the one optional package that this needs is missing."""
    try:
        import pysam  # noqa: F401
    except ImportError:
        raise InputError(
            "pysam is not installed, and it compresses and indexes the variants; "
            "install it with: pip install 'neurohelix[genetics]'"
        ) from None


def write_reference(path: Path, reference: dict[str, str]) -> None:
    """Write a FASTA file and its `.fai` index."""
    text, index = "", ""
    for contig, bases in reference.items():
        text += f">{contig}\n"
        index += f"{contig}\t{len(bases)}\t{len(text)}\t{LINE}\t{LINE + 1}\n"
        text += "".join(f"{bases[at : at + LINE]}\n" for at in range(0, len(bases), LINE))
    write_text(path, text)
    write_text(path.with_name(path.name + ".fai"), index)


def write_windows(path: Path, windows: list[Window]) -> None:
    """Write gene windows as BED6."""
    write_text(path, "".join(f"{w.contig}\t{w.start}\t{w.end}\t{w.gene}\t0\t{w.strand}\n" for w in windows))


def write_variants(path: Path, genomes: Genomes, ids: list[str]) -> None:
    """Write the phased genotypes of all people as a bgzipped VCF with its tabix index."""
    import pysam

    path.parent.mkdir(parents=True, exist_ok=True)
    index = path.with_name(path.name + ".tbi")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent) as folder:
        plain, packed = Path(folder, "cohort.vcf"), Path(folder, "cohort.vcf.gz")
        plain.write_text(_vcf(genomes, ids), encoding="ascii")
        pysam.tabix_compress(str(plain), str(packed), force=True)
        pysam.tabix_index(str(packed), preset="vcf", force=True)
        index.unlink(missing_ok=True)  # an old index must never lie beside new variants
        for made, kept in ((packed, path), (Path(f"{packed}.tbi"), index)):
            made.chmod(PRIVATE)
            with open(made, "rb") as file:
                os.fsync(file.fileno())
            os.replace(made, kept)


def _vcf(genomes: Genomes, ids: list[str]) -> str:
    header = ["##fileformat=VCFv4.3", "##source=NeuroHelix_make_cohort", "##reference=reference.fa"]
    header += [f"##contig=<ID={name},length={len(bases)}>" for name, bases in genomes.reference.items()]
    header += [
        '##FILTER=<ID=PASS,Description="All filters passed">',
        '##INFO=<ID=AC,Number=A,Type=Integer,Description="Copies of each alternative allele">',
        '##INFO=<ID=AN,Number=1,Type=Integer,Description="Called alleles">',
        '##FORMAT=<ID=GT,Number=1,Type=String,Description="Phased genotype">',
        "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *ids]),
    ]
    calls = np.array([f"{a}|{b}" for a in range(3) for b in range(3)] + [".|."], dtype=object)
    which = np.where(genomes.missing, 9, genomes.alleles[:, 0] * 3 + genomes.alleles[:, 1])
    called = np.where(genomes.missing[:, None, :], -1, genomes.alleles)
    rank = {contig: number for number, contig in enumerate(genomes.reference)}
    order = sorted(
        range(len(genomes.variants)),
        key=lambda m: (rank[genomes.variants[m].contig], genomes.variants[m].position),
    )
    lines = []
    for m in order:
        variant = genomes.variants[m]
        counts = ",".join(str((called[..., m] == allele + 1).sum()) for allele in range(len(variant.alts)))
        info = f"AC={counts};AN={(called[..., m] >= 0).sum()}"
        fields = [variant.contig, str(variant.position), ".", variant.ref, ",".join(variant.alts)]
        lines.append("\t".join([*fields, ".", "PASS", info, "GT", *calls[which[:, m]]]))
    return "\n".join([*header, *lines]) + "\n"
