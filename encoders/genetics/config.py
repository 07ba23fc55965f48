"""Options of `scripts/embed_genome.py`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from encoders.runs.errors import InputError
from encoders.runs.study import DEMO

EXAMPLE_MODEL = "kuleshov-group/caduceus-ph_seqlen-131k_d_model-256_n_layer-16"


@dataclass(frozen=True, kw_only=True)
class EmbedGenome:
    """From FASTA + phased variants to one vector per person.

    Args:
        study: Study folder.
        participants: Table of people (TSV or CSV); default: the study's own.
        variants: Phased variants, bgzipped VCF or BCF; default: the study's own.
        reference: Reference genome, FASTA, plain or bgzipped; default: the study's own.
        windows: Gene windows, BED6 (0-based, half-open; name = gene, or gene|transcript|exon, whose windows
            are averaged; strand); default: the study's own.
        model: Caduceus weights: a folder in the Hugging Face layout, or a hub id such as
            kuleshov-group/caduceus-ph_seqlen-131k_d_model-256_n_layer-16; default: the study's own folder.
        revision: Commit, tag or branch of the hub id; a full commit hash pins it.
        pooling: "difference": mean over the bases of a haplotype minus that of the reference haplotype;
            "mean": the mean alone, which is mostly locus identity.
        combine: How two haplotypes become one vector, whichever comes first: "mean", or "mean_absdiff", which
            appends their absolute difference (twice as wide).
        missing: A missing genotype becomes the letter N ("n") or the reference ("reference").
        max_n_share: Largest share of N bases a window of the reference may have, 0 to 1.
        batch_bases: Bases per batch of the encoder, which bounds memory; on a CPU each core has a batch of its own.
        device: "auto" (CUDA if there is one), "cpu" or "cuda".
        plan: Print people, windows, unique sequences and ties, then stop before embedding.
        redo: Discard an earlier run with other options.
    """

    study: Path = DEMO
    participants: Path | None = None
    variants: Path | None = None
    reference: Path | None = None
    windows: Path | None = None
    model: str | None = None
    revision: str | None = None
    pooling: Literal["difference", "mean"] = "difference"
    combine: Literal["mean", "mean_absdiff"] = "mean"
    missing: Literal["n", "reference"] = "n"
    max_n_share: float = 0.1
    batch_bases: int = 16384
    device: Literal["auto", "cpu", "cuda"] = "auto"
    plan: bool = False
    redo: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.max_n_share <= 1:
            raise InputError(f"max_n_share is {self.max_n_share}; a share between 0 and 1 was wanted")
        if self.batch_bases < 1:
            raise InputError(f"batch_bases is {self.batch_bases}; a number of bases above 0 was wanted")
