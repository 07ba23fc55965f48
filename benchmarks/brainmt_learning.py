"""What BrainMT learns from scans of known truth, beside an oracle, confounds alone and permuted labels.

python benchmarks/brainmt_learning.py        (half an hour on two busy cores; continues where it was stopped)

520 synthetic people, 161 of them held out, scans of 18 x 22 x 18 voxels and 96 frames; BrainMT at the demo's width,
trained on the six traits as numbers, on the same traits as two classes each, and on permuted traits. The oracle reads
the same scans through the true network maps, by ridge or logistic regression on the same training people.
"""

import os
import shutil
import subprocess
import sys
import time
from typing import Any

import numpy as np

from encoders.cohort import Cohort, Split
from encoders.cohort.synthetic.oracle import ALPHAS, reader_features
from encoders.cohort.synthetic.truth import load_truth
from encoders.runs import Study, load_json
from encoders.runs.study import DEMO_SETTINGS, REPOSITORY

FOLDER = REPOSITORY / "studies" / "benchmark_brainmt"
EPOCHS = 24
SHARE = 0.6  # of the oracle's R2, or of its AUROC above 0.5
SHARED = ("raw", "store", "splits", "configs")


def run(script: str, study: Study, *options: str) -> None:
    """One stage as a user would run it; what is done already takes a second."""
    command = [
        sys.executable,
        str(REPOSITORY / "scripts" / f"{script}.py"),
        f"--study={study.folder}",
        *options,
    ]
    print("$ " + " ".join(["python", f"scripts/{script}.py", *command[2:]]), flush=True)
    subprocess.run(command, check=True, env=os.environ | {"PYTHONUNBUFFERED": "1"}, stdout=subprocess.DEVNULL)


def branch(base: Study, name: str, table: str) -> Study:
    """A study of its own on the same scans and the same split, with another table of people."""
    study = Study(base.folder / name)
    study.folder.mkdir(exist_ok=True)
    for part in SHARED:
        link = study.folder / part
        if not link.exists():
            link.symlink_to(base.folder / part)
    (study.folder / "participants.tsv").write_text(table, encoding="utf-8")
    return study


def tables(base: Study) -> dict[str, str]:
    """The participants table with traits as they are, as classes, and permuted over all people."""
    frame = Cohort.load(base.path("participants")).frame
    traits = [name for name in frame.columns if name.startswith("trait_")]
    classes, permuted = frame.copy(), frame.copy()
    classes[traits] = np.where(frame[traits] > frame[traits].median(), "high", "low")
    order = np.random.default_rng(0).permutation(len(frame))
    permuted[traits] = frame[traits].to_numpy()[order]
    frames = {"numbers": frame, "classes": classes, "permuted": permuted}
    return {name: table.to_csv(sep="\t", na_rep="n/a") for name, table in frames.items()}


def oracle(base: Study, study: Study, *, classes: bool) -> dict[str, float]:
    """Target -> R2, or AUROC, of the reader who knows the maps, on the held-out people."""
    from sklearn.linear_model import LogisticRegressionCV, RidgeCV
    from sklearn.metrics import r2_score, roc_auc_score

    truth, split = load_truth(base.path("truth")), Split.load(base.path("splits"))
    frame = Cohort.load(study.folder / "participants.tsv").frame
    train, test = (reader_features(truth, ids, train_ids=split.train) for ids in (split.train, split.test))
    scores = {}
    for name in (column for column in frame.columns if column.startswith("trait_")):
        known, wanted = frame.loc[split.train, name], frame.loc[split.test, name]
        if classes:
            reader = LogisticRegressionCV(Cs=10, cv=5, max_iter=1000).fit(train, known == "low")
            scores[name] = float(roc_auc_score(wanted == "low", reader.predict_proba(test)[:, 1]))
        else:
            scores[name] = float(r2_score(wanted, RidgeCV(ALPHAS).fit(train, known).predict(test)))
    return scores


def held_out(study: Study) -> dict[str, Any]:
    """Target -> scores of all models and paired differences, from predict_brainmt."""
    path = study.run_folder("predict_brainmt") / "metrics.json"
    return load_json(path, "neurohelix.brainmt_predictions", 1)["targets"]


def column(targets: dict[str, Any], model: str, metric: str) -> list[float]:
    """One metric of one model over the targets."""
    return [target["models"][model][f"test_{metric}"]["value"] for target in targets.values()]


def main() -> int:
    """Print a table per task, the goals and one summary line; 1 where a goal is missed."""
    start, base = time.monotonic(), Study(FOLDER)
    if not (base.folder / "configs").exists():
        shutil.copytree(DEMO_SETTINGS, base.folder / "configs")
    for stage in ("make_cohort", "prepare_fmri", "make_splits"):
        run(stage, base)
    goals: list[tuple[str, bool]] = []
    for name, table in tables(base).items():
        study = branch(base, name, table)
        people = f"--participants={study.folder / 'participants.tsv'}"
        task = ["--task=classification"] if name == "classes" else []
        run("pretrain_brainmt", study, people, f"--epochs={EPOCHS}", *task)
        run("predict_brainmt", study, people)
        goals += judge(name, held_out(study), oracle(base, study, classes=name == "classes"))
    print()
    for words, met in goals:
        print(f"{'met' if met else 'MISSED'}: {words}")
    missed = sum(not met for _, met in goals)
    print(
        f"{'MISSED' if missed else 'met'}: {len(goals) - missed} of {len(goals)} goals, "
        f"{time.monotonic() - start:.0f} s, {FOLDER}"
    )
    return 1 if missed else 0


def judge(name: str, targets: dict[str, Any], read: dict[str, float]) -> list[tuple[str, bool]]:
    """Print the table of one task; returns its goals and whether they are met."""
    metric, floor = ("auroc", 0.5) if name == "classes" else ("r2", 0.0)
    models = list(next(iter(targets.values()))["models"])
    print(f"\n{name}: held-out {metric}")
    print(f"{'target':12}{'oracle':>10}" + "".join(f"{model:>24}" for model in models))
    for k, target in enumerate(targets):
        cells = "".join(f"{column(targets, model, metric)[k]:24.3f}" for model in models)
        print(f"{target:12}{read[target]:10.3f}" + cells)
    ours, best = np.mean(column(targets, "brainmt", metric)), np.mean(list(read.values()))
    means = "".join(f"{np.mean(column(targets, model, metric)):24.3f}" for model in models)
    print(f"{'mean':12}{best:10.3f}{means}", flush=True)
    if name == "permuted":
        r = np.nan_to_num(column(targets, "brainmt", "r"))
        people = min(target["models"]["brainmt"]["test_r"]["n"] for target in targets.values())
        limit = 2 / np.sqrt(people * len(r))
        return [
            (
                f"permuted labels: mean r {np.mean(r):.3f} (chance: within {limit:.3f})",
                abs(np.mean(r)) < limit,
            )
        ]
    share = (ours - floor) / (best - floor)
    above = sum(target["brainmt_minus"]["confounds"]["ci_low"] > 0 for target in targets.values())
    beaten = f"{name}: better than confounds alone, interval above 0, for {above} of {len(targets)} targets"
    return [
        (f"{name}: {share:.0%} of the oracle's {metric} above {floor} (goal {SHARE:.0%})", share >= SHARE),
        (f"{beaten} (goal: more than half)", above > len(targets) / 2),
    ]


if __name__ == "__main__":
    sys.exit(main())
