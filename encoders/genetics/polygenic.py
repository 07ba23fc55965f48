"""The stage `embed_scores`: tables of polygenic scores -> z-scores by the training people -> one vector per person.

Glossary: S people · C scores.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from encoders.cohort import Cohort, Split
from encoders.genetics.common_people import nobody_in_common
from encoders.genetics.guards import confounding, confounding_text
from encoders.genetics.reference import some
from encoders.genetics.score_config import EmbedScores
from encoders.genetics.score_table import ScoreTable, read_score_table
from encoders.runs.artifact import PRIVATE, content_digest, file_sha256, write_text
from encoders.runs.errors import InputError
from encoders.vectors import SubjectVectors

STRATEGY = "polygenic-scores_train-z_v1"  # a name is never redefined, it gets a new version
FEWEST = 2  # training people with a score: a spread needs as many


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Vectors and what is to be told of them, before anything is written.

    Args:
        vectors: One number per score and person.
        programs: What wrote the tables.
        num_train: Training people that means and spreads come from.
        imputed: Missing scores set to the training people's mean.
        unused: (id, what was found) of people without a vector.
    """

    vectors: SubjectVectors
    programs: list[str]
    num_train: int
    imputed: int
    unused: list[tuple[str, str]]


def polygenic_vectors(config: EmbedScores, inputs: Mapping[str, Path], tables: list[Path]) -> Scores:
    """Read and check everything; write nothing.

    Args:
        config: Options.
        inputs: Paths of participants and splits.
        tables: Tables of scores.

    Raises:
        InputError: what is wrong with a table; E_SAMPLE, ids do not meet; E_DEGENERATE, a score does not differ
            between training people.
    """
    cohort, split = Cohort.load(inputs["participants"]), Split.load(inputs["splits"])
    listed = cohort.ids
    read = [
        read_score_table(path, columns=config.columns, id_column=config.id_column, value=config.value)
        for path in tables
    ]
    names, scored, values = _joined(read, tables)
    row = {name: k for k, name in enumerate(scored)}
    if not row.keys() & set(listed):
        raise nobody_in_common(
            listed, scored, f"people of {tables[0]}", "make them agree, or pass --id_column"
        )
    missing = np.isnan(values)
    enough = (~missing).all(axis=1) if config.missing == "drop" else (~missing).any(axis=1)
    people = [name for name in listed if name in row and enough[row[name]]]
    allowed = set(split.train)
    train = [name for name in people if name in allowed]
    if len(train) < FEWEST:
        raise InputError(
            f"{len(train)} of the {len(split.train)} training people of the split have scores in {tables[0]} and a row "
            f"in the table of people; at least {FEWEST} were wanted; make the ids agree, or the split anew",
            code="E_SAMPLE",
        )
    mean, sd = _scale(values[[row[name] for name in train]], names)
    chosen = values[[row[name] for name in people]]
    z = np.where(np.isnan(chosen), 0, (chosen - mean) / sd).astype(np.float32)
    table = set(listed)
    unused = [(name, "in the table of people, not in the scores") for name in listed if name not in row]
    unused += [
        (name, f"{int(missing[row[name]].sum())} of {len(names)} scores missing")
        for name in listed
        if name in row and not enough[row[name]]
    ]
    unused += [(name, "in the scores, not in the table of people") for name in scored if name not in table]
    vectors = SubjectVectors(
        ids=people,
        values=z,
        blocks={name: (k, k + 1) for k, name in enumerate(names)},
        provenance={
            "encoder": "polygenic scores",
            "weights_sha256": content_digest([names, mean.tolist(), sd.tolist()]),
            "strategy": STRATEGY,
            "config": {"missing": config.missing, "value": config.value},
            "programs": sorted({one.program for one in read}),
            "tables_sha256": [file_sha256(path) for path in tables],
            "random_weights": False,
            "confounding": confounding(z, cohort.frame.loc[people]),
            "trained_on": _trained_on(config.trained_on, sorted(train), split),
        },
    )
    return Scores(
        vectors=vectors,
        programs=[one.program for one in read],
        num_train=len(train),
        imputed=int(np.isnan(chosen).sum()),
        unused=unused,
    )


def save_scores(scores: Scores, config: EmbedScores, *, vectors: Path, unused: Path) -> dict[str, Any]:
    """Write the vectors and the list of people left out; returns the summary of the stage."""
    scores.vectors.save(vectors)
    rows = "".join(f"{name}\t{what}\n" for name, what in scores.unused)
    write_text(unused, "participant_id\tfound\n" + rows, mode=PRIVATE)
    reasons = [what for _, what in scores.unused]
    absent, strangers = (
        sum(what.startswith(start) for what in reasons) for start in ("in the table", "in the scores")
    )
    names = list(scores.vectors.blocks)
    rows_ = {
        "people": len(scores.vectors.ids),
        "people_in_table_without_scores": absent,
        "people_with_missing_scores_left_out": len(reasons) - absent - strangers,
        "people_with_scores_not_in_table": strangers,
        "list_of_people_left_out": str(unused) if reasons else 0,
        "scores": f"{len(names)} ({some(names)}), written by {', '.join(dict.fromkeys(scores.programs))}",
        "missing_scores_set_to_the_mean": scores.imputed,
        "fitted_on": f"{scores.num_train} training people",
        "explained_by_ancestry": confounding_text(scores.vectors.provenance["confounding"]["ancestry"]),
        "explained_by_batch": confounding_text(scores.vectors.provenance["confounding"]["batch"]),
    }
    if config.trained_on == "unknown":
        rows_["discovery_sample"] = (
            "unknown: align takes these vectors only with --unknown_training=accept; if the GWAS behind the scores had "
            "nobody of this study, say --trained_on=nobody here"
        )
    return {name: value for name, value in rows_.items() if value or name == "people"}


def _joined(
    read: list[ScoreTable], paths: list[Path]
) -> tuple[list[str], list[str], Float64[np.ndarray, "S C"]]:
    """Names of all scores, everybody in any table, and their scores; NaN where a table lacks somebody."""
    if len(read) == 1:
        return read[0].names, read[0].people, read[0].values
    stems = [path.name.removesuffix(".gz").rpartition(".")[0] or path.name for path in paths]
    if twice := [stem for stem in stems if stems.count(stem) > 1]:
        raise InputError(
            f"two tables of scores are called {twice[0]!r}, but scores are named TABLE.SCORE; rename one file"
        )
    people = list(dict.fromkeys(name for table in read for name in table.people))
    row = {name: k for k, name in enumerate(people)}
    values = np.full((len(people), sum(len(table.names) for table in read)), np.nan)
    names: list[str] = []
    for stem, table in zip(stems, read, strict=True):
        at = slice(len(names), len(names) + len(table.names))
        values[[row[name] for name in table.people], at] = table.values
        names += [f"{stem}.{name}" for name in table.names]
    return names, people, values


def _scale(
    train: Float64[np.ndarray, "N C"], names: list[str]
) -> tuple[Float64[np.ndarray, " C"], Float64[np.ndarray, " C"]]:
    """Mean and spread of every score among training people, without those who lack it."""
    called = ~np.isnan(train)
    number = np.maximum(called.sum(axis=0), 1)
    mean = np.where(called, train, 0).sum(axis=0) / number
    sd = np.sqrt(np.square(np.where(called, train - mean, 0)).sum(axis=0) / number)
    alike = (called.sum(axis=0) < FEWEST) | (sd <= 1e-12 * np.maximum(np.abs(mean), 1e-300))
    if alike.any():
        names = [name for name, wrong in zip(names, alike, strict=True) if wrong]
        raise InputError(
            f"{len(names)} of {len(alike)} scores do not differ between the {len(train)} training people "
            f"({some(names)}), so they say nothing about anyone; leave them out with --columns=[...]",
            code="E_DEGENERATE",
        )
    return mean, sd


def _trained_on(told: str, train: list[str], split: Split) -> dict[str, Any]:
    """Whom the vectors have seen: the training people whose spread scaled them, and whoever the weights come from."""
    if told in ("nobody", "unknown"):
        return {"split_digest": split.digest, "ids": train, "complete": told == "nobody"}
    path = Path(told)
    if not path.is_file():
        raise InputError(
            f"--trained_on={told}: 'nobody', 'unknown' or a file with one subject id per line was wanted"
        )
    seen = [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines() if line.strip()]
    return {"split_digest": split.digest, "ids": sorted({*train, *seen}), "complete": True}
