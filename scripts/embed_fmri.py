"""Embed everyone's scans with a trained BrainMT: one vector per person.

python scripts/embed_fmri.py --study my-study
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.brainmt.embed_config import EmbedFMRI
from encoders.runs import Stage, Study, command


@command
def main(config: EmbedFMRI) -> int:
    study = Study(config.study)
    store = study.need("store", config.store)
    model = study.need("brainmt", config.model)
    stage = Stage(
        "embed_fmri",
        config,
        study=study,
        inputs={"store": store, "model": model / "model.safetensors"},
        outputs=[study.path("brain")],
        ignore=("batch_size",),
        redo=config.redo,
    )
    if stage.finished:
        return stage.report()
    stage.begin()

    from encoders.runs.cpu import tune_cpu

    tune_cpu()
    import torch

    from encoders.brainmt.embed import embed
    from encoders.brainmt.store import FMRIStore

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    partial = stage.folder / "partial.safetensors"
    vectors = embed(FMRIStore(store), model, config, partial=partial, device=device)
    vectors.save(study.path("brain"))
    partial.unlink(missing_ok=True)
    return stage.end(
        people=len(vectors.ids),
        numbers_per_person=vectors.values.shape[1],
        windows_per_run=", ".join(map(str, vectors.provenance["windows_per_run"])),
        strategy=config.strategy,
        device=device.type,
    )


if __name__ == "__main__":
    sys.exit(main())
