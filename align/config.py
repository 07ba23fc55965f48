"""Options of the alignment and its evaluation."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from encoders.cohort.config import DEFAULT_TERMS
from encoders.runs.study import DEMO


@dataclass(frozen=True, kw_only=True)
class ProjectorConfig:
    """The two projectors into the shared space (Linear, GELU, Dropout, Linear, LayerNorm).

    Args:
        output_dim: Width of the shared space.
        hidden_dim: Width between the two linear layers.
        dropout: Probability of zeroing a hidden unit in training.
        input_noise: Standard deviation of Gaussian noise added in training to the inputs (mean variance 1).
        ridge: Ridge of the whitening of the inputs, in units of their mean component variance; 0 makes every
            component count alike, the noisiest too. Fitted on train.
        components: Most principal components kept of each input; 0 keeps all.
    """

    output_dim: int = 512
    hidden_dim: int = 1024
    dropout: float = 0.1
    input_noise: float = 0.3
    ridge: float = 1.0
    components: int = 0


@dataclass(frozen=True, kw_only=True)
class Align:
    """Train one projector per modality so that a person's brain and genome meet in one space.

    Args:
        study: Study folder.
        participants: Table of people with confounds; default: raw/participants.tsv of the study.
        brain: Brain vectors; default: vectors/brain.safetensors of the study.
        genetics: Genome vectors; default: vectors/genetics.safetensors of the study.
        projector: The projectors.
        confounds: Columns taken out of the inputs and of the aligned vectors of the adjusted model; `a^2` and
            `a:b` are squares and interactions. Columns that the table lacks are named in the report.
        epochs: Passes over the training people.
        batch_size: People per contrastive batch over all processes together.
        lr: Peak learning rate.
        weight_decay: AdamW weight decay.
        warmup: Share of the steps with a rising learning rate, 0-1.
        temperature: Temperature of the softmax at the start; it is learned. CLIP's 0.07 suits millions of pairs.
        clip_norm: Largest gradient norm.
        eval_every: Epochs between two looks at the validation people.
        patience: Looks without a better matched validation 2AFC after which training stops; 0 never stops.
        seed: Seed of initialisation, order and noise.
        unknown_training: What to do about an encoder that does not say whom it was trained on; `accept` it only if
            you know that nobody held out is among them.
        wandb: W&B project; empty records locally only.
        redo: Discard an earlier alignment made with other options.
    """

    study: Path = DEMO
    participants: Path | None = None
    brain: Path | None = None
    genetics: Path | None = None
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    confounds: list[str] = field(default_factory=lambda: list(DEFAULT_TERMS))
    epochs: int = 40
    batch_size: int = 1024
    lr: float = 1e-3
    weight_decay: float = 0.05
    warmup: float = 0.1
    temperature: float = 0.3
    clip_norm: float = 1.0
    eval_every: int = 5
    patience: int = 0
    seed: int = 0
    unknown_training: Literal["refuse", "accept"] = "refuse"
    wandb: str = ""
    redo: bool = False


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score the alignment on held-out people: raw, confound-adjusted, confound-matched.

    Args:
        study: Study folder.
        permutations: Permuted pairings behind each p-value.
        bootstraps: Resamples of families behind each 95 % interval.
        seed: Seed of permutations and resamples.
        redo: Discard an earlier evaluation made with other options.
    """

    study: Path = DEMO
    permutations: int = 1000
    bootstraps: int = 1000
    seed: int = 0
    redo: bool = False
