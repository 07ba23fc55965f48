"""Genotype dosages and their principal components as genome vectors: what a DNA language model has to beat.

python scripts/embed_snps.py --study my-study --control my-study-snps
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.genetics.snp_config import VECTORS, EmbedSNPs
from encoders.runs import Stage, Study, command
from encoders.runs.control_study import offer_control_study


@command
def main(config: EmbedSNPs) -> int:
    study = Study(config.study)
    inputs = {name: study.need(name, getattr(config, name)) for name in ("participants", "splits")}
    if config.regions == "windows":
        inputs["windows"] = study.need("windows", config.windows)
    if config.sample_file is not None:
        inputs["sample_file"] = study.need("people of the BGEN files", config.sample_file)
    if config.reference is not None or study.path("reference").exists():
        inputs["reference"] = study.need("reference", config.reference)

    from encoders.genetics.variant_inputs import variant_inputs
    from encoders.genetics.variant_source import variant_files

    variants = variant_files(config.variants or study.need("variants"))
    target, unused = study.folder / VECTORS, study.private / "snp_people.tsv"
    stage = Stage(
        "embed_snps",
        config,
        study=study,
        inputs=inputs | variant_inputs(variants),
        outputs=[target],
        ignore=("control",),
        redo=config.redo,
    )
    if not stage.is_main:
        return 0  # one process does it all
    if stage.finished:
        stage.report()
        return offer_control_study(study, target, config.control, replaced="genetics")

    from encoders.genetics.snp_tower import fit_tower, save_tower

    tower = fit_tower(config, inputs, variants)  # before anything is written: a fault leaves no trace
    stage.begin()
    fitted = stage.folder / "components.safetensors"
    stage.end(**save_tower(tower, config, vectors=target, fitted=fitted, unused=unused))
    return offer_control_study(study, target, config.control, replaced="genetics")


if __name__ == "__main__":
    sys.exit(main())
