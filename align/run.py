"""One alignment of a study: the raw model and the confound-adjusted model, and what they make of everybody.

The adjusted model sees inputs without what confounds explain, and its aligned vectors are residualised once
more before scoring; both regressions are fitted on training people.

Glossary: S people · D input columns · O width of the shared space.
"""

from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from jaxtyping import Float32

from align.config import Align
from align.pairs import MODALITIES, Pairs
from align.train import Inputs, embed, scaled, train_alignment
from encoders.cohort import Cohort, ConfoundDesign, Residualizer, Split
from encoders.runs.artifact import save_tensors
from encoders.runs.config import to_plain
from encoders.vectors import SubjectVectors

ALIGNED, ALIGNED_FORMAT = "neurohelix.aligned", 1
MODEL, MODEL_FORMAT = "neurohelix.alignment", 1


def align_study(
    vectors: dict[str, SubjectVectors],
    pairs: Pairs,
    *,
    cohort: Cohort,
    split: Split,
    config: Align,
    folder: Path,
    accelerator: Accelerator,
) -> tuple[dict[str, Float32[np.ndarray, "S O"]], dict[str, Any]]:
    """Train both models and embed everybody who has a modality.

    Args:
        vectors: `brain` and `genetics` vectors of all people.
        pairs: People with both, by fold.
        cohort: The table of people.
        split: Who belongs to which fold.
        config: Options.
        folder: Run folder; each model gets a folder of its own in it.
        accelerator: Devices and processes.

    Returns:
        `brain_raw`, `genetics_raw`, `brain_adjusted`, `genetics_adjusted`: unit rows in the order of the split,
        NaN where a person lacks the modality; and what is to be told about the confounds.
    """
    everyone = people_of(split, cohort)
    train_ids = [pairs.ids[k] for k in pairs.rows("train")]
    have = {m: set(vectors[m].ids) for m in MODALITIES}
    present = {m: [i for i in everyone if i in have[m]] for m in MODALITIES}
    rows = {m: {name: k for k, name in enumerate(present[m])} for m in MODALITIES}
    row = {name: k for k, name in enumerate(everyone)}
    aligned: dict[str, Float32[np.ndarray, "S O"]] = {}
    told: dict[str, Any] = {}
    for name in ("raw", "adjusted"):
        data = {m: vectors[m].select(present[m]) for m in MODALITIES}
        frames = {m: cohort.frame.loc[present[m]] for m in MODALITIES}
        train = {m: np.array([rows[m][i] for i in train_ids]) for m in MODALITIES}
        residualizers: dict[str, Residualizer] = {}
        if name == "adjusted":
            for m in MODALITIES:
                residualizers[m] = Residualizer(design=ConfoundDesign(terms=tuple(config.confounds)))
                residualizers[m].fit(data[m][train[m]], frames[m].iloc[train[m]])
                data[m] = residualizers[m].transform(data[m], frames[m])
            design = residualizers["brain"].design
            told = {"used": design.used_, "absent": design.absent_, "unseen": design.unseen_}
        paired = {m: data[m][[rows[m][i] for i in pairs.ids]] for m in MODALITIES}
        inputs = scaled(paired["brain"], paired["genetics"], pairs.rows("train"), config)
        model = train_alignment(
            inputs, pairs, config, name=name, folder=folder / name, accelerator=accelerator
        )
        whole = Inputs(
            brain=inputs.whiteners["brain"].transform(data["brain"]),
            genetics=inputs.whiteners["genetics"].transform(data["genetics"]),
            whiteners=inputs.whiteners,
        )
        for m, values in zip(MODALITIES, embed(model, whole), strict=True):
            if name == "adjusted":
                last = Residualizer(design=ConfoundDesign(terms=tuple(config.confounds)))
                last.fit(values[train[m]], frames[m].iloc[train[m]])
                values = unit(last.transform(values, frames[m]))
            aligned[f"{m}_{name}"] = np.full((len(everyone), values.shape[1]), np.nan, dtype=np.float32)
            aligned[f"{m}_{name}"][[row[i] for i in present[m]]] = values
        if accelerator.is_main_process:
            _save_model(folder / name / "model.safetensors", model, inputs, residualizers, config)
    return aligned, told


def people_of(split: Split, cohort: Cohort) -> list[str]:
    """Everybody in the split who has a row in the table, in the order train, val, test."""
    known = set(cohort.ids)
    return [name for name in split.fold_of if name in known]


def unit(values: Float32[np.ndarray, "S O"]) -> Float32[np.ndarray, "S O"]:
    """Rows scaled to length 1; a zero row stays zero."""
    length = np.linalg.norm(values, axis=1, keepdims=True)
    return (values / np.where(length > 0, length, 1)).astype(np.float32)


def _save_model(
    path: Path, model, inputs: Inputs, residualizers: dict[str, Residualizer], config: Align
) -> None:
    """Projector weights with the scaling and regression that their inputs went through."""
    tensors = {f"model.{key}": value.detach().cpu().numpy() for key, value in model.state_dict().items()}
    for m, whitener in inputs.whiteners.items():
        tensors |= {f"whitener.{m}.mean": whitener.mean_, f"whitener.{m}.matrix": whitener.matrix_}
    for m, residualizer in residualizers.items():
        tensors[f"residualizer.{m}.coefficients"] = residualizer.coefficients_
    save_tensors(path, MODEL, MODEL_FORMAT, tensors, {"projector": to_plain(config.projector)})
