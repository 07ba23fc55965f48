"""A study that trains in seconds: scans of a few hundred voxels whose amplitude follows a trait."""

from pathlib import Path

import numpy as np

from encoders.brainmt.store import describe_run, save_manifest, save_run
from encoders.cohort import Split
from encoders.runs.study import Study

GRID = (5, 7, 6)  # X, Y, Z
FRAMES = 24
OPTIONS = {"normalisation": "global", "background": "zero"}
LISTED = [
    "name",
    "subject",
    "session",
    "task",
    "run",
    "file",
    "sha256",
    "frames",
    "voxels",
    "tr",
    "mean_fd",
    "grid",
    "background",
    "segments",
    "bytes",
]
SETTINGS = """
model:
  num_frames: 8
  widths: [4, 4, 8, 16]
  mamba_layers: 1
  attention_layers: 1
  d_state: 2
  drop_path: 0.1
  embedding: mean
targets: ["trait_*"]
epochs: 4
batch_size: 4
accumulate: 1
lr: 0.003
warmup_epochs: 1.0
eval_every: 1
eval_windows: 2
preload: true
"""


def make_study(folder: Path, *, train: int = 21, val: int = 9, test: int = 7, spoil: str = "") -> Study:
    """Write store, split, participants table and settings; ``spoil`` names a person whose scan is NaN."""
    study, rng = Study(folder), np.random.default_rng(0)
    ids = [f"sub-{k:04d}" for k in range(train + val + test)]
    traits = rng.standard_normal((len(ids), 2))
    mask_index = np.flatnonzero(rng.random(np.prod(GRID)) < 0.8).astype(np.int32)
    store = study.path("store").parent
    entries = []
    for k, subject in enumerate(ids):
        gain = np.exp(0.7 * traits[k, side_of(mask_index)])
        frames = rng.standard_normal((FRAMES, len(mask_index))) * gain
        if subject == spoil:
            frames[:] = np.nan
        for run in range(2 if k == 0 else 1):  # one person has two runs
            name = f"{subject}_task-rest_run-{run + 1}"
            tensors = {
                "frames": (frames * (1 + run)).astype(np.float16),
                "mask_index": mask_index,
                "mean": np.zeros(len(mask_index), np.float32),
                "sd": np.ones(len(mask_index), np.float32),
            }
            metadata = {
                "name": name,
                "subject": subject,
                "session": "",
                "task": "rest",
                "run": str(run + 1),
                "frames": FRAMES,
                "voxels": len(mask_index),
                "tr": 2.0,
                "mean_fd": 0.1,
                "grid": list(GRID),
                "background": 0.0,
                "segments": [[0, FRAMES]],
            }
            save_run(store / "runs" / f"{name}.safetensors", tensors, metadata)
            entries.append(describe_run(store / "runs" / f"{name}.safetensors"))
    runs = [{key: entry[key] for key in LISTED} for entry in entries]
    save_manifest(store, {"options": OPTIONS, "runs": runs, "quarantine": []})

    split = Split(
        train=ids[:train],
        val=ids[train : train + val],
        test=ids[train + val :],
        groups={name: name for name in ids},
        seed=0,
        folds=[ids[k::3] for k in range(3)],
    )
    split.save(study.path("splits"))
    cells = [[name, f"{a:.6f}", f"{b:.6f}"] for name, (a, b) in zip(ids, traits, strict=True)]
    cells[1][1] = cells[2][2] = "n/a"  # two labels are missing
    for row, (a, b) in zip(cells, traits, strict=True):
        row += ["ill" if a > 0 else "well", ("low", "middle", "high")[int(np.digitize(b, [-0.4, 0.4]))]]
    lines = ["participant_id\ttrait_1\ttrait_2\tstatus\tlevel", *("\t".join(row) for row in cells)]
    study.path("participants").parent.mkdir(parents=True, exist_ok=True)
    study.path("participants").write_text("\n".join(lines) + "\n", encoding="utf-8")
    settings = study.folder / "configs" / "pretrain_brainmt.yaml"
    settings.parent.mkdir(parents=True, exist_ok=True)
    settings.write_text(SETTINGS, encoding="utf-8")
    return study


def side_of(mask_index: np.ndarray) -> np.ndarray:
    """0 for the left half of the grid, 1 for the right: each trait drives one half."""
    return (np.unravel_index(mask_index, GRID)[0] > GRID[0] // 2).astype(int)
