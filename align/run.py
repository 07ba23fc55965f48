"""One alignment of a study: the raw model and the confound-adjusted model, and what they make of everybody.

The adjusted model sees inputs without what confounds explain, and its aligned vectors are residualised once
more before scoring; both regressions are fitted on training people. If asked for, sites are harmonised before either
model, also fitted on training people.

Glossary: S people · D input columns · O width of the shared space.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from jaxtyping import Float32

from align.config import Align
from align.model import AlignmentModel
from align.pairs import Joined
from align.train import Inputs, embed, scaled, train_alignment
from encoders.cohort import Cohort, ConfoundDesign, Residualizer, Split
from encoders.cohort.harmonise import Combat
from encoders.runs.artifact import save_tensors
from encoders.runs.config import to_plain
from encoders.vectors import SubjectVectors

ALIGNED, ALIGNED_FORMAT = "neurohelix.aligned", 2
MODEL, MODEL_FORMAT = "neurohelix.alignment", 2


@dataclass(frozen=True, kw_only=True)
class Aligned:
    """What both models make of everybody.

    Args:
        vectors: `brain_raw`, `genetics_raw`, `brain_adjusted`, ...: unit rows in the order of the split, NaN where a
            person lacks the modality.
        confounds: What is to be told about the confounds.
        validation: Kind -> matched 2AFC of validation people (pairs of modalities and directions averaged), at the best
            epoch.
    """

    vectors: dict[str, Float32[np.ndarray, "S O"]]
    confounds: dict[str, Any]
    validation: dict[str, float]


def align_study(
    vectors: dict[str, SubjectVectors],
    joined: Joined,
    *,
    cohort: Cohort,
    split: Split,
    config: Align,
    folder: Path,
    accelerator: Accelerator,
) -> Aligned:
    """Train both models and embed everybody who has a modality.

    Args:
        vectors: Modality -> vectors of all people who have it.
        joined: People with two modalities or more, by fold.
        cohort: The table of people.
        split: Who belongs to which fold.
        config: Options.
        folder: Run folder; each model gets a folder of its own in it.
        accelerator: Devices and processes.
    """
    everyone = people_of(split, cohort)
    row = {name: k for k, name in enumerate(everyone)}
    have = {m: set(vectors[m].ids) for m in vectors}
    present = {m: [i for i in everyone if i in have[m]] for m in vectors}
    frames = {m: cohort.frame.loc[present[m]] for m in vectors}
    aligned: dict[str, Float32[np.ndarray, "S O"]] = {}
    validation: dict[str, float] = {}
    told: dict[str, Any] = {}
    for kind in config.kinds:
        data = {m: vectors[m].select(present[m]) for m in vectors}
        train = {m: _train_rows(joined, m, present[m]) for m in vectors}
        harmonisers = {m: _harmoniser(config) for m in config.harmonised}
        for m, combat in harmonisers.items():
            combat.fit(data[m][train[m]], frames[m].iloc[train[m]])
            data[m] = combat.transform(data[m], frames[m])
        residualizers: dict[str, Residualizer] = {}
        if kind == "adjusted":
            for m in vectors:
                residualizers[m] = _residualizer(config)
                residualizers[m].fit(data[m][train[m]], frames[m].iloc[train[m]])
                data[m] = residualizers[m].transform(data[m], frames[m])
            design = next(iter(residualizers.values())).design
            told = {"used": design.used_, "absent": design.absent_, "unseen": design.unseen_}
        seen = replace(joined, values={m: _rows_of(joined, m, present[m], data[m]) for m in vectors})
        inputs = scaled(seen, config)
        model, validation[kind] = train_alignment(
            inputs, joined, config, name=kind, folder=folder / kind, accelerator=accelerator
        )
        whole = Inputs(
            values={m: inputs.whiteners[m].transform(data[m]) for m in vectors}, whiteners=inputs.whiteners
        )
        for m, values in embed(model, whole).items():
            if kind == "adjusted":
                last = _residualizer(config)
                last.fit(values[train[m]], frames[m].iloc[train[m]])
                values = unit(last.transform(values, frames[m]))
            aligned[f"{m}_{kind}"] = np.full((len(everyone), values.shape[1]), np.nan, dtype=np.float32)
            aligned[f"{m}_{kind}"][[row[i] for i in present[m]]] = values
        if accelerator.is_main_process:
            path = folder / kind / "model.safetensors"
            _save_model(path, model, inputs, residualizers, harmonisers, config)
    if config.harmonised:
        told["harmonised"] = {
            m: {
                "by": combat.site,
                "keep": list(combat.keep),
                "unseen": combat.unseen_,
                "small": combat.small_,
            }
            for m, combat in harmonisers.items()
        }
    return Aligned(vectors=aligned, confounds=told, validation=validation)


def _harmoniser(config: Align) -> Combat:
    return Combat(site=config.harmonise_by, keep=tuple(config.harmonise_keep))


def _residualizer(config: Align) -> Residualizer:
    return Residualizer(design=ConfoundDesign(terms=tuple(config.confounds)))


def _train_rows(joined: Joined, modality: str, present: list[str]) -> np.ndarray:
    """Rows of ``present`` of the training people who are joined and have the modality."""
    row = {name: k for k, name in enumerate(present)}
    there = joined.present[modality]
    return np.array([row[joined.ids[k]] for k in joined.rows("train") if there[k]])


def _rows_of(
    joined: Joined, modality: str, present: list[str], data: Float32[np.ndarray, "P D"]
) -> Float32[np.ndarray, "S D"]:
    """Rows of the joined people, 0 for those without the modality."""
    row = {name: k for k, name in enumerate(present)}
    there = np.flatnonzero(joined.present[modality])
    values = np.zeros((len(joined.ids), data.shape[1]), np.float32)
    values[there] = data[[row[joined.ids[k]] for k in there]]
    return values


def save_aligned(
    path: Path,
    aligned: Aligned,
    vectors: dict[str, SubjectVectors],
    *,
    ids: list[str],
    folds: list[str],
    split: Split,
    config: Align,
    sources: dict[str, str],
) -> str:
    """Write everybody's aligned vectors with what evaluation and report must know; returns the digest of the file.

    Args:
        path: Where.
        aligned: The vectors.
        vectors: What was aligned, for its provenance.
        ids: People, in row order.
        folds: Fold of each.
        split: Who is held out.
        config: Options.
        sources: Modality -> file of its vectors.
    """
    provenance = {m: {k: v for k, v in vectors[m].provenance.items() if k != "trained_on"} for m in vectors}
    unknown = [
        m
        for m in vectors
        if (told := vectors[m].provenance.get("trained_on")) and not _names_all(told, split)
    ]
    metadata = {
        "ids": ids,
        "folds": folds,
        "modalities": list(vectors),
        "sources": sources,
        "confounds": aligned.confounds,
        "confound_terms": list(config.confounds),
        "validation": aligned.validation,
        "unknown_training": unknown,  # accepted by the user without proof
        "provenance": provenance | {"split_digest": split.digest},
    }
    return save_tensors(path, ALIGNED, ALIGNED_FORMAT, aligned.vectors, metadata)


def _names_all(trained_on: dict[str, Any], split: Split) -> bool:
    same = trained_on["split_digest"] == split.digest
    return trained_on.get("complete", True) and (trained_on["ids"] is not None or same)


def people_of(split: Split, cohort: Cohort) -> list[str]:
    """Everybody in the split who has a row in the table, in the order train, val, test."""
    known = set(cohort.ids)
    return [name for name in split.fold_of if name in known]


def unit(values: Float32[np.ndarray, "S O"]) -> Float32[np.ndarray, "S O"]:
    """Rows scaled to length 1; a zero row stays zero."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.where(length > 0, length, 1)).astype(np.float32)


def _save_model(
    path: Path,
    model: AlignmentModel,
    inputs: Inputs,
    residualizers: dict[str, Residualizer],
    harmonisers: dict[str, Combat],
    config: Align,
) -> None:
    """Projector weights with the harmonisation, regression and scaling that their inputs went through."""
    tensors = {f"model.{key}": value.detach().cpu().numpy() for key, value in model.state_dict().items()}
    for m, whitener in inputs.whiteners.items():
        tensors |= {f"whitener.{m}.mean": whitener.mean_, f"whitener.{m}.matrix": whitener.matrix_}
    for m, residualizer in residualizers.items():
        tensors[f"residualizer.{m}.coefficients"] = residualizer.coefficients_
    for m, combat in harmonisers.items():
        for name in ("mean", "slopes", "sd", "shift", "variance", "weights"):
            tensors[f"harmoniser.{m}.{name}"] = getattr(combat, f"{name}_")
    content = {"projector": to_plain(config.projector), "modalities": list(inputs.whiteners)}
    save_tensors(path, MODEL, MODEL_FORMAT, tensors, content)
