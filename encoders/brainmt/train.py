"""Supervised training of BrainMT: one visible loop under Accelerate.

Every random choice is a function of (seed, epoch, rank), so a run that was killed continues from its last
epoch with the very same numbers.
"""

import contextlib
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from encoders.brainmt.checkpoint import from_pretrained, save_pretrained
from encoders.brainmt.evaluation import evaluate, mean_scores, scores_by_target
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import PretrainBrainMT
from encoders.brainmt.optimizer import lr_share, make_optimizer, set_lr
from encoders.brainmt.resume import Progress, resume, save
from encoders.brainmt.store import FMRIStore
from encoders.brainmt.targets import Targets, masked_mse
from encoders.brainmt.windows import FMRIWindows
from encoders.cohort import Cohort, Split
from encoders.runs.artifact import PRIVATE, save_json, write_text
from encoders.runs.config import to_plain
from encoders.runs.errors import InputError
from encoders.runs.progress import progress
from encoders.runs.stage import release
from encoders.runs.tracking import Tracker

TEST_KIND, TEST_FORMAT = "neurohelix.brainmt_test", 1
TEST_METRICS, LEFT_OUT = "test_metrics.json", "left_out.tsv"
CHECK_EVERY = 50  # optimizer steps between looks at the loss, each of which waits for the GPU
FEWEST = 3  # people with a label that a correlation needs
NOT_TRAINING = ("study", "store", "splits", "participants", "preload", "wandb", "redo")


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
    """
    targets = Targets.fit(cohort, config.targets, split.train)
    people, left_out = _usable(split, targets, store)
    train_set = _windows(people["train"], targets, store, config, training=True)
    val_set = _windows(people["val"], targets, store, config, training=False)
    x, y, z = store.grid
    bare = BrainMT(replace(config.model, grid=(y, x, z)), num_outputs=len(targets.names))
    optimizer = make_optimizer(
        bare,
        lr=config.lr,
        layer_decay=config.layer_decay,
        weight_decay=config.weight_decay,
        betas=config.betas,
    )
    model, optimizer = accelerator.prepare(bare, optimizer)
    state = resume(folder, bare, optimizer, accelerator)

    world, rank = accelerator.num_processes, accelerator.process_index
    per_step = config.batch_size * config.accumulate * world
    steps_per_epoch = len(train_set) // per_step
    if steps_per_epoch == 0:
        raise InputError(
            f"{len(train_set)} training runs do not fill one step of {per_step} windows; "
            f"lower batch_size, accumulate or the number of processes"
        )
    steps, warmup = steps_per_epoch * config.epochs, round(steps_per_epoch * config.warmup_epochs)
    card = {
        "targets": {"names": targets.names, "mean": targets.mean.tolist(), "sd": targets.sd.tolist()},
        "preprocessing": {"store_digest": store.digest, "options": store.options},
        # the validation people chose the epoch: they have been seen too
        "trained_on": {"split_digest": split.digest, "ids": sorted(people["train"] + people["val"])},
        "training": {k: v for k, v in to_plain(config).items() if k not in NOT_TRAINING},
        "versions": {"neurohelix": release(), "torch": str(torch.__version__)},
    }
    tracker = None
    if accelerator.is_main_process:
        tracker = _tracker(folder, config, state)
        write_text(folder / LEFT_OUT, "".join(left_out), mode=PRIVATE)

    bar = progress(range(steps), "training BrainMT", unit="step")
    bar.update(state.step)
    while state.epoch < config.epochs and not 0 < config.patience <= state.waited:
        start = time.perf_counter()
        torch.manual_seed(int(np.random.default_rng((config.seed, state.epoch, rank)).integers(2**62)))
        order = np.random.default_rng((config.seed, state.epoch)).permutation(len(train_set))
        model.train()
        losses, checked, norms = [], [], []
        for first in range(0, steps_per_epoch * per_step, per_step):
            chosen = order[first : first + per_step]
            labels = max(int(torch.isfinite(train_set.targets[chosen]).sum()), 1)
            own = chosen[rank::world].tolist()
            for k in range(config.accumulate):
                batch = own[k * config.batch_size : (k + 1) * config.batch_size]
                frames, wanted = train_set.batch(batch, state.epoch, device=accelerator.device)
                waiting = k + 1 < config.accumulate  # gradients are averaged over processes only at the end
                with accelerator.no_sync(model) if waiting else contextlib.nullcontext():
                    loss = masked_mse(model(frames), wanted, labels=labels / (world * config.accumulate))
                    accelerator.backward(loss / config.accumulate)
                losses.append(loss.detach() / config.accumulate)
            norms.append(accelerator.clip_grad_norm_(model.parameters(), config.clip))
            set_lr(optimizer, lr_share(state.step, steps=steps, warmup=warmup))
            optimizer.step()
            optimizer.zero_grad()
            state.step += 1
            bar.update()
            if state.step % CHECK_EVERY == 0 or len(norms) == steps_per_epoch:
                checked += _step_losses(losses, state.step, config.accumulate, accelerator)
                losses = []

        state.epoch += 1
        scalars = {
            "epoch": state.epoch,
            "train_loss": float(np.mean(checked)),
            "lr": optimizer.param_groups[-1]["lr"],
            "grad_norm": float(torch.stack(norms).mean()),
            "windows_per_s": steps_per_epoch * per_step / (time.perf_counter() - start),
        }
        if state.epoch % config.eval_every == 0 or state.epoch == config.epochs:
            scores = evaluate(bare, val_set, batch_size=2 * config.batch_size, accelerator=accelerator)
            scalars |= mean_scores("val", scores)
            score = scalars["val_r"] if config.select_by == "r" else -scalars["val_mse"]
            state.waited += 1
            if state.best is None or score > state.best:
                state.best, state.best_epoch, state.waited = score, state.epoch, 0
                if accelerator.is_main_process:
                    found = {"epoch": state.epoch, "validation": scores_by_target(scores, targets.names)}
                    save_pretrained(bare, best, {**card, **found})
            bar.set_postfix(loss=f"{scalars['train_loss']:.3f}", val_r=f"{scalars['val_r']:.3f}")
        if tracker is not None:
            tracker.log(state.step, scalars)
            save(folder, state, bare, optimizer, accelerator)
    bar.close()
    if tracker is not None:
        tracker.close()
    accelerator.wait_for_everyone()  # the best model is on disk

    tested, _ = from_pretrained(best, device=accelerator.device)
    test_set = _windows(people["test"], targets, store, config, training=False)
    scores = evaluate(tested, test_set, batch_size=2 * config.batch_size, accelerator=accelerator)
    if accelerator.is_main_process:
        content = {"people": len(people["test"]), "epoch": state.best_epoch}
        content |= {"mean": mean_scores("test", scores), "targets": scores_by_target(scores, targets.names)}
        save_json(folder / TEST_METRICS, TEST_KIND, TEST_FORMAT, content)
    correlations = zip(targets.names, scores["r"], strict=True)
    return {
        "training_people": len(people["train"]),
        "validation_people": len(people["val"]),
        "held_out_people": len(people["test"]),
        "left_out_for_want_of_a_scan_or_label": f"{len(left_out)} (listed in {LEFT_OUT})" if left_out else 0,
        "parameters": sum(p.numel() for p in bare.parameters()),
        "optimizer_steps": state.step,
        "best_epoch": f"{state.best_epoch} of {state.epoch}",
        "validation_" + config.select_by: abs(state.best or 0.0),
        "held_out_r": ", ".join(f"{name} {r:.2f}" for name, r in correlations),
        "held_out_mean_r": mean_scores("test", scores)["test_r"],
    }


def pick_precision(wanted: str) -> str:
    """`auto` as what the device does best: bf16 on a CUDA device that has it, else fp32."""
    if wanted != "auto":
        return wanted
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"


def _usable(split: Split, targets: Targets, store: FMRIStore) -> tuple[dict[str, list[str]], list[str]]:
    """Fold -> people with a scan and a label; and a line about each person left out."""
    scanned, people, left_out = set(store.subjects), {}, []
    for fold in ("train", "val", "test"):
        everyone = getattr(split, fold)
        labelled = set(targets.labelled(everyone))
        people[fold] = [name for name in everyone if name in scanned and name in labelled]
        for name in sorted(set(everyone) - set(people[fold])):
            left_out.append(f"{name}\t{fold}\t{'no label' if name in scanned else 'no scan'}\n")
        if len(people[fold]) < FEWEST:
            raise InputError(
                f"{len(people[fold])} of the {len(everyone)} {fold} people have a scan in {store.folder} and a "
                f"label in the participants table, but {FEWEST} were wanted; check their ids, or split anew"
            )
    return people, left_out


def _windows(
    people: list[str], targets: Targets, store: FMRIStore, config: PretrainBrainMT, *, training: bool
) -> FMRIWindows:
    windows = FMRIWindows(
        store,
        frames=config.model.num_frames,
        subjects=people,
        targets=targets.values,
        windows_per_run=1 if training else config.eval_windows,
        training=training,
        seed=config.seed,
        preload=config.preload,
    )
    if not config.preload:  # which checks each run itself
        for run in progress(windows.runs, "checking the fMRI store", unit="run"):
            store.verify(run)
    return windows


def _tracker(folder: Path, config: PretrainBrainMT, state: Progress) -> Tracker:
    tracker = Tracker(
        folder,
        project=config.wandb,
        config=to_plain(config),
        run_id=state.wandb_id,
        resume_step=state.step or None,
    )
    state.wandb_id = tracker.run_id
    return tracker


def _step_losses(losses: list[Tensor], step: int, accumulate: int, accelerator: Accelerator) -> list[float]:
    """Loss of each optimizer step up to ``step``, over all processes.

    Raises:
        InputError: one is not finite; the message names it.
    """
    batches = accelerator.reduce(torch.stack(losses), reduction="mean").cpu()
    by_step = batches.unflatten(0, (-1, accumulate)).sum(1)
    if not bool(torch.isfinite(by_step).all()):
        place = int((~torch.isfinite(by_step)).nonzero()[0])
        raise InputError(
            f"the loss is {by_step[place].item()} at optimizer step {step - len(by_step) + place + 1}; lower lr "
            f"or clip, or check the scans of this epoch; what was saved before it is kept"
        )
    return by_step.tolist()
