"""Tune BrainMT on the contrastive loss against stored genome vectors; the same command continues an interrupted run.

accelerate launch scripts/tune_brainmt.py --study my-study
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:] = [str(ROOT)] + [p for p in sys.path if Path(p or ".").resolve() not in (ROOT, ROOT / "scripts")]

from align.tune_config import TuneBrainMT
from encoders.brainmt.embed_config import EmbedFMRI
from encoders.brainmt.training.config import best_model
from encoders.runs import InputError, Stage, Study, command
from encoders.runs.config import to_plain

WITHOUT_EFFECT = ("wandb", "preload", "save_minutes")
NOT_TRAINING = (
    "study",
    "store",
    "splits",
    "participants",
    "model",
    "partner_vectors",
    "name",
    "redo",
    *WITHOUT_EFFECT,
)


@command
def main(config: TuneBrainMT) -> int:
    study = Study(config.study)
    inputs = inputs_of(config, study)
    best = study.run_folder(f"tune_brainmt{config.suffix}") / "best"
    target = study.path("brain").with_name(f"brain_tuned{config.suffix}.safetensors")
    target_runs = target.with_name(f"{target.stem}_runs.safetensors")
    stage = Stage(
        f"tune_brainmt{config.suffix}",
        config,
        study=study,
        inputs=inputs,
        outputs=[best, target, target_runs],
        ignore=WITHOUT_EFFECT,
        redo=config.redo,
    )
    if stage.finished:
        return stage.report()
    stage.begin()

    from encoders.runs.cpu import tune_cpu

    tune_cpu()
    import numpy as np
    from accelerate import DistributedType

    from align.pairs import check_leakage, join
    from align.tune import tune
    from encoders.brainmt.compatibility import check_preparation
    from encoders.brainmt.embed import embed
    from encoders.brainmt.store import FMRIStore
    from encoders.brainmt.training.loop import pick_precision
    from encoders.brainmt.tunable import TunableBrainMT, TunableOptions, provenance_of, starting_tower
    from encoders.brainmt.tuned_card import tuned_card
    from encoders.cohort import Cohort, Split, read_kinship
    from encoders.runs.devices import accelerator as make_accelerator
    from encoders.vectors import SubjectVectors

    split = Split.load(inputs["splits"])
    split = split if config.fold is None else split.held_out(config.fold)
    cohort, store = Cohort.load(inputs["participants"]), FMRIStore(inputs["store"])
    partner = SubjectVectors.load(inputs[config.partner])
    precision = pick_precision(config.mixed_precision)
    accelerator = make_accelerator(
        seed=config.seed, mixed_precision="no" if precision == "fp16" else precision
    )
    if accelerator.distributed_type == DistributedType.FSDP:
        raise InputError("tuning keeps whole parameters on every process; launch it without FSDP")
    model, card = starting_tower(
        inputs["model"].parent,
        drop_path=config.drop_path,
        use_checkpoint=config.use_checkpoint,
        device=accelerator.device,
    )
    provenance = provenance_of(card, store)
    nobody = SubjectVectors(ids=[], values=np.empty((0, 1), np.float32), provenance=provenance)
    for name, vectors in (("brain", nobody), (config.partner, partner)):  # now, not after hours
        check_leakage(vectors, split, name, accept_unknown=config.unknown_training == "accept")
    for sentence in check_preparation(store, model.config, card):
        accelerator.print(f"warning: {sentence}")
    store.verify_all()

    usable = set(store.subjects) & set(partner.ids) & set(cohort.ids)
    tower = TunableBrainMT(
        module=model,
        store=store,
        train=[name for name in split.train if name in usable],
        options=TunableOptions(
            unfrozen_blocks=config.unfrozen_blocks,
            windows=config.windows,
            eval_windows=config.eval_windows,
            lr=config.tower_lr,
            layer_decay=config.layer_decay,
            weight_decay=config.weight_decay,
            seed=config.seed,
            preload=config.preload,
        ),
        best=best,
    )
    if (kept := stage.folder / "start.safetensors").exists():
        start = SubjectVectors.load(kept)
    else:
        scanned = [name for name in split.fold_of if name in set(store.subjects)]
        values = tower.vectors(scanned, accelerator)
        start = SubjectVectors(ids=scanned, values=values, provenance=provenance)
        if accelerator.is_main_process:
            start.save(kept)
    joined = join(
        {"brain": start, config.partner: partner},
        split=split,
        cohort=cohort,
        related=read_kinship(inputs["kinship"]) if "kinship" in inputs else [],
        accept_unknown=config.unknown_training == "accept",
    )
    tower.card = tuned_card(
        card,
        people=[joined.ids[k] for fold in ("train", "val") for k in joined.rows(fold)],
        partner=partner.provenance,
        split=split,
        store=store,
        training={k: v for k, v in to_plain(config).items() if k not in NOT_TRAINING},
    )
    summary = tune(tower, joined, config, folder=stage.folder, accelerator=accelerator)

    if accelerator.is_main_process:
        options = EmbedFMRI(study=config.study, name=target.stem, windows=config.eval_windows)
        partial = stage.folder / "partial.safetensors"
        vectors, of_runs = embed(store, best, options, partial=partial, device=accelerator.device)
        of_runs.save(target_runs)
        vectors.save(target)
        partial.unlink(missing_ok=True)
    accelerator.wait_for_everyone()
    missing = {m: sum(map(len, folds.values())) for m, folds in joined.missing.items()}
    return stage.end(
        **summary,
        **{f"people_without_{m}_vector": number for m, number in missing.items()},
        align_them_with=f"accelerate launch scripts/align.py --study={config.study} --brain={target}",
    )


def inputs_of(config: TuneBrainMT, study: Study) -> dict[str, Path]:
    """Files that the result depends on; with a fold, the model and vectors that have not seen it."""
    fold = str(config.fold)
    model = config.model or (None if config.fold is None else best_model(study, config.fold))
    model = study.need("brainmt", None if model is None else str(model).replace("{fold}", fold))
    given = config.partner_vectors
    inputs = {
        "store": study.need("store", config.store),
        "splits": study.need("splits", config.splits),
        "participants": study.need("participants", config.participants),
        "model": study.need("brainmt", model / "model.safetensors"),
        config.partner: study.need_vectors(
            config.partner, None if given is None else str(given).replace("{fold}", fold)
        ),
    }
    if study.path("kinship").exists():
        inputs["kinship"] = study.path("kinship")
    return inputs


if __name__ == "__main__":
    sys.exit(main())
