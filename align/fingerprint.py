"""The brain side's ceiling: is a person's second scan found from the first?

Run 1 asks, run 2 of the same person is sought among run 2 of everyone else held out, and the other way round; in the
raw gallery and in the matched one, as brains and genomes are. A tower that cannot tell a person's second scan cannot
tell the genome either.

Glossary: N held-out people with two runs or more · D numbers of a vector.
"""

from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float

from align.galleries import everyone, matched
from align.retrieval import DIRECTIONS, evaluate_gallery
from encoders.cohort import ConfoundDesign, Residualizer
from encoders.runs.errors import InputError
from encoders.vectors import SubjectVectors

SEPARATOR = "\t"  # between person and run in the ids of run vectors
FEWEST = 10


def first_and_second(
    runs: SubjectVectors, people: list[str]
) -> tuple[list[str], Float[np.ndarray, "N D"], Float[np.ndarray, "N D"]]:
    """People with two runs, and the vectors of their first and second run (by name).

    Raises:
        InputError: ids that do not name person and run.
    """
    of: dict[str, list[int]] = {}
    for row, name in enumerate(runs.ids):
        person, found, _ = name.partition(SEPARATOR)
        if not found:
            raise InputError(
                f"run vectors have ids `person<TAB>run`, got {name!r}; make them with embed_fmri"
            )
        of.setdefault(person, []).append(row)
    kept = [name for name in people if len(of.get(name, ())) > 1]
    rows = [sorted(of[name], key=lambda row: runs.ids[row])[:2] for name in kept]
    first, second = (runs.values[[pair[k] for pair in rows]] for k in (0, 1))
    return kept, first, second


def fingerprint(
    runs: SubjectVectors,
    frame: pd.DataFrame,
    *,
    train: list[str],
    test: list[str],
    families: dict[str, str],
    confound_terms: list[str],
    permutations: int,
    bootstraps: int,
    seed: int,
) -> dict[str, Any]:
    """2AFC and recall of run 1 -> run 2 and back, among everyone and among matched people.

    Vectors are z-scored by training people; in the matched gallery their confounds are regressed out as well.

    Args:
        runs: Vectors per run, ids `person<TAB>run`.
        frame: Table rows of all people, by id.
        train: Training people.
        test: Held-out people.
        families: Family of each person.
        confound_terms: Of the confound design.
        permutations: Behind each p-value.
        bootstraps: Behind each interval.
        seed: Seed of both.

    Returns:
        `people`, and `raw` and `matched` as :func:`align.retrieval.evaluate_gallery` gives them; only `people` where
        they are too few.
    """
    known, one, two = first_and_second(runs, test)
    if len(known) < FEWEST:
        return {"people": len(known)}
    fitted, fit_one, fit_two = first_and_second(runs, train)
    if len(fitted) < FEWEST:
        return {"people": len(known), "training_people": len(fitted)}
    mean, spread = fit_one.mean(axis=0), fit_one.std(axis=0)
    spread = np.where(spread > 0, spread, 1)
    strict = matched(frame.loc[known], frame.loc[fitted], [families[name] for name in known])
    found: dict[str, Any] = {"people": len(known)}
    for name, gallery in (("raw", everyone([families[n] for n in known])), ("matched", strict)):
        sides = [(one - mean) / spread, (two - mean) / spread]
        if name == "matched":
            for k, fit in enumerate((fit_one, fit_two)):
                cleaner = Residualizer(design=ConfoundDesign(terms=tuple(confound_terms)))
                cleaner.fit((fit - mean) / spread, frame.loc[fitted])
                sides[k] = cleaner.transform(sides[k], frame.loc[known])
        sides = [side / np.maximum(np.linalg.norm(side, axis=1, keepdims=True), 1e-12) for side in sides]
        found[name] = evaluate_gallery(
            sides[0] @ sides[1].T,
            gallery,
            permute_within=gallery.strata,
            num_permutations=permutations,
            num_bootstraps=bootstraps,
            seed=seed,
        )
        for direction, words in zip(DIRECTIONS, ("run_1_to_2", "run_2_to_1"), strict=True):
            if direction in found[name]:
                found[name][words] = found[name].pop(direction)
    return found
