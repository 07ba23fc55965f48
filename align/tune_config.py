"""Options of `scripts/tune_brainmt.py`. Imports nothing heavy."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from align.config import ProjectorConfig
from encoders.runs.errors import InputError
from encoders.runs.study import DEMO, name_in_a_sweep


@dataclass(frozen=True, kw_only=True)
class TuneBrainMT:
    """Train BrainMT on, against the stored vectors of another modality, on the contrastive loss.

    Leaves a BrainMT (runs/tune_brainmt/best) and brain vectors made with it (vectors/brain_tuned.safetensors), which
    `align --brain` takes as any others. The same command again continues a run that was interrupted.

    Args:
        study: Study folder.
        store: fMRI store (its manifest.json); default: the study's own.
        splits: Split file; default: the study's own.
        participants: Table with what people are matched on; default: the study's own.
        model: Folder of the trained BrainMT to start from; default: the study's own best.
        partner: Name of the other modality; its vectors stay as they are.
        partner_vectors: Their file; default: vectors/PARTNER.safetensors of the study.
        name: Name of this run, for several of one study side by side; default: none, or in a W&B sweep the run's id.
        fold: Instead of the hold-out people, hold out this fold of the split file (0, 1, ...). `{fold}` in the paths of
            the model and of the partner's vectors is replaced: neither must have seen the fold.
        unfrozen_blocks: Train only so many of the last Mamba or attention blocks (count); default: everything.
        drop_path: Drop path of the deepest block while tuning; default: that of the model.
        use_checkpoint: Recompute activations in the backward pass, for chunks of one person that do not fit.
        projector: Both projectors. `components` is that of the partner: of the brain all are kept, as those that are
            empty now may fill.
        loss: "clip" (softmax over the batch) or "siglip" (each pair on its own).
        loss_chunk: Compare the batch in square tiles of so many people; 0 compares all at once.
        negatives: Who is told apart: "matched", people of the same sex, site, ancestry, age bin and head motion (as many of
            these as leave enough people), so that none of them helps; or "everyone".
        projector_epochs: Passes at the start in which only the projectors learn, from the vectors of the model as it is;
            they take seconds. A tower under projectors of random weights would unlearn first.
        epochs: Passes over the training people with the tower.
        batch_size: People per contrastive batch over all processes together.
        chunk_size: People of each process in memory at a time (count); changes nothing but memory and speed.
        windows: Random windows of each person and step (count), averaged.
        eval_windows: Evenly spaced windows per run (count), for validation and for the vectors.
        lr: Peak learning rate of the projectors.
        tower_lr: Peak learning rate of the last block of the tower.
        layer_decay: Factor on it per layer below.
        weight_decay: AdamW weight decay.
        warmup: Share of the steps with a rising learning rate, 0-1.
        temperature: Temperature of the softmax at the start; it is learned.
        clip_norm: Largest gradient norm.
        eval_every: Epochs between looks at the validation people (count).
        patience: Looks without improvement of the matched validation 2AFC before stopping; 0 trains to the end.
        mixed_precision: `auto` takes bf16 where a CUDA device has it; on a CPU fp32.
        preload: Keep the scans of the training people in memory; false reads each window from disk, twice a step.
        save_minutes: Minutes between checkpoints within an epoch; one is always saved after a look at the validation people.
        seed: Seed of weights, order, windows and dropout.
        unknown_training: `accept` a model or vectors that do not say whom they were trained on.
        wandb: W&B project; empty for none.
        redo: Discard an earlier run made with other options.
    """

    study: Path = DEMO
    store: Path | None = None
    splits: Path | None = None
    participants: Path | None = None
    model: Path | None = None
    partner: str = "genetics"
    partner_vectors: Path | None = None
    name: str = field(default_factory=name_in_a_sweep)
    fold: int | None = None
    unfrozen_blocks: int | None = None
    drop_path: float | None = None
    use_checkpoint: bool = False
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    loss: Literal["clip", "siglip"] = "clip"
    loss_chunk: int = 0
    negatives: Literal["matched", "everyone"] = "matched"
    projector_epochs: int = 40
    epochs: int = 10
    batch_size: int = 1024
    chunk_size: int = 4
    windows: int = 1
    eval_windows: int = 4
    lr: float = 1e-3
    tower_lr: float = 5e-5
    layer_decay: float = 0.75
    weight_decay: float = 0.05
    warmup: float = 0.1
    temperature: float = 0.3
    clip_norm: float = 1.0
    eval_every: int = 1
    patience: int = 3
    mixed_precision: Literal["auto", "no", "bf16"] = "auto"
    preload: bool = False
    save_minutes: float = 10.0
    seed: int = 0
    unknown_training: Literal["refuse", "accept"] = "refuse"
    wandb: str = ""
    redo: bool = False

    def __post_init__(self) -> None:
        positive = (
            "epochs",
            "batch_size",
            "chunk_size",
            "windows",
            "eval_windows",
            "eval_every",
            "unfrozen_blocks",
        )
        for name in (*positive, "lr", "tower_lr", "layer_decay", "temperature", "clip_norm"):
            if (given := getattr(self, name)) is not None and not given > 0:
                raise InputError(f"{name} is {given}; give a number above 0")
        for name in ("projector_epochs", "patience", "weight_decay", "save_minutes", "loss_chunk"):
            if not (given := getattr(self, name)) >= 0:
                raise InputError(f"{name} is {given}; give 0 or a number above it")
        if self.batch_size < 2:
            raise InputError("batch_size is 1; people are told apart within a batch, so give 2 or more")
        if not 0 <= self.warmup <= 1:
            raise InputError(f"warmup is {self.warmup}; give a share of the steps, 0 to 1")
        if self.drop_path is not None and not 0 <= self.drop_path < 1:
            raise InputError(f"drop_path is {self.drop_path}; give a probability from 0 to below 1")
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.partner) or self.partner == "brain":
            raise InputError(f"partner is {self.partner!r}; give the name of another modality than the brain")
        if not re.fullmatch(r"[a-z0-9_-]*", self.name):
            raise InputError(f"name is {self.name!r}; give small letters, digits, '_' and '-' only")

    @property
    def suffix(self) -> str:
        """What is appended to the names of the stage and of the vectors."""
        parts = ["", self.name, "" if self.fold is None else f"fold-{self.fold}"]
        return "_".join(part for k, part in enumerate(parts) if part or k == 0)
