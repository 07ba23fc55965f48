"""Who is in a synthetic cohort: families, ancestry, site, sex, age, motion, and the latents of their brains.

N people · K latents · P sibling pairs. Two ancestry clusters without structure inside them, two sites.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float64, Int64

from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.cohort.synthetic.folder import subject_ids

ANCESTRIES, SITES, SEXES = ("anc1", "anc2"), ("site1", "site2"), ("F", "M")
SECOND_ANCESTRY = 0.4  # share of people in the second cluster
PCS = 10
# Share of the non-genetic standard deviation that full confounding gives to ancestry and to sex.
ANCESTRY_LOADING, SEX_LOADING = 0.6, 0.4


@dataclass(frozen=True, kw_only=True)
class People:
    """N people without their genes and brains.

    Args:
        ids: Subject ids as in the BIDS tree, `sub-0001` first.
        family: Family number of each person; siblings share it.
        siblings: (P, 2) row numbers of full siblings.
        kinship: KING kinship coefficient of each sibling pair, about 0.25.
        ancestry: 0 or 1, index into `ANCESTRIES`.
        site: 0 or 1, index into `SITES`; site 1 is the noisier.
        sex: 0 or 1, index into `SEXES`.
        age: Years.
        mean_fd: Mean framewise displacement in mm (Power).
        head_size: Intracranial volume in litres.
        batch: Genotyping batch, 0-2.
        pcs: (N, 10) genome-wide genetic principal components: ancestry and noise. They are drawn, not
            computed from the windows, or residualising them would remove the causal variants too.
    """

    ids: list[str]
    family: Int64[np.ndarray, " N"]
    siblings: Int64[np.ndarray, "P 2"]
    kinship: Float64[np.ndarray, " P"]
    ancestry: Int64[np.ndarray, " N"]
    site: Int64[np.ndarray, " N"]
    sex: Int64[np.ndarray, " N"]
    age: Float64[np.ndarray, " N"]
    mean_fd: Float64[np.ndarray, " N"]
    head_size: Float64[np.ndarray, " N"]
    batch: Int64[np.ndarray, " N"]
    pcs: Float64[np.ndarray, "N 10"]


def simulate_people(config: SyntheticCohort, rng: np.random.Generator) -> People:
    """Draw the people of a cohort; siblings share family and ancestry and lie anywhere in the table."""
    n, arm = config.people, config.resolved_arm
    num_pairs = min(n // 2, round(n * arm.siblings / 2))
    pairs = rng.permutation(n)[: 2 * num_pairs].reshape(num_pairs, 2)
    oldest = np.arange(n)
    oldest[pairs[:, 1]] = pairs[:, 0]
    _, family = np.unique(oldest, return_inverse=True)

    ancestry = (rng.random(n) < SECOND_ANCESTRY).astype(np.int64)[oldest]
    noisy_site = 0.5 + 0.35 * arm.confounding * np.where(ancestry == 1, 1.0, -1.0)
    site = (rng.random(n) < noisy_site).astype(np.int64)
    sex = (rng.random(n) < 0.5).astype(np.int64)
    age = np.clip(rng.normal(56, 8, n), 40, 76)
    motion = 0.12 * np.exp(0.35 * rng.standard_normal(n) + 0.15 * (age - 56) / 8 + 0.1 * sex)
    pcs = rng.standard_normal((n, PCS)) * 0.01
    pcs[:, :2] += np.where(ancestry == 1, 0.03, -0.02)[:, None] * [1.0, 0.5]
    return People(
        ids=subject_ids(config),
        family=family.astype(np.int64),
        siblings=pairs.astype(np.int64),
        ancestry=ancestry,
        site=site,
        sex=sex,
        age=age.round(1),
        mean_fd=np.clip(motion, 0.04, 0.4).round(4),
        head_size=(1.42 + 0.16 * sex + 0.1 * rng.standard_normal(n)).round(3),
        batch=rng.integers(0, 3, n),
        pcs=pcs.round(5),
        kinship=np.clip(rng.normal(0.25, 0.015, num_pairs), 0.18, 0.34).round(4),
    )


def simulate_latents(
    config: SyntheticCohort,
    people: People,
    scores: Float64[np.ndarray, "N K"],
    rng: np.random.Generator,
) -> tuple[Float64[np.ndarray, "N K"], Float64[np.ndarray, "N K"]]:
    """What drives the brains, u = sqrt(h2) g + sqrt(1 - h2) e, and the traits that hint at it.

    The environment e has unit variance; part of it is ancestry and sex (confounding) or family. Ancestry
    and sex push each latent in a direction of its own.

    Args:
        config: Arm, heritability and trait noise.
        people: Ancestry, sex and family of each person.
        scores: Genetic scores g, standardised.
        rng: Random stream.

    Returns:
        Latents u and traits, sqrt(1 - noise) u + sqrt(noise) n, standardised; (N, K) each.
    """
    arm, shape = config.resolved_arm, scores.shape
    direction = rng.choice([-1.0, 1.0], (2, shape[1]))
    loadings = arm.confounding * np.array([[ANCESTRY_LOADING], [SEX_LOADING]]) * direction
    shared = np.stack([_standard(people.ancestry), _standard(people.sex)], axis=1) @ loadings
    own, family = rng.standard_normal((2, *shape))
    env_family = arm.family_environment
    unexplained = np.sqrt(env_family) * family[people.family] + np.sqrt(1 - env_family) * own
    environment = shared + np.sqrt(1 - (loadings**2).sum(axis=0)) * unexplained
    h2 = config.resolved_heritability
    latents = np.sqrt(h2) * scores + np.sqrt(1 - h2) * environment
    noise = rng.standard_normal(shape)
    traits = np.sqrt(1 - config.trait_noise) * latents + np.sqrt(config.trait_noise) * noise
    return latents, _standard(traits)


def participants_frame(
    config: SyntheticCohort, people: People, traits: Float64[np.ndarray, "N K"]
) -> pd.DataFrame:
    """`participants.tsv` as a frame indexed by `participant_id`; unknown families are missing."""

    def labels(names: tuple[str, ...], index: Int64[np.ndarray, " N"]) -> list[str]:
        return [names[i] for i in index]

    known = config.resolved_arm.families_known
    columns: dict[str, object] = {
        "family_id": [f"fam-{f + 1:04d}" if known else None for f in people.family],
        "site": labels(SITES, people.site),
        "age": people.age,
        "sex": labels(SEXES, people.sex),
        "ancestry": labels(ANCESTRIES, people.ancestry),
        "mean_fd": people.mean_fd,
        "head_size": people.head_size,
        "batch": [f"batch{b + 1}" for b in people.batch],
    }
    columns |= {f"pcs_{k + 1}": people.pcs[:, k] for k in range(PCS)}
    columns |= {f"trait_{k + 1}": traits[:, k].round(5) for k in range(traits.shape[1])}
    return pd.DataFrame(columns, index=pd.Index(people.ids, name="participant_id"))


def _standard(values: np.ndarray) -> np.ndarray:
    """Columns with mean 0 and standard deviation 1; a constant column becomes zeros."""
    centred = values - values.mean(axis=0)
    spread = centred.std(axis=0)
    return centred / np.where(spread > 0, spread, 1.0)
