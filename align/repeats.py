"""One alignment many times: with several seeds, with each fold held out; mean and spread.

Folds are scored within, then pooled: a person is only ever compared with people of the same held-out fold.

Glossary: N held-out people of one run.
"""

import statistics
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from align.config import Align
from align.galleries import matched
from align.pairs import Joined
from align.retrieval import DIRECTIONS, evaluate_gallery
from encoders.cohort import Split
from encoders.runs.errors import InputError

SCORES, SCORES_FORMAT = "neurohelix.align_scores", 1


def stage_name(config: Align) -> str:
    """Name of the stage and of its run folder: apart for each named run, held-out fold and seed of several."""
    fold = "" if config.fold is None else f"fold-{config.fold}"
    seed = f"seed-{config.seeds[0]}" if config.seeds else ""
    return "_".join(part for part in ("align", config.name, fold, seed) if part)


def repeats(config: Align, num_folds: int) -> list[Align]:
    """The single runs that a configuration asks for, in order; each has one fold and one seed.

    Args:
        config: Options.
        num_folds: Folds of the split file.

    Raises:
        InputError: folds are asked for that the split file does not have.
    """
    if config.fold == "all" and not num_folds:
        raise InputError(
            "--fold=all was asked for, but the split file has no folds; make it anew with scripts/make_splits.py "
            "--num_folds=5 --redo=true"
        )
    folds = range(num_folds) if config.fold == "all" else [config.fold]
    seeds = [[seed] for seed in config.seeds] or [[]]
    return [
        replace(config, fold=fold, seeds=one, seed=one[0] if one else config.seed)
        for fold in folds
        for one in seeds
    ]


def split_of(split: Split, digest: str, path: Path) -> Split:
    """The hold-out split, or that of one held-out fold: whichever an alignment was made with.

    Raises:
        InputError: neither; the split file is another one by now.
    """
    for one in (split, *(split.held_out(k) for k in range(len(split.folds)))):
        if one.digest == digest:
            return one
    raise InputError(
        f"{path} was made with another split than the present one, so its held-out people are others; align again with "
        f"--redo=true"
    )


def held_out_scores(
    vectors: dict[str, Float32[np.ndarray, "N _"]], joined: Joined, left: str, right: str
) -> dict[str, float]:
    """2AFC (mean of both directions) of held-out people, adjusted model: among everyone, and among matched people.

    Args:
        vectors: `MODALITY_adjusted` -> aligned vectors of the joined people.
        joined: The people.
        left: One modality.
        right: The other.
    """
    rows = joined.rows("test")
    rows = rows[joined.both(left, right)[rows]]
    families = [joined.groups[k] for k in rows]
    gallery = matched(joined.frame.iloc[rows], joined.frame.iloc[joined.rows("train")], families)
    similarity = vectors[f"{left}_adjusted"][rows] @ vectors[f"{right}_adjusted"][rows].T
    result = evaluate_gallery(
        similarity,
        gallery,
        permute_within=gallery.strata,
        num_permutations=1,
        num_bootstraps=1,
        seed=0,
        only_auc=True,
    )
    found = [result[d]["auc2afc"]["value"] for d in DIRECTIONS if d in result]
    return {
        "test_auc2afc_matched": float(np.mean(found)) if found else float("nan"),
        "test_n_matched": float(result["num_anchors"]),
    }


def summarised(scores: list[dict[str, Any]]) -> dict[str, str]:
    """Mean and standard deviation over runs of every number they share; held-out ones also pooled over people.

    Args:
        scores: One mapping per run, of numbers.
    """
    lines = {}
    for name in scores[0]:
        values = [float(one[name]) for one in scores if name in one]
        if name == "test_n_matched":
            continue
        spread = f" ± {statistics.stdev(values):.3f}" if len(values) > 1 else ""
        lines[name] = f"{statistics.mean(values):.3f}{spread} over {len(values)} runs"
    if "test_auc2afc_matched" in scores[0]:
        weights = [one["test_n_matched"] for one in scores]
        if sum(weights):
            pooled = np.average([one["test_auc2afc_matched"] for one in scores], weights=weights)
            lines["test_auc2afc_matched_pooled"] = (
                f"{pooled:.3f} over {sum(weights):.0f} people with distractors"
            )
    return lines
