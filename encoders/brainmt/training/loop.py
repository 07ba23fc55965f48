"""Supervised training of BrainMT: one visible loop under Accelerate.

Every random choice is a function of (seed, step, process), and the order of windows one of (seed, epoch), so a run
that was killed continues from its last checkpoint, in the middle of an epoch too, with the very same numbers.
"""

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, DistributedType

from encoders.brainmt.checkpoint import from_pretrained, save_pretrained
from encoders.brainmt.evaluation import Scores, evaluate, mean_scores
from encoders.brainmt.store import FMRIStore
from encoders.brainmt.targets import Targets
from encoders.brainmt.training.config import PretrainBrainMT
from encoders.brainmt.training.data import (
    check_validation,
    patches_of,
    usable_people,
    window_order,
    windows_of,
)
from encoders.brainmt.training.log import TrainingLog
from encoders.brainmt.training.losses import task_loss
from encoders.brainmt.training.optimizer import freeze, lr_share, make_optimizer, set_lr, training_mode
from encoders.brainmt.training.resume import resume, save
from encoders.brainmt.training.sharding import make_shardable, unsharded
from encoders.brainmt.training.starting_weights import starting_model
from encoders.cohort import Cohort, Split
from encoders.runs.artifact import PRIVATE, content_digest, save_json, write_text
from encoders.runs.config import to_plain
from encoders.runs.errors import InputError
from encoders.runs.progress import progress
from encoders.runs.signals import Stop, catching_stops
from encoders.runs.stage import release

TEST_KIND, TEST_FORMAT = "neurohelix.brainmt_test", 2
TEST_METRICS, LEFT_OUT = "test_metrics.json", "left_out.tsv"
LOWER_IS_BETTER = ("mse", "brier")
# options that cannot change the result; those that name files of this machine, and the shape that was asked for
# (the card says what the network has, which may be that of the weights)
WITHOUT_EFFECT = ("preload", "wandb", "log_every", "save_minutes", "resume", "redo")
NOT_TRAINING = ("study", "name", "store", "splits", "participants", "weights", "model", *WITHOUT_EFFECT)


def train(
    config: PretrainBrainMT,
    *,
    store: FMRIStore,
    split: Split,
    cohort: Cohort,
    folder: Path,
    best: Path,
    accelerator: Accelerator,
) -> dict[str, Any]:
    """Train, keep the best model by the validation people, test it on the held-out people.

    Args:
        config: Options.
        store: fMRI store.
        split: Who may be seen.
        cohort: Table with the targets.
        folder: Run folder: metrics.jsonl, checkpoints, test_metrics.json.
        best: Folder of the best model.
        accelerator: Devices and processes.

    Returns:
        What to tell the user at the end.

    Raises:
        InputError: too few people, targets that cannot be learned, or a loss that is not finite.
        Stop: a signal asked for it; the run is saved.
    """
    targets = Targets.fit(
        cohort, config.targets, split.train, task=config.task, class_weights=config.class_weights
    )
    people, left_out = usable_people(split, targets, store)
    check_validation(targets, people["val"], config.metric)
    frames = config.model.num_frames
    train_set = windows_of(people["train"], targets, store, config, frames=frames, training=True)
    val_set = windows_of(people["val"], targets, store, config, frames=frames, training=False)
    x, y, z = store.grid
    brain = patches_of(train_set) if config.model.tokens == "brain" else ()
    start = starting_model(
        config,
        replace(config.model, grid=(y, x, z), brain_patches=brain),
        targets=targets,
        store=store,
        split=split,
    )
    for sentence in start.said:
        accelerator.print(sentence)
    bare = start.model
    freeze(bare, config.unfrozen_blocks)
    optimizer = make_optimizer(
        bare,
        lr=config.lr,
        layer_decay=config.decay_per_layer,
        weight_decay=config.weight_decay,
        betas=config.betas,
    )
    if accelerator.distributed_type == DistributedType.FSDP:
        make_shardable(bare)
    if config.compile:
        bare.compile_dense()
    model, optimizer = accelerator.prepare(bare, optimizer)
    state = resume(folder, bare, optimizer, accelerator, which=config.resume)

    world, rank = accelerator.num_processes, accelerator.process_index
    per_step = config.batch_size * config.accumulate * world
    steps_per_epoch = len(train_set) // per_step
    if steps_per_epoch == 0:
        raise InputError(
            f"{len(train_set)} training runs do not fill one step of {per_step} windows; "
            f"lower batch_size, accumulate or the number of processes"
        )
    if state.per_step not in (0, per_step):
        accelerator.print(
            f"a step now has {per_step} windows instead of {state.per_step}, as the number of processes has changed: "
            f"the run goes on, but not with the numbers that it would have had"
        )
    state.per_step = per_step
    schedule = {
        "steps": steps_per_epoch * config.epochs,
        "warmup": round(steps_per_epoch * config.warmup_epochs),
        "restart": round(steps_per_epoch * config.restart_epochs),
        "mult": config.restart_mult,
        "gamma": config.restart_gamma,
    }
    card = {
        "targets": targets.to_card(),
        "preprocessing": {
            "id": content_digest(store.options),
            "store_digest": store.digest,
            "options": store.options,
        },
        # the validation people chose the epoch: they have been seen too
        "trained_on": {
            "split_digest": split.digest,
            "ids": sorted({*people["train"], *people["val"], *(start.seen["ids"] or ())}),
            "complete": start.seen["complete"],
        },
        "started_from": start.origin,
        "training": {k: v for k, v in to_plain(config).items() if k not in NOT_TRAINING},
        "versions": {"neurohelix": release(), "torch": str(torch.__version__)},
    }
    if accelerator.is_main_process:
        write_text(folder / LEFT_OUT, "".join(left_out), mode=PRIVATE)
    log = TrainingLog(folder, config, state, bare.config, frames=frames, accelerator=accelerator)

    bar = progress(range(schedule["steps"]), "training BrainMT", unit="step")
    bar.update(state.epoch * steps_per_epoch + state.seen // per_step)
    saved = time.monotonic()
    with catching_stops() as stop:
        while state.epoch < config.epochs and not 0 < config.patience <= state.waited:
            order = window_order(config.seed, state.epoch, len(train_set))
            training_mode(bare)
            steps = order[state.seen :]
            steps = steps[: len(steps) // per_step * per_step].reshape(-1, per_step)
            # of the windows of a step each process takes every world-th, batch_size at a time
            own = steps[:, rank::world]
            feed = train_set.prefetch(
                own.reshape(-1, config.batch_size).tolist(),
                state.epoch,
                device=accelerator.device,
                ahead=0 if config.preload else 2,  # there is nothing to wait for in memory
            )
            for place, chosen in enumerate(steps.tolist(), start=1):
                torch.manual_seed(int(np.random.default_rng((config.seed, state.step, rank)).integers(2**62)))
                labels = max(int(torch.isfinite(train_set.targets[chosen]).sum()), 1)
                losses = []
                for k in range(config.accumulate):
                    volumes, wanted = next(feed)
                    waiting = k + 1 < config.accumulate  # processes average their gradients at the end
                    with accelerator.no_sync(model) if waiting else contextlib.nullcontext():
                        share = labels / (world * config.accumulate)
                        loss = task_loss(
                            model(volumes), wanted, targets.columns, regression=config.loss, labels=share
                        )
                        accelerator.backward(loss / config.accumulate)
                    losses.append(loss.detach() / config.accumulate)
                norm = accelerator.clip_grad_norm_(model.parameters(), config.clip)
                done = state.epoch * steps_per_epoch + state.seen // per_step
                set_lr(optimizer, lr_share(done, **schedule))
                optimizer.step()
                optimizer.zero_grad()
                state.step += 1
                state.seen += per_step
                bar.update()

                epoch_ends = place == len(steps)
                runs = [train_set.run_of(index).name for index in chosen]
                log.step(torch.stack(losses).sum(), norm, runs, lr=optimizer.param_groups[-1]["lr"])
                due = not epoch_ends and time.monotonic() - saved > 60 * config.save_minutes
                stopping, saving = _anyone((bool(stop.number), due), accelerator)
                if not epoch_ends and (stopping or saving):
                    log.check()
                    save(folder, state, bare, optimizer, accelerator)
                    saved = time.monotonic()
                    if stopping:
                        log.close()
                        raise _stopped(state.step, stop.code)

            scalars = log.epoch()
            state.epoch, state.seen = state.epoch + 1, 0
            if state.epoch % config.eval_every == 0 or state.epoch == config.epochs:
                scores = evaluate(
                    bare, val_set, targets, batch_size=2 * config.batch_size, accelerator=accelerator
                )
                scalars |= mean_scores("val", scores)
                score = scalars.get(f"val_{config.metric}", float("nan"))
                score = -score if config.metric in LOWER_IS_BETTER else score
                state.waited += 1
                if state.best is None or score > state.best:
                    state.best, state.best_epoch, state.waited = score, state.epoch, 0
                    whole = unsharded(bare)
                    if accelerator.is_main_process:
                        save_pretrained(
                            whole, best, {**card, "epoch": state.epoch, "validation": _finite(scores)}
                        )
                bar.set_postfix({"loss": f"{scalars['train_loss']:.3f}", config.metric: f"{abs(score):.3f}"})
            log.write(scalars)
            save(folder, state, bare, optimizer, accelerator)
            saved = time.monotonic()
            if _anyone((bool(stop.number),), accelerator)[0] and state.epoch < config.epochs:
                log.close()
                raise _stopped(state.step, stop.code)
    bar.close()
    log.close()
    accelerator.wait_for_everyone()  # the best model is on disk

    tested, _ = from_pretrained(best, device=accelerator.device)
    test_set = windows_of(people["test"], targets, store, config, frames=frames, training=False)
    scores = evaluate(tested, test_set, targets, batch_size=2 * config.batch_size, accelerator=accelerator)
    means = mean_scores("test", scores)
    if accelerator.is_main_process:
        content = {"people": len(people["test"]), "epoch": state.best_epoch, "mean": means}
        save_json(
            folder / TEST_METRICS,
            TEST_KIND,
            TEST_FORMAT,
            {**content, "targets": _finite(scores)},
            mode=PRIVATE,
        )
    each = ", ".join(f"{name} {of_target[config.metric]:.2f}" for name, of_target in scores.items())
    return {
        "training_people": len(people["train"]),
        "validation_people": len(people["val"]),
        "held_out_people": len(people["test"]),
        "left_out_for_want_of_a_scan_or_label": f"{len(left_out)} (listed in {LEFT_OUT})" if left_out else 0,
        "parameters": sum(p.numel() for p in tested.parameters()),
        "trained_parameters": sum(p.numel() for p in bare.parameters() if p.requires_grad),
        "optimizer_steps": state.step,
        "best_epoch": f"{state.best_epoch} of {state.epoch}",
        f"validation_{config.metric}": abs(state.best or 0.0),
        f"held_out_{config.metric}": each,
        f"held_out_mean_{config.metric}": means.get(f"test_{config.metric}", float("nan")),
    }


def pick_precision(wanted: str) -> str:
    """`auto` as what the device does best: bf16 on a CUDA device that has it, else fp16; fp32 on a CPU."""
    if wanted != "auto" or not torch.cuda.is_available():
        return "no" if wanted == "auto" else wanted
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _anyone(wishes: tuple[bool, ...], accelerator: Accelerator) -> list[bool]:
    """Whether any process has each of the wishes; all processes must act alike."""
    if accelerator.num_processes == 1:
        return list(wishes)
    counts = torch.tensor([float(wish) for wish in wishes], device=accelerator.device)
    return (accelerator.reduce(counts, reduction="sum") > 0).tolist()


def _stopped(step: int, code: int) -> Stop:
    return Stop(
        f"stopped as asked at optimizer step {step}, saved; run the same command again to continue", code=code
    )


def _finite(scores: Scores) -> dict[str, dict[str, float | None]]:
    """Scores as JSON values; what is undefined becomes null."""
    return {
        name: {metric: value if np.isfinite(value) else None for metric, value in of_target.items()}
        for name, of_target in scores.items()
    }
