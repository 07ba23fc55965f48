"""Supervised training of BrainMT: one visible loop under Accelerate.

Every random choice is a function of (seed, epoch, rank), so a run that was killed continues from its last
epoch with the very same numbers.
"""

import contextlib
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor

from encoders.brainmt.checkpoint import from_pretrained, save_pretrained
from encoders.brainmt.inference import subject_means, window_outputs
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import PretrainBrainMT
from encoders.brainmt.optimizer import lr_share, make_optimizer, set_lr
from encoders.brainmt.store import FMRIStore
from encoders.brainmt.targets import Targets, masked_mse, regression_metrics
from encoders.brainmt.windows import FMRIWindows
from encoders.cohort import Cohort, Split
from encoders.runs.artifact import save_json
from encoders.runs.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from encoders.runs.config import to_plain
from encoders.runs.errors import InputError
from encoders.runs.progress import progress
from encoders.runs.stage import release
from encoders.runs.tracking import Tracker

TEST_KIND, TEST_FORMAT = "neurohelix.brainmt_test", 1
TEST_METRICS, CHECKPOINTS = "test_metrics.json", "checkpoints"


@dataclass(kw_only=True)
class Progress:
    """Where a run stands; kept in its checkpoints.

    Args:
        epoch: Epochs done.
        step: Optimizer steps done.
        best: Best validation score so far, larger is better.
        best_epoch: Epoch of it.
        waited: Evaluations since then.
        wandb_id: W&B run to continue.
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    waited: int = 0
    wandb_id: str | None = None


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
    """
    targets = Targets.fit(cohort, config.targets, split.train)
    windows = {
        fold: _windows(getattr(split, fold), targets, store, config, training=fold == "train")
        for fold in ("train", "val")
    }
    x, y, z = store.grid
    model = BrainMT(replace(config.model, grid=(y, x, z)), num_outputs=len(targets.names))
    optimizer = make_optimizer(
        model,
        lr=config.lr,
        layer_decay=config.layer_decay,
        weight_decay=config.weight_decay,
        betas=config.betas,
    )
    bare = model
    model, optimizer = accelerator.prepare(model, optimizer)
    state = _resume(folder, bare, optimizer, accelerator)

    world, rank = accelerator.num_processes, accelerator.process_index
    per_step = config.batch_size * config.accumulate * world
    steps_per_epoch = len(windows["train"]) // per_step
    if steps_per_epoch == 0:
        raise InputError(
            f"{len(windows['train'])} training runs do not fill one step of {per_step} windows; "
            f"lower batch_size, accumulate or the number of processes"
        )
    steps, warmup = steps_per_epoch * config.epochs, round(steps_per_epoch * config.warmup_epochs)
    card = {
        "targets": {"names": targets.names, "mean": targets.mean.tolist(), "sd": targets.sd.tolist()},
        "preprocessing": {"store_digest": store.digest, "options": store.options},
        "trained_on": {
            "split_digest": split.digest,
            # the validation people chose the epoch: they have been seen too
            "ids": sorted({run.subject for part in windows.values() for run in part.runs}),
        },
        "training": to_plain(config),
        "versions": {"neurohelix": release(), "torch": str(torch.__version__)},
    }
    tracker = _tracker(folder, config, state) if accelerator.is_main_process else None

    bar = progress(range(steps), "training BrainMT", unit="step")
    bar.update(state.step)
    while state.epoch < config.epochs and not 0 < config.patience <= state.waited:
        start = time.perf_counter()
        torch.manual_seed(int(np.random.default_rng((config.seed, state.epoch, rank)).integers(2**62)))
        order = np.random.default_rng((config.seed, state.epoch)).permutation(len(windows["train"]))
        model.train()
        losses, norms = [], []
        for first in range(0, steps_per_epoch * per_step, per_step):
            chosen = order[first : first + per_step]
            labels = max(int(torch.isfinite(windows["train"].targets[chosen]).sum()), 1)
            rows = chosen[rank::world]
            for k in range(config.accumulate):
                batch = rows[k * config.batch_size : (k + 1) * config.batch_size]
                frames, wanted = windows["train"].batch(
                    batch.tolist(), state.epoch, device=accelerator.device
                )
                waiting = k + 1 < config.accumulate  # gradients are averaged over processes only at the end
                with accelerator.no_sync(model) if waiting else contextlib.nullcontext():
                    loss = masked_mse(model(frames), wanted, labels=labels / (world * config.accumulate))
                    accelerator.backward(loss / config.accumulate)
                losses.append(loss.detach())
            norms.append(accelerator.clip_grad_norm_(model.parameters(), config.clip))
            set_lr(optimizer, lr_share(state.step, steps=steps, warmup=warmup))
            optimizer.step()
            optimizer.zero_grad()
            state.step += 1
            bar.update()

        scalars = {
            "epoch": state.epoch + 1,
            "train_loss": _mean_loss(losses, state.step - steps_per_epoch, config, accelerator),
            "lr": optimizer.param_groups[-1]["lr"],
            "grad_norm": float(torch.stack(norms).mean()),
            "windows_per_s": steps_per_epoch * per_step / (time.perf_counter() - start),
        }
        state.epoch += 1
        if state.epoch % config.eval_every == 0 or state.epoch == config.epochs:
            scores = evaluate(bare, windows["val"], config, accelerator)
            scalars |= _summary("val", scores)
            score = scalars["val_r"] if config.select_by == "r" else -scalars["val_mse"]
            state.waited += 1
            if state.best is None or score > state.best:
                state.best, state.best_epoch, state.waited = score, state.epoch, 0
                if accelerator.is_main_process:
                    chosen = {"epoch": state.epoch, "validation": _by_target(scores, targets)}
                    save_pretrained(bare, best, {**card, **chosen})
            bar.set_postfix(loss=f"{scalars['train_loss']:.3f}", val_r=f"{scalars['val_r']:.3f}")
        if tracker is not None:
            tracker.log(state.step, scalars)
            _save(folder, state, bare, optimizer, accelerator)
    bar.close()
    if tracker is not None:
        tracker.close()
    accelerator.wait_for_everyone()  # the best model is on disk

    tested = from_pretrained(best, device=accelerator.device)[0]
    held_out = _windows(split.test, targets, store, config, training=False)
    scores = evaluate(tested, held_out, config, accelerator)
    if accelerator.is_main_process:
        content = {"people": int(scores["n"].max()), "epoch": state.best_epoch}
        content |= {"mean": _summary("test", scores), "targets": _by_target(scores, targets)}
        save_json(folder / TEST_METRICS, TEST_KIND, TEST_FORMAT, content)
    return {
        "training_people": len({run.subject for run in windows["train"].runs}),
        "without_scan_or_label": sum(
            len(getattr(split, fold)) - len({run.subject for run in part.runs})
            for fold, part in (*windows.items(), ("test", held_out))
        ),
        "parameters": sum(p.numel() for p in bare.parameters()),
        "optimizer_steps": state.step,
        "best_epoch": f"{state.best_epoch} of {state.epoch} (validation {config.select_by} "
        f"{abs(state.best or 0.0):.3f})",
        "held_out_people": int(scores["n"].max()),
        "held_out_r": ", ".join(
            f"{name} {r:.2f}" for name, r in zip(targets.names, scores["r"], strict=True)
        ),
        "held_out_mean_r": float(np.nan_to_num(scores["r"]).mean()),
    }


def pick_precision(wanted: str) -> str:
    """`auto` as what the device does best: bf16 on a CUDA device that has it, else fp32."""
    if wanted != "auto":
        return wanted
    return "bf16" if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else "no"


def evaluate(
    model: BrainMT, windows: FMRIWindows, config: PretrainBrainMT, accelerator: Accelerator
) -> dict[str, np.ndarray]:
    """Per-target metrics of people: evenly spaced windows, averaged per run, then per person.

    The same on any number of processes: every window is computed once.
    """
    model.eval()
    outputs = window_outputs(
        model,
        windows,
        model.head.linear.out_features,
        batch_size=2 * config.batch_size,
        accelerator=accelerator,
    )
    _, predicted = subject_means(outputs, windows)
    _, wanted = subject_means(windows.targets.repeat_interleave(windows.windows_per_run, 0).numpy(), windows)
    return regression_metrics(predicted, wanted)


def _windows(
    people: list[str], targets: Targets, store: FMRIStore, config: PretrainBrainMT, *, training: bool
) -> FMRIWindows:
    """Windows of those of the people who have a scan and a label."""
    windows = FMRIWindows(
        store,
        frames=config.model.num_frames,
        subjects=targets.labelled(people),
        targets=targets.values,
        windows_per_run=1 if training else config.eval_windows,
        training=training,
        seed=config.seed,
        preload=config.preload,
    )
    if not config.preload:
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


def _save(folder: Path, state: Progress, model: BrainMT, optimizer: Any, accelerator: Accelerator) -> None:
    states = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    if accelerator.scaler is not None:
        states["scaler"] = accelerator.scaler.state_dict()
    save_checkpoint(folder / CHECKPOINTS, state.step, states, progress=vars(state))


def _resume(folder: Path, model: BrainMT, optimizer: Any, accelerator: Accelerator) -> Progress:
    """Continue from the last checkpoint, if there is one."""
    found = checkpoints(folder / CHECKPOINTS)
    if not found:
        return Progress()
    states, reached = load_checkpoint(found[-1])
    model.load_state_dict(states["model"])
    optimizer.load_state_dict(states["optimizer"])
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if value.shape == parameter.shape:  # the fused step pairs numbers by memory order: channels last
                moments[name] = torch.empty_like(parameter).copy_(value)
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(states["scaler"])
    state = Progress(**reached)
    accelerator.print(f"resuming after epoch {state.epoch} (optimizer step {state.step})")
    return state


def _mean_loss(
    losses: list[Tensor], first_step: int, config: PretrainBrainMT, accelerator: Accelerator
) -> float:
    """Mean over batches and processes.

    Raises:
        InputError: a loss is not finite; the message names the optimizer step.
    """
    means = accelerator.reduce(torch.stack(losses), reduction="mean").cpu()
    if not bool(torch.isfinite(means).all()):
        step = first_step + int((~torch.isfinite(means)).nonzero()[0]) // config.accumulate + 1
        raise InputError(
            f"the loss is {means[~torch.isfinite(means)][0].item()} at optimizer step {step}; lower lr or clip, "
            f"or check the scans of this epoch; checkpoints from before it are kept"
        )
    return float(means.mean())


def _summary(fold: str, scores: dict[str, np.ndarray]) -> dict[str, float]:
    """Means over targets; a target whose predictions do not vary counts as r = 0."""
    return {
        f"{fold}_mse": float(np.nanmean(scores["mse"])),
        f"{fold}_mae": float(np.nanmean(scores["mae"])),
        f"{fold}_r2": float(np.nanmean(scores["r2"])),
        f"{fold}_r": float(np.nan_to_num(scores["r"]).mean()),
    }


def _by_target(scores: dict[str, np.ndarray], targets: Targets) -> dict[str, dict[str, float]]:
    return {
        name: {metric: float(column[k]) for metric, column in scores.items()}
        for k, name in enumerate(targets.names)
    }
