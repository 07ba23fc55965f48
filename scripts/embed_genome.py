"""Turn reference genome + phased variants into one vector per person with a DNA language model.

python scripts/embed_genome.py --study my-study --model kuleshov-group/caduceus-ph_seqlen-131k_d_model-256_n_layer-16
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.genetics.config import EmbedGenome
from encoders.runs import Stage, Study, command


@command
def main(config: EmbedGenome) -> int:
    study = Study(config.study)
    inputs = {
        name: study.need(name, getattr(config, name))
        for name in ("participants", "variants", "reference", "windows")
    }
    if config.plan:
        from encoders.genetics.genomes import cohort_genomes

        print("embed_genome: plan, nothing is written")
        for name, value in cohort_genomes(config, inputs).summary().items():
            print(f"  {name.replace('_', ' ')}: {value}")
        return 0

    from encoders.genetics.model_choice import choose_model

    model, files = choose_model(config, study)
    stage = Stage(
        "embed_genome",
        config,
        study=study,
        inputs=inputs | files,
        outputs=[study.path("genetics")],
        ignore=("plan", "device", "batch_bases"),
        redo=config.redo,
    )
    if stage.finished:
        return stage.report()
    if not stage.is_main:
        return 0  # one process does it all
    from encoders.genetics.embed_stage import embed_genome, read_inputs

    ready = read_inputs(config, inputs, model)  # before anything is written: a fault leaves no trace
    stage.begin()
    return stage.end(**embed_genome(config, study, ready))


if __name__ == "__main__":
    sys.exit(main())
