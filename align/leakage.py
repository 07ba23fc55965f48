"""What could have leaked from held-out people into training, looked for in the files of a study.

Glossary: a *part* is train, validation or test, or one of the k folds of cross-validation.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from align.pairs import check_leakage
from encoders.cohort import Cohort, Split
from encoders.cohort.kinship import Pair, family_pairs
from encoders.cohort.splits import crossing_pairs
from encoders.runs.errors import InputError
from encoders.vectors import SubjectVectors

DUPLICATE = 0.354  # KING kinship above which two samples are one person, or identical twins
VISIT = re.compile(
    r"[_-](?:ses|session|visit|wave|timepoint|tp|v)[_-]?\d+(?:\.\d+)?$|[_-]\d\.\d$", re.IGNORECASE
)

State = Literal["clean", "LEAK", "unknown"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The answer to one question.

    Args:
        question: What was looked for.
        state: "clean", "LEAK", or "unknown" where the files do not tell.
        sentence: What was found, and what to do.
        people: Pairs or persons concerned, for a private list.
    """

    question: str
    state: State
    sentence: str
    people: tuple[tuple[str, ...], ...] = ()


def check_split(split: Split, cohort: Cohort, related: list[Pair], duplicates: list[Pair]) -> list[Finding]:
    """Relatives, and one person under two ids, on both sides of a border.

    Args:
        split: Read from its file, which checks that nobody is in two folds and no known family is cut.
        cohort: The table of people as it is now.
        related: Pairs of relatives of the kinship table as it is now.
        duplicates: Those of them that are one person, or identical twins.
    """
    visits = [pair for names in _visits(split.fold_of).values() for pair in pairwise(names)]
    unlisted = [name for name in split.fold_of if name not in set(cohort.ids)]
    return [
        Finding(
            question="one fold per person",
            state="clean",
            sentence=f"{len(split.fold_of)} people, each in one fold",
        ),
        _crossing("relatives by kinship", split, related, "make_splits with this kinship table"),
        _crossing(
            "relatives by family_id", split, family_pairs(cohort), "make_splits with this table of people"
        ),
        _crossing("one person twice, by kinship", split, duplicates, "drop one of the two samples"),
        _crossing(
            "repeat visits, by id", split, visits, "name both visits' person in family_id, then make_splits"
        ),
        Finding(
            question="people without a row",
            state="unknown" if unlisted else "clean",
            sentence=f"{len(unlisted)} people of the split have no row in {cohort.path.name}, so nobody knows their family"
            if unlisted
            else "everyone in the split has a row in the table of people",
            people=tuple((name,) for name in unlisted),
        ),
    ]


def check_vectors(
    path: Path, vectors: SubjectVectors, split: Split, *, accept_unknown: bool = False
) -> list[Finding]:
    """Whether whatever was trained or fitted for these vectors has seen held-out people, or two ids share one scan."""
    name = path.stem
    trained_on = vectors.provenance.get("trained_on")
    try:
        check_leakage(vectors, split, name, accept_unknown=False)
    except InputError as refusal:
        unknown = "does not name" in str(refusal)
        state: State = "unknown" if unknown else "LEAK"
        if unknown and accept_unknown:
            state = "clean"
            refusal = f"accepted without proof (--unknown_training=accept): {refusal}"
        finding = Finding(question=f"training of {name}", state=state, sentence=str(refusal))
    else:
        if not trained_on:
            told = "nothing was trained or fitted on people of this study"
        else:
            same = "this split" if trained_on["split_digest"] == split.digest else "another split"
            held = "its training people" if trained_on["ids"] is None else f"{len(trained_on['ids'])} people"
            told = f"trained or fitted on {held} of {same}, no held-out person or relative among them"
        finding = Finding(question=f"training of {name}", state="clean", sentence=told)
    findings = [finding]
    if "brain" in name:  # equal genotypes are common and no error, equal scans are one scan
        rows = np.unique(vectors.values, axis=0, return_inverse=True)[1].reshape(-1)
        twins: dict[int, list[str]] = {}
        for person, row in zip(vectors.ids, rows, strict=True):
            twins.setdefault(int(row), []).append(person)
        pairs = [pair for names in twins.values() for pair in pairwise(names)]
        findings.append(_crossing(f"one scan twice in {name}", split, pairs, "find out whose scan it is"))
    return findings


def check_aligned(metadata: dict[str, Any], split: Split) -> Finding:
    """Whether the alignment's scalers, regressions and projectors were fitted on this very split."""
    digest = metadata["provenance"].get("split_digest")
    if digest == split.digest:
        return Finding(
            question="the alignment",
            state="clean",
            sentence="scaling, confound regression and projectors were fitted on the training people of this split",
        )
    old = {name for name, fold in zip(metadata["ids"], metadata["folds"], strict=True) if fold != "test"}
    families = {split.groups[name] for name in split.test}
    seen = [name for name in old if split.groups.get(name) in families]
    if not seen:
        return Finding(
            question="the alignment",
            state="clean",
            sentence="made with another split, which trained on nobody who is held out now, nor on relatives of them",
        )
    return Finding(
        question="the alignment",
        state="LEAK",
        sentence=f"made with another split, which trained on {len(seen)} people who are held out now, or are relatives "
        f"of such; run accelerate launch scripts/align.py --redo=true",
        people=tuple((name,) for name in seen),
    )


def _crossing(question: str, split: Split, pairs: Iterable[Pair], advice: str) -> Finding:
    pairs = list(pairs)
    places = [("train, validation and test", crossing_pairs(split, pairs))]
    if split.folds:
        fold = {name: k for k, names in enumerate(split.folds) for name in names}
        crossed = [(a, b) for a, b in pairs if a in fold and b in fold and fold[a] != fold[b]]
        places.append((f"the {len(split.folds)} folds", crossed))
    leaks = [(where, crossed) for where, crossed in places if crossed]
    if not leaks:
        return Finding(
            question=question, state="clean", sentence=f"{len(pairs)} pairs, none in different folds"
        )
    return Finding(
        question=question,
        state="LEAK",
        sentence="; ".join(
            f"{len(crossed)} of {len(pairs)} pairs lie in different ones of {where}"
            for where, crossed in leaks
        )
        + f"; {advice}",
        people=tuple(leaks[0][1]),
    )


def _visits(names: Iterable[str]) -> dict[str, list[str]]:
    """Ids that differ only in the name of a visit: `s1_ses-1` and `s1_ses-2`, `1000012-2.0` and `1000012-3.0`."""
    people: dict[str, list[str]] = {}
    for name in names:
        people.setdefault(VISIT.sub("", name), []).append(name)
    return people
