"""What a synthetic cohort is made of: its size, its biology, and what is wrong with it on purpose."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from encoders.runs.config import to_plain
from encoders.runs.errors import InputError
from encoders.runs.study import DEMO

GENERATOR = 1  # raise it whenever the same configuration would give other data
NETWORKS = 12  # each latent takes two of them

Stream = Literal["people", "genomes", "latents", "vectors"]
STREAMS: tuple[Stream, ...] = ("people", "genomes", "latents", "vectors")
SCANS = len(STREAMS)  # first spawn key of the one stream that each scan has


@dataclass(frozen=True, kw_only=True)
class Arm:
    """What distinguishes one arm of the simulation.

    Args:
        heritable: Whether genes reach the brain at all.
        confounding: How strongly ancestry reaches genes, site and brain alike, 0-1.
        siblings: Share of people with a sibling in the cohort.
        family_environment: Share of the non-genetic variance of the latents that siblings have in common.
        families_known: Whether `participants.tsv` names the families.
    """

    heritable: bool = True
    confounding: float = 0.0
    siblings: float = 0.05
    family_environment: float = 0.0
    families_known: bool = True


ARMS = {
    "signal": Arm(confounding=0.2),
    "null": Arm(heritable=False),
    "confounded": Arm(heritable=False, confounding=1.0),
    "leak": Arm(siblings=0.6, family_environment=0.8, families_known=False),
}


@dataclass(frozen=True, kw_only=True)
class SyntheticCohort:
    """Make a cohort with known truth: BIDS scans, phased variants, tables, and the truth behind them.

    Args:
        study: Study folder; the cohort goes to its `raw` folder.
        redo: Discard an earlier cohort made with other options.
        arm: What is simulated: `signal` (genes shape the brain), `null` (they do not), `confounded` (they do
            not, but ancestry shapes both), `leak` (siblings whose families participants.tsv does not name).
        people: Number of people.
        seed: Seed of everything; the same seed gives the same bytes.
        heritability: Share of the variance of each latent that genes explain, 0-1 (none in null, confounded).
        confounding: How strongly ancestry reaches genes, site and brain alike, 0-1; default: 1 in the
            confounded arm, 0.2 in the signal arm, else 0.
        sibling_fraction: Share of people who have a sibling in the cohort, 0-1; default: 0.6 in the leak arm,
            else 0.05.
        amplitude_latents: Latents that tilt the amplitudes of a pair of networks (count).
        coupling_latents: Latents that set the correlation of a pair of networks (count).
        amplitude_gain: Log amplitude that each network of a pair gains or loses per unit of its latent.
        coupling_gain: Fisher z of the correlation of a pair per unit of its latent.
        trait_noise: Share of the variance of the traits in participants.tsv that is noise, 0-1.
        voxel_mm: Voxel edge in mm, 4-20.
        frames: Frames per scan (count).
        tr: Repetition time in s, 0.2-10.
        snr: Peak standard deviation of a network over that of a voxel's noise (ratio, at the quieter site).
        anatomy: Spatial standard deviation of the time-averaged image over that of a voxel's noise (ratio).
        windows: Gene windows (count), one per contig up to 22.
        window_bp: Length of a window in base pairs.
        variants_per_window: Variants in each window (count).
        founders: Founder haplotypes that all haplotypes of a window are mosaics of (count).
        recombination: Share of haplotypes that change founder within a window, 0-1.
        indel_fraction: Share of variants that are insertions or deletions, 0-1.
        multiallelic_fraction: Share of variants with two alternative alleles, 0-1.
        missing_rate: Share of genotype calls that are missing, 0-1.
        causal_per_latent: Causal variants of each latent (count).
        num_workers: Threads that simulate and write scans (count); no influence on the result.
    """

    study: Path = DEMO
    redo: bool = False
    arm: Literal["signal", "null", "confounded", "leak"] = "signal"
    people: int = 520
    seed: int = 0
    heritability: float = 0.6
    confounding: float | None = None
    sibling_fraction: float | None = None
    amplitude_latents: int = 4
    coupling_latents: int = 2
    amplitude_gain: float = 0.5
    coupling_gain: float = 1.2
    trait_noise: float = 0.2
    voxel_mm: float = 8.0
    frames: int = 96
    tr: float = 2.0
    snr: float = 1.5
    anatomy: float = 0.5
    windows: int = 6
    window_bp: int = 1000
    variants_per_window: int = 30
    founders: int = 10
    recombination: float = 0.3
    indel_fraction: float = 0.12
    multiallelic_fraction: float = 0.05
    missing_rate: float = 0.0
    causal_per_latent: int = 3
    num_workers: int = 2

    def __post_init__(self) -> None:
        room = self.window_bp // 12  # a variant, its deletion of up to 4 bases and the gap to the next
        usable = self.variants_per_window - self.num_multiallelic
        ranges: list[tuple[str, float, float]] = [
            ("people", 8, 100_000),
            ("seed", 0, 2**63 - 1),
            ("amplitude_latents", 0, NETWORKS // 2),
            ("coupling_latents", 0, NETWORKS // 2 - self.amplitude_latents),
            ("voxel_mm", 4, 20),
            ("frames", 4, 100_000),
            ("tr", 0.2, 10),
            ("snr", 0.05, 10),
            ("anatomy", 0, 20),
            ("windows", 1, 1_000),
            ("window_bp", 120, 1_000_000),
            ("variants_per_window", 2, room),
            ("founders", 4, 1_000),
            ("causal_per_latent", 1, max(1, self.windows * usable // max(1, self.latents))),
            ("num_workers", 1, 256),
        ]
        shares = ["heritability", "confounding", "sibling_fraction", "trait_noise", "recombination"]
        shares += ["indel_fraction", "multiallelic_fraction", "missing_rate"]
        ranges += [(name, 0, 1) for name in shares]
        for name, least, most in ranges:
            value = getattr(self, name)
            if value is not None and not least <= value <= most:
                raise InputError(
                    f"{name} is {value:g}, but {least:g} to {most:g} was wanted; change --{name}"
                )
        if self.latents < 1:
            raise InputError(
                "amplitude_latents and coupling_latents are both 0, but 1 to 6 in all was wanted"
            )

    @property
    def num_indels(self) -> int:
        """Insertions and deletions in each window."""
        return round(self.indel_fraction * self.variants_per_window)

    @property
    def num_multiallelic(self) -> int:
        """Variants with two alternative alleles in each window; no causal variant is one."""
        wanted = round(self.multiallelic_fraction * self.variants_per_window)
        return min(wanted, self.variants_per_window - self.num_indels)

    @property
    def latents(self) -> int:
        """Number of latents; those that tilt amplitudes come first."""
        return self.amplitude_latents + self.coupling_latents

    @property
    def resolved_arm(self) -> Arm:
        """The arm, with what the user set in place of its defaults."""
        given = {"confounding": self.confounding, "siblings": self.sibling_fraction}
        return dataclasses.replace(ARMS[self.arm], **{k: v for k, v in given.items() if v is not None})

    @property
    def resolved_heritability(self) -> float:
        """Share of the variance of the latents that genes explain in this arm."""
        return self.heritability if self.resolved_arm.heritable else 0.0

    def rng(self, stream: Stream) -> np.random.Generator:
        """An independent random stream for one part of the simulation."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(STREAMS.index(stream),)))

    def scan_rng(self, person: int) -> np.random.Generator:
        """The random stream of one person's scan, whoever simulates it and when."""
        return np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(SCANS, person)))

    def content(self) -> dict[str, object]:
        """What the data depend on, as JSON values: all options but the folder and the workers."""
        skip = ("study", "redo", "num_workers")
        return {"generator": GENERATOR} | {k: v for k, v in to_plain(self).items() if k not in skip}
