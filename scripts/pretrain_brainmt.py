"""Train BrainMT on traits of the training people; resumes by itself after an interruption.

accelerate launch scripts/pretrain_brainmt.py --study my-study
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.brainmt.model_config import PretrainBrainMT
from encoders.runs import Stage, Study, command


@command
def main(config: PretrainBrainMT) -> int:
    study = Study(config.study)
    inputs = {
        "store": study.need("store", config.store),
        "splits": study.need("splits", config.splits),
        "participants": study.need("participants", config.participants),
    }
    best = study.path("brainmt")
    outputs = [best, study.run_folder("pretrain_brainmt") / "test_metrics.json"]
    stage = Stage(
        "pretrain_brainmt",
        config,
        study=study,
        inputs=inputs,
        outputs=outputs,
        ignore=("wandb", "preload"),
        redo=config.redo,
    )
    if stage.finished:
        return stage.report()
    stage.begin()

    from encoders.runs.cpu import tune_cpu

    tune_cpu()
    from encoders.brainmt.store import FMRIStore
    from encoders.brainmt.train import pick_precision, train
    from encoders.cohort import Cohort, Split
    from encoders.runs.devices import accelerator

    summary = train(
        config,
        store=FMRIStore(inputs["store"]),
        split=Split.load(inputs["splits"]),
        cohort=Cohort.load(inputs["participants"]),
        folder=stage.folder,
        best=best,
        accelerator=accelerator(seed=config.seed, mixed_precision=pick_precision(config.mixed_precision)),
    )
    return stage.end(**summary)


if __name__ == "__main__":
    sys.exit(main())
