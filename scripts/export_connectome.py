"""Export everyone's functional connectome as a modality of its own: the rival that a deep model has to beat.

python scripts/export_connectome.py --study my-study
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.brainmt.connectome_config import VECTORS, ExportConnectome
from encoders.runs import Stage, Study, command
from encoders.runs.control_study import offer_control_study


@command
def main(config: ExportConnectome) -> int:
    study = Study(config.study)
    inputs = {"store": study.need("store", config.store), "splits": study.need("splits", config.splits)}
    if config.atlas is not None:
        inputs["atlas"] = study.need("atlas", config.atlas)
    target = study.folder / VECTORS
    stage = Stage(
        "export_connectome",
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

    from encoders.brainmt.connectome_vectors import connectome_vectors
    from encoders.brainmt.store import FMRIStore
    from encoders.cohort import Split

    vectors = connectome_vectors(FMRIStore(inputs["store"]), config, Split.load(inputs["splits"]))
    vectors.save(target)
    told = vectors.provenance
    stage.end(
        people=len(vectors.ids),
        parcels=told["parcels"],
        parcels_from=told["parcels_from"],
        numbers_per_person=vectors.values.shape[1],
        fitted_on=f"{len(told['trained_on']['ids'])} training people",
    )
    return offer_control_study(study, target, config.control, replaced="brain")


if __name__ == "__main__":
    sys.exit(main())
