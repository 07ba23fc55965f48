"""Options of `scripts/pretrain_brainmt.py`. Imports nothing heavy."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from encoders.brainmt.model_config import BrainMTConfig
from encoders.runs.errors import InputError
from encoders.runs.study import DEMO, Study, name_in_a_sweep

FROM_SCRATCH, FROM_WEIGHTS = 1.0, 0.75  # layer_decay where none is given; 0.75 from scratch starves the stem


@dataclass(frozen=True, kw_only=True)
class PretrainBrainMT:
    """Train BrainMT to predict columns of the participants table.

    The defaults are the paper's size, for GPUs; configs/demo/pretrain_brainmt.yaml takes minutes on two cores. People
    held out for the test are never trained on. The same command again continues a run that was interrupted.

    Args:
        study: Study folder.
        store: fMRI store (its manifest.json); default: the study's own.
        splits: Split file; default: the study's own.
        participants: Table with the targets; default: the study's own.
        name: Name of this run, for several of one study side by side; default: none, or in a W&B sweep the run's id.
        fold: Instead of the hold-out people, hold out this fold of the split file (0, 1, ...), or `all` folds one
            after another; each fold has a run folder of its own.
        targets: Columns to predict; `*` and `?` are wildcards.
        task: Whether the columns are numbers (`regression`) or classes (`classification`).
        loss: Error of numbers: `mse`, or `huber`, which is linear beyond one standard deviation.
        class_weights: `balanced` weighs each class by the inverse of its share among the training people.
        model: Shape of the network.
        weights: Start from these weights, a folder or a hub id of a trained BrainMT: its architecture is taken over,
            `model` then sets num_frames, dropout, embedding, checkpointing and scan alone. Not for continuing a run (see resume).
        revision: Commit, tag or branch of the weights on the hub.
        unfrozen_blocks: Train only the head and this many of the last blocks (count); 0 is a linear probe on the
            frozen trunk; default: everything.
        epochs: Passes over the training people (count); each takes one random window of every run, but of those at
            the end of its random order that do not fill an optimizer step.
        batch_size: Windows per batch and process (count).
        accumulate: Batches per optimizer step (count).
        lr: Peak learning rate, reached at the end of the warm-up.
        layer_decay: Factor on the learning rate per layer below the head; default: 1 from scratch, 0.75 from weights.
        weight_decay: Decoupled weight decay (AdamW); biases, norms, tokens, position tables, A_log and D have none.
        betas: AdamW's two decay rates.
        warmup_epochs: Epochs over which the learning rate rises linearly; then it falls as a cosine.
        restart_epochs: Length of the first cosine in epochs, after which the rate jumps back up; 0 for one cosine.
        restart_mult: Each further cosine is this many times as long.
        restart_gamma: Each further cosine starts at this share of the peak before.
        clip: Largest norm of the gradient; longer ones are scaled down.
        eval_every: Epochs between evaluations on the validation people (count).
        eval_windows: Evenly spaced windows per run in evaluations, averaged (count).
        select_by: Validation metric of the best model, over all processes: `auto` is r (mean correlation over targets)
            for numbers, auroc for classes.
        patience: Stop after so many evaluations without improvement (count); 0 trains to the end.
        mixed_precision: `auto` takes bf16 where a CUDA device has it, else fp16; on a CPU fp32.
        compile: Compile convolutions and attention with torch.compile; takes a minute at the start.
        preload: Keep the whole store in memory; false reads each window from disk.
        log_every: Optimizer steps between lines of metrics.jsonl (count); epochs always end with one.
        save_minutes: Minutes between checkpoints within an epoch; one is always saved at the end of an epoch.
        resume: `latest` continues from the newest checkpoint; `older`, if that one is damaged, from the one before.
        seed: Seed of weights, order and windows.
        wandb: W&B project; empty for none.
        redo: Discard an earlier run made with other options.
    """

    study: Path = DEMO
    store: Path | None = None
    splits: Path | None = None
    participants: Path | None = None
    name: str = field(default_factory=name_in_a_sweep)
    fold: int | Literal["all"] | None = None
    targets: list[str] = field(default_factory=lambda: ["trait_*"])
    task: Literal["regression", "classification"] = "regression"
    loss: Literal["mse", "huber"] = "mse"
    class_weights: Literal["none", "balanced"] = "none"
    model: BrainMTConfig = field(default_factory=BrainMTConfig)
    weights: str = ""
    revision: str | None = None
    unfrozen_blocks: int | None = None
    epochs: int = 70
    batch_size: int = 2
    accumulate: int = 4
    lr: float = 2e-4
    layer_decay: float | None = None
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    warmup_epochs: float = 5.0
    restart_epochs: float = 0.0
    restart_mult: float = 1.0
    restart_gamma: float = 1.0
    clip: float = 1.0
    eval_every: int = 1
    eval_windows: int = 4
    select_by: Literal["auto", "r", "r2", "mse", "auroc", "auprc", "balanced_accuracy", "brier"] = "auto"
    patience: int = 0
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    compile: bool = False
    preload: bool = False
    log_every: int = 10
    save_minutes: float = 10.0
    resume: Literal["latest", "older"] = "latest"
    seed: int = 0
    wandb: str = ""
    redo: bool = False

    def __post_init__(self) -> None:
        positive = (
            "epochs",
            "batch_size",
            "accumulate",
            "lr",
            "clip",
            "eval_every",
            "eval_windows",
            "log_every",
        )
        for name in (*positive, "restart_mult", "restart_gamma", "layer_decay"):
            if (given := getattr(self, name)) is not None and not given > 0:
                raise InputError(f"{name} is {given}; give a number above 0")
        for name in ("restart_epochs", "save_minutes", "patience", "weight_decay", "unfrozen_blocks"):
            if (given := getattr(self, name)) is not None and not given >= 0:
                raise InputError(f"{name} is {given}; give 0 or a number above it")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise InputError(f"betas is {list(self.betas)}; give two numbers from 0 to below 1")
        if not 0 <= self.warmup_epochs <= self.epochs:
            raise InputError(
                f"warmup_epochs is {self.warmup_epochs} of {self.epochs} epochs; give a number from 0 to epochs"
            )
        if not re.fullmatch(r"[A-Za-z0-9._-]*", self.name):
            raise InputError(f"name is {self.name!r}; give letters, digits, '.', '_' and '-' only")
        if not self.targets:
            raise InputError("targets is empty; name at least one column of the participants table")
        if self.task == "regression" and self.class_weights != "none":
            raise InputError(
                f"class_weights is {self.class_weights}, but numbers have no classes; leave it out, or add "
                f"--task=classification"
            )
        if self.task == "classification" and self.loss != "mse":
            raise InputError(
                f"loss is {self.loss}, which is for numbers; leave it out, or add --task=regression"
            )
        numbers, classes = ("r", "r2", "mse"), ("auroc", "auprc", "balanced_accuracy", "brier")
        fitting = numbers if self.task == "regression" else classes
        if self.select_by not in ("auto", *fitting):
            raise InputError(
                f"select_by is {self.select_by}, which does not exist for {self.task}; give {', '.join(fitting)}"
            )

    @property
    def metric(self) -> str:
        """Metric that chooses the best model."""
        if self.select_by != "auto":
            return self.select_by
        return "r" if self.task == "regression" else "auroc"

    @property
    def decay_per_layer(self) -> float:
        """layer_decay, or what suits how the weights start."""
        if self.layer_decay is not None:
            return self.layer_decay
        return FROM_WEIGHTS if self.weights else FROM_SCRATCH


def stage_name(fold: int | None = None, name: str = "") -> str:
    """Name of a training stage and of its run folder, apart for each named run and each fold held out."""
    parts = ["pretrain_brainmt", name, "" if fold is None else f"fold-{fold}"]
    return "_".join(part for part in parts if part)


def best_model(study: Study, fold: int | None = None, name: str = "") -> Path:
    """Folder of the best model of the hold-out split, or of the one that held out ``fold``."""
    return study.run_folder(stage_name(fold, name)) / "best"
