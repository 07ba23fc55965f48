"""`truth.json`: what a synthetic cohort was made of, person by person. Only the oracle and tests read it.

N people · K latents · R features of the oracle's reader.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from encoders.cohort.synthetic.bold import FEATURES, networks_of
from encoders.cohort.synthetic.brains import BLOB_MM, CENTRES
from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.cohort.synthetic.genomes import Genomes
from encoders.cohort.synthetic.people import People
from encoders.runs.artifact import load_json

KIND, FORMAT = "neurohelix.truth", 1


def load_truth(path: Path) -> dict[str, Any]:
    """Read `truth.json`, refusing a damaged one; for `oracle_similarity`."""
    return load_json(path, KIND, FORMAT)


def truth_content(
    config: SyntheticCohort,
    people: People,
    genomes: Genomes,
    latents: Float64[np.ndarray, "N K"],
    features: Float64[np.ndarray, "N R"],
) -> dict[str, Any]:
    """The content of `truth.json`; rows of its tables are people in the order of `ids`."""
    causal = [
        {
            "contig": genomes.variants[m].contig,
            "pos": genomes.variants[m].position,
            "ref": genomes.variants[m].ref,
            "alt": genomes.variants[m].alts[0],
            "gene": genomes.windows[m // config.variants_per_window].gene,
            "latent": latent,
            "effect": float(effect),
        }
        for latent in range(config.latents)
        for m, effect in zip(genomes.causal[latent].tolist(), genomes.effects[latent], strict=True)
    ]
    return {
        "arm": config.arm,
        "config": config.content(),
        "heritability": config.resolved_heritability,
        "confounding": config.resolved_arm.confounding,
        "ids": people.ids,
        "siblings": [[people.ids[a], people.ids[b]] for a, b in people.siblings],
        "causal_variants": causal,
        "latent_networks": networks_of(config),
        "networks": [
            {"name": name, "centres_mm": [[x, y, z], [-x, y, z]], "sd_mm": BLOB_MM}
            for name, (x, y, z) in CENTRES.items()
        ],
        "latents": latents.round(6).tolist(),
        "genetic_scores": genomes.scores.round(6).tolist(),
        "oracle_feature_names": FEATURES,
        "oracle_features": features.round(6).tolist(),
    }
