"""50,000 people x 512 numbers: training to convergence and the full evaluation, on two cores. Up to 15 minutes.

python benchmarks/align_scale.py        (--people=5000 for a try)

Brains and genomes share 12 latents (correlation 0.5 each) beside noise, and sex, site and ancestry as confounds; 70 %
are trained on, 15 % held out, every tenth person has a sibling. The stages are the product's own: join, both models
(raw and adjusted) with early stopping, and the evaluation with 1,000 permutations and 1,000 resamples in three
galleries, both directions, beside its rivals. Goal: 15 minutes, 8 GB.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from align.config import Align, Evaluate
from align.pairs import join
from encoders.cohort import Cohort, groups_of, make_split
from encoders.vectors import SubjectVectors

PEOPLE, WIDTH, LATENTS, SHARED = 50_000, 512, 12, 0.5
MINUTES_GOAL, GB_GOAL = 15, 8
CONFIG = Align(epochs=12, patience=2, eval_every=2)
TERMS = ["age", "age^2", "sex", "age:sex", "site", "mean_fd", "ancestry"]


def simulated(num: int, rng: np.random.Generator) -> tuple[dict[str, SubjectVectors], Cohort]:
    """Vectors and table of ``num`` people."""
    frame = pd.DataFrame(
        {
            "family_id": [f"f{k // 2}" if k < num // 10 else None for k in range(num)],
            "sex": rng.choice(["F", "M"], num),
            "site": rng.choice(["a", "b", "c"], num, p=[0.5, 0.3, 0.2]),
            "ancestry": rng.choice(["x", "y"], num, p=[0.85, 0.15]),
            "age": rng.normal(60, 8, num),
            "mean_fd": rng.gamma(4, 0.04, num),
        },
        index=pd.Index([f"p{k}" for k in range(num)], name="participant_id"),
    )
    common = np.sqrt(SHARED) * rng.standard_normal((num, LATENTS))
    nuisance = np.stack([(frame["sex"] == "F") - 0.5, (frame["ancestry"] == "y") - 0.15], axis=1).astype(
        float
    )
    vectors = {}
    for m in ("brain", "genetics"):
        sources = np.hstack([common + np.sqrt(1 - SHARED) * rng.standard_normal(common.shape), 2 * nuisance])
        values = sources @ rng.standard_normal((sources.shape[1], WIDTH)) / np.sqrt(LATENTS)
        values += rng.standard_normal((num, WIDTH))
        vectors[m] = SubjectVectors(ids=list(frame.index), values=values.astype(np.float32))
    return vectors, Cohort(frame=frame, path=Path("participants.tsv"))


def main() -> int:
    asked = [word.partition("=")[2] for word in sys.argv if word.startswith("--people=")]
    num = int(asked[0]) if asked else PEOPLE
    vectors, cohort = simulated(num, np.random.default_rng(0))
    split = make_split(
        cohort, groups_of(cohort), val_fraction=0.15, test_fraction=0.15, stratify=["site", "sex"], seed=0
    )
    start, rows = time.monotonic(), []

    def lap(what: str, since: float) -> float:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append((what, time.monotonic() - since, peak))
        print(f"  {what:<44} {rows[-1][1]:>7.0f} s   peak so far {peak:.1f} GB", flush=True)
        return time.monotonic()

    from align.evaluate import evaluate
    from align.further import similarities_of
    from align.run import align_study
    from encoders.runs.cpu import tune_cpu
    from encoders.runs.devices import accelerator

    tune_cpu()
    print(f"{num:,} people x {WIDTH}, {len(split.test):,} held out", flush=True)
    joined = join(vectors, split=split, cohort=cohort)
    at = lap("join", start)
    with tempfile.TemporaryDirectory() as folder:
        aligned = align_study(
            vectors,
            joined,
            cohort=cohort,
            split=split,
            config=CONFIG,
            folder=Path(folder),
            accelerator=accelerator(seed=0),
        )
    at = lap("training, raw and adjusted", at)
    pairs = joined.pair("brain", "genetics")
    row = {name: k for k, name in enumerate(split.fold_of)}
    similarities = similarities_of(
        aligned.vectors, [row[pairs.ids[k]] for k in pairs.rows("test")], "brain", "genetics"
    )
    content, _ = evaluate(pairs, similarities, confound_terms=TERMS, oracle=None, config=Evaluate())
    lap("evaluation, 1,000 permutations", at)
    minutes, peak = (time.monotonic() - start) / 60, rows[-1][2]
    auc = content["galleries"]["matched"]["brain_to_gene"]["auc2afc"]
    print(
        f"  matched 2AFC {auc['value']:.3f} [{auc['ci_low']:.3f}, {auc['ci_high']:.3f}], p = {auc['p_perm']:.3f}"
    )
    met = minutes <= MINUTES_GOAL and peak <= GB_GOAL
    print(
        f"summary: {num:,} people, {minutes:.1f} min of {MINUTES_GOAL}, {peak:.1f} GB of {GB_GOAL}: "
        f"{'met' if met else 'short of its goal'}"
    )
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
