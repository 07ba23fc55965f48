"""The rivals: what simple models, and chance, reach for the same people, split and galleries.

Every rival is linear: a ridge CCA or a PLS between two sets of vectors, chosen on validation people. They differ in
what they see. A rival whose vectors some people lack is fitted and scored on those who have them; they are counted,
and in paired tests our model is scored on just these people again.

Glossary: N evaluated people · S people with both modalities · C confound columns.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from jaxtyping import Float, Int

from align.baselines import pls_similarity, ridge_cca_similarity
from align.galleries import everyone
from align.pairs import Pairs, check_leakage
from align.retrieval import DIRECTIONS
from align.rival_files import FROM_FILES
from encoders.cohort import ConfoundDesign, Residualizer, Split
from encoders.vectors import SubjectVectors

Similarities = dict[
    str, dict[str, Float[np.ndarray, "N N"]]
]  # gallery -> direction -> first x second modality
Model = Callable[..., Float[np.ndarray, "N N"]]

FEWEST = (
    20  # training people with a rival's vectors, and 2 for each other fold; with fewer it is told, not fitted
)
MOST_TO_CHOOSE_ON = 1000  # validation people, drawn at random


@dataclass(frozen=True, kw_only=True)
class Rival:
    """What one rival says about held-out people.

    Args:
        similarities: As of our model, among the people in ``rows``.
        rows: Which of the evaluated people it could be scored on, in order.
        without: Fold -> people without its vectors, of those who have both modalities.
    """

    similarities: Similarities
    rows: Int[np.ndarray, " N"]
    without: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class Field:
    """Everyone who competes with our model.

    Args:
        rivals: By name, in the order in which they are reported.
        unfitted: Name -> why a rival whose vectors are there could not be fitted.
    """

    rivals: dict[str, Rival]
    unfitted: dict[str, str]


def line_up(
    pairs: Pairs,
    confound_terms: list[str],
    extra: Mapping[str, SubjectVectors] | None = None,
    *,
    split: Split | None = None,
    modalities: tuple[str, str] = ("brain", "genetics"),
) -> Field:
    """Fit every rival on training people, choose its strength on validation people, score it on test people.

    Args:
        pairs: People with both modalities.
        confound_terms: Terms of the confound design of the adjusted models.
        extra: Name in `rival_files.FROM_FILES` -> vectors that stand for one of the modalities.
        split: To refuse vectors whose encoder has seen held-out people; None if there are no such vectors.
        modalities: Names of the pair's two sides.

    Raises:
        InputError: a rival's encoder has seen held-out families.
    """
    own = {"brain": pairs.brain, "genetics": pairs.genetics}
    rivals = {
        "ridge_cca": _linear(pairs, own, confound_terms, ridge_cca_similarity),
        "pls": _linear(pairs, own, confound_terms, pls_similarity),
    }
    if (only := _confounds_only(pairs, confound_terms)) is not None:
        rivals["confounds_only"] = only
    unfitted: dict[str, str] = {}
    for name, vectors in (extra or {}).items():
        assert split is not None, "vectors of rivals are checked against the split"
        check_leakage(vectors, split, name, accept_unknown=True)
        side = "brain" if FROM_FILES[name][1] == modalities[0] else "genetics"
        have = np.isin(pairs.ids, vectors.ids)
        part = _subset(pairs, have)
        if reason := _too_few(part):
            unfitted[name] = reason
            continue
        sides = {"brain": part.brain, "genetics": part.genetics} | {side: vectors.select(part.ids)}
        found = _linear(part, sides, confound_terms, ridge_cca_similarity)
        test = pairs.rows("test")
        rivals[name] = Rival(
            similarities=found.similarities,
            rows=np.flatnonzero(have[test]),
            without={fold: int((~have[pairs.rows(fold)]).sum()) for fold in ("train", "val", "test")},
        )
    rivals["chance"] = _chance(pairs)
    return Field(rivals=rivals, unfitted=unfitted)


def _linear(
    pairs: Pairs, sides: Mapping[str, Float[np.ndarray, "S _"]], confound_terms: list[str], model: Model
) -> Rival:
    """A linear model between two sides: as they are, and with confounds taken out of both."""
    fit = _on_folds(pairs, model)
    raw = fit(sides["brain"], sides["genetics"])
    adjusted = fit(*(_adjusted(pairs, sides[m], confound_terms) for m in ("brain", "genetics")))
    return _everywhere(
        pairs, {"raw": dict.fromkeys(DIRECTIONS, raw), "adjusted": dict.fromkeys(DIRECTIONS, adjusted)}
    )


def _confounds_only(pairs: Pairs, confound_terms: list[str]) -> Rival | None:
    """Confounds in place of the query's modality; None where the table has none."""
    design = ConfoundDesign(terms=tuple(confound_terms)).fit(pairs.frame.iloc[pairs.rows("train")])
    confounds = design.transform(pairs.frame)
    if not confounds.shape[1]:
        return None
    fit = _on_folds(pairs, ridge_cca_similarity)
    found: Similarities = {}
    for name in ("raw", "adjusted"):
        sides = (pairs.brain, pairs.genetics)
        if name == "adjusted":
            sides = tuple(_adjusted(pairs, side, confound_terms) for side in sides)
        found[name] = {"brain_to_gene": fit(confounds, sides[1]), "gene_to_brain": fit(sides[0], confounds)}
    return _everywhere(pairs, found)


def _chance(pairs: Pairs) -> Rival:
    """All similarities alike: every metric then is exactly what guessing gives."""
    num = len(pairs.rows("test"))
    flat = dict.fromkeys(DIRECTIONS, np.zeros((num, num)))
    return _everywhere(pairs, {"raw": flat, "adjusted": flat})


def _everywhere(pairs: Pairs, found: Similarities) -> Rival:
    """A rival scored on everybody; among matched people stands its adjusted form, as our own does."""
    return Rival(
        similarities=found | {"matched": found["adjusted"]},
        rows=np.arange(len(pairs.rows("test"))),
        without={fold: 0 for fold in ("train", "val", "test")},
    )


def _on_folds(pairs: Pairs, model: Model) -> Model:
    folds = {fold: pairs.rows(fold) for fold in ("train", "val", "test")}
    if len(folds["val"]) > MOST_TO_CHOOSE_ON:  # a gallery costs the square of its people
        drawn = np.random.default_rng(0).choice(folds["val"], MOST_TO_CHOOSE_ON, replace=False)
        folds["val"] = np.sort(drawn)
    fit = partial(model, **folds, gallery=everyone([pairs.groups[i] for i in folds["val"]]))
    return lambda left, right: fit(left, right).astype(
        np.float32
    )  # 7,500 people: 225 MB instead of 450, nine times


def _adjusted(
    pairs: Pairs, values: Float[np.ndarray, "S D"], confound_terms: list[str]
) -> Float[np.ndarray, "S D"]:
    train = pairs.rows("train")
    cleaner = Residualizer(design=ConfoundDesign(terms=tuple(confound_terms)))
    return cleaner.fit(values[train], pairs.frame.iloc[train]).transform(values, pairs.frame)


def _subset(pairs: Pairs, have: np.ndarray) -> Pairs:
    rows = np.flatnonzero(have)
    return Pairs(
        ids=[pairs.ids[k] for k in rows],
        folds=[pairs.folds[k] for k in rows],
        groups=[pairs.groups[k] for k in rows],
        brain=pairs.brain[rows],
        genetics=pairs.genetics[rows],
        frame=pairs.frame.iloc[rows],
        missing=pairs.missing,
    )


def _too_few(pairs: Pairs) -> str:
    for fold, least in (("train", FEWEST), ("val", 2), ("test", 2)):
        if (found := len(pairs.rows(fold))) < least:
            return f"{found} {fold} people have its vectors, at least {least} are needed"
    return ""
