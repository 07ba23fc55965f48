"""From the vectors of sequences to SubjectVectors with everything that is known about them.

Glossary: S people · G numbers of a person.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float32

from encoders.cohort.splits import Split
from encoders.genetics.config import EmbedGenome
from encoders.genetics.embed import Embedded
from encoders.genetics.genomes import Genomes
from encoders.genetics.guards import confounding, overlap
from encoders.genetics.pca import GeneticsPCA
from encoders.genetics.pooling import gene_vectors, pooled_windows, together
from encoders.genetics.sequence_encoder import SequenceEncoder
from encoders.genetics.windows import digest_windows
from encoders.runs.artifact import content_digest
from encoders.runs.study import Study
from encoders.vectors import SubjectVectors


@dataclass(frozen=True, kw_only=True)
class Made:
    """Vectors of people, and what was found out about them.

    Args:
        vectors: One per person.
        levels: Name of a level ("windows", "genes") -> its vectors, where they are to be kept.
        genes: Names, in order.
        pca: Its components, if there is one.
        confounding: Of :func:`encoders.genetics.guards.confounding`.
        overlap: Of :func:`encoders.genetics.guards.overlap`; None without a split.
    """

    vectors: SubjectVectors
    levels: dict[str, SubjectVectors]
    genes: list[str]
    pca: GeneticsPCA | None
    confounding: dict[str, Any]
    overlap: dict[str, Any] | None

    def save(self, study: Study) -> None:
        """Write the vectors last: they mark the stage as done."""
        path = study.path("genetics")
        for level, vectors in self.levels.items():
            vectors.save(path.with_name(f"genetics_{level}.safetensors"))
        if self.pca is not None:
            self.pca.save(path.with_name("genetics_pca.safetensors"))
        self.vectors.save(path)


def make_vectors(
    config: EmbedGenome,
    genomes: Genomes,
    encoder: SequenceEncoder,
    embedded: Embedded,
    frame: pd.DataFrame,
    split: Split | None,
    pca: GeneticsPCA | None,
    provenance: dict[str, Any],
) -> Made:
    """Pool, put genes together, reduce, and look at what the result says besides biology.

    Args:
        config: Options.
        genomes: Who carries which sequence.
        encoder: What made the vectors of sequences.
        embedded: Those vectors.
        frame: Rows of the table of people, in the order of the genomes.
        split: Who is in train and in test.
        pca: Components of an earlier run, to be applied.
        provenance: More to record, such as the name and revision of the model.

    Raises:
        InputError: E_DEGENERATE, a window's or gene's vectors are the same for everyone; a PCA that does not fit.
    """
    steps = config.steps
    how = {"pooling": steps.pooling, "combine": steps.combine}
    genes = gene_vectors(genomes.windows, embedded.windows, **how)
    values, blocks = together(genes, steps.genes_as)
    windows_sha256 = digest_windows([haplotypes.window for haplotypes in genomes.windows])
    basis = {
        "model": content_digest(encoder.identity),
        "windows": windows_sha256,
        "strategy": {name: value for name, value in asdict(steps).items() if name != "pca"},
    }
    known = {
        **encoder.identity,
        "strategy": config.strategy_name,
        "steps": asdict(steps),
        "genes": list(genes),
        "windows_sha256": windows_sha256,
        "minus_strand": [h.window.name for h in genomes.windows if h.window.strand == "-"],
        "clipped": [h.window.name for h in genomes.windows if h.window.clipped or h.window.clipped_start],
        "sequence_length": "natural: windows are fixed by reference coordinates, never padded or trimmed",
        "tie_rate": genomes.ties,
        "trained_on": None,
        **provenance,
    }
    levels = _levels(genomes, embedded, genes, how, known) if config.keep_levels else {}
    if config.pca_from is not None and pca is not None:
        pca.check(basis, config.pca_from)
    elif steps.pca:
        assert split is not None
        pca = _fit(values, genomes.people, steps.pca, split, basis)
    if pca is not None:
        values, blocks = pca.transform(values), {"pca": (0, len(pca.components))}
        known["trained_on"] = pca.trained_on
        known["pca"] = {
            "asked": pca.asked,
            "components": len(pca.components),
            "explained_variance": float(pca.explained.sum()),
            "training_people": len(pca.trained_on["ids"]),
            "split_digest": pca.trained_on["split_digest"],
            "sha256": pca.digest,
        }
    known["confounding"] = confounding(values, frame)
    known["haplotype_overlap"] = (
        overlap(genomes.windows, genomes.people, split) if split is not None else None
    )
    vectors = SubjectVectors(ids=genomes.people, values=values, blocks=blocks, provenance=known)
    return Made(
        vectors=vectors,
        levels=levels,
        genes=list(genes),
        pca=pca,
        confounding=known["confounding"],
        overlap=known["haplotype_overlap"],
    )


def _fit(
    values: Float32[np.ndarray, "S G"], people: list[str], asked: int, split: Split, basis: dict[str, Any]
) -> GeneticsPCA:
    fold = split.fold_of
    rows = [k for k, name in enumerate(people) if fold.get(name) == "train"]
    seen = {"split_digest": split.digest, "ids": [people[k] for k in rows], "complete": True}
    return GeneticsPCA.fit(values[rows], asked, basis=basis, trained_on=seen)


def _levels(
    genomes: Genomes,
    embedded: Embedded,
    genes: dict[str, np.ndarray],
    how: dict[str, Any],
    known: dict[str, Any],
) -> dict[str, SubjectVectors]:
    """Vectors per window and per gene, side by side."""
    windows = {h.window.name: part for h, part in pooled_windows(genomes.windows, embedded.windows, **how)}
    levels = {}
    for level, parts in (("windows", windows), ("genes", genes)):
        values, blocks = together(parts, "concatenated")
        levels[level] = SubjectVectors(
            ids=genomes.people, values=values, blocks=blocks, provenance={**known, "level": level}
        )
    return levels
