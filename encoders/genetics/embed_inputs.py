"""Everything that a run of `embed_genome` reads, checked before anything is written."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd
import torch

from encoders.cohort import Cohort
from encoders.cohort.splits import Split
from encoders.genetics.config import EmbedGenome
from encoders.genetics.encoder_choice import find_model, load_encoder
from encoders.genetics.genomes import Genomes, cohort_genomes
from encoders.genetics.pca import GeneticsPCA
from encoders.genetics.sequence_encoder import SequenceEncoder
from encoders.genetics.sharding import Processes, processes_here
from encoders.genetics.tiling import TiledEncoder
from encoders.genetics.units import Units, collect_units
from encoders.runs.artifact import content_digest
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles


@dataclass(frozen=True, kw_only=True)
class Ready:
    """Everything a run needs, read and checked: no fault of its input can stop it any more.

    Args:
        genomes: Who carries which sequence.
        units: What has to be embedded.
        encoder: The model, loaded.
        files: Where it came from.
        frame: Rows of the table of people, in the order of the genomes.
        split: Who is in train and in test; None without a split.
        pca: Components of an earlier run; None if there are to be none, or new ones.
    """

    genomes: Genomes
    units: Units
    encoder: SequenceEncoder
    files: ModelFiles
    frame: pd.DataFrame
    split: Split | None
    pca: GeneticsPCA | None


def read_inputs(
    config: EmbedGenome,
    inputs: Mapping[str, Any],
    model: str | ModelFiles,
    *,
    device: torch.device | None = None,
) -> Ready:
    """Read and check everything, and write nothing.

    Args:
        config: Options.
        inputs: Paths of participants, variants, reference and windows; of splits and pca_from where there are.
        model: Folder or hub id, or files that were found already.
        device: Where to compute; default: what the options say.

    Raises:
        InputError: whatever is wrong with them.
    """
    check_cards(config)
    if device is None or config.device not in ("auto", device.type):
        device = compute_device(config.device)
    split = Split.load(inputs["splits"]) if "splits" in inputs else None
    pca = GeneticsPCA.load(inputs["pca_from"]) if "pca_from" in inputs else None
    genomes = cohort_genomes(config, inputs)
    units = collect_units(genomes.windows, config.tokens)
    files = model if isinstance(model, ModelFiles) else find_model(model, revision=config.revision)[0]
    encoder = load_encoder(
        files, device=device, dtype=config.dtype, batch_bases=config.batch_bases, **config.encoder_options
    )
    return Ready(
        genomes=genomes,
        units=units,
        encoder=fitting(encoder, genomes, config),
        files=files,
        frame=Cohort.load(inputs["participants"]).frame.loc[genomes.people],
        split=split,
        pca=pca,
    )


def fitting(encoder: SequenceEncoder, genomes: Genomes, config: EmbedGenome) -> SequenceEncoder:
    """The encoder, with tiles where windows are longer than its context and tiles were asked for.

    Raises:
        InputError: E_CONTEXT for windows that are too long; the last token of a model that reads both ways.
    """
    context, long = encoder.context, longest_windows(genomes, encoder.context)
    if long and config.long_windows == "refuse":
        name = max(long, key=long.__getitem__)
        raise InputError(
            f"{len(long)} of {len(genomes.windows)} windows are longer than the context of {encoder.name}, "
            f"{context:,} bases (longest: {name!r}, {long[name]:,} bases), and nothing is ever cut off; make them "
            f"shorter, pass --long_windows=tile, or take a model with a longer context",
            code="E_CONTEXT",
        )
    fitted: SequenceEncoder = TiledEncoder(encoder, overlap=config.tile_overlap) if long else encoder
    if config.tokens == "last":
        try:
            encoder.encode(["ACGTACGTACGT"], pool="last")
        except ValueError as cause:
            raise InputError(
                f"{encoder.name} has no last token that has seen the whole sequence ({cause}); take --tokens=focus or "
                f"a model that reads in one direction"
            ) from cause
        if long:
            fitted.encode(["A" * max(long.values())], pool="last")  # says why this cannot be
    return fitted


def check_cards(config: EmbedGenome) -> None:
    """Whether a model that is spread over all cards of a machine has them to itself.

    Raises:
        InputError: several processes of the run on one machine, or cards that another option rules out.
    """
    option = "--device_map=auto" if config.device_map else "--backend=evo2"
    if not config.device_map and config.backend != "evo2":
        return
    if (count := processes_here()) > 1:
        raise InputError(
            f"{option} spreads one model over all cards of a machine, and {count} processes on this machine would each "
            f"do so; start one process per machine (for several machines at once: --shard)"
        )
    if config.device == "cpu" and torch.cuda.is_available():
        raise InputError(
            f"{option} would use the GPUs of this machine, and --device=cpu asks for none; leave one of them out"
        )


def check_agreement(ready: Ready, processes: Processes) -> None:
    """Whether all processes read the same: they divide batches by number, which must mean the same to all.

    Raises:
        InputError: some process sees other data.
    """
    if processes.count == 1:
        return
    seen = hashlib.sha256(content_digest([ready.encoder.identity, ready.units.spans]).encode())
    for sequence in ready.units.sequences:
        seen.update(f"{len(sequence)}:{sequence}".encode())
    mine = seen.hexdigest()
    if len(found := set(processes.all(mine))) > 1:
        raise InputError(
            f"the {processes.count} processes found {len(found)} different sets of sequences or models; give all of "
            f"them the same files"
        )


def longest_windows(genomes: Genomes, context: int | None) -> dict[str, int]:
    """Windows with a sequence longer than a context -> bases of the longest."""
    lengths = {w.window.name: max(map(len, w.sequences)) for w in genomes.windows}
    return {} if context is None else {name: most for name, most in lengths.items() if most > context}


def compute_device(name: str) -> torch.device:
    """Where to compute, from the option."""
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("--device=cuda, but no CUDA device is visible; pass --device=cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")
