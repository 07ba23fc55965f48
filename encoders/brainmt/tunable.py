"""BrainMT as a tower to tune: people -> random windows -> one vector per person, with gradient.

What `align` asks of a tower (align/tower.py). Training windows are drawn from (seed, epoch, person), so that the second
pass over a chunk reads the very same ones; a person with several runs gets windows of runs drawn likewise. Vectors for
validation are those that embed_fmri makes: evenly spaced windows averaged per run, runs per person.

The head is not read: the vectors are those below it.

Glossary: c people of a chunk · W windows of each · S people · T frames · D width.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float, Float32
from torch import Tensor

from encoders.brainmt.checkpoint import from_pretrained, save_pretrained
from encoders.brainmt.compatibility import trained_on
from encoders.brainmt.inference import subject_means, window_outputs
from encoders.brainmt.model import BrainMT
from encoders.brainmt.store import FMRIStore
from encoders.brainmt.training.optimizer import freeze, layer_groups, training_mode
from encoders.brainmt.windows import FMRIWindows


@dataclass(frozen=True, kw_only=True)
class TunableOptions:
    """How a tower is tuned.

    Args:
        unfrozen_blocks: Last blocks that are trained (count); None for everything.
        windows: W, random windows of each person and step.
        eval_windows: Evenly spaced windows per run where there is no randomness.
        batch_size: Windows per pass without gradient.
        lr: Peak learning rate of the last block.
        layer_decay: Factor per layer below.
        weight_decay: Of the decayed parameters.
        seed: Seed of the windows.
        preload: Keep the scans of the training people in memory.
    """

    unfrozen_blocks: int | None = None
    windows: int = 1
    eval_windows: int = 4
    batch_size: int = 16
    lr: float = 5e-5
    layer_decay: float = 0.75
    weight_decay: float = 0.05
    seed: int = 0
    preload: bool = False


@dataclass(kw_only=True)
class TunableBrainMT:
    """A BrainMT, the scans it is tuned on, and where its best form is kept.

    Args:
        module: The bare model, on its device.
        store: The fMRI store, verified.
        train: Training people, all with a scan.
        options: How it is tuned.
        best: Folder of its best form.
        card: What the card of that says beside epoch and validation: people seen, preparation.
    """

    module: BrainMT
    store: FMRIStore
    train: Sequence[str]
    options: TunableOptions
    best: Path
    card: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        freeze(self.module, self.options.unfrozen_blocks)
        self.module.head.requires_grad_(False)
        self._windows = FMRIWindows(
            self.store,
            frames=self.module.config.num_frames,
            subjects=self.train,
            windows_per_run=self.options.windows,
            training=True,
            seed=self.options.seed,
            preload=self.options.preload,
        )
        self._number = {name: k for k, name in enumerate(sorted(set(self.train)))}
        self._runs: dict[str, list[int]] = {}
        for place, run in enumerate(self._windows.runs):
            self._runs.setdefault(run.subject, []).append(place)

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.module.cls_token.device

    def feed(self, chunks: Sequence[Sequence[str]], *, epoch: int) -> Iterator[Float[Tensor, "cW T 1 Y X Z"]]:
        """Windows of each chunk of people, read in advance, person by person."""
        indices = [[index for name in chunk for index in self.items(name, epoch)] for chunk in chunks]
        ahead = 0 if self.options.preload else 2
        for windows, _ in self._windows.prefetch(indices, epoch, device=self.device, ahead=ahead):
            yield windows

    def items(self, name: str, epoch: int) -> list[int]:
        """Items of the windows that a person has in an epoch: W of runs drawn at random."""
        runs, wanted = self._runs[name], self.options.windows
        drawn = np.random.default_rng((self.options.seed, epoch, self._number[name])).integers(
            len(runs), size=wanted
        )
        return [runs[run] * wanted + window for window, run in enumerate(drawn)]

    def forward(self, inputs: Float[Tensor, "cW T 1 Y X Z"]) -> Float[Tensor, "c D"]:
        """Mean vector of each person's windows."""
        if not len(inputs):
            return torch.zeros(0, self.module.config.width, device=inputs.device)
        features = self.module.forward_features(inputs).float()
        return features.unflatten(0, (-1, self.options.windows)).mean(1)

    def training_mode(self) -> None:
        """Dropout and drop path on, except in frozen blocks."""
        training_mode(self.module)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Trained parameters by layer."""
        options = self.options
        groups = layer_groups(
            self.module, lr=1.0, layer_decay=options.layer_decay, weight_decay=options.weight_decay
        )
        top = max(group["peak_lr"] for group in groups)  # the head, which does not learn, is above it
        return [group | {"peak_lr": options.lr * group["peak_lr"] / top} for group in groups]

    def vectors(self, people: Sequence[str], accelerator: Accelerator) -> Float32[np.ndarray, "S D"]:
        """Vectors of people from evenly spaced windows, in the order asked for."""
        windows = FMRIWindows(
            self.store,
            frames=self.module.config.num_frames,
            subjects=people,
            windows_per_run=self.options.eval_windows,
        )
        training = [part for part in self.module.modules() if part.training]
        self.module.eval()
        outputs = window_outputs(
            self.module.forward_features,
            windows,
            self.module.config.width,
            batch_size=self.options.batch_size,
            accelerator=accelerator,
            label="embedding scans",
        )
        for part in training:
            part.training = True
        found, means = subject_means(outputs, windows)
        row = {name: k for k, name in enumerate(found)}
        return means[[row[name] for name in people]].astype(np.float32)

    def save(self, *, epoch: int, validation: dict[str, float]) -> None:
        """Keep it as the best so far, with its card."""
        save_pretrained(self.module, self.best, {**self.card, "epoch": epoch, "validation": validation})


def starting_tower(
    folder: Path, *, drop_path: float | None, use_checkpoint: bool, device: torch.device
) -> tuple[BrainMT, dict[str, Any]]:
    """A trained model and its card; with another drop path, or recomputing activations, where that is asked for.

    Args:
        folder: Folder of the trained model.
        drop_path: Of the deepest block; None for the model's own.
        use_checkpoint: Recompute activations in the backward pass.
        device: Where to put it.
    """
    trained, card = from_pretrained(folder)
    config = replace(
        trained.config,
        drop_path=trained.config.drop_path if drop_path is None else drop_path,
        use_checkpoint=use_checkpoint,
    )
    model = BrainMT(config, num_outputs=trained.head.linear.out_features)
    model.load_state_dict(trained.state_dict())
    return model.to(device).eval(), card


def provenance_of(card: dict[str, Any], store: FMRIStore) -> dict[str, Any]:
    """What vectors of the model as it starts record of where they came from."""
    return {
        "encoder": "brainmt",
        "weights_sha256": card["weights_sha256"],
        "config": card["config"],
        "store_digest": store.digest,
        "trained_on": trained_on(card),
    }
