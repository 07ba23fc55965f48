"""Train BrainMT on columns of the participants table; the same command continues an interrupted run.

accelerate launch scripts/pretrain_brainmt.py --study my-study
"""

import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.brainmt.training.config import PretrainBrainMT, best_model, stage_name
from encoders.runs import InputError, Stage, Study, command

TEST_METRICS = "test_metrics.json"


@command
def main(config: PretrainBrainMT) -> int:
    study = Study(config.study)
    inputs = {
        "store": study.need("store", config.store),
        "splits": study.need("splits", config.splits),
        "participants": study.need("participants", config.participants),
    }
    if (weights := Path(config.weights).expanduser() / "model.safetensors").is_file():
        inputs["weights"] = weights
    if config.fold != "all":
        return train_one(config, study, inputs)

    from encoders.cohort import Split

    folds = len(Split.load(inputs["splits"]).folds)
    if not folds:
        raise InputError(
            f"--fold=all was asked for, but {inputs['splits']} has no folds; make it anew with "
            f"scripts/make_splits.py --num_folds=5 --redo=true"
        )
    for fold in range(folds):
        train_one(replace(config, fold=fold), study, inputs)
    print_folds(study, folds, config.name)
    return 0


def train_one(config: PretrainBrainMT, study: Study, inputs: dict[str, Path]) -> int:
    """Train on the hold-out split, or with one fold held out."""
    best = best_model(study, config.fold, config.name)
    stage = Stage(
        stage_name(config.fold, config.name),
        config,
        study=study,
        inputs=inputs,
        outputs=[best, best.with_name(TEST_METRICS)],
        ignore=("wandb", "preload", "log_every", "save_minutes", "resume"),
        redo=config.redo,
    )
    if stage.finished:
        return stage.report()
    stage.begin()

    from encoders.runs.cpu import tune_cpu

    tune_cpu()
    from encoders.brainmt.store import FMRIStore
    from encoders.brainmt.training.loop import pick_precision, train
    from encoders.cohort import Cohort, Split
    from encoders.runs.devices import accelerator

    split = Split.load(inputs["splits"])
    summary = train(
        config,
        store=FMRIStore(inputs["store"]),
        split=split if config.fold is None else split.held_out(config.fold),
        cohort=Cohort.load(inputs["participants"]),
        folder=stage.folder,
        best=best,
        accelerator=accelerator(seed=config.seed, mixed_precision=pick_precision(config.mixed_precision)),
    )
    return stage.end(**summary)


def print_folds(study: Study, folds: int, name: str) -> None:
    """Mean and standard deviation of the test metrics over the folds."""
    import os
    import statistics

    from encoders.brainmt.training.loop import TEST_FORMAT, TEST_KIND
    from encoders.runs import load_json

    if int(os.environ.get("RANK", "0")) != 0:
        return
    each = [
        load_json(best_model(study, fold, name).with_name(TEST_METRICS), TEST_KIND, TEST_FORMAT)["mean"]
        for fold in range(folds)
    ]
    print(f"held out, mean and standard deviation over {folds} folds:")
    for metric in each[0]:
        values = [scores[metric] for scores in each if metric in scores]
        print(f"  {metric}: {statistics.mean(values):.3f} ({statistics.stdev(values):.3f})")


if __name__ == "__main__":
    sys.exit(main())
