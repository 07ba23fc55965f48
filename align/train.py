"""Training the projectors: one visible loop under Accelerate, resumable after every epoch.

Glossary: S people · I, J widths of the two inputs · O width of the shared space.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Bool, Float32, Int
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from align.config import Align
from align.galleries import matched
from align.losses import clip_loss
from align.model import AlignmentModel
from align.pairs import Pairs, not_negative
from align.preprocess import Whitener
from align.retrieval import DIRECTIONS, evaluate_gallery
from encoders.runs.checkpoint import checkpoints, load_checkpoint, save_checkpoint, set_random_state
from encoders.runs.errors import InputError
from encoders.runs.progress import progress
from encoders.runs.tracking import Tracker


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Scaled inputs of all people, and how they were scaled.

    Args:
        brain: (S, I) float32.
        genetics: (S, J) float32.
        whiteners: Modality -> the fitted scaling.
    """

    brain: Float32[np.ndarray, "S I"]
    genetics: Float32[np.ndarray, "S J"]
    whiteners: dict[str, Whitener]


def scaled(
    brain: Float32[np.ndarray, "S D"], genetics: Float32[np.ndarray, "S E"], train: Any, config: Align
) -> Inputs:
    """Whiten both modalities with what training people (row numbers `train`) show."""
    brain_whitener, genetics_whitener = (
        Whitener(ridge=config.projector.ridge, components=config.projector.components).fit(values[train])
        for values in (brain, genetics)
    )
    return Inputs(
        brain=brain_whitener.transform(brain),
        genetics=genetics_whitener.transform(genetics),
        whiteners={"brain": brain_whitener, "genetics": genetics_whitener},
    )


def train_alignment(
    inputs: Inputs,
    pairs: Pairs,
    config: Align,
    *,
    name: str,
    folder: Path,
    accelerator: Accelerator,
) -> AlignmentModel:
    """Train the projectors on training pairs and return the model of the best matched validation 2AFC.

    Args:
        inputs: Scaled vectors of all people.
        pairs: Who they are.
        config: Options.
        name: `raw` or `adjusted`, for messages.
        folder: Where this model keeps its checkpoints and `metrics.jsonl`.
        accelerator: Devices and processes.

    Raises:
        InputError: the loss became NaN or infinite; names the step.
    """
    device = accelerator.device
    train, val = pairs.rows("train"), pairs.rows("val")
    brain = torch.from_numpy(inputs.brain).to(device)
    genetics = torch.from_numpy(inputs.genetics).to(device)
    masked = torch.from_numpy(not_negative(pairs.groups, pairs.genetics)).to(device)

    torch.manual_seed(config.seed)
    model = AlignmentModel(
        brain.shape[1], genetics.shape[1], config.projector, temperature=config.temperature
    )
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": config.weight_decay}, {"params": plain, "weight_decay": 0.0}],
        lr=config.lr,
    )
    num_batches = max(1, len(train) // min(config.batch_size, len(train)))
    steps = config.epochs * num_batches
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, steps, config.warmup)
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    bare = accelerator.unwrap_model(model)
    torch.manual_seed(config.seed + accelerator.process_index)  # other dropout and noise on every process

    state: dict[str, Any] = {
        "epoch": 0,
        "step": 0,
        "best": -math.inf,
        "best_epoch": 0,
        "stale": 0,
        "run_id": None,
    }
    best = {key: value.clone() for key, value in bare.state_dict().items()}
    if saved := checkpoints(folder):
        states, state = load_checkpoint(saved[-1])
        bare.load_state_dict(states["model"])
        optimizer.load_state_dict(states["optimizer"])
        schedule.load_state_dict(states["schedule"])
        best = states["best"]
        set_random_state(states["random"])
        accelerator.print(f"align ({name}): resuming after epoch {state['epoch']}")
    tracker = None
    if accelerator.is_main_process:
        tracker = Tracker(
            folder,
            project=config.wandb,
            config=asdict(config),
            run_id=state["run_id"],
            resume_step=state["step"],
        )
        state["run_id"] = tracker.run_id

    epochs = progress(range(state["epoch"], config.epochs), f"align ({name})", unit="epoch")
    for epoch in epochs:
        if config.patience and state["stale"] >= config.patience:
            break
        losses = []
        model.train()
        for batch in batches(train, config.batch_size, seed=config.seed, epoch=epoch):
            part = shard(batch, accelerator)
            brain_vectors, genetics_vectors, scale = model(brain[part], genetics[part])
            order = torch.from_numpy(gathered_order(batch, accelerator)).to(device)
            loss = clip_loss(
                gather_with_gradient(brain_vectors, accelerator),
                gather_with_gradient(genetics_vectors, accelerator),
                scale,
                not_negative=masked[order][:, order],
            )
            if not torch.isfinite(loss):
                raise InputError(
                    f"align ({name}): the loss is {loss.item()} at epoch {epoch + 1}; lower --lr"
                )
            optimizer.zero_grad()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            schedule.step()
            losses.append(loss.detach())
        step = (epoch + 1) * num_batches
        scalars = {"epoch": epoch + 1, "train_loss": float(torch.stack(losses).mean())}
        state |= {"epoch": epoch + 1, "step": step}
        if (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs:
            scalars |= validate(bare, inputs, pairs, val, masked)
            state["stale"] += 1
            if scalars["val_auc2afc_matched"] > state["best"]:
                state |= {"best": scalars["val_auc2afc_matched"], "best_epoch": epoch + 1, "stale": 0}
                best = {key: value.clone() for key, value in bare.state_dict().items()}
            shown = f"loss {scalars['train_loss']:.3f}, val 2AFC {scalars['val_auc2afc_matched']:.3f}"
            epochs.set_postfix_str(shown, refresh=False)
            if tracker is not None:
                states = {"model": bare, "optimizer": optimizer, "schedule": schedule}
                states = {key: part.state_dict() for key, part in states.items()} | {"best": best}
                save_checkpoint(folder, step, states, progress=state)
        if tracker is not None:
            tracker.log(step, scalars)
    if tracker is not None:
        tracker.close()
    bare.load_state_dict(best)
    accelerator.print(
        f"align ({name}): best epoch {state['best_epoch']}, matched validation 2AFC {state['best']:.3f}"
    )
    return bare.eval()


def validate(
    model: AlignmentModel,
    inputs: Inputs,
    pairs: Pairs,
    val: Int[np.ndarray, " V"],
    masked: Bool[Tensor, "S S"],
) -> dict[str, float]:
    """Loss and matched 2AFC (mean of both directions) on validation people."""
    brain, genetics = embed(model, inputs)
    rows = torch.from_numpy(val)
    similarity = brain[val] @ genetics[val].T
    gallery = matched(
        pairs.frame.iloc[val], pairs.frame.iloc[pairs.rows("train")], [pairs.groups[i] for i in val]
    )
    result = evaluate_gallery(
        similarity, gallery, permute_within=gallery.strata, num_permutations=1, num_bootstraps=1, seed=0
    )
    loss = clip_loss(
        torch.from_numpy(brain[val]),
        torch.from_numpy(genetics[val]),
        model.scale.detach().cpu(),
        not_negative=masked.cpu()[rows][:, rows],
    )
    aucs = [result[d]["auc2afc"]["value"] for d in DIRECTIONS if d in result]
    return {"val_loss": float(loss), "val_auc2afc_matched": float(np.mean(aucs)) if aucs else 0.5}


@torch.no_grad()
def embed(
    model: AlignmentModel, inputs: Inputs
) -> tuple[Float32[np.ndarray, "S O"], Float32[np.ndarray, "S O"]]:
    """Aligned unit vectors of all people, without dropout or noise."""
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    brain = model.embed_brain(torch.from_numpy(inputs.brain).to(device)).cpu().numpy()
    genetics = model.embed_genetics(torch.from_numpy(inputs.genetics).to(device)).cpu().numpy()
    model.train(training)
    return brain, genetics


def warmup_cosine(step: int, steps: int, warmup: float) -> float:
    """Factor on the peak learning rate: linear rise over the share `warmup`, then half a cosine down to 0."""
    rise = max(1, round(warmup * steps))
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1 + math.cos(math.pi * (step - rise) / max(1, steps - rise)))


def batches(
    rows: Int[np.ndarray, " N"], size: int, *, seed: int, epoch: int
) -> Iterator[Int[np.ndarray, " B"]]:
    """Shuffled full batches of one epoch: a function of seed and epoch alone, so that resuming is exact."""
    order = np.random.default_rng([seed, epoch]).permutation(rows)
    size = min(size, len(rows))
    for first in range(0, len(order) - size + 1, size):
        yield order[first : first + size]


def shard(batch: Int[np.ndarray, " B"], accelerator: Accelerator) -> Int[np.ndarray, " b"]:
    """This process's equal part of a batch; what does not divide is left out."""
    per_process = len(batch) // accelerator.num_processes
    first = accelerator.process_index * per_process
    return batch[first : first + per_process]


def gathered_order(batch: Int[np.ndarray, " B"], accelerator: Accelerator) -> Int[np.ndarray, " b"]:
    """People of all processes' parts, in the order in which they are gathered."""
    return batch[: len(batch) // accelerator.num_processes * accelerator.num_processes]


def gather_with_gradient(part: Tensor, accelerator: Accelerator) -> Tensor:
    """The batch of all processes, through which gradients flow back to each.

    Every process computes the same full loss; summed over processes the gradient is num_processes times too large,
    and DDP's averaging divides by just that, so the step equals one process's step on the whole batch.
    """
    return part if accelerator.num_processes == 1 else torch.cat(all_gather(part))
