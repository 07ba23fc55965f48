"""Tuning a tower on the contrastive loss, against stored vectors of another modality: one visible loop.

The tower enters as an object (tower.py), the other modality as vectors that stay as they are. First the projectors
learn alone, from the vectors of the tower as it is (Kumar et al. 2022, arXiv 2202.10054: under a random head,
fine-tuning distorts what was learned); then all learn, batches going through the tower chunk by chunk (gradcache.py).
The best epoch by the matched 2AFC of the validation people is kept; epoch 0 is the tower as it was, so that tuning
which does not help changes nothing.

Confounds: a regression fitted beforehand cannot be taken out of vectors that change. Refitting it while the tower
learns would give the loss a moving target, and the tower gradients that do not know of it. Instead confounds are made
useless: who is told apart is alike in them (matched_batches.py). What differs within a bin of age or motion is taken
out afterwards, of inputs and aligned vectors, by `align` as for any vectors.

Every random choice is a function of (seed, step, process) or (seed, epoch), so that a run that was killed continues
with the very same numbers (on a CPU). A signal gives up the present step, which may be long, and saves what came
before it.

Glossary: S people · N validation people · b people of this process · D width of the tower's vectors.
"""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor

from align.gather import gather_with_gradient, shard
from align.gradcache import average_gradients, cached_backward
from align.losses import clip_loss, siglip_loss
from align.model import AlignmentModel, pair_name
from align.pairs import Joined
from align.retrieval import DIRECTIONS, evaluate_gallery
from align.tower import Tower
from align.train import warmup_cosine
from align.tune_config import TuneBrainMT
from align.tuning_inputs import save_projectors, whiteners_for_tuning
from align.tuning_people import TuningPeople
from encoders.runs.checkpoint import checkpoints, load_checkpoint, save_checkpoint
from encoders.runs.errors import InputError
from encoders.runs.progress import progress
from encoders.runs.signals import Stop, catching_stops
from encoders.runs.tracking import Tracker

CHECKPOINTS, PROJECTORS = "checkpoints", "projectors.safetensors"
METRIC = "val_auc2afc_matched"


@dataclass(kw_only=True)
class Progress:
    """Kept in every checkpoint; with the seed it determines everything that follows.

    Args:
        epoch: Epochs done, those of the projectors alone included, with their look at the validation people.
        batch: Batches done of the present epoch.
        step: Optimizer steps done.
        best: Best matched validation 2AFC.
        best_epoch: Epoch of it, counted from the first one with the tower: 0 is the tower as it was.
        start: That of the tower as it was.
        waited: Looks since the best.
        losses: Loss of each batch of the present epoch.
        run_id: W&B run to continue.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    start: float | None = None
    waited: int = 0
    losses: list[float] = field(default_factory=list)
    run_id: str | None = None


def tune(
    tower: Tower, joined: Joined, config: TuneBrainMT, *, folder: Path, accelerator: Accelerator
) -> dict[str, Any]:
    """Train projectors and tower; the tower saves itself where it is best, the projectors lie in ``folder``.

    Args:
        tower: The tower, as it starts.
        joined: People with both modalities; the first one's vectors are those of the tower as it starts.
        config: Options.
        folder: Run folder: checkpoints, metrics.jsonl, projectors.safetensors.
        accelerator: Devices and processes.

    Returns:
        What to tell the user at the end.

    Raises:
        InputError: people cannot be told apart, or a loss or gradient is not finite.
        Stop: a signal asked for it; the run is saved.
    """
    device = accelerator.device
    brain, partner = joined.modalities
    whiteners = whiteners_for_tuning(joined, config)
    start = torch.from_numpy(joined.values[brain]).to(device)
    others = torch.from_numpy(whiteners[partner].transform(joined.values[partner])).to(device)
    mean, matrix = (
        torch.from_numpy(part).float().to(device)
        for part in (whiteners[brain].mean_, whiteners[brain].matrix_)
    )
    people = TuningPeople(joined, config, device)

    torch.manual_seed(config.seed)
    model = AlignmentModel(
        {m: whiteners[m].matrix_.shape[1] for m in joined.modalities},
        config.projector,
        temperature=config.temperature,
        bias=-math.log(people.batch_size) if config.loss == "siglip" else None,
    ).to(device)
    optimizer = torch.optim.AdamW([*_groups(model, config), *tower.parameter_groups()], lr=config.lr)
    trained = [p for group in optimizer.param_groups for p in group["params"]]
    state = _resume(folder, model, tower, optimizer, accelerator)
    tracker = None
    if accelerator.is_main_process:
        options = {"project": config.wandb, "config": asdict(config)}
        tracker = Tracker(folder, **options, run_id=state.run_id, resume_step=state.step or None)
        state.run_id = tracker.run_id

    def save() -> None:
        if accelerator.is_main_process:
            of_tower = {n: p.detach() for n, p in tower.module.named_parameters() if p.requires_grad}
            states = {"model": model.state_dict(), "tower": of_tower, "optimizer": optimizer.state_dict()}
            save_checkpoint(folder / CHECKPOINTS, state.step, states, progress=vars(state))

    def loss_of(vectors: Tensor, *, rows: np.ndarray, order: np.ndarray) -> Tensor:
        """Loss of the whole batch ``order``, from the tower's vectors of this process's part ``rows``."""
        found, scales, biases = model({brain: (vectors.float() - mean) @ matrix, partner: others[rows]})
        left, right = (gather_with_gradient(found[m], accelerator) for m in (brain, partner))
        key, options = pair_name(brain, partner), people.comparison(order)
        if config.loss == "siglip":
            return siglip_loss(left, right, scales[key], biases[key], **options)
        return clip_loss(left, right, scales[key], **options)

    def encode(chunk: Any) -> Tensor:
        with accelerator.autocast():
            return tower.forward(chunk)

    per_epoch, chunks = people.batches_per_epoch, people.chunks(accelerator.num_processes)
    walks = 2 if chunks > 1 else 1
    alone = progress(range(config.projector_epochs * per_epoch), "training the projectors", unit="step")
    alone.update(min(state.epoch, config.projector_epochs) * per_epoch)
    bar = None
    saved, total = time.monotonic(), config.projector_epochs + config.epochs
    with catching_stops() as stop:

        def halt() -> None:
            """Save what is done and end, if any process was asked to."""
            if _anyone((bool(stop.number),), accelerator)[0]:
                save()
                if tracker is not None:
                    tracker.close()
                raise Stop(
                    f"stopped as asked after optimizer step {state.step}, saved; run the same command again to continue",
                    code=stop.code,
                )

        while state.epoch < total and not 0 < config.patience <= state.waited:
            tuning = state.epoch >= config.projector_epochs
            first_epoch, epochs = (
                (config.projector_epochs, config.epochs) if tuning else (0, config.projector_epochs)
            )
            if tuning and bar is None:
                alone.close()
                bar = progress(range(epochs * per_epoch * chunks * walks), "tuning the tower", unit="chunk")
                bar.update(((state.epoch - first_epoch) * per_epoch + state.batch) * chunks * walks)
            model.train()
            tower.training_mode()
            for order in people.batches(state.epoch, start=state.batch):
                began = time.perf_counter()
                seed = np.random.default_rng((config.seed, state.step, accelerator.process_index))
                torch.manual_seed(int(seed.integers(2**62)))
                rows = shard(order, accelerator)
                contrast = partial(loss_of, rows=rows, order=order)
                if tuning:
                    feed = _Feed(tower, people.divided(rows, chunks), state.epoch, each=halt, bar=bar)
                    if walks == 1:
                        (chunk,) = feed
                        loss = contrast(encode(chunk))
                        loss.backward()
                    else:
                        loss = cached_backward(encode, feed, contrast)
                else:
                    halt()
                    loss = contrast(start[rows])
                    loss.backward()
                    alone.update()
                average_gradients([p for p in trained if tuning or p.grad is not None], accelerator)
                norm = torch.nn.utils.clip_grad_norm_(trained, config.clip_norm)
                _check_finite(loss, norm, state.step + 1)
                place = (state.epoch - first_epoch) * per_epoch + state.batch
                share = warmup_cosine(place, epochs * per_epoch, config.warmup)
                for group in optimizer.param_groups:
                    group["lr"] = group["peak_lr"] * share
                optimizer.step()
                optimizer.zero_grad()
                model.cap_scales()
                state.step, state.batch = state.step + 1, state.batch + 1
                state.losses.append(loss.item())
                if tracker is not None and tuning:
                    scalars = {"loss": state.losses[-1], "grad_norm": norm.item(), "lr": config.lr * share}
                    tracker.log(state.step, scalars | {"step_s": time.perf_counter() - began})
                due = state.batch < per_epoch and time.monotonic() - saved > 60 * config.save_minutes
                if _anyone((due,), accelerator)[0]:
                    save()
                    saved = time.monotonic()

            scalars = {"epoch": state.epoch + 1, "train_loss": float(np.mean(state.losses))}
            state.epoch, state.batch, state.losses = state.epoch + 1, 0, []
            tuned = state.epoch - config.projector_epochs
            if tuned >= 0 and (tuned % config.eval_every == 0 or tuned == config.epochs):
                found = joined.values[brain][people.val]
                if tuned:
                    found = tower.vectors([joined.ids[k] for k in people.val], accelerator)
                found = (torch.from_numpy(found).to(device) - mean) @ matrix
                score = _matched_2afc(model, found, others[people.val], people)
                scalars[METRIC] = score
                state.waited += 1 if tuned else 0
                if tuned == 0:
                    state.start = score
                if state.best is None or score > state.best:
                    state.best, state.best_epoch, state.waited = score, tuned, 0
                    if accelerator.is_main_process:
                        tower.save(epoch=tuned, validation={METRIC: score})
                        save_projectors(folder / PROJECTORS, model, whiteners, config)
                if bar is not None:
                    shown = f"loss {scalars['train_loss']:.3f}, val 2AFC {score:.3f}"
                    bar.set_postfix_str(shown, refresh=False)
            if tracker is not None:
                tracker.log(state.step, scalars)
            if METRIC in scalars:
                save()
                saved = time.monotonic()
        if tracker is not None:
            tracker.close()
    for shown_bar in (alone, bar):
        if shown_bar is not None:
            shown_bar.close()
    accelerator.wait_for_everyone()  # the best tower is on disk
    return {
        "training_people": len(people.train),
        "validation_people": len(people.val),
        "told_apart_within": ", ".join(people.variables) or "everyone",
        "batch": f"{people.batch_size} people in {chunks} chunks of {config.chunk_size} on each of "
        f"{accelerator.num_processes} processes",
        "optimizer_steps": state.step,
        "trained_parameters": sum(p.numel() for p in trained),
        "best_epoch": f"{state.best_epoch} of {config.epochs}"
        + ("" if state.best_epoch else " (the tower as it was)"),
        **({"matched_validation_2afc_at_the_start": state.start} if state.start is not None else {}),
        "matched_validation_2afc": state.best,
    }


class _Feed:
    """Inputs of the chunks of a batch, read anew at each walk; ``each`` is called between chunks."""

    def __init__(
        self, tower: Tower, chunks: Sequence[Sequence[str]], epoch: int, *, each: Callable[[], None], bar: Any
    ) -> None:
        self.tower, self.chunks, self.epoch, self.each, self.bar = tower, chunks, epoch, each, bar

    def __iter__(self) -> Iterator[Any]:
        for inputs in self.tower.feed(self.chunks, epoch=self.epoch):
            self.each()
            yield inputs
            self.bar.update()


def _groups(model: AlignmentModel, config: TuneBrainMT) -> list[dict[str, Any]]:
    decayed = [p for p in model.parameters() if p.ndim > 1]
    plain = [p for p in model.parameters() if p.ndim <= 1]
    parts = ((decayed, config.weight_decay), (plain, 0.0))
    return [{"params": some, "weight_decay": decay, "peak_lr": config.lr} for some, decay in parts]


@torch.no_grad()
def _matched_2afc(
    model: AlignmentModel, brain: Float[Tensor, "N D"], partner: Float[Tensor, "N _"], people: TuningPeople
) -> float:
    """Matched 2AFC of validation people, mean of both directions; 0.5 where nobody has anybody to be told from."""
    model.eval()
    left, right = model.projectors
    similarity = (model.embed(left, brain) @ model.embed(right, partner).T).cpu().numpy()
    options = {"num_permutations": 1, "num_bootstraps": 1, "seed": 0, "only_auc": True}
    result = evaluate_gallery(similarity, people.gallery, permute_within=people.gallery.strata, **options)
    found = [result[d]["auc2afc"]["value"] for d in DIRECTIONS if d in result]
    return float(np.mean(found)) if found else 0.5


def _check_finite(loss: Tensor, norm: Tensor, step: int) -> None:
    if not (torch.isfinite(loss) and torch.isfinite(norm)):
        raise InputError(
            f"the loss is {loss.item()} and its gradient {norm.item()} at optimizer step {step}; lower --lr or "
            f"--tower_lr, or check the scans"
        )


def _resume(
    folder: Path,
    model: AlignmentModel,
    tower: Tower,
    optimizer: torch.optim.Optimizer,
    accelerator: Accelerator,
) -> Progress:
    found = checkpoints(folder / CHECKPOINTS)
    if not found:
        return Progress()
    states, reached = load_checkpoint(found[-1])
    model.load_state_dict(states["model"])
    own = dict(tower.module.named_parameters())
    with torch.no_grad():
        for name, value in states["tower"].items():
            own[name].copy_(value)
    optimizer.load_state_dict(states["optimizer"])
    state = Progress(**reached)
    accelerator.print(f"resuming after epoch {state.epoch}, optimizer step {state.step}")
    return state


def _anyone(wishes: tuple[bool, ...], accelerator: Accelerator) -> list[bool]:
    """Whether any process has each of the wishes; all processes must act alike."""
    if accelerator.num_processes == 1:
        return list(wishes)
    counts = torch.tensor([float(wish) for wish in wishes], device=accelerator.device)
    return (accelerator.reduce(counts, reduction="sum") > 0).tolist()
