"""What brain, genes and both say about phenotypes: simple models, fitted on train, tuned on val, scored on test.

Models: logistic or ridge regression (`linear`), histogram gradient boosting (`boosting`), on the encoders' vectors, not
on the aligned ones. Fusion: `average` of the two modalities' predictions, `stacked` (a linear model of their out-of-fold
predictions, families kept together), and `concatenated` vectors. Beside them the training mean and confounds alone.
Which fusion and which single modality are compared is decided on validation people.

Glossary: S people with both modalities · L training people with a label · N others · C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from align.pairs import Pairs
from align.phenotype_columns import Phenotype
from align.phenotype_models import Learners, boosted, linear, stacked
from encoders.cohort import ConfoundDesign
from encoders.cohort.confounds import columns_of
from encoders.stats import cluster_weights
from encoders.stats.baselines import class_shares, mean_prediction
from encoders.stats.paired import Resampled, paired_difference, resample_scores

METRICS = {True: ("auroc", "auprc", "brier", "balanced_accuracy"), False: ("r2", "r", "mae")}
DECIDES = {True: "auroc", False: "r2"}  # the metric of comparisons; True: classification
FEWEST = {"train": 20, "val": 5, "test": 10}  # people with a label, or it is not fitted
FEWEST_PER_CLASS = 5  # training people, and 2 test and 2 validation people

Predicted = dict[str, Float[np.ndarray, "N *C"]]


def predict_phenotypes(
    pairs: Pairs,
    phenotypes: Sequence[Phenotype],
    *,
    kinds: Sequence[str],
    confound_terms: Sequence[str],
    bootstraps: int,
    seed: int,
    names: tuple[str, str] = ("brain", "genetics"),
) -> dict[str, Any]:
    """Scores of every model for every phenotype.

    Args:
        pairs: People with both modalities.
        phenotypes: What to predict.
        kinds: `linear`, `boosting` or both.
        confound_terms: Of the model that sees confounds only; those that contain the phenotype are left out.
        bootstraps: Resamples of families behind each interval.
        seed: Seed of resamples and boosting.
        names: What the two modalities are called.

    Returns:
        Per phenotype: people, models (metric -> value and interval), which were compared, paired differences, and
        `fusion_gain_auroc` for two classes; or `reason` where too few people have a label.
    """
    return {one.name: _one(pairs, one, kinds, confound_terms, bootstraps, seed, names) for one in phenotypes}


def _one(
    pairs: Pairs,
    phenotype: Phenotype,
    kinds: Sequence[str],
    confound_terms: Sequence[str],
    bootstraps: int,
    seed: int,
    names: tuple[str, str],
) -> dict[str, Any]:
    labelled = np.isfinite(phenotype.values)
    rows = {fold: pairs.rows(fold)[labelled[pairs.rows(fold)]] for fold in ("train", "val", "test")}
    told: dict[str, Any] = {
        "classes": list(phenotype.classes),
        "people": {fold: len(found) for fold, found in rows.items()},
        "without_label": {fold: len(pairs.rows(fold)) - len(found) for fold, found in rows.items()},
    }
    if reason := _too_few(phenotype, rows):
        return told | {"reason": reason}
    predicted = _predictions(pairs, phenotype, rows, kinds, confound_terms, seed, names)
    wanted = phenotype.values.astype(int) if phenotype.classes else phenotype.values
    num_val = len(rows["val"])
    decides = DECIDES[bool(phenotype.classes)]
    validation = {name: _value(p[:num_val], wanted[rows["val"]], decides) for name, p in predicted.items()}
    families = [pairs.groups[i] for i in rows["test"]]
    weights = cluster_weights(families, bootstraps, np.random.default_rng(seed))
    scores = {
        name: resample_scores(p[num_val:], wanted[rows["test"]], weights) for name, p in predicted.items()
    }
    single, fusion = (
        max((n for n in predicted if n.startswith(heads)), key=lambda n: validation[n])
        for heads in (tuple(f"{name}_" for name in names), ("average_", "stacked_", "concatenated_"))
    )
    told |= {
        "models": {name: _told(score, bool(phenotype.classes)) for name, score in scores.items()},
        "compared": {"single": single, "fusion": fusion},
        "paired": {
            f"{fusion} - {other}": asdict(paired_difference(scores[fusion], scores[other], decides))
            for other in (single, "confounds_linear")
            if other in scores
        },
    }
    if len(phenotype.classes) == 2:
        from encoders.stats.delong import delong_test  # with all of scipy.stats

        positive = wanted[rows["test"]] == 1
        told["delong"] = {
            f"{fusion} - {other}": asdict(
                delong_test(predicted[fusion][num_val:, 1], predicted[other][num_val:, 1], positive)
            )
            for other in (single, "confounds_linear")
            if other in scores
        }
        told["fusion_gain_auroc"] = scores[fusion].values["auroc"] - scores[single].values["auroc"]
    return told


def _predictions(
    pairs: Pairs,
    phenotype: Phenotype,
    rows: Mapping[str, np.ndarray],
    kinds: Sequence[str],
    confound_terms: Sequence[str],
    seed: int,
    names: tuple[str, str],
) -> Predicted:
    """Predictions of every model for validation people and then test people."""
    train, others = rows["train"], np.concatenate([rows["val"], rows["test"]])
    learners = Learners(
        wanted=phenotype.values[train].astype(int) if phenotype.classes else phenotype.values[train],
        families=[pairs.groups[i] for i in train],
        classes=len(phenotype.classes),
        validation=phenotype.values[rows["val"]].astype(int)
        if phenotype.classes
        else phenotype.values[rows["val"]],
        seed=seed,
    )
    sides = dict(zip(names, (pairs.brain, pairs.genetics), strict=True))
    both = np.concatenate(_balanced(list(sides.values()), train), axis=1)
    found: Predicted = {}
    for kind in kinds:
        model = {"linear": linear, "boosting": boosted}[kind]
        for name, values in sides.items():
            found[f"{name}_{kind}"] = model(learners, values[train], values[others])
        found[f"average_{kind}"] = sum(found[f"{name}_{kind}"] for name in names) / 2
        if kind == "linear":
            found["stacked_linear"] = stacked(
                learners, [v[train] for v in sides.values()], [found[f"{name}_linear"] for name in names]
            )
        found[f"concatenated_{kind}"] = model(learners, both[train], both[others])
    terms = [t for t in confound_terms if phenotype.name not in columns_of(t)]
    design = ConfoundDesign(terms=tuple(terms)).fit(pairs.frame.iloc[train])
    confounds = design.transform(pairs.frame)
    if confounds.shape[1]:
        found["confounds_linear"] = linear(learners, confounds[train], confounds[others])
    found["mean"] = (
        class_shares(learners.wanted, learners.classes, len(others))
        if phenotype.classes
        else mean_prediction(learners.wanted, len(others))
    )
    return found


def _balanced(sides: Sequence[Float[np.ndarray, "S _"]], train: np.ndarray) -> list[Float[np.ndarray, "S _"]]:
    """Sides centred and scaled so that each has the same variance in training people, however wide it is."""
    scaled = []
    for side in sides:
        part = side[train].astype(np.float64)
        total = float(part.var(axis=0).sum())
        scaled.append((side - part.mean(axis=0)) / np.sqrt(total if total > 0 else 1.0))
    return scaled


def _value(predicted: Float[np.ndarray, "N *C"], wanted: Shaped[np.ndarray, " N"], metric: str) -> float:
    """A score on validation people; minus infinity where it is undefined."""
    value = resample_scores(predicted, wanted, np.ones((1, len(wanted)))).values[metric]
    return value if np.isfinite(value) else -np.inf


def _told(score: Resampled, classification: bool) -> dict[str, Any]:
    found = {}
    for metric in METRICS[classification]:
        low, high = score.interval(metric)
        found[metric] = {"value": score.values[metric], "ci_low": low, "ci_high": high}
    return found


def _too_few(phenotype: Phenotype, rows: Mapping[str, np.ndarray]) -> str:
    for fold, least in FEWEST.items():
        if (num := len(rows[fold])) < least:
            return f"{num} {fold} people have a label, at least {least} are needed"
        for k, name in enumerate(phenotype.classes):
            wanted = FEWEST_PER_CLASS if fold == "train" else 2
            if (num := int((phenotype.values[rows[fold]] == k).sum())) < wanted:
                return f"{num} {fold} people are {name!r}, at least {wanted} are needed"
    return ""
