"""What a run would do and cost, before any of it is done; writes nothing."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from encoders.genetics.batches import batches, encode_batches, workers_of
from encoders.genetics.cache import VectorCache
from encoders.genetics.config import EmbedGenome
from encoders.genetics.embed import pool_of
from encoders.genetics.embed_inputs import compute_device, fitting, longest_windows
from encoders.genetics.embed_stage import cache_of
from encoders.genetics.encoder_choice import EncoderFacts, encoder_facts, load_encoder
from encoders.genetics.genomes import Genomes, cohort_genomes
from encoders.genetics.model_choice import model_at_hand, no_model, write_stand_in
from encoders.genetics.sequence_encoder import SequenceEncoder
from encoders.genetics.units import Units, collect_units
from encoders.runs.errors import InputError
from encoders.runs.study import Study

ENOUGH = 6.0  # seconds of real batches that an estimate of time is taken from


@dataclass(frozen=True, kw_only=True)
class Speed:
    """How fast this encoder is on this machine.

    Args:
        operations_per_second: Counted operations over measured time.
        batches: How many were run.
        seconds: How long they took.
        workers: Batches at a time.
    """

    operations_per_second: float
    batches: int
    seconds: float
    workers: int


def plan(config: EmbedGenome, study: Study, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Name -> value of everything that is worth knowing beforehand.

    Args:
        config: Options.
        study: Where the cache lies.
        inputs: Paths of participants, variants, reference and windows.

    Raises:
        InputError: whatever is wrong with the input.
    """
    start = time.monotonic()
    genomes = cohort_genomes(config, inputs)
    seconds = time.monotonic() - start
    units = collect_units(genomes.windows, config.tokens)
    rows: dict[str, Any] = genomes.summary() | {
        "strategy": config.strategy_name,
        "bases_to_read": f"{units.bases:,} of unique sequences, longest {max(map(len, units.sequences)):,}",
        "time_of_haplotypes": f"{time_text(seconds)} (measured)",
    }
    with TemporaryDirectory(prefix="neurohelix-plan-") as scratch:
        try:
            model = _model(config, study, Path(scratch))
        except InputError as cause:
            return rows | _without_model(str(cause))
        at_hand = model_at_hand(model, config.revision)
        if at_hand is None:
            try:
                facts = encoder_facts(model, revision=config.revision, **config.encoder_options)
            except InputError as cause:  # no network: what needs no model is worth knowing all the same
                return rows | _without_model(str(cause))
            return rows | _from_facts(units, facts, model, config, genomes)
        encoder = load_encoder(
            at_hand,
            device=compute_device(config.device),
            dtype=config.dtype,
            batch_bases=config.batch_bases,
            **config.encoder_options,
        )
        encoder = fitting(encoder, genomes, config)
        with cache_of(config, study, encoder, read_only=True) as cache:
            return rows | _with_encoder(config, units, encoder, cache)


def _model(config: EmbedGenome, study: Study, scratch: Path) -> str:
    """The model that a run would take; a synthetic study that has none yet would get this very one."""
    if config.model is not None:
        return config.model
    folder = study.path("genome_model")
    if folder.exists():
        return str(folder)
    if not study.path("truth").exists():
        raise no_model(folder)
    write_stand_in(scratch / folder.name)
    return str(scratch / folder.name)


def _with_encoder(
    config: EmbedGenome, units: Units, encoder: SequenceEncoder, cache: VectorCache
) -> dict[str, Any]:
    known = cache.known(cache.keys(units.sequences, units.spans))
    unknown = [row for row in range(len(units)) if not known[row]]
    operations = sum(encoder.operations(len(units.sequences[row])) for row in unknown)
    rows = {
        "model": encoder.name + (" (seeded RANDOM weights)" if encoder.random_weights else ""),
        "unique_sequences_in_cache": int(known.sum()),
        "unique_sequences_to_embed": len(unknown),
        "operations": f"{operations_text(operations)} (both strands, counted from the architecture)",
    }
    if unknown:
        speed = measure(config, units, unknown, encoder)
        rows["time_to_embed"] = (
            f"about {time_text(operations / speed.operations_per_second)} by one process on {encoder.device.type} "
            f"with {speed.workers} {'batch' if speed.workers == 1 else 'batches'} at a time (measured now: "
            f"{speed.batches} real batches in {speed.seconds:.1f} s, {operations_text(speed.operations_per_second)}/s)"
        )
    else:
        rows["time_to_embed"] = "none: all sequences are in the cache"
    return rows | {"cache": f"{cache.root}: {cache.statistics()}"}


def _from_facts(
    units: Units, facts: EncoderFacts, model: str, config: EmbedGenome, genomes: Genomes
) -> dict[str, Any]:
    operations = sum(map(facts.operations, map(len, units.sequences)))
    rows = {
        "model": f"{facts.name}; the weights of {model} are not on this machine yet",
        "operations": f"{operations_text(operations)} if nothing is cached (counted from config.json)",
        "time_to_embed": "unknown until the weights are here",
    }
    if longest_windows(genomes, facts.context):
        rows["windows_longer_than_the_context"] = (
            f"{len(longest_windows(genomes, facts.context))}: --long_windows={config.long_windows}"
        )
    return rows


def _without_model(why: str) -> dict[str, Any]:
    return {"operations": f"unknown: {why}", "time_to_embed": "unknown without a model"}


def measure(config: EmbedGenome, units: Units, rows: list[int], encoder: SequenceEncoder) -> Speed:
    """Run some of the very batches of a run, spread over all lengths, and throw their vectors away."""
    sequences = [units.sequences[row] for row in rows]
    real = [[rows[k] for k in batch] for batch in batches(sequences, config.batch_bases, pads=encoder.pads)]
    workers = workers_of(encoder)
    order = sorted(range(len(real)), key=_scattered)
    encoder.encode(
        [units.sequences[row] for row in real[0][:1]], pool=pool_of(units, real[0][:1], config.tokens)
    )
    done = seconds = operations = 0.0
    for first in range(0, len(order), workers):
        chosen = [real[k] for k in order[first : first + workers]]
        todo = [[units.sequences[row] for row in batch] for batch in chosen]
        pools = [pool_of(units, batch, config.tokens) for batch in chosen]
        start = time.perf_counter()
        for _ in encode_batches(encoder, todo, workers=workers, pools=pools):
            pass
        if encoder.device.type == "cuda":
            torch.cuda.synchronize()
        seconds += time.perf_counter() - start
        operations += sum(encoder.operations(len(sequence)) for batch in todo for sequence in batch)
        done += len(chosen)
        if seconds > ENOUGH:
            break
    return Speed(
        operations_per_second=operations / seconds, batches=int(done), seconds=seconds, workers=workers
    )


def _scattered(number: int) -> int:
    """A fixed order that visits all lengths early, whenever it is cut short."""
    return number * 2654435761 % 2**32


def operations_text(operations: float | int) -> str:
    """1.2 TFLOP and the like."""
    for unit, name in ((1e18, "EFLOP"), (1e15, "PFLOP"), (1e12, "TFLOP"), (1e9, "GFLOP")):
        if operations >= unit:
            return f"{operations / unit:.3g} {name}"
    return f"{operations / 1e6:.3g} MFLOP"


def time_text(seconds: float | int) -> str:
    """12 s, 3 min 20 s, 5 h 10 min, 3 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    if whole < 86400:
        return f"{whole // 3600} h {whole % 3600 // 60} min"
    return f"{whole // 86400} d {whole % 86400 // 3600} h"
