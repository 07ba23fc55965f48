"""Predictions of trained BrainMTs for people: evenly spaced windows, averaged per run, then per person.

Whoever is asked for is predicted exactly once, on any number of processes; people whom a model has seen, or whose
relatives it has seen, are refused as held-out people.

Glossary: S people · C classes of a target.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from jaxtyping import Bool, Float, Int

from encoders.brainmt.checkpoint import from_pretrained
from encoders.brainmt.compatibility import UNKNOWN, check_preparation, check_unseen, trained_on
from encoders.brainmt.evaluation import subject_predictions
from encoders.brainmt.prediction.config import PredictBrainMT
from encoders.brainmt.prediction.rivals import check_confounds, rival_predictions
from encoders.brainmt.store import FMRIStore
from encoders.brainmt.targets import Target, Targets
from encoders.brainmt.windows import FMRIWindows
from encoders.cohort import Cohort, Split
from encoders.runs.errors import InputError
from encoders.runs.progress import progress

BRAINMT = "brainmt"  # the model's name beside its baselines
NO_FOLD = "none"  # of people of the store who are not in the split


@dataclass(frozen=True, kw_only=True)
class Trained:
    """One trained model and the split it belongs to.

    Args:
        source: Its folder, or a hub id.
        split: The hold-out split, or the one that holds out ``fold``.
        fold: Number of the fold in a cross-validation; None for the hold-out split.
    """

    source: Path | str
    split: Split
    fold: int | None = None


@dataclass(frozen=True, kw_only=True)
class Predictions:
    """What BrainMT and its baselines predict; person-level data.

    Args:
        ids: S people, each once.
        parts: `train`, `val`, `test` or `none` of each person in the split of the model that predicted it.
        folds: Number of the fold that each person was held out in; None without cross-validation.
        unseen: Whether the model has seen neither the person nor a relative; None if it does not say. People who are
            not in the split have unknown relatives and do not count as unseen.
        families: Family of each person.
        targets: What was predicted.
        wanted: Per target (S,) the truth, or the class index; NaN where missing.
        predicted: Model -> per target (S,) numbers or (S, C) class probabilities.
        told: What to report about models, people and baselines; no person in it.
    """

    ids: list[str]
    parts: list[str]
    folds: Int[np.ndarray, " S"] | None
    unseen: Bool[np.ndarray, " S"] | None
    families: list[str]
    targets: list[Target]
    wanted: list[Float[np.ndarray, " S"]]
    predicted: dict[str, list[Float[np.ndarray, "S *C"]]]
    told: dict[str, Any]


def predict(
    config: PredictBrainMT,
    trained: Sequence[Trained],
    *,
    store: FMRIStore,
    cohort: Cohort,
    accelerator: Accelerator,
) -> Predictions | None:
    """Predictions of the people asked for; None on all but the main process.

    Args:
        config: Options.
        trained: The model; in a cross-validation the model of each fold.
        store: fMRI store; every run that is read is checked against its sha256.
        cohort: Table with targets and confounds.
        accelerator: Devices and processes.

    Raises:
        InputError: a model that has seen held-out people or does not fit the store; nobody with a scan; a table
            without confounds.
    """
    check_confounds(config, cohort)
    parts = [_by_brainmt(config, one, store=store, cohort=cohort, accelerator=accelerator) for one in trained]
    first = parts[0].targets
    for part in parts:
        if [(t.name, t.classes) for t in part.targets.columns] != [
            (t.name, t.classes) for t in first.columns
        ]:
            raise InputError(
                "the models of the folds predict different targets or classes; train them with the same options"
            )
    if not accelerator.is_main_process:  # which need not wait: nothing more is shared
        return None
    rivals = [
        rival_predictions(config, part.ids, targets=part.targets, store=store, cohort=cohort, split=one.split)
        for part, one in zip(parts, trained, strict=True)
    ]
    predicted = {BRAINMT: _joined([part.predicted for part in parts])}
    predicted |= {name: _joined([rival.predicted[name] for rival in rivals]) for name in config.baselines}
    unseen = [part.unseen for part in parts]
    folds = [
        np.full(len(part.ids), one.fold, int)
        for part, one in zip(parts, trained, strict=True)
        if len(trained) > 1
    ]
    return Predictions(
        ids=[name for part in parts for name in part.ids],
        parts=[
            one.split.fold_of.get(n, NO_FOLD)
            for part, one in zip(parts, trained, strict=True)
            for n in part.ids
        ],
        folds=np.concatenate(folds) if folds else None,
        unseen=None if any(u is None for u in unseen) else np.concatenate(unseen),
        families=[
            one.split.groups.get(n, n) for part, one in zip(parts, trained, strict=True) for n in part.ids
        ],
        targets=first.columns,
        wanted=_joined([part.targets.wanted(part.ids) for part in parts]),
        predicted=predicted,
        told={
            "models": [part.told for part in parts],
            "people_asked": sum(part.asked for part in parts),
            "people_without_scan": sum(part.asked - len(part.ids) for part in parts),
            "unchecked": list(dict.fromkeys(sentence for part in parts for sentence in part.unchecked)),
            "baselines": [rival.told for rival in rivals],
        },
    )


@dataclass(frozen=True, kw_only=True)
class _Part:
    """What one model predicts; fields as in :class:`Predictions`, `asked` counts people with and without a scan."""

    ids: list[str]
    asked: int
    unseen: Bool[np.ndarray, " S"] | None
    targets: Targets
    predicted: list[Float[np.ndarray, "S *C"]]
    unchecked: list[str]
    told: dict[str, Any]


def _by_brainmt(
    config: PredictBrainMT, one: Trained, *, store: FMRIStore, cohort: Cohort, accelerator: Accelerator
) -> _Part:
    model, card = from_pretrained(one.source, revision=config.revision, device=accelerator.device)
    if not card.get("targets"):
        raise InputError(
            f"{one.source} does not say what its outputs are (a converted checkpoint does not); train it on this "
            f"study first: scripts/pretrain_brainmt.py --weights={one.source}"
        )
    unchecked, seen = check_preparation(store, model.config, card), _seen(card)
    people = store.subjects if config.people == "all" else sorted(getattr(one.split, config.people))
    if config.people == "test":
        unchecked += check_unseen(card, people, one.split.groups)
    elif seen is None:
        unchecked.append(UNKNOWN)
    targets = Targets.of_card(card["targets"], cohort)
    windows = FMRIWindows(
        store, frames=model.config.num_frames, subjects=people, windows_per_run=config.windows
    )
    own = windows.runs[accelerator.process_index :: accelerator.num_processes]
    for run in progress(own, "checking the fMRI store", unit="run"):
        store.verify(run)
    ids, predicted = subject_predictions(
        model, windows, targets, batch_size=config.batch_size, accelerator=accelerator, label="predicting"
    )
    for target, found in zip(targets.columns, predicted, strict=True):
        if not np.isfinite(found).all():
            raise InputError(
                f"{one.source} predicts values of {target.name!r} that are not finite; check the scans, or predict "
                f"with --mixed_precision=no"
            )
    return _Part(
        ids=ids,
        asked=len(people),
        unseen=_unseen(ids, seen, one.split),
        targets=targets,
        predicted=predicted,
        unchecked=unchecked,
        told={
            "fold": one.fold,
            "weights_sha256": card["weights_sha256"],
            "revision": card["revision"],
            "split_digest": one.split.digest,
            "trained_on_this_split": _same_split(card, one.split),
            "frames_per_window": model.config.num_frames,
        },
    )


def _seen(card: dict[str, Any]) -> set[str] | None:
    """Everyone the model has seen; None unless its card names all of them."""
    told = trained_on(card)
    return set(told["ids"]) if told["complete"] and told["ids"] is not None else None


def _unseen(ids: Sequence[str], seen: set[str] | None, split: Split) -> Bool[np.ndarray, " S"] | None:
    if seen is None:
        return None
    families = {split.groups[name] for name in seen if name in split.groups}
    return np.array(
        [name in split.groups and name not in seen and split.groups[name] not in families for name in ids],
        dtype=bool,
    )


def _same_split(card: dict[str, Any], split: Split) -> bool | None:
    """Whether the model was trained on this very split; None if it does not say."""
    digest = trained_on(card)["split_digest"]
    return None if digest is None else digest == split.digest


def _joined(parts: Sequence[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Per target the people of all parts."""
    return [np.concatenate(of_target) for of_target in zip(*parts, strict=True)]
