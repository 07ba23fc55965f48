"""Take polygenic scores from a table as genome vectors, scaled by the training people.

python scripts/embed_scores.py --study my-study --scores my-scores.sscore --control my-study-scores
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.genetics.score_config import VECTORS, EmbedScores
from encoders.runs import Stage, Study, command
from encoders.runs.control_study import offer_control_study


@command
def main(config: EmbedScores) -> int:
    study = Study(config.study)
    given = config.scores if isinstance(config.scores, list) else [config.scores]
    tables = [study.need("table of scores", path) for path in given]
    inputs = {name: study.need(name, getattr(config, name)) for name in ("participants", "splits")}
    told = {} if config.trained_on in ("nobody", "unknown") else {"trained_on": Path(config.trained_on)}
    told = {name: study.need(name, path) for name, path in told.items()}
    target, unused = study.folder / VECTORS, study.private / "score_people.tsv"
    stage = Stage(
        "embed_scores",
        config,
        study=study,
        inputs=inputs | told | {f"scores {k}": path for k, path in enumerate(tables, 1)},
        outputs=[target],
        ignore=("control",),
        redo=config.redo,
    )
    if not stage.is_main:
        return 0  # one process does it all
    if stage.finished:
        stage.report()
        return offer_control_study(study, target, config.control, replaced="genetics")

    from encoders.genetics.polygenic import polygenic_vectors, save_scores

    scores = polygenic_vectors(config, inputs, tables)  # before anything is written: a fault leaves no trace
    stage.begin()
    stage.end(**save_scores(scores, config, vectors=target, unused=unused))
    return offer_control_study(study, target, config.control, replaced="genetics")


if __name__ == "__main__":
    sys.exit(main())
