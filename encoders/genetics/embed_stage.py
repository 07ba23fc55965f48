"""The stage `embed_genome`: haplotypes, embedding through the cache, pooling, guards, files."""

from pathlib import Path
from typing import Any

from encoders.genetics.batches import workers_of
from encoders.genetics.cache import VectorCache
from encoders.genetics.cache_folder import shared_lock
from encoders.genetics.common_people import near_misses
from encoders.genetics.config import EmbedGenome
from encoders.genetics.embed import Embedded, embed_units
from encoders.genetics.embed_inputs import Ready
from encoders.genetics.genomes import Genomes
from encoders.genetics.guards import confounding_text, overlap_text
from encoders.genetics.missing_calls import missing_table, skipped_table
from encoders.genetics.sequence_encoder import SequenceEncoder
from encoders.genetics.sharding import Processes, forget, reporting, wait_for_others
from encoders.genetics.subject_vectors import Made, make_vectors
from encoders.genetics.tiling import TiledEncoder
from encoders.genetics.units import Units
from encoders.runs.artifact import PRIVATE, write_text
from encoders.runs.signals import StopRequest, catching_stops
from encoders.runs.study import Study

POOLING_VERSION = 2  # of what happens between the tokens of a model and the vector of a sequence


def cache_of(
    config: EmbedGenome, study: Study, encoder: SequenceEncoder, *, read_only: bool = False
) -> VectorCache:
    """The cache of a run: everything that decides the vector of a sequence is in its identity."""
    pool = {"pool": "last" if config.tokens == "last" else "mean", "pooling_version": POOLING_VERSION}
    folder = _cache_folder(config, study)
    return VectorCache(folder, encoder.identity | pool, encoder.dim, read_only=read_only)


def check_cache(config: EmbedGenome, study: Study) -> None:
    """Whether the cache can be written to, asked before an earlier result is discarded.

    Raises:
        InputError: it cannot.
    """
    if (lock := shared_lock(_cache_folder(config, study))) is not None:
        lock.close()


def _cache_folder(config: EmbedGenome, study: Study) -> Path:
    return config.cache.expanduser() if config.cache else study.path("haplotypes")


def embed_genome(
    config: EmbedGenome, study: Study, ready: Ready, processes: Processes
) -> dict[str, Any] | None:
    """Embed this process's share; on the main process, then make the vectors of people.

    Args:
        config: Options; with ``shard``, only a part is embedded and no vectors are made.
        study: Receives the vectors, the cache and the list of people who could not be used.
        ready: From :func:`read_inputs`.
        processes: Of this run.

    Returns:
        The summary of the stage; None on the other processes.

    Raises:
        Stop: a signal arrived; what was embedded is saved.
    """
    with catching_stops() as stop, cache_of(config, study, ready.encoder) as cache:
        embedded = _embed(config, study, ready, processes, cache, stop)
        if embedded is None:
            return None
        if config.part:
            return _part_summary(config, ready, embedded, cache)
        made = make_vectors(config, ready.genomes, ready.encoder, embedded, ready.frame, ready.split, ready.pca, {
            "model": ready.files.name,
            "revision": ready.files.revision,
            "random_weights": ready.encoder.random_weights,
            **ready.genomes.rules,
        })  # fmt: skip
        made.save(study)
        unused = study.private / "genome_people.tsv"
        _list_unused(ready.genomes, unused)
        summary = _summary(config, ready, embedded, made) | _save_tables(ready.genomes, study)
        if ready.genomes.without_genome or ready.genomes.without_row:
            summary["list_of_people_left_out"] = unused
        if config.cache_gb is not None:
            summary["cache_limit"] = cache.trim(config.cache_gb * 1e9)
        summary["cache"] = str(cache.statistics())
    return {name: str(value) if isinstance(value, Path) else value for name, value in summary.items()}


def _embed(
    config: EmbedGenome,
    study: Study,
    ready: Ready,
    processes: Processes,
    cache: VectorCache,
    stop: StopRequest,
) -> Embedded | None:
    """Embed this process's share; the main one waits for the others and sees that nothing is missing."""
    folder = study.run_folder("embed_genome") / "processes"
    number, count = config.part or (1, 1)
    options = {
        "tokens": config.tokens,
        "batch_bases": config.batch_bases,
        "workers": workers_of(ready.encoder),
        "stop": stop,
    }
    part = ((number - 1) * processes.count + processes.index, count * processes.count)
    with reporting(folder, processes):
        mine = embed_units(ready.units, ready.encoder, cache, part=part, **options)
    if not processes.is_main:
        return None
    if processes.count == 1:
        return mine
    wait_for_others(folder, processes, stop)
    forget(folder)
    hits, misses = cache.hits, cache.misses
    cache.refresh()
    last = (
        embed_units(ready.units, ready.encoder, cache, part=(number - 1, count), **options)
        if count == 1
        else mine
    )
    cache.hits, cache.misses = hits, misses
    return Embedded(
        windows=last.windows,
        computed=misses if count == 1 else mine.computed,
        cached=mine.cached,
        elsewhere=mine.elsewhere,
        damaged=len(cache.damaged),
    )


def _summary(config: EmbedGenome, ready: Ready, embedded: Embedded, made: Made) -> dict[str, Any]:
    files, encoder, genomes = ready.files, ready.encoder, ready.genomes
    summary: dict[str, Any] = {
        "model": f"{files.name}, {encoder.name}" + (f" at {files.revision}" if files.revision else "")
    }
    if encoder.random_weights:
        summary["weights"] = "seeded RANDOM weights, not a trained genome model"
    summary |= genomes.summary()
    summary |= _notes(ready.units, encoder)
    summary |= {"embedded_now": embedded.computed, "from_cache": embedded.cached}
    if embedded.damaged:
        summary["damaged_cache_files_removed"] = embedded.damaged
    summary["strategy"] = config.strategy_name
    if made.pca is not None:
        summary["pca"] = str(made.pca)
    for name, found in made.confounding.items():
        summary[f"explained_by_{name}"] = confounding_text(found)
    summary["haplotype_overlap"] = overlap_text(made.overlap)
    vectors = made.vectors
    blocks = f" ({len(made.genes)} genes)"
    summary["vectors"] = f"{len(vectors.ids)} people x {vectors.values.shape[1]}{blocks}"
    return summary


def _notes(units: Units, encoder: SequenceEncoder) -> dict[str, Any]:
    """What was done to sequences out of the ordinary; nothing, most of the time."""
    notes: dict[str, Any] = {
        "haplotypes_deleted_whole_embedded_as_N": units.absent,
        "stretches_deleted_whole_pooled_beside_the_gap": units.narrow,
    }
    if isinstance(encoder, TiledEncoder):
        rule = encoder.identity["long_windows"]
        notes["tiles"] = f"{rule['tile_bases']:,} bases, {rule['overlap_bases']:,} of them in common at least"
    return {name: value for name, value in notes.items() if value}


def _part_summary(
    config: EmbedGenome, ready: Ready, embedded: Embedded, cache: VectorCache
) -> dict[str, Any]:
    assert config.part is not None
    return {
        "part": "{} of {}".format(*config.part),
        "unique_sequences": len(ready.units),
        "embedded_now": embedded.computed,
        "from_cache": embedded.cached,
        "left_to_other_parts": embedded.elsewhere,
        "cache": str(cache.statistics()),
        "next": "when all parts are done, run once without --shard: it makes the vectors",
    }


def _list_unused(genomes: Genomes, path: Path) -> None:
    near = near_misses(genomes.without_genome, genomes.without_row)
    rows = [
        f"{name}\tin the table of people, not among the variants"
        + (f", where there is {near[name]!r}" if name in near else "")
        for name in genomes.without_genome
    ]
    rows += [f"{name}\tamong the variants, not in the table of people" for name in genomes.without_row]
    write_text(path, "\n".join(["participant_id\tfound", *rows]) + "\n", mode=PRIVATE)


def _save_tables(genomes: Genomes, study: Study) -> dict[str, Any]:
    """Shares of missing calls per person, and the records that were skipped, where there are any."""
    saved = {}
    if genomes.counts["missing_calls"]:
        saved["list_of_missing_calls"] = study.private / "genome_missing.tsv"
        write_text(
            saved["list_of_missing_calls"], missing_table(genomes.windows, genomes.people), mode=PRIVATE
        )
    if any(window.skipped for window in genomes.windows):
        saved["list_of_symbolic_records_skipped"] = study.private / "genome_records_skipped.tsv"
        write_text(saved["list_of_symbolic_records_skipped"], skipped_table(genomes.windows), mode=PRIVATE)
    return saved
