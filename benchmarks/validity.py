"""Are the p-values what they say, and is a planted signal found? Simulated cohorts, many of them. Up to 30 minutes.

python benchmarks/validity.py            (--quick=true: a tenth of the cohorts, no goals)

1. False positives at a nominal 5 %: cohorts of 400 people with ancestry, sites, families and head motion that shape
   brains and genes alike, and no biology; every adjusted and matched p-value of two scorers (ridge CCA, and the trained
   projectors), both directions, and the p-values of the linear inference (CCA, PLS). Raw p-values in cohorts that share
   no confound. Goal: inside the binomial 99 % interval around 5 %.
2. Where only sex is shared: raw 2AFC 0.75 without biology, matched 0.5.
3. Power: how often a planted heritability is declared "matched p <= 0.05 in both directions".
4. Share of the oracle's matched excess that the projectors reach at 500, 2,000 and 8,000 people, beside ridge CCA; and
   where brains show the squares of what genes carry, which no linear model sees well.
"""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from joblib import Parallel, delayed
from scipy.stats import binom

from align.baselines import RidgeCCA, ridge_cca_similarity
from align.config import Align, ProjectorConfig
from align.evaluate import rooms
from align.galleries import everyone, matched
from align.linear_inference import linear_inference
from align.pairs import Joined, Pairs, join
from align.retrieval import DIRECTIONS, evaluate_gallery
from encoders.cohort import Cohort, ConfoundDesign, Residualizer, groups_of, make_split
from encoders.cohort.config import DEFAULT_TERMS
from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.cohort.synthetic.oracle import oracle_similarity
from encoders.cohort.synthetic.vectors import vector_cohort
from encoders.vectors import SubjectVectors

NULLS, PEOPLE, ALPHA, PERMUTATIONS = 500, 400, 0.05, 199
POWER_PEOPLE, POWER_REPEATS, HERITABILITIES = 500, 20, (0.01, 0.03, 0.1)
SIZES, SHARE_GOAL, SHARE_AT = (500, 2_000, 8_000), 0.8, 2_000
NO_WORSE = 0.01  # 2AFC: "at least equal to ridge CCA" where the truth is linear
SMALL = Align(  # trained in a second: for hundreds of cohorts
    projector=ProjectorConfig(output_dim=32, hidden_dim=64), epochs=4, batch_size=256, eval_every=4
)
LARGE = Align(
    projector=ProjectorConfig(input_noise=0.6), epochs=30, batch_size=1024, eval_every=10, kinds=["adjusted"]
)


def cohort_of(config: SyntheticCohort, *, squares: bool = False) -> tuple[Any, Cohort, Any, dict, Joined]:
    """A simulated cohort as vectors, its split, and its people joined."""
    made = vector_cohort(config)
    brain = made.brain
    if squares:
        rng = np.random.default_rng(config.seed + 1)
        z = (made.latents - made.latents.mean(axis=0)) / made.latents.std(axis=0)
        mix = rng.standard_normal((z.shape[1], 32)) / np.sqrt(z.shape[1])
        brain = ((z**2 - 1) @ mix + 0.3 * rng.standard_normal((len(z), 32))).astype(np.float32)
    cohort = Cohort(frame=made.frame, path=Path("participants.tsv"))
    groups = groups_of(cohort, made.related)
    split = make_split(cohort, groups, val_fraction=0.12, test_fraction=0.3, stratify=["site", "sex"], seed=0)
    vectors = {
        "brain": SubjectVectors(ids=made.ids, values=brain),
        "genetics": SubjectVectors(ids=made.ids, values=made.gene.astype(np.float32)),
    }
    return made, cohort, split, vectors, join(vectors, split=split, cohort=cohort, related=made.related)


def residuals(pairs: Pairs) -> list[np.ndarray]:
    """Both sides without what confounds explain, fitted on training people."""
    train, sides = pairs.rows("train"), []
    for values in (pairs.brain, pairs.genetics):
        cleaner = Residualizer(design=ConfoundDesign(terms=DEFAULT_TERMS))
        sides.append(cleaner.fit(values[train], pairs.frame.iloc[train]).transform(values, pairs.frame))
    return sides


def trained(
    config: Align, vectors: dict, joined: Joined, cohort: Cohort, split: Any
) -> dict[str, np.ndarray]:
    """Kind -> similarity of held-out people by the product's own training."""
    from align.run import align_study
    from encoders.runs.devices import accelerator

    pairs = joined.pair("brain", "genetics")
    with tempfile.TemporaryDirectory() as folder:
        aligned = align_study(
            vectors,
            joined,
            cohort=cohort,
            split=split,
            config=config,
            folder=Path(folder),
            accelerator=accelerator(seed=0),
        ).vectors
    row = {name: k for k, name in enumerate(split.fold_of)}
    test = [row[pairs.ids[k]] for k in pairs.rows("test")]
    return {
        kind: aligned[f"brain_{kind}"][test] @ aligned[f"genetics_{kind}"][test].T for kind in config.kinds
    }


def scored(similarity: np.ndarray, pairs: Pairs, gallery: str, seed: int) -> dict[str, dict[str, float]]:
    """2AFC of held-out people in one gallery, per direction."""
    train, test = pairs.rows("train"), pairs.rows("test")
    where = rooms(pairs.frame.iloc[test], pairs.frame.iloc[train], [pairs.groups[k] for k in test])
    result = evaluate_gallery(
        similarity,
        where.galleries[gallery],
        permute_within=where.permute_within[gallery],
        num_permutations=PERMUTATIONS,
        num_bootstraps=1,
        seed=seed,
        only_auc=True,
    )
    return {d: result[d]["auc2afc"] for d in DIRECTIONS if d in result}


def null_cohort(seed: int, arm: str) -> dict[str, float]:
    """Every p-value of one cohort without biology."""
    quiet()
    config = SyntheticCohort(arm=arm, people=PEOPLE, seed=seed, sibling_fraction=0.3)
    _, cohort, split, vectors, joined = cohort_of(config)
    pairs = joined.pair("brain", "genetics")
    train, test = pairs.rows("train"), pairs.rows("test")
    clean = residuals(pairs)
    cca = {
        kind: RidgeCCA(ridge=0.1).fit(a[train], b[train]).similarity(a[test], b[test])
        for kind, (a, b) in {"raw": (pairs.brain, pairs.genetics), "adjusted": clean}.items()
    }
    ours = trained(SMALL, vectors, joined, cohort, split)
    found: dict[str, float] = {}
    for name, similarity in (("ridge CCA", cca), ("projectors", ours)):
        for gallery in ("adjusted", "matched") + (("raw",) if arm == "null" else ()):
            for d, auc in scored(
                similarity["raw" if gallery == "raw" else "adjusted"], pairs, gallery, seed
            ).items():
                found[f"{name}, {gallery}, {d}"] = auc["p_perm"]
    if arm == "confounded":
        linear = linear_inference(pairs, list(DEFAULT_TERMS), permutations=PERMUTATIONS, seed=seed)
        found |= {f"{m.upper()}, first mode": linear[m]["p"][0] for m in ("cca", "pls") if m in linear}
    return found


def power_cohort(seed: int, heritability: float) -> bool:
    """Whether a planted signal is declared, by the rule of the verdict."""
    quiet()
    config = SyntheticCohort(arm="signal", people=POWER_PEOPLE, seed=seed, heritability=heritability)
    *_, joined = cohort_of(config)
    pairs = joined.pair("brain", "genetics")
    sides = residuals(pairs)
    folds = {name: pairs.rows(name) for name in ("train", "val", "test")}
    validation = everyone([pairs.groups[k] for k in folds["val"]])
    similarity = ridge_cca_similarity(*sides, **folds, gallery=validation)
    return all(auc["p_perm"] <= ALPHA for auc in scored(similarity, pairs, "matched", seed).values())


def sex_only(seed: int = 0, num: int = 1_000) -> tuple[float, float]:
    """2AFC, raw and matched, of people whose brains and genes share nothing but sex."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame({"sex": rng.choice(["F", "M"], num)}, index=[f"p{k}" for k in range(num)])
    sign = np.where(frame["sex"] == "F", 1.0, -1.0)[:, None]
    brain, gene = (np.hstack([20 * sign, rng.standard_normal((num, 4))]) for _ in range(2))
    found = []
    for gallery in (everyone(list(frame.index)), matched(frame, frame, list(frame.index))):
        result = evaluate_gallery(
            brain @ gene.T,
            gallery,
            permute_within=gallery.strata,
            num_permutations=1,
            num_bootstraps=1,
            seed=0,
        )
        found.append(float(np.mean([result[d]["auc2afc"]["value"] for d in DIRECTIONS])))
    return found[0], found[1]


def oracle_share(people: int, *, squares: bool = False) -> dict[str, float]:
    """Matched 2AFC of the projectors, ridge CCA and the oracle at one cohort size."""
    made, cohort, split, vectors, joined = cohort_of(
        SyntheticCohort(arm="signal", people=people, seed=0), squares=squares
    )
    pairs = joined.pair("brain", "genetics")
    folds = {name: pairs.rows(name) for name in ("train", "val", "test")}
    validation = everyone([pairs.groups[k] for k in folds["val"]])
    similarities = {
        "projectors": trained(LARGE, vectors, joined, cohort, split)["adjusted"],
        "ridge CCA": ridge_cca_similarity(*residuals(pairs), **folds, gallery=validation),
    }
    if not squares:
        ids = {name: [pairs.ids[k] for k in rows] for name, rows in folds.items()}
        similarities["oracle"] = oracle_similarity(made.truth, ids["train"], ids["test"])
    return {
        name: float(np.mean([auc["value"] for auc in scored(s, pairs, "matched", 0).values()]))
        for name, s in similarities.items()
    }


def quiet() -> None:
    """Hundreds of small trainings need no progress bars; one core each."""
    import torch

    torch.set_num_threads(1)
    for stream in ("stdout", "stderr"):
        setattr(sys, stream, open(os.devnull, "w"))  # noqa: SIM115 (for the life of the worker)


def main() -> int:
    fast = "--quick=true" in sys.argv
    nulls, repeats = (NULLS // 10, 3) if fast else (NULLS, POWER_REPEATS)
    start, failures = time.monotonic(), []

    def check(goal: bool, what: str) -> str:
        if not goal:
            failures.append(what)
        return "" if goal else "  <- short of its goal"

    low, high = (int(v) for v in binom.interval(0.99, nulls, ALPHA))
    print(
        f"1. Rejections at 5 % in {nulls} cohorts of {PEOPLE} people without biology; 99 % interval {low / nulls:.1%} to {high / nulls:.1%}"
    )
    with Parallel(n_jobs=2, return_as="generator_unordered") as pool:
        for arm, title in (
            ("confounded", "confounds, families and sites shared"),
            ("null", "no confound shared"),
        ):
            ps: dict[str, list[float]] = {}
            for number, found in enumerate(pool(delayed(null_cohort)(seed, arm) for seed in range(nulls)), 1):
                for name, p in found.items():
                    ps.setdefault(name, []).append(p)
                if number % 50 == 0:
                    print(
                        f"   {arm}: {number} of {nulls}, {time.monotonic() - start:.0f} s",
                        file=sys.stderr,
                        flush=True,
                    )
            print(f"   {title}")
            for name, values in ps.items():
                rejected = int(np.sum(np.array(values) <= ALPHA))
                a, b = (int(v) for v in binom.interval(0.99, len(values), ALPHA))
                print(
                    f"     {name:<36} {rejected / len(values):>6.1%}{check(a <= rejected <= b, name)}",
                    flush=True,
                )
        raw, strict = sex_only()
        told = check(abs(raw - 0.75) < 0.02 and abs(strict - 0.5) < 0.02, "sex alone")
        print(f"2. Sex alone, 1,000 people: raw 2AFC {raw:.3f}, matched {strict:.3f}{told}")
        print(f"3. Power of the matched test, {POWER_PEOPLE} people (150 held out), {repeats} cohorts each")
        for heritability in HERITABILITIES:
            declared = list(pool(delayed(power_cohort)(seed, heritability) for seed in range(repeats)))
            print(f"     heritability {heritability:.1f}: declared in {np.mean(declared):.0%}", flush=True)
    print("4. Matched 2AFC of held-out people")
    share_at = float("nan")
    for people in SIZES[:2] if fast else SIZES:
        found = oracle_share(people)
        share = (found["projectors"] - 0.5) / (found["oracle"] - 0.5)
        share_at = share if people == SHARE_AT else share_at
        told = check(people < SHARE_AT or share >= SHARE_GOAL, f"share of the oracle at {people}")
        told += check(
            people < SHARE_AT or found["projectors"] >= found["ridge CCA"] - NO_WORSE,
            f"ridge CCA at {people}",
        )
        print(
            f"     linear truth, {people:>5} people: projectors {found['projectors']:.3f}, ridge CCA "
            f"{found['ridge CCA']:.3f}, oracle {found['oracle']:.3f}: {share:.0%} of its excess{told}",
            flush=True,
        )
    found = oracle_share(SHARE_AT, squares=True)
    told = check(found["projectors"] > found["ridge CCA"], "squares")
    print(
        f"     squares,      {SHARE_AT:>5} people: projectors {found['projectors']:.3f}, ridge CCA {found['ridge CCA']:.3f}{told}"
    )
    verdict = "all goals met" if not failures else f"short of: {', '.join(failures)}"
    print(
        f"summary: {nulls} null cohorts, share of the oracle at {SHARE_AT} people {share_at:.0%}, "
        f"{(time.monotonic() - start) / 60:.0f} min; {verdict}"
    )
    return 0 if fast or not failures else 1


if __name__ == "__main__":
    sys.exit(main())
