"""Options of `scripts/sweep.py`."""

from dataclasses import dataclass
from pathlib import Path

from encoders.runs.study import DEMO


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Run a sweep file without a server: draw or enumerate, run one after another, and write a table of results.

    Args:
        file: Sweep file as W&B reads it, e.g. configs/sweeps/align_grid.yaml.
        study: Study folder.
        runs: Number of runs; 0 for a whole grid. A Bayesian sweep is drawn at random.
        seed: Seed of the draws.
        shard: "i/n": only each n-th run, for job arrays; the table of any job shows all runs that are there.
    """

    file: Path
    study: Path = DEMO
    runs: int = 0
    seed: int = 0
    shard: str = ""
