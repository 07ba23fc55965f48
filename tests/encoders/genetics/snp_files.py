"""A cohort of random genotypes as real files, in every format that holds dosages, with a table of people and a split."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pysam

from encoders.cohort import Split

MISSING = -1
TEXT = {0: "0|0", 1: "0|1", 2: "1|1", MISSING: ".|."}


@dataclass
class Genotypes:
    """(V, S) copies of ALT; one (contig, 1-based position, REF, ALT) per variant."""

    sites: list[tuple[str, int, str, str]]
    copies: np.ndarray
    people: list[str]
    contigs: dict[str, int] = field(
        default_factory=lambda: {"chr1": 100_000, "chr2": 100_000, "chrX": 100_000}
    )

    def vcf(self, path: Path, *, bcf: bool = False) -> Path:
        header = ["##fileformat=VCFv4.2", '##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">']
        header += [f"##contig=<ID={name},length={length}>" for name, length in self.contigs.items()]
        header += [
            "\t".join(["#CHROM", "POS", "ID", "REF", "ALT", "QUAL", "FILTER", "INFO", "FORMAT", *self.people])
        ]
        rows = [
            "\t".join([contig, str(at), ".", ref, alt, ".", ".", ".", "GT", *(TEXT[int(c)] for c in copies)])
            for (contig, at, ref, alt), copies in zip(self.sites, self.copies, strict=True)
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        plain = path.with_suffix(".plain.vcf")
        plain.write_text("\n".join(header + rows) + "\n")
        if bcf:
            with (
                pysam.VariantFile(str(plain)) as source,
                pysam.VariantFile(str(path), "wb", header=source.header) as out,
            ):
                for record in source:
                    out.write(record)
            pysam.tabix_index(str(path), preset="bcf", force=True, csi=True)
        else:
            pysam.tabix_compress(str(plain), str(path), force=True)
            pysam.tabix_index(str(path), preset="vcf", force=True)
        plain.unlink()
        return path

    def pgen(self, path: Path) -> Path:
        from pgenlib import PgenWriter

        with PgenWriter(
            str(path).encode(), len(self.people), variant_ct=len(self.sites), nonref_flags=False
        ) as out:
            for copies in self.copies:
                out.append_biallelic(np.where(copies == MISSING, -9, copies).astype(np.int8))
        lines = [
            "#CHROM\tPOS\tID\tREF\tALT",
            *("\t".join([c, str(p), f"{c}:{p}", r, a]) for c, p, r, a in self.sites),
        ]
        path.with_suffix(".pvar").write_text("\n".join(lines) + "\n")
        path.with_suffix(".psam").write_text(
            "\n".join(["#IID\tSEX", *(f"{name}\tNA" for name in self.people)]) + "\n"
        )
        return path

    def bgen(self, path: Path) -> Path:
        """Unphased probabilities, REF last, people in a .sample file beside it."""
        from bgen import BgenWriter

        with BgenWriter(str(path), len(self.people)) as out:
            for (contig, at, ref, alt), copies in zip(self.sites, self.copies, strict=True):
                chances = np.stack([copies == 2, copies == 1, copies == 0], axis=1).astype(float)
                chances[copies == MISSING] = np.nan
                out.add_variant(f"{contig}:{at}", f"{contig}:{at}", contig, at, [alt, ref], chances)
        rows = ["ID_1 ID_2 missing sex", "0 0 0 D", *(f"{name} {name} 0 NA" for name in self.people)]
        path.with_suffix(".sample").write_text("\n".join(rows) + "\n")
        return path

    def bed(self, path: Path) -> Path:
        from bed_reader import to_bed

        values = np.where(
            self.copies == MISSING, np.nan, self.copies
        ).T  # copies of allele 1, as PLINK writes ALT
        contigs, places, refs, alts = zip(*self.sites, strict=True)
        to_bed(
            path,
            values,
            properties={
                "fid": ["0"] * len(self.people),
                "iid": self.people,
                "chromosome": [name.removeprefix("chr") for name in contigs],
                "sid": [f"v{k}" for k in range(len(places))],
                "bp_position": list(places),
                "allele_1": list(alts),
                "allele_2": list(refs),
            },
        )
        return path


def random_genotypes(
    *,
    people: int = 40,
    variants: int = 24,
    missing: bool = False,
    seed: int = 0,
    contigs: tuple[str, ...] = ("chr1",),
) -> Genotypes:
    """Common variants without missing calls unless asked for, 100 bases apart from position 1001 on, dealt to the contigs in turn."""
    rng = np.random.default_rng(seed)
    sites = []
    for k in range(variants):
        ref, alt = rng.choice(list("ACGT"), 2, replace=False)
        sites.append((contigs[k * len(contigs) // variants], 1001 + 100 * k, str(ref), str(alt)))
    frequency = rng.uniform(0.2, 0.8, variants)
    copies = rng.binomial(2, frequency[:, None], (variants, people))
    if missing:  # one call of every third variant
        rows = np.arange(0, variants, 3)
        copies[rows, 7 * rows % people] = MISSING
    return Genotypes(sites, copies, [f"p{k}" for k in range(people)])


def write_study(folder: Path, genotypes: Genotypes, *, windows: tuple[str, ...], num_train: int = 28) -> Path:
    """A study with participants, split, variants and windows; the last people are held out."""
    genotypes.vcf(folder / "raw/genetics/cohort.vcf.gz")
    (folder / "raw/genetics/windows.bed").write_text("".join(f"{line}\n" for line in windows))
    (folder / "raw/participants.tsv").write_text("\n".join(["participant_id", *genotypes.people]) + "\n")
    write_split(folder, genotypes.people, num_train)
    return folder


def write_split(folder: Path, people: list[str], num_train: int) -> Split:
    half = (len(people) + num_train) // 2
    split = Split(
        train=people[:num_train],
        val=people[num_train:half],
        test=people[half:],
        groups={name: name for name in people},
        seed=0,
    )
    split.save(folder / "splits/splits.json")
    return split
