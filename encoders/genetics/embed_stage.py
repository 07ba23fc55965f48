"""The stage `embed_genome`: haplotypes, embedding through the cache, pooling, files."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from encoders.genetics.cache import VectorCache
from encoders.genetics.config import EmbedGenome
from encoders.genetics.embed import embed_sequences, genome_vectors
from encoders.genetics.encoder_choice import find_model, load_encoder
from encoders.genetics.genomes import Genomes, cohort_genomes
from encoders.genetics.sequence_encoder import SequenceEncoder
from encoders.runs.artifact import PRIVATE, write_text
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles
from encoders.runs.study import Study


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Everything a run needs, read and checked: no fault of its input can stop it any more.

    Args:
        genomes: Who carries which sequence.
        encoder: The model, loaded.
        files: Where it came from.
    """

    genomes: Genomes
    encoder: SequenceEncoder
    files: ModelFiles


def read_inputs(config: EmbedGenome, inputs: Mapping[str, Path], model: str) -> Ready:
    """Read and check everything, and write nothing.

    Args:
        config: Options.
        inputs: Paths of participants, variants, reference and windows.
        model: Folder or hub id.

    Raises:
        InputError: whatever is wrong with them.
    """
    device = _device(config.device)
    genomes = cohort_genomes(config, inputs)
    files, _ = find_model(model, revision=config.revision)
    return Ready(
        genomes=genomes,
        encoder=load_encoder(files, device=device, batch_bases=config.batch_bases),
        files=files,
    )


def embed_genome(config: EmbedGenome, study: Study, ready: Ready) -> dict[str, Any]:
    """Make the genetics vectors of a study; returns the summary of the stage.

    Args:
        config: Options.
        study: Receives the vectors, the cache and the list of people who could not be used.
        ready: From :func:`read_inputs`.
    """
    genomes, encoder, files = ready.genomes, ready.encoder, ready.files
    cache = VectorCache(study.path("haplotypes"), encoder.identity | {"pool": "mean"}, encoder.dim)
    workers = encoder.max_workers if encoder.device.type == "cpu" else 1
    embedded = embed_sequences(genomes, encoder, cache, batch_bases=config.batch_bases, workers=workers)
    vectors = genome_vectors(
        genomes,
        embedded,
        encoder,
        pooling=config.pooling,
        combine=config.combine,
        provenance={
            "model": files.name,
            "revision": files.revision,
            "random_weights": encoder.random_weights,
            "missing": config.missing,
        },
    )
    vectors.save(study.path("genetics"))
    unused = study.private / "genome_people.tsv"
    _list_unused(genomes, unused)
    summary: dict[str, Any] = {
        "model": f"{files.name}, {encoder.name}" + (f" at {files.revision}" if files.revision else "")
    }
    if encoder.random_weights:
        summary["weights"] = "seeded RANDOM weights, not a trained genome model"
    summary |= genomes.summary() | {"embedded_now": embedded.computed, "from_cache": embedded.cached}
    if embedded.damaged:
        summary["damaged_cache_files_removed"] = embedded.damaged
    if genomes.without_genome or genomes.without_row:
        summary["list_of_people_left_out"] = unused
    summary["vectors"] = (
        f"{len(vectors.ids)} people x {vectors.values.shape[1]} ({len(vectors.blocks)} genes)"
    )
    return {name: str(value) if isinstance(value, Path) else value for name, value in summary.items()}


def _list_unused(genomes: Genomes, path: Path) -> None:
    rows = [f"{name}\tin the table of people, not among the variants" for name in genomes.without_genome]
    rows += [f"{name}\tamong the variants, not in the table of people" for name in genomes.without_row]
    write_text(path, "\n".join(["participant_id\tfound", *rows]) + "\n", mode=PRIVATE)


def _device(name: str) -> torch.device:
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device=cuda, but no CUDA device is visible; pass --device=cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
