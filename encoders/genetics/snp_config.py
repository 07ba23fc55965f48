"""Options of `scripts/embed_snps.py`. Imports nothing heavy."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from encoders.genetics.gene_names import read_names
from encoders.runs.errors import InputError
from encoders.runs.study import DEMO

VECTORS = "vectors/snps.safetensors"  # below the study


@dataclass(frozen=True, kw_only=True)
class EmbedSNPs:
    """Genotype dosages and their principal components: the linear tower that a DNA language model has to beat.

    Phase is not needed. Everything is fitted on the training people of the split: allele frequencies, which variants
    stay, the components.

    Args:
        study: Study folder; the vectors go to its vectors/snps.safetensors.
        participants: Table of people (TSV or CSV); default: the study's own.
        splits: Split file; default: the study's own.
        variants: VCF, BCF, .pgen, .bgen or PLINK .bed, phased or not: a file, a folder, a pattern such as chr*.bgen, or
            several of these with commas between them; default: the study's own.
        sample_file: .sample file with the people of BGEN files that do not name them, as UK Biobank's.
        contig: The contig of BGEN records that leave it blank.
        reference: Reference genome, FASTA: which allele of a .bed or .bgen is REF is recorded by it, and variants of
            another build are refused; the vectors do not depend on it. Default: the study's own, if there is one.
        windows: Gene windows, BED6, or an annotation (GTF, GFF3), as in embed_genome; default: the study's own.
        window_kind: "gene" or "exon" of an annotation, "variant": around the sites of a VCF or a table; default: BED as
            it is, the genes of an annotation.
        genes: Names or ids of the genes wanted: a list, or a file with one per line; default: all of the file.
        flank: Bases added on both sides of a gene, exon or variant; default: 0.
        centre: "body": the whole gene; "tss": only the flanks around the base where transcription starts.
        regions: "windows": the variants in the windows, each once even where windows overlap; "all": every variant of
            the files, for which no windows are needed.
        blocks: "one": principal components of all variants together; "gene": of each gene by itself, side by side.
        components: Principal components kept (count), per gene with --blocks=gene; capped at what the training people
            and the variants allow, and the cap is reported.
        min_maf: Least frequency of the rarer allele among training people, 0 to 0.5; 0 keeps all that vary.
        max_missing: Largest share of training people without a call that a variant may have, 0 to 1.
        max_person_missing: Largest share of the used variants that a person may lack, 0 to 1; whoever lacks more gets
            no vector and is listed.
        prune_r2: Of two variants whose dosages have at least this r² among training people, the later one is left out;
            1 keeps all.
        prune_kb: How far apart (kb) such a pair may be.
        sex_chromosomes: Take X, Y and MT too, where the dosages of men depend on how the file codes them.
        control: Folder of a study to make in which these vectors are the genome vectors: people, split, settings and
            brain vectors are links to this study's, so that align, evaluate and report run there unchanged.
        redo: Discard earlier vectors made with other options.
    """

    study: Path = DEMO
    participants: Path | None = None
    splits: Path | None = None
    variants: Path | None = None
    sample_file: Path | None = None
    contig: str | None = None
    reference: Path | None = None
    windows: Path | None = None
    window_kind: Literal["gene", "exon", "variant"] | None = None
    genes: list[str] | str | None = None
    flank: int | None = None
    centre: Literal["body", "tss"] = "body"
    regions: Literal["windows", "all"] = "windows"
    blocks: Literal["one", "gene"] = "one"
    components: int = 512
    min_maf: float = 0.01
    max_missing: float = 0.05
    max_person_missing: float = 0.1
    prune_r2: float = 1.0
    prune_kb: float = 250.0
    sex_chromosomes: bool = False
    control: Path | None = None
    redo: bool = False

    def __post_init__(self) -> None:
        if self.genes is not None:  # the names themselves are recorded, not the file that lists them
            object.__setattr__(self, "genes", list(read_names(self.genes)))
        if self.components < 1:
            raise InputError(f"components is {self.components}; a number above 0 was wanted")
        if not 0 <= self.min_maf < 0.5:
            raise InputError(
                f"min_maf is {self.min_maf}; a frequency from 0 to below 0.5 was wanted (0.01 is 1 %)"
            )
        for name in ("max_missing", "max_person_missing"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)}; a share between 0 and 1 was wanted")
        if not (0 < self.prune_r2 <= 1 and self.prune_kb > 0):
            raise InputError(
                f"prune_r2 is {self.prune_r2} and prune_kb {self.prune_kb}; an r² above 0 and up to 1 and a distance "
                f"above 0 were wanted"
            )
        if self.regions == "all" and (self.blocks == "gene" or self.windows is not None):
            raise InputError(
                "--regions=all takes every variant of the files, so it has no genes; drop --windows and --blocks=gene, "
                "or pass --regions=windows"
            )
