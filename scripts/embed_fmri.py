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
    target = study.path("brain").with_name(f"{config.name}.safetensors")
    stage = Stage(
        "embed_fmri" if config.name == "brain" else f"embed_fmri_{config.name}",
        config,
        study=study,
        inputs={"store": store, "model": model / "model.safetensors"},
        outputs=[target, target.with_name(f"{config.name}_runs.safetensors")],
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
    vectors, of_runs = embed(FMRIStore(store), model, config, partial=partial, device=device)
    of_runs.save(target.with_name(f"{config.name}_runs.safetensors"))
    vectors.save(target)
    partial.unlink(missing_ok=True)
    return stage.end(
        people=len(vectors.ids),
        runs=len(of_runs.ids),
        numbers_per_person=vectors.values.shape[1],
        windows_per_run=", ".join(map(str, vectors.provenance["windows_per_run"])),
        strategy=config.strategy,
        device=device.type,
    )


if __name__ == "__main__":
    sys.exit(main())
