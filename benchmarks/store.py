"""One window of a run out of the store, beside the original layout: bytes, time and memory.

python benchmarks/store.py        (2 minutes; 1.3 GB of temporary files)

The original keeps one float16 tensor [X, Y, Z, T] per person, which torch.load reads whole for each window. The subject
is synthetic: 490 frames, 91 x 109 x 91 voxels, 235,818 of them in the mask, a 1.5 % signal over time; the window has 200
frames. Each row is measured in processes of its own, in turn with the others; the fastest call counts, with the files in
the page cache. Dense rows end as float16 [200, 1, Y, X, Z], as the original does; masked ones as stored, for a device that
spreads them itself.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil

GRID, FRAMES, VOXELS, WINDOW, START = (91, 109, 91), 490, 235_818, 200, 145
ROUNDS, CALLS = 4, 4  # processes per row, calls in each
MIB = 2**20
ORIGINAL = "original"
# row -> what it is
ROWS = {
    ORIGINAL: "original: torch.load, slice, permute",
    "float16 dense": "store float16, dense",
    "float16 masked": "store float16, masked",
    "int8 dense": "store int8, dense",
    "int8 masked": "store int8, masked",
}
# what, row, goal: times better than the original
GOALS = [
    ("bytes", "float16 dense", 3.7),
    ("bytes", "int8 dense", 7.0),
    ("time", "float16 dense", 10.0),
    ("time", "float16 masked", 30.0),
    ("memory", "float16 dense", 2.5),
    ("memory", "float16 masked", 6.0),
]


def write(folder: Path) -> dict[str, int]:
    """Write the subject in all three forms; returns the bytes of each."""
    import torch

    from encoders.brainmt.preparation.series import normalise
    from encoders.brainmt.quantise import HOLDERS
    from encoders.brainmt.store import describe_run, save_manifest, save_run

    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1, 1, n) for n in GRID], indexing="ij")
    mask_index = np.sort(np.argsort(sum(a**2 for a in axes).ravel(), kind="stable")[:VOXELS]).astype(np.int32)
    anatomy = rng.normal(10_000, 2_500, VOXELS).astype(np.float32)
    values = anatomy * (1 + 0.015 * rng.standard_normal((FRAMES, VOXELS), dtype=np.float32))
    sizes = {}
    for dtype in ("float16", "int8"):
        held = HOLDERS[dtype](values.shape)
        frames, mean, sd, moments = normalise(values, "global", into=held)
        metadata = {"name": "one", "subject": "one", "session": "", "task": "", "run": "", "grid": list(GRID)}
        metadata |= {
            "frames": FRAMES,
            "voxels": VOXELS,
            "tr": 0.735,
            "mean_fd": None,
            "segments": [[0, FRAMES]],
        }
        path = folder / dtype / "runs/one.safetensors"
        tensors = {"frames": frames, "mask_index": mask_index, "mean": mean, "sd": sd} | held.scaling
        save_run(path, tensors, metadata | moments | held.record)
        save_manifest(folder / dtype, {"options": {}, "runs": [describe_run(path)], "quarantine": []})
        sizes[dtype] = path.stat().st_size
        if dtype == "float16":
            dense = np.full((int(np.prod(GRID)), FRAMES), moments["background"], np.float16)
            dense[mask_index] = frames.T
            torch.save(torch.from_numpy(dense.reshape(*GRID, FRAMES)), folder / "original.pt")
            sizes[ORIGINAL] = (folder / "original.pt").stat().st_size
    return sizes


def loader(row: str, folder: Path) -> Callable[[], object]:
    """The function that loads the window."""
    import torch

    from encoders.brainmt.store import FMRIStore
    from encoders.brainmt.windows import FMRIWindows

    def original() -> torch.Tensor:
        whole = torch.load(folder / "original.pt", weights_only=True)
        return whole[..., START : START + WINDOW].permute(3, 1, 0, 2)[:, None].contiguous()

    if row == ORIGINAL:
        return original
    dtype, form = row.split()
    windows = FMRIWindows(FMRIStore(folder / dtype), frames=WINDOW)
    assert windows.start_of(0) == START
    if form == "masked":
        return lambda: windows.store.stored(windows.runs[0], START, WINDOW)
    return lambda: windows.batch([0], dtype=torch.float16)


def measure(row: str, folder: Path) -> None:
    """Print the seconds of each call and the memory that the first one took on top, MB."""
    load = loader(row, folder)
    process = psutil.Process()
    before = process.memory_info().rss
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    seconds = []
    for call in range(CALLS):
        begin = time.perf_counter()
        kept = load()
        seconds.append(time.perf_counter() - begin)
        if call == 0:
            status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
            peak = int(status["VmHWM"].split()[0]) * 1024 - before
        del kept
    print(json.dumps({"seconds": min(seconds), "peak": peak}))


def main() -> int:
    """Print a table and one summary line; 1 where a goal is missed."""
    with tempfile.TemporaryDirectory(prefix="neurohelix-store-") as name:
        folder = Path(name)
        sizes = write(folder)
        found: dict[str, list[dict[str, float]]] = {row: [] for row in ROWS}
        for _ in range(ROUNDS):
            for row in ROWS:
                command = [sys.executable, __file__, "--measure", row, name]
                ended = subprocess.run(command, check=True, capture_output=True, text=True)
                found[row].append(json.loads(ended.stdout))
    figures = {
        row: {
            "bytes": sizes[row.split()[0]],
            "time": min(one["seconds"] for one in found[row]),
            "memory": min(one["peak"] for one in found[row]),
        }
        for row in ROWS
    }
    base = figures[ORIGINAL]
    print(f"{'one window of 200 of 490 frames':40}{'file MB':>9}{'':>8}{'ms':>9}{'':>8}{'peak MB':>9}")
    for row, title in ROWS.items():
        one = figures[row]
        gains = {what: f"{base[what] / one[what]:.1f}x" for what in one}
        print(
            f"{title:40}{one['bytes'] / 1e6:9.1f}{gains['bytes']:>8}{1e3 * one['time']:9.1f}{gains['time']:>8}"
            f"{one['memory'] / 1e6:9.0f}{gains['memory']:>8}"
        )
    missed = []
    for what, row, goal in GOALS:
        gain = base[what] / figures[row][what]
        if gain < goal:
            missed.append(f"{what} of {row}: {gain:.1f}x (goal {goal:g}x)")
    if missed:
        print(f"MISSED: {'; '.join(missed)}")
        return 1
    print(
        "met: "
        + ", ".join(
            f"{what} of {row} {base[what] / figures[row][what]:.1f}x (goal {goal:g}x)"
            for what, row, goal in GOALS
        )
    )
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        measure(sys.argv[2], Path(sys.argv[3]))
    else:
        sys.exit(main())
