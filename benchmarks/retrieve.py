"""Cold start of retrieval on the demo's study, beside a Python that only imports torch. Goal: under 1.5 s.

python benchmarks/retrieve.py        (after `make demo`)
"""

import statistics
import subprocess
import sys
import time
from pathlib import Path

from encoders.cohort.splits import Split
from encoders.runs import Study

ROOT = Path(__file__).resolve().parents[1]
GOAL = 1.5  # seconds, median
REPEATS = 5


def seconds(*command: str) -> list[float]:
    """Wall time of each of REPEATS runs of a command."""
    taken = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, capture_output=True)
        taken.append(time.perf_counter() - start)
    return taken


def main() -> int:
    """Print a table and one summary line; 1 where the goal is missed."""
    person = Split.load(Study().need("splits")).test[0]
    rows = {
        "retrieve.py --subject": seconds(str(ROOT / "scripts" / "retrieve.py"), f"--subject={person}"),
        "python -c 'import torch'": seconds("-c", "import torch"),
    }
    print(f"{'command':28}{'median s':>10}{'slowest s':>11}")
    for name, taken in rows.items():
        print(f"{name:28}{statistics.median(taken):10.2f}{max(taken):11.2f}")
    ours, torch = (statistics.median(taken) for taken in rows.values())
    met = ours < GOAL
    print(
        f"{'met' if met else 'MISSED'}: retrieval {ours:.2f} s (goal {GOAL} s), {torch / ours:.1f}x less than importing torch"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
