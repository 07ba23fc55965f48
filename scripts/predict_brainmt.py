"""Predict with a trained BrainMT, score it on people it has not seen, and compare it with simple models.

accelerate launch scripts/predict_brainmt.py --study my-study
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.brainmt.prediction.config import PredictBrainMT
from encoders.brainmt.training.config import best_model
from encoders.runs import InputError, Stage, Study, command

if TYPE_CHECKING:
    from encoders.cohort import Split

METRICS, TABLE, PAGE = "metrics.json", "brainmt_predictions.tsv", "brainmt.html"


@command
def main(config: PredictBrainMT) -> int:
    study = Study(config.study)
    inputs = {name: study.need(name, getattr(config, name)) for name in ("store", "splits", "participants")}
    if config.atlas is not None:
        inputs["atlas"] = study.need("atlas", config.atlas)

    from encoders.cohort import Split

    split = Split.load(inputs["splits"])
    sources = models(config, study, split)
    for fold, source in sources.items():
        if (weights := Path(source).expanduser() / "model.safetensors").is_file():
            inputs["model" if fold is None else f"model_of_fold_{fold}"] = weights
    folder = study.run_folder("predict_brainmt")
    table, page = study.private / TABLE, study.folder / "reports" / PAGE
    stage = Stage(
        "predict_brainmt",
        config,
        study=study,
        inputs=inputs,
        outputs=[folder / METRICS, table, page],
        ignore=("batch_size",),
        redo=config.redo,
    )
    if stage.finished:
        return stage.report()
    stage.begin()

    from encoders.runs.cpu import tune_cpu

    tune_cpu()
    from encoders.brainmt.prediction.predict import Trained, predict
    from encoders.brainmt.store import FMRIStore
    from encoders.brainmt.training.loop import pick_precision
    from encoders.cohort import Cohort
    from encoders.runs.devices import accelerator

    found = predict(
        config,
        [
            Trained(source=source, fold=fold, split=split if fold is None else split.held_out(fold))
            for fold, source in sources.items()
        ],
        store=FMRIStore(inputs["store"]),
        cohort=Cohort.load(inputs["participants"]),
        accelerator=accelerator(seed=config.seed, mixed_precision=pick_precision(config.mixed_precision)),
    )
    if found is None:  # another process writes
        return 0

    from align.plots import as_png, as_svg
    from align.report import TEMPLATES, write_report
    from encoders.brainmt.prediction.page import private_figures, render, shared_figures
    from encoders.brainmt.prediction.scores import FORMAT, KIND, report, summary
    from encoders.brainmt.prediction.table import write_figures, write_table
    from encoders.runs import save_json

    content = report(found, config)
    figures = shared_figures(found, content, as_svg)
    text = render(content, figures, style=(TEMPLATES / "style.html").read_text(encoding="utf-8"))
    write_table(table, found)
    write_figures(folder / "private", private_figures(found, as_png), private=True)
    write_figures(folder / "figures", figures)
    write_report(page, text, people={*found.ids, *split.groups})
    save_json(folder / METRICS, KIND, FORMAT, content)
    return stage.end(**summary(content))


def models(config: PredictBrainMT, study: Study, split: "Split") -> dict[int | None, Path | str]:
    """Fold -> the model that held it out; None -> the model of the hold-out split."""
    if config.model:
        return {config.fold: config.model}
    if config.fold is None:
        return {None: study.need("brainmt")}
    folds = range(len(split.folds)) if config.fold == "all" else [config.fold]
    if not folds:
        raise InputError(
            "fold is `all`, but the split file has no folds; make it anew with scripts/make_splits.py --num_folds=5 "
            "--redo=true"
        )
    found = {fold: best_model(study, fold) for fold in folds}
    if missing := [fold for fold, path in found.items() if not path.exists()]:
        raise InputError(
            f"{found[missing[0]]} does not exist; make it with: accelerate launch scripts/pretrain_brainmt.py --study "
            f"{study.folder} --fold={missing[0]}"
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
