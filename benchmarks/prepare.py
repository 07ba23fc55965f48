"""Preparation of 1,000 small scans: scans per second and core, and whether memory stays where it was.

python benchmarks/prepare.py        (a minute or two; 1 GB of temporary files)

The scans are synthetic, 20 x 24 x 20 voxels of 8 mm and 100 frames of int16. `scripts/prepare_fmri.py` runs as a user runs
it, with two worker processes. Its memory is that of all its processes together (proportional set size), sampled while it
works. Goal: the peak by scan 1,000 is at most 1.1 times the peak by scan 100.
"""

import gzip
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil

ROOT = Path(__file__).resolve().parents[1]
SCANS, EARLY, WORKERS = 1000, 100, 2
GRID, FRAMES = (20, 24, 20), 100
DIFFERENT = 20  # contents; the scans are told apart by the time stamp in their gzip header
GOAL = 1.1
EVERY = 0.05  # s between samples
MB = 1e6


def write_scans(root: Path) -> None:
    """Write the scans as an fMRIPrep-like tree."""
    rng = np.random.default_rng(0)
    axes = np.meshgrid(*[np.linspace(-1.1, 1.1, n) for n in GRID], indexing="ij")
    brain = (sum(a**2 for a in axes) <= 1)[..., None]
    affine = np.diag([8.0, 8.0, 8.0, 1.0])
    affine[:3, 3] = [-76, -110, -70]
    packed = []
    for _ in range(DIFFERENT):
        anatomy = rng.normal(8000, 1500, (*GRID, 1))
        data = np.where(brain, anatomy * (1 + 0.015 * rng.standard_normal((*GRID, FRAMES))), 0)
        image = nib.Nifti1Image(data.astype(np.int16), affine)
        image.header.set_xyzt_units("mm", "sec")
        image.header.set_zooms((8.0, 8.0, 8.0, 2.0))
        image.set_sform(affine, code=4)
        packed.append(gzip.compress(image.to_bytes(), 1, mtime=0))
    for k in range(SCANS):
        folder = root / f"sub-{k:04d}" / "func"
        folder.mkdir(parents=True)
        content = packed[k % DIFFERENT]
        stamp = (k + 1).to_bytes(4, "little")
        path = folder / f"sub-{k:04d}_task-rest_space-MNI152NLin6Asym_desc-preproc_bold.nii.gz"
        path.write_bytes(content[:4] + stamp + content[8:])


def memory(process: psutil.Process) -> int:
    """Bytes of a process and all below it; pages that they share are counted once."""
    total = 0
    for one in [process, *process.children(recursive=True)]:
        try:
            total += one.memory_full_info().pss
        except psutil.Error:  # it has just ended
            continue
    return total


def processor_seconds(process: psutil.Process) -> float:
    """Seconds of processor time of a process, all below it and those that have ended."""
    times = [one.cpu_times() for one in [process, *process.children(recursive=True)] if one.is_running()]
    return sum(t.user + t.system for t in times)


def main() -> int:
    """Print the figures and one summary line; 1 where the goal is missed."""
    with tempfile.TemporaryDirectory(prefix="neurohelix-prepare-") as name:
        study = Path(name)
        write_scans(study / "raw")
        command = [sys.executable, str(ROOT / "scripts/prepare_fmri.py"), "--study", name]
        begin = time.perf_counter()
        with subprocess.Popen(
            [*command, f"--num_workers={WORKERS}"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        ) as running:
            process, peaks, busy = psutil.Process(running.pid), {EARLY: 0, SCANS: 0}, 0.0
            while running.poll() is None:
                done = sum(1 for path in (study / "store/runs").glob("sub-*.safetensors"))
                try:
                    used = memory(process)
                    busy = max(busy, processor_seconds(process))
                except psutil.Error:
                    break
                for limit in peaks:
                    if done <= limit:
                        peaks[limit] = max(peaks[limit], used)
                time.sleep(EVERY)
            said = running.communicate()[1]
        seconds = time.perf_counter() - begin
        made = len(list((study / "store/runs").iterdir()))
        if running.returncode != 0 or made != SCANS:
            print(f"MISSED: prepare_fmri ended with {running.returncode} and {made} runs: {said[-2000:]}")
            return 1
    growth = peaks[SCANS] / peaks[EARLY]
    print(f"{SCANS} scans of {GRID} voxels and {FRAMES} frames, {WORKERS} workers")
    print(f"{'wall time':40}{seconds:10.1f} s")
    print(f"{'throughput':40}{SCANS / seconds:10.1f} scans/s")
    print(f"{'throughput per core':40}{SCANS / seconds / WORKERS:10.1f} scans/s")
    print(f"{'the same by processor time':40}{SCANS / busy:10.1f} scans/s")
    print(f"{f'peak memory by scan {EARLY}':40}{peaks[EARLY] / MB:10.1f} MB")
    print(f"{f'peak memory by scan {SCANS}':40}{peaks[SCANS] / MB:10.1f} MB")
    met = growth <= GOAL
    print(
        f"{'met' if met else 'MISSED'}: {SCANS / seconds / WORKERS:.1f} scans/s per core; peak memory at scan {SCANS} is "
        f"{growth:.3f}x that at scan {EARLY} (goal {GOAL}x)"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
