"""Turn reference genome + phased variants into one vector per person with a DNA language model.

    python scripts/embed_genome.py --study my-study --model kuleshov-group/caduceus-ph_seqlen-131k_d_model-256_n_layer-16

What it would do and cost: `--plan`. Several processes: `accelerate launch` (they share the cache folder). Many machines:
a job array of `--shard 1/8` to `--shard 8/8` at the same time, each with the other options alike, and then once without
it, which makes the vectors. Stopped or killed at any moment, the same command goes on where it was.
"""

import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from encoders.genetics.config import HOW, EmbedGenome
from encoders.runs import Stage, Study, command


@command
def main(config: EmbedGenome) -> int:
    study = Study(config.study)
    inputs = find_inputs(config, study)
    if config.plan:
        return show_plan(config, study, inputs)

    from encoders.genetics.model_choice import choose_model
    from encoders.genetics.sharding import Processes, Quiet

    processes = Processes()
    stage, model, finished = None, "", False
    try:
        with processes.together():
            if processes.is_main:
                model, files = choose_model(config, study)
                stage = stage_of(config, study, inputs, files)
                finished = stage.finished
        model, finished = processes.from_main((model, finished))
        if finished:
            return stage.report() if stage else 0

        from encoders.genetics.embed_inputs import check_agreement, read_inputs
        from encoders.genetics.embed_stage import check_cache, embed_genome

        with processes.together():  # before anything is written: a fault leaves no trace
            ready = read_inputs(config, inputs, model, device=processes.device)
        with processes.together():
            check_agreement(ready, processes)
            check_cache(config, study)
            if stage:
                stage.begin()
        summary = embed_genome(config, study, ready, processes)
        return stage.end(**summary) if stage and summary else 0
    except Quiet:  # another process tells why
        return 2


def find_inputs(config: EmbedGenome, study: Study) -> dict[str, Path | list[Path]]:
    """Every file that the result depends on, and the split, where there is one, that is reported on."""
    from encoders.genetics.variant_source import variant_files

    names = ["participants", "reference", "windows"]
    if config.splits or study.path("splits").exists() or config.fits_pca:
        names.append("splits")
    inputs: dict = {name: study.need(name, getattr(config, name)) for name in names}
    inputs["variants"] = variant_files(config.variants or study.need("variants"))
    if config.sample_file:
        inputs["sample_file"] = study.need("people of the BGEN files", config.sample_file)
    if config.pca_from:
        inputs["pca_from"] = study.need("pca_from", config.pca_from)
    return inputs


def stage_of(
    config: EmbedGenome, study: Study, inputs: dict[str, Path | list[Path]], model: dict[str, Path]
) -> Stage:
    """The record of the run, or of one part of it. Without a PCA a split decides nothing but what is reported."""
    from encoders.genetics.variant_inputs import variant_inputs

    asked = {
        name: path
        for name, path in inputs.items()
        if name != "variants" and (name != "splits" or config.fits_pca)
    }
    asked |= variant_inputs(inputs["variants"]) | model
    main, extra = study.path("genetics"), []
    if config.pca or config.pca_from:
        extra.append("pca")
    if config.keep_levels:
        extra += ["windows", "genes"]
    outputs = [main, *(main.with_name(f"genetics_{name}.safetensors") for name in extra)]
    stage = Stage(
        "embed_genome", config, study=study, inputs=asked, outputs=outputs, ignore=HOW, redo=config.redo
    )
    if config.part is None:
        return stage
    stage.share()
    part = "embed_genome/shard-{}-of-{}".format(*config.part)
    return Stage(part, config, study=study, inputs=asked, ignore=HOW)


def show_plan(config: EmbedGenome, study: Study, inputs: dict[str, Path | list[Path]]) -> int:
    """Print what would be done; the other processes of a launch have nothing to say."""
    if int(os.environ.get("RANK", "0")):
        return 0
    from encoders.genetics.plan import plan

    print("embed_genome: plan, nothing is written")
    for name, value in plan(config, study, inputs).items():
        print(f"  {name.replace('_', ' ')}: {value}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
