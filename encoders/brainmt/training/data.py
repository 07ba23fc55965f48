"""Who a training run may use, and their windows."""

from collections.abc import Sequence

import numpy as np

from encoders.brainmt.evaluation import target_scores
from encoders.brainmt.patches import brain_patches
from encoders.brainmt.store import FMRIStore
from encoders.brainmt.targets import Targets
from encoders.brainmt.training.config import PretrainBrainMT
from encoders.brainmt.windows import FMRIWindows
from encoders.cohort import Split
from encoders.cohort.splits import FOLDS
from encoders.runs.errors import InputError
from encoders.runs.progress import progress

FEWEST = 3  # people with a label that a correlation needs


def usable_people(split: Split, targets: Targets, store: FMRIStore) -> tuple[dict[str, list[str]], list[str]]:
    """Fold -> people with a scan and a label; and a line about each person left out.

    Raises:
        InputError: fewer than three in a fold.
    """
    scanned, people, left_out = set(store.subjects), {}, []
    for fold in FOLDS:
        everyone = getattr(split, fold)
        labelled = set(targets.labelled(everyone))
        people[fold] = [name for name in everyone if name in scanned and name in labelled]
        for name in sorted(set(everyone) - set(people[fold])):
            left_out.append(f"{name}\t{fold}\t{'no label' if name in scanned else 'no scan'}\n")
        if len(people[fold]) < FEWEST:
            raise InputError(
                f"{len(people[fold])} of the {len(everyone)} {fold} people have a scan in {store.folder} and a "
                f"label in the participants table, but {FEWEST} were wanted; check their ids, or split anew"
            )
    return people, left_out


def check_validation(targets: Targets, people: Sequence[str], metric: str) -> None:
    """Refuse validation people of whom no model could be told from another.

    Args:
        targets: What is predicted.
        people: Validation people.
        metric: What chooses the best model.

    Raises:
        InputError: the metric is undefined for every target, as auroc is of people who are all of one class.
    """
    scores = []
    for target, wanted in zip(targets.columns, targets.of(list(people)).astype(np.float64).T, strict=True):
        classes = len(target.classes)
        any_answer = np.full((len(people), classes), 1 / classes) if classes else np.arange(len(people)) * 1.0
        scores.append(target_scores(any_answer, wanted)[metric])
    if not np.isfinite(scores).any():
        raise InputError(
            f"{metric}, which chooses the best model, is undefined for the {len(people)} validation people: fewer than "
            f"{FEWEST} have the label, or all have the same; split anew, or give another --select_by"
        )


def windows_of(
    people: Sequence[str],
    targets: Targets,
    store: FMRIStore,
    config: PretrainBrainMT,
    *,
    frames: int,
    training: bool,
) -> FMRIWindows:
    """Random windows for training, evenly spaced ones for evaluation; every run is checked against its sha256."""
    windows = FMRIWindows(
        store,
        frames=frames,
        subjects=people,
        targets=targets.values,
        windows_per_run=1 if training else config.eval_windows,
        training=training,
        seed=config.seed,
        preload=config.preload,
    )
    if not config.preload:  # which checks each run itself
        for run in progress(windows.runs, "checking the fMRI store", unit="run"):
            store.verify(run)
    return windows


def patches_of(windows: FMRIWindows) -> tuple[int, ...]:
    """Patches that the brain mask of at least one run touches."""
    found: set[int] = set()
    known: set[bytes] = set()
    for run in windows.runs:
        mask_index = windows.store.mask_index(run)
        if (key := mask_index.tobytes()) not in known:  # runs of one cohort mostly share a mask
            known.add(key)
            found |= brain_patches(mask_index, run.grid)
    return tuple(sorted(found))


def window_order(seed: int, epoch: int, count: int) -> np.ndarray:
    """Order of the training windows in an epoch, the same on every process."""
    return np.random.default_rng((seed, epoch)).permutation(count)
