"""Options of the alignment and its evaluation."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from encoders.cohort.config import DEFAULT_TERMS
from encoders.runs.errors import InputError
from encoders.runs.study import DEMO, name_in_a_sweep


@dataclass(frozen=True, kw_only=True)
class ProjectorConfig:
    """The projectors into the shared space, one per modality.

    Args:
        form: "brainmt": Linear, GELU, Dropout, Linear, LayerNorm (the users' BrainMTProjector); "linear": one layer;
            "256-128-64": three layers of these widths.
        output_dim: Width of the shared space ("256-128-64" has 64).
        hidden_dim: Width between the two linear layers of "brainmt".
        dropout: Probability of zeroing a hidden unit in training.
        input_noise: Standard deviation of Gaussian noise added in training to the inputs (mean variance 1).
        ridge: Ridge of the whitening of the inputs, in units of their mean component variance; 0 makes every
            component count alike, the noisiest too. Fitted on train.
        components: Most principal components kept of each input; 0 keeps all.
    """

    form: Literal["brainmt", "linear", "256-128-64"] = "brainmt"
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
        modalities: What is aligned, two or more: each is read from vectors/NAME.safetensors of the study. The first two
            are the pair that the report leads with. People need any two of them.
        brain: Brain vectors; default: vectors/brain.safetensors of the study.
        genetics: Genome vectors; default: vectors/genetics.safetensors of the study.
        files: Modality -> file of its vectors, where they lie elsewhere, e.g. --files.polygenic=scores.safetensors.
        name: A run folder of its own, runs/align_NAME; in a sweep W&B's name of the run. The index that retrieve asks is
            that of the run without a name.
        fold: Instead of the hold-out people, hold out this fold of the split file (0, 1, ...), or `all` folds one
            after another. `{fold}` in a path of vectors is replaced: encoders must not have seen the fold either.
        seeds: Train once with each of these seeds, each in a run folder of its own, and report mean and standard
            deviation; empty: once, with `seed`.
        kinds: Which models: "adjusted" (for confounds) and "raw". Evaluation needs both; a sweep one.
        projector: The projectors.
        confounds: Columns taken out of the inputs and of the aligned vectors of the adjusted model; `a^2`,
            `spline(a)` and `a:b` are squares, natural cubic splines and interactions. Columns that the table lacks are
            named in the report.
        harmonise: "combat" takes the shift and stretch of each site out of the vectors of `harmonise_modalities` before
            either model, fitted on training people; a site that training lacks gets the mean site effect.
        harmonise_by: Column that says where a person was measured.
        harmonise_keep: Covariates whose effects on the vectors stay, such as age and sex where sites differ in them.
            Nothing that is to be predicted belongs here.
        harmonise_modalities: What was measured at these sites.
        loss: "clip" (softmax over the batch) or "siglip" (each pair on its own, which suits small batches).
        loss_chunk: Compare the batch in square tiles of so many people, for batches whose B x B logits do not fit
            (1536 suits batches of 16,384 on a CPU); 0 compares all at once. Same value and gradients.
        soft_weight: Share of a person's target that goes to people who are like him within `soft_modality`, 0-1; 0 says
            that only his own other modality is right.
        soft_modality: The modality that says who is alike, by the cosine of its scaled inputs; it softens the pairs of
            modalities that it is part of.
        soft_temperature: How alike: temperature of the softmax over these cosines.
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
    modalities: list[str] = field(default_factory=lambda: ["brain", "genetics"])
    brain: Path | None = None
    genetics: Path | None = None
    files: dict[str, Path] = field(default_factory=dict)
    name: str = field(default_factory=name_in_a_sweep)
    fold: int | Literal["all"] | None = None
    seeds: list[int] = field(default_factory=list)
    kinds: list[Literal["raw", "adjusted"]] = field(default_factory=lambda: ["raw", "adjusted"])
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    confounds: list[str] = field(default_factory=lambda: list(DEFAULT_TERMS))
    harmonise: Literal["none", "combat"] = "none"
    harmonise_by: str = "site"
    harmonise_keep: list[str] = field(default_factory=list)
    harmonise_modalities: list[str] = field(default_factory=lambda: ["brain"])
    loss: Literal["clip", "siglip"] = "clip"
    loss_chunk: int = 0
    soft_weight: float = 0.0
    soft_modality: str = "genetics"
    soft_temperature: float = 0.1
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

    @property
    def harmonised(self) -> list[str]:
        """The modalities whose sites are harmonised."""
        return self.harmonise_modalities if self.harmonise == "combat" else []

    def __post_init__(self) -> None:
        if len(self.modalities) < 2 or len(set(self.modalities)) < len(self.modalities):
            raise InputError(f"--modalities={self.modalities}; two or more different names were wanted")
        if not self.kinds:
            raise InputError("--kinds is empty; raw, adjusted or both were wanted")
        if bad := [m for m in self.modalities if not re.fullmatch(r"[a-z][a-z0-9_]*", m)]:
            raise InputError(f"--modalities: {bad[0]!r}; small letters, digits and _ were wanted")
        if unknown := sorted(set(self.harmonised) - set(self.modalities)):
            raise InputError(
                f"--harmonise_modalities: {unknown[0]!r} is not among --modalities ({', '.join(self.modalities)})"
            )
        least = {"epochs": 1, "batch_size": 2, "eval_every": 1, "patience": 0}
        for name, fewest in least.items():
            if getattr(self, name) < fewest:
                raise InputError(f"--{name}={getattr(self, name)}; {fewest} or more was wanted")
        if self.lr <= 0 or self.temperature <= 0 or not 0 <= self.warmup <= 1:
            raise InputError(
                f"--lr={self.lr} --temperature={self.temperature} --warmup={self.warmup}; a rate and a temperature above 0 "
                f"and a share of 0 to 1 were wanted"
            )
        if self.loss_chunk < 0:
            raise InputError(
                f"--loss_chunk={self.loss_chunk}; people on the side of a tile, or 0, were wanted"
            )
        if not 0 <= self.soft_weight <= 1 or self.soft_temperature <= 0:
            raise InputError(
                f"--soft_weight={self.soft_weight} --soft_temperature={self.soft_temperature}; a weight of 0 to 1 and a "
                f"temperature above 0 were wanted"
            )
        if self.soft_weight and self.soft_modality not in self.modalities:
            raise InputError(
                f"--soft_modality={self.soft_modality}: not among --modalities ({', '.join(self.modalities)})"
            )
        if unknown := sorted(set(self.files) - set(self.modalities)):
            raise InputError(f"--files.{unknown[0]}: not among --modalities ({', '.join(self.modalities)})")


@dataclass(frozen=True, kw_only=True)
class Evaluate:
    """Score the alignment on held-out people: raw, confound-adjusted, confound-matched.

    Args:
        study: Study folder.
        name: Which alignment: the run folder runs/align_NAME, e.g. fold-0_seed-1 or tuned; default: the one without a
            name. Its evaluation goes to runs/evaluate_NAME; the report is that of the one without a name.
        permutations: Permuted pairings behind each p-value.
        bootstraps: Resamples of families behind each 95 % interval.
        phenotypes: Columns of the table of people to predict from brain, genes and both, by linear models and gradient
            boosting; default: the traits of a synthetic cohort, by linear models, and none otherwise.
        gate_cca_p: The escalation gate asks for a p-value of CCA's first mode below this; it never stops anything.
        gate_fusion_gain: And for a gain in AUROC of brain and genes together above this (0.05: five points).
        seed: Seed of permutations and resamples.
        redo: Discard an earlier evaluation made with other options.
    """

    study: Path = DEMO
    name: str = ""
    permutations: int = 1000
    bootstraps: int = 1000
    phenotypes: list[str] | None = None
    gate_cca_p: float = 0.001
    gate_fusion_gain: float = 0.05
    seed: int = 0
    redo: bool = False

    def __post_init__(self) -> None:
        for name in ("permutations", "bootstraps"):
            if getattr(self, name) < 1:
                raise InputError(
                    f"--{name}={getattr(self, name)}; 1 or more was wanted, 1000 for results to report"
                )
