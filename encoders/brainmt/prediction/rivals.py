"""What simple models predict for the same people, fitted on the same training people.

Glossary: S people · C classes of a target.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from encoders.brainmt.prediction.config import PredictBrainMT
from encoders.brainmt.prediction.connectome import Connectomes, connectomes
from encoders.brainmt.store import FMRIStore
from encoders.brainmt.targets import Target, Targets
from encoders.cohort import Cohort, Split
from encoders.cohort.confounds import ConfoundDesign, columns_of
from encoders.runs.errors import InputError
from encoders.stats.baselines import class_shares, logistic_prediction, mean_prediction, ridge_prediction

CONNECTOME = "connectome_"
FEWEST_LABELS = 3  # training people with a label


@dataclass(frozen=True, kw_only=True)
class Rivals:
    """Predictions of the baselines.

    Args:
        predicted: Baseline -> per target (S,) numbers or (S, C) class probabilities.
        told: Connectome's parcels, confounds used, and what was left out of them.
    """

    predicted: dict[str, list[Float[np.ndarray, "S *C"]]]
    told: dict[str, Any]


def rival_predictions(
    config: PredictBrainMT,
    ids: Sequence[str],
    *,
    targets: Targets,
    store: FMRIStore,
    cohort: Cohort,
    split: Split,
) -> Rivals:
    """Fit every baseline that ``config`` names on training people with a scan and a label; predict ``ids``.

    Args:
        config: Options.
        ids: People to predict, all with a scan.
        targets: What to predict.
        store: fMRI store.
        cohort: Table with labels and confounds.
        split: Whose training people may be learned from.

    Raises:
        InputError: a target that hardly any training person has; no confound in the table.
    """
    scanned = set(store.subjects)
    train = [name for name in split.train if name in scanned]
    told: dict[str, Any] = {"training_people": len(train)}
    brains: Connectomes | None = None
    if kinds := [name.removeprefix(CONNECTOME) for name in config.baselines if name.startswith(CONNECTOME)]:
        brains = connectomes(
            store,
            train=train,
            people=ids,
            atlas=config.atlas,
            parcels=config.parcels,
            kinds=kinds,
            seed=config.seed,
        )
        told["connectome"] = brains.told
    if "confounds" in config.baselines:
        told["confounds"] = {"used": {}, "absent": []}

    labels = targets.wanted(train)
    predicted: dict[str, list[np.ndarray]] = {name: [] for name in config.baselines}
    for target, label in zip(targets.columns, labels, strict=True):
        rows = np.flatnonzero(np.isfinite(label))
        if len(rows) < FEWEST_LABELS:
            raise InputError(
                f"{cohort.path}: {len(rows)} training people with a scan have the target {target.name!r}, too few for "
                f"the baselines; leave them out with --baselines=[]"
            )
        learners = [train[k] for k in rows]
        families = [split.groups[name] for name in learners]
        for name in config.baselines:
            if name == "mean":
                predicted[name].append(_mean(target, label[rows], len(ids)))
                continue
            if brains is not None and name.startswith(CONNECTOME):
                kind = name.removeprefix(CONNECTOME)
                features, others = brains.of(kind, learners), brains.of(kind, ids)
            else:
                features, others = _confounds(config, cohort, target, learners, ids, told["confounds"])
            predicted[name].append(_linear(target, features, label[rows], others, families))
    return Rivals(predicted=predicted, told=told)


def check_confounds(config: PredictBrainMT, cohort: Cohort) -> None:
    """Refuse a table without any of the confounds, before hours of work.

    Raises:
        InputError: none of them is in the table.
    """
    if (
        "confounds" in config.baselines
        and not ConfoundDesign(terms=tuple(config.confounds)).fit(cohort.frame).used_
    ):
        raise _no_confounds(cohort, config.confounds)


def terms_for(target: str, terms: Sequence[str]) -> tuple[str, ...]:
    """Confound terms that do not contain the target itself: age must not be predicted from age."""
    return tuple(term for term in terms if target not in columns_of(term))


def _mean(target: Target, labels: Float[np.ndarray, " L"], num: int) -> Float[np.ndarray, "S *C"]:
    if target.classes:
        return class_shares(labels.astype(int), len(target.classes), num)
    return mean_prediction(labels, num)


def _linear(
    target: Target,
    features: Float[np.ndarray, "L F"],
    labels: Float[np.ndarray, " L"],
    others: Float[np.ndarray, "S F"],
    families: Sequence[str],
) -> Float[np.ndarray, "S *C"]:
    if target.classes:
        classes = len(target.classes)
        return logistic_prediction(features, labels.astype(int), others, classes=classes, families=families)
    return ridge_prediction(features, labels, others, families=families)


def _confounds(
    config: PredictBrainMT,
    cohort: Cohort,
    target: Target,
    learners: Sequence[str],
    ids: Sequence[str],
    told: dict[str, Any],
) -> tuple[Float[np.ndarray, "L F"], Float[np.ndarray, "S F"]]:
    terms = terms_for(target.name, config.confounds)
    design = ConfoundDesign(terms=terms).fit(cohort.frame.loc[list(learners)])
    if not design.used_:
        raise _no_confounds(cohort, terms)
    told["used"][target.name] = design.used_
    told["absent"] = sorted({*told["absent"], *design.absent_})
    return tuple(design.transform(cohort.frame.reindex(list(people))) for people in (learners, ids))


def _no_confounds(cohort: Cohort, terms: Sequence[str]) -> InputError:
    return InputError(
        f"{cohort.path} has none of the confounds {', '.join(terms) or '(none named)'}; name columns that it has with "
        f"--confounds, or leave `confounds` out of --baselines"
    )
