"""Export everyone's time-averaged image as a modality of its own: what alignment reaches without dynamics.

python scripts/export_static.py --study my-study --block_mm 8 --control my-study-static
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.brainmt.static_config import VECTORS, ExportStatic
from encoders.runs import Stage, Study, command
from encoders.runs.control_study import offer_control_study


@command
def main(config: ExportStatic) -> int:
    study = Study(config.study)
    inputs = {"store": study.need("store", config.store)}
    if config.components:
        inputs["splits"] = study.need("splits", config.splits)
    target = study.folder / VECTORS
    stage = Stage(
        "export_static",
        config,
        study=study,
        inputs=inputs,
        outputs=[target],
        ignore=("control",),
        redo=config.redo,
    )
    if stage.finished:
        stage.report()
        return offer_control_study(study, target, config.control, replaced="brain")
    stage.begin()

    from encoders.brainmt.static import static_vectors
    from encoders.brainmt.store import FMRIStore
    from encoders.cohort import Split

    split = Split.load(inputs["splits"]) if config.components else None
    vectors = static_vectors(FMRIStore(inputs["store"]), config, split)
    vectors.save(target)
    trained_on = vectors.provenance["trained_on"]
    stage.end(
        people=len(vectors.ids),
        shared_voxels=vectors.provenance["shared_voxels"],
        numbers_per_person=vectors.values.shape[1],
        fitted_on=f"{len(trained_on['ids'])} training people" if trained_on else "nobody",
    )
    return offer_control_study(study, target, config.control, replaced="brain")


if __name__ == "__main__":
    sys.exit(main())
