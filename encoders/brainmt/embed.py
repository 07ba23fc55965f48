"""fMRI store + trained BrainMT -> one vector per person.

A strategy says which windows of a run are embedded and how; its id goes into the vectors' provenance. Windows are
averaged per run, runs per person.

Glossary: B windows · T frames of a window · V in-mask voxels · D width.
"""

import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor

from encoders.brainmt.checkpoint import from_pretrained
from encoders.brainmt.compatibility import UNKNOWN, check_preparation, trained_on
from encoders.brainmt.embed_config import EmbedFMRI
from encoders.brainmt.model import BrainMT
from encoders.brainmt.store import FMRIStore, Run
from encoders.brainmt.windows import FMRIWindows, scatter
from encoders.runs.artifact import load_tensors, save_tensors
from encoders.runs.errors import InputError
from encoders.runs.progress import progress
from encoders.vectors import SubjectVectors

PARTIAL_KIND, PARTIAL_FORMAT = "neurohelix.partial_vectors", 1
SAVE_EVERY = 60.0  # s
SEGMENT = 32  # frames, fixed by the users' recipe


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a strategy does.

    Args:
        frames: T.
        starts: Name of a run -> first frames of its windows.
        features: Windows -> vectors.
    """

    frames: int
    starts: dict[str, list[int]]
    features: Callable[[Float[Tensor, "B T 1 Y X Z"]], Float[Tensor, "B D"]]


def embed(
    store: FMRIStore, model_folder: Path, config: EmbedFMRI, *, partial: Path, device: torch.device
) -> tuple[SubjectVectors, SubjectVectors]:
    """Vectors of everyone in the store, and of every run: whether a second scan finds the first is worth knowing.

    Args:
        store: fMRI store; every run is checked against its sha256 as it is read.
        model_folder: Folder of a trained model.
        config: Options.
        partial: File that keeps what is done, once a minute, so that a killed run continues.
        device: Where to compute.

    Raises:
        InputError: the store was not prepared as the model's training data, or a run is too short.
    """
    model, card = from_pretrained(model_folder, device=device)
    unchecked = check_preparation(store, model.config, card)
    if not trained_on(card)["complete"] or trained_on(card)["ids"] is None:
        unchecked.append(UNKNOWN)
    for sentence in unchecked:
        print(f"warning: {sentence}", file=sys.stderr, flush=True)
    plan = PLANS[config.strategy](model, store, config)
    done = _load_partial(partial)
    todo = [run for run in store.runs if run.name not in done]
    saved = time.monotonic()
    bar = progress(range(len(store.runs)), "embedding scans", unit="run")
    bar.update(len(done))
    for runs in _blocks(todo, plan, config.batch_size):
        done |= _embed_runs(runs, store, plan, config.batch_size, device)
        bar.update(len(runs))
        if time.monotonic() - saved > SAVE_EVERY:
            saved = time.monotonic()
            save_tensors(partial, PARTIAL_KIND, PARTIAL_FORMAT, done, {})
    bar.close()
    ids = store.subjects
    values = np.stack([np.mean([done[run.name] for run in store.of(name)], axis=0) for name in ids])
    provenance = {
        "encoder": "brainmt",
        "weights_sha256": card["weights_sha256"],
        "revision": card["revision"],
        "config": card["config"],
        "strategy": config.strategy,
        "windows_per_run": sorted({len(starts) for starts in plan.starts.values()}),
        "frames": plan.frames,
        "store_digest": store.digest,
        "trained_on": trained_on(card),
    }
    runs = [(f"{name}\t{run.name}", done[run.name]) for name in ids for run in store.of(name)]
    of_runs = np.stack([vector for _, vector in runs]).astype(np.float32)
    return (
        SubjectVectors(ids=ids, values=values.astype(np.float32), provenance=provenance),
        SubjectVectors(ids=[name for name, _ in runs], values=of_runs, provenance=provenance),
    )


def _windows_v1(model: BrainMT, store: FMRIStore, config: EmbedFMRI) -> Plan:
    """Evenly spaced windows of the training length; the embedding the model was trained with."""
    windows = FMRIWindows(store, frames=model.config.num_frames, windows_per_run=config.windows)
    starts: dict[str, list[int]] = {}
    for index in range(len(windows)):
        starts.setdefault(windows.run_of(index).name, []).append(windows.start_of(index))
    return Plan(frames=model.config.num_frames, starts=starts, features=model.forward_features)


def _segments_v1(model: BrainMT, store: FMRIStore, config: EmbedFMRI) -> Plan:
    """Consecutive segments of 32 frames that span no gap; mean over the patch tokens."""
    starts = {
        run.name: [
            start for first, last in run.segments for start in range(first, last - SEGMENT + 1, SEGMENT)
        ]
        for run in store.runs
    }
    if short := [name for name, found in starts.items() if not found]:
        raise InputError(
            f"{len(short)} runs have no {SEGMENT} frames in a row, e.g. {short[0]}; prepare the store again "
            f"with --min_frames={SEGMENT}, or use the strategy rsfmri_brainmt_windows_v1"
        )

    def features(frames: Tensor) -> Tensor:
        return model.attended_tokens(model.scanned_tokens(frames))[:, 1:].mean(1)

    return Plan(frames=SEGMENT, starts=starts, features=features)


PLANS = {"rsfmri_brainmt_windows_v1": _windows_v1, "rsfmri_brainmt_segments_v1": _segments_v1}


def _blocks(runs: list[Run], plan: Plan, batch_size: int) -> Iterator[list[Run]]:
    """Runs whose windows together fill about one batch."""
    block: list[Run] = []
    for run in runs:
        block.append(run)
        if sum(len(plan.starts[r.name]) for r in block) >= batch_size:
            yield block
            block = []
    if block:
        yield block


@torch.inference_mode()
def _embed_runs(
    runs: list[Run], store: FMRIStore, plan: Plan, batch_size: int, device: torch.device
) -> dict[str, Float32[np.ndarray, " D"]]:
    """Mean vector of each run's windows."""
    windows, owners = [], []
    for run in runs:
        tensors, _ = store.read(run)
        frames = torch.from_numpy(tensors["frames"]).to(device)
        mask_index = torch.from_numpy(tensors["mask_index"]).to(device)
        for start in plan.starts[run.name]:
            part = frames[start : start + plan.frames]
            windows.append(scatter(part, mask_index, grid=run.grid, background=run.background))
            owners.append(run.name)
    # on a GPU in bf16, where attention is feasible at full size; the vectors themselves are fp32
    with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        vectors = torch.cat(
            [
                plan.features(torch.stack(windows[k : k + batch_size])).float()
                for k in range(0, len(windows), batch_size)
            ]
        )
    rows = vectors.cpu().numpy()
    of = np.array(owners)
    return {run.name: rows[of == run.name].mean(axis=0) for run in runs}


def _load_partial(path: Path) -> dict[str, Float32[np.ndarray, " D"]]:
    return load_tensors(path, PARTIAL_KIND, PARTIAL_FORMAT)[0] if path.exists() else {}
