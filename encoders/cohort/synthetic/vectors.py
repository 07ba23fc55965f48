"""A cohort at vector level: what encoders would hand to alignment, made in a fraction of a second.

N people · B brain numbers · M variants · K latents.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Float32, Float64

from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.cohort.synthetic.genomes import simulate_genotypes
from encoders.cohort.synthetic.people import participants_frame, simulate_latents, simulate_people


@dataclass(frozen=True, kw_only=True)
class VectorCohort:
    """People as pairs of vectors, with the truth behind them.

    Args:
        config: What it was made from.
        ids: Subject ids in row order.
        frame: Participants, indexed by id, with the columns of `participants.tsv`.
        brain: (N, B) noisy linear map of latents, sex, age, site and motion.
        gene: (N, M) copies of the alternative allele of every variant, centred.
        blocks: Gene name -> (first, last + 1) column of `gene`.
        latents: (N, K) what drives the brains.
        genetic_scores: (N, K) what the genes contribute, standardised.
        related: Sibling pairs by id, as in `kinship.tsv`.
    """

    config: SyntheticCohort
    ids: list[str]
    frame: pd.DataFrame
    brain: Float32[np.ndarray, "N B"]
    gene: Float32[np.ndarray, "N M"]
    blocks: dict[str, tuple[int, int]]
    latents: Float64[np.ndarray, "N K"]
    genetic_scores: Float64[np.ndarray, "N K"]
    related: list[tuple[str, str]]

    @property
    def truth(self) -> dict[str, object]:
        """As the content of `truth.json`, as far as the oracle needs it; its features are the brain vectors."""
        return {
            "ids": self.ids,
            "genetic_scores": self.genetic_scores.tolist(),
            "oracle_features": self.brain.tolist(),
        }


def vector_cohort(config: SyntheticCohort, *, dim: int = 32, noise: float = 0.5) -> VectorCohort:
    """Draw a cohort without scans.

    Args:
        config: People, genes and arm, as for files; what concerns scans is not used.
        dim: B, numbers in a brain vector.
        noise: Standard deviation of the noise of each brain number; its signal has about 1.
    """
    people = simulate_people(config, config.rng("people"))
    genomes = simulate_genotypes(config, people, config.rng("genomes"))
    latents, traits = simulate_latents(config, people, genomes.scores, config.rng("latents"))
    rng = config.rng("vectors")
    nuisance = np.stack(
        [people.sex - 0.5, (people.age - 56) / 8, people.site - 0.5, people.mean_fd / 0.12], 1
    )
    sources = np.hstack([latents, 0.5 * nuisance])
    signal = sources @ rng.standard_normal((sources.shape[1], dim)) / np.sqrt(config.latents)
    dosage = genomes.dosage.astype(np.float32)
    width = config.variants_per_window
    return VectorCohort(
        config=config,
        ids=people.ids,
        frame=participants_frame(config, people, traits),
        brain=(signal + noise * rng.standard_normal(signal.shape)).astype(np.float32),
        gene=dosage - dosage.mean(axis=0),
        blocks={window.gene: (k * width, (k + 1) * width) for k, window in enumerate(genomes.windows)},
        latents=latents,
        genetic_scores=genomes.scores,
        related=[(people.ids[a], people.ids[b]) for a, b in people.siblings],
    )
