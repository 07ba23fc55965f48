"""Training the projectors: one visible loop under Accelerate, resumable after every look at the validation people.

Glossary: S people · I width of a modality's input · O width of the shared space · G ways of belonging together.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.utils import gather_object
from jaxtyping import Float32, Int
from torch import Tensor

from align.config import Align
from align.galleries import matched
from align.gather import gather_with_gradient, shard
from align.losses import clip_loss, siglip_loss
from align.model import AlignmentModel, pair_name
from align.pairs import Joined, belonging
from align.preprocess import Whitener
from align.retrieval import DIRECTIONS, evaluate_gallery
from align.soft_targets import SoftTargets
from encoders.runs.checkpoint import (
    checkpoints,
    load_checkpoint,
    random_state,
    save_checkpoint,
    set_random_state,
)
from encoders.runs.errors import InputError
from encoders.runs.progress import progress
from encoders.runs.tracking import Tracker


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """Scaled inputs of all people, and how they were scaled.

    Args:
        values: Modality -> (S, I) float32; rows of people without it are 0.
        whiteners: Modality -> the fitted scaling.
    """

    values: dict[str, Float32[np.ndarray, "S _"]]
    whiteners: dict[str, Whitener]


def scaled(joined: Joined, config: Align) -> Inputs:
    """Whiten each modality with what the training people show who have it."""
    train = np.array(joined.folds) == "train"
    whiteners, values = {}, {}
    for m, there in joined.present.items():
        whitener = Whitener(ridge=config.projector.ridge, components=config.projector.components)
        whiteners[m] = whitener.fit(joined.values[m][train & there])
        values[m] = whitener.transform(joined.values[m]) * there[:, None].astype(np.float32)
    return Inputs(values=values, whiteners=whiteners)


def train_alignment(
    inputs: Inputs,
    joined: Joined,
    config: Align,
    *,
    name: str,
    folder: Path,
    accelerator: Accelerator,
) -> tuple[AlignmentModel, float]:
    """Train the projectors on training people; the model of the best matched validation 2AFC, and that value.

    Args:
        inputs: Scaled vectors of all people.
        joined: Who they are.
        config: Options.
        name: `raw` or `adjusted`, for messages.
        folder: Where this model keeps its checkpoints and `metrics.jsonl`.
        accelerator: Devices and processes.

    Raises:
        InputError: the loss became NaN or infinite; names the step.
    """
    device = accelerator.device
    train = joined.rows("train")
    values = {m: torch.from_numpy(inputs.values[m]).to(device) for m in joined.modalities}

    torch.manual_seed(config.seed)
    model = AlignmentModel(
        {m: values[m].shape[1] for m in joined.modalities},
        config.projector,
        temperature=config.temperature,
        # log-odds that two people of a batch are a match; SigLIP's -10 is that of batches of some 20,000
        bias=-math.log(min(config.batch_size, len(train))) if config.loss == "siglip" else None,
    )
    pairs = _pairs_of_people(joined, inputs, model, config, device)
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
        own = states.get("torch_of_processes", [])  # each process draws its own dropout and noise
        if len(own) == accelerator.num_processes:
            states["random"] |= own[accelerator.process_index]
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
            order = torch.from_numpy(batch).to(device)
            vectors, scales, biases = model({m: values[m][part] for m in values})
            vectors = {m: gather_with_gradient(own, accelerator) for m, own in vectors.items()}
            loss = contrast(vectors, scales, biases, order, pairs, config)
            if not torch.isfinite(loss):
                raise InputError(
                    f"align ({name}): the loss is {loss.item()} at epoch {epoch + 1}; lower --lr"
                )
            optimizer.zero_grad()
            accelerator.backward(loss)
            accelerator.clip_grad_norm_(model.parameters(), config.clip_norm)
            optimizer.step()
            bare.cap_scales()
            schedule.step()
            losses.append(loss.detach())
        step = (epoch + 1) * num_batches
        scalars = {"epoch": epoch + 1, "train_loss": float(torch.stack(losses).mean())}
        state |= {"epoch": epoch + 1, "step": step}
        if (epoch + 1) % config.eval_every == 0 or epoch + 1 == config.epochs:
            scalars |= validate(bare, inputs, joined, pairs, config)
            state["stale"] += 1
            if scalars["val_auc2afc_matched"] > state["best"]:
                state |= {"best": scalars["val_auc2afc_matched"], "best_epoch": epoch + 1, "stale": 0}
                best = {key: value.clone() for key, value in bare.state_dict().items()}
            shown = f"loss {scalars['train_loss']:.3f}, val 2AFC {scalars['val_auc2afc_matched']:.3f}"
            epochs.set_postfix_str(shown, refresh=False)
            several = {}
            if accelerator.num_processes > 1:
                drawn = {key: value for key, value in random_state().items() if key in ("torch", "cuda")}
                several = {"torch_of_processes": gather_object([drawn])}
            if tracker is not None:
                states = {"model": bare, "optimizer": optimizer, "schedule": schedule}
                states = {key: part.state_dict() for key, part in states.items()} | {"best": best} | several
                save_checkpoint(folder, step, states, progress=state)
        if tracker is not None:
            tracker.log(step, scalars)
    if tracker is not None:
        tracker.close()
    bare.load_state_dict(best)
    accelerator.print(
        f"align ({name}): best epoch {state['best_epoch']}, matched validation 2AFC {state['best']:.3f}"
    )
    return bare.eval(), float(state["best"])


@dataclass(frozen=True, kw_only=True)
class PairOfModalities:
    """What the loss must know of two modalities.

    Args:
        left: One of them.
        right: The other.
        both: (S,) who has both.
        belonging: (S, G) ids that people share who are no negatives of each other.
        alike: (S, I) unit vectors whose products say how alike people are, for soft targets; None for hard ones.
    """

    left: str
    right: str
    both: Tensor
    belonging: Tensor
    alike: Tensor | None

    def cpu(self) -> "PairOfModalities":
        """The same on the CPU."""
        tensors = {name: getattr(self, name) for name in ("both", "belonging", "alike")}
        return replace(self, **{name: value.cpu() for name, value in tensors.items() if value is not None})


def _pairs_of_people(
    joined: Joined, inputs: Inputs, model: AlignmentModel, config: Align, device: torch.device
) -> list[PairOfModalities]:
    train = np.array(joined.folds) == "train"
    pairs = []
    for left, right in model.pairs:
        both = joined.both(left, right)
        groups = belonging(joined.groups, joined.values[left], joined.values[right])
        for kind, ids in zip(
            ("family", f"{left} vector", f"{right} vector"), groups[train & both].T, strict=True
        ):
            if len(ids) > 1 and (ids == ids[0]).all():
                raise InputError(
                    f"all {len(ids)} training people have the same {kind}: there is nobody to tell them apart from; "
                    f"look at the {'kinship table' if kind == 'family' else 'vectors'}",
                    code="E_NO_NEGATIVES",
                )
        alike = None
        if config.soft_weight and config.soft_modality in (left, right):
            alike = F.normalize(torch.from_numpy(inputs.values[config.soft_modality]), dim=1).to(device)
        pairs.append(
            PairOfModalities(
                left=left,
                right=right,
                both=torch.from_numpy(both).to(device),
                belonging=torch.from_numpy(groups).to(device),
                alike=alike,
            )
        )
    return pairs


def contrast(
    vectors: dict[str, Tensor],
    scales: dict[str, Tensor],
    biases: dict[str, Tensor],
    order: Int[Tensor, " B"],
    pairs: list[PairOfModalities],
    config: Align,
) -> Tensor:
    """Mean over the pairs of modalities of the loss among the people of a batch who have both.

    Args:
        vectors: Modality -> unit vectors of the batch.
        scales: Inverse temperature of each pair.
        biases: Bias of the logits of each pair; SigLIP only.
        order: Row numbers of the people of the batch.
        pairs: The pairs of modalities.
        config: Which loss, its targets and its tiles.
    """
    losses = []
    for pair in pairs:
        there = pair.both[order]
        if int(there.sum()) < 2:  # nobody to compare with
            continue
        left, right, key = (
            vectors[pair.left][there],
            vectors[pair.right][there],
            pair_name(pair.left, pair.right),
        )
        options: dict[str, Any] = {
            "not_negative": pair.belonging[order][there],
            "chunk": config.loss_chunk,
        }
        if pair.alike is not None:
            options["soft"] = SoftTargets(
                features=pair.alike[order][there],
                weight=config.soft_weight,
                temperature=config.soft_temperature,
            )
        if config.loss == "siglip":
            losses.append(siglip_loss(left, right, scales[key], biases[key], **options))
        else:
            losses.append(clip_loss(left, right, scales[key], **options))
    unused = sum((part.sum() for part in (*vectors.values(), *scales.values(), *biases.values())), start=0.0)
    total = torch.stack(losses).mean() if losses else torch.zeros((), device=order.device)
    return total + 0.0 * unused  # DDP waits for a gradient of everything, also where a batch holds no pair


def validate(
    model: AlignmentModel, inputs: Inputs, joined: Joined, pairs: list[PairOfModalities], config: Align
) -> dict[str, float]:
    """Loss and matched 2AFC (mean of pairs and directions) on validation people."""
    vectors = embed(model, inputs)
    scales = {name: value.detach().cpu() for name, value in model.scales.items()}
    biases = {name: value.detach().cpu() for name, value in model.biases.items()}
    val, train = joined.rows("val"), joined.rows("train")
    on_cpu = [pair.cpu() for pair in pairs]
    loss = contrast(
        {m: torch.from_numpy(v[val]) for m, v in vectors.items()},
        scales,
        biases,
        torch.from_numpy(val),
        on_cpu,
        config,
    )
    aucs = []
    for pair in on_cpu:
        rows = val[pair.both.numpy()[val]]
        if len(rows) < 2:
            continue
        gallery = matched(joined.frame.iloc[rows], joined.frame.iloc[train], [joined.groups[i] for i in rows])
        result = evaluate_gallery(
            vectors[pair.left][rows] @ vectors[pair.right][rows].T,
            gallery,
            permute_within=gallery.strata,
            num_permutations=1,
            num_bootstraps=1,
            seed=0,
        )
        found = [result[d]["auc2afc"]["value"] for d in DIRECTIONS if d in result]
        aucs.append(float(np.mean(found)) if found else 0.5)
    return {"val_loss": float(loss), "val_auc2afc_matched": float(np.mean(aucs)) if aucs else 0.5}


@torch.no_grad()
def embed(model: AlignmentModel, inputs: Inputs) -> dict[str, Float32[np.ndarray, "S O"]]:
    """Aligned unit vectors of all people in each modality, without dropout or noise."""
    training = model.training
    model.eval()
    device = next(model.parameters()).device
    vectors = {
        m: model.embed(m, torch.from_numpy(values).to(device)).cpu().numpy()
        for m, values in inputs.values.items()
    }
    model.train(training)
    return vectors


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
