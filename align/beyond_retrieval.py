"""What the evaluation says besides retrieval: linear inference, phenotypes, the escalation gate."""

from dataclasses import asdict
from typing import Any

from align.config import Evaluate
from align.gate import gate
from align.linear_inference import linear_inference
from align.pairs import Pairs
from align.phenotype_columns import Phenotype, read_phenotypes
from align.phenotypes import predict_phenotypes

SYNTHETIC_TRAIT = "trait_"  # columns of synthetic cohorts that are predicted unless others are named
KINDS = ("linear", "boosting")


def wanted_phenotypes(pairs: Pairs, config: Evaluate, *, synthetic: bool) -> list[Phenotype]:
    """The columns that the user named, or the traits of a synthetic cohort.

    Raises:
        InputError: a column that is not there or that cannot be predicted.
    """
    names = config.phenotypes
    if names is None:
        names = [c for c in pairs.frame.columns if synthetic and c.startswith(SYNTHETIC_TRAIT)]
    return read_phenotypes(pairs.frame, names)


def beyond_retrieval(
    pairs: Pairs,
    phenotypes: list[Phenotype],
    *,
    confound_terms: list[str],
    config: Evaluate,
    names: tuple[str, str] = ("brain", "genetics"),
) -> dict[str, Any]:
    """`linear`, `phenotypes` and `gate` of `evaluation.json`.

    Args:
        pairs: People with both modalities.
        phenotypes: What to predict.
        confound_terms: Of the confound design.
        config: Numbers of permutations and resamples, seed, the gate.
        names: What the two modalities are called.
    """
    linear = linear_inference(pairs, confound_terms, permutations=config.permutations, seed=config.seed)
    predicted = predict_phenotypes(
        pairs,
        phenotypes,
        kinds=KINDS[:1] if config.phenotypes is None else KINDS,  # boosting takes seconds per phenotype
        confound_terms=confound_terms,
        bootstraps=config.bootstraps,
        seed=config.seed,
        names=names,
    )
    said = gate(linear, predicted, most_p=config.gate_cca_p, least_gain=config.gate_fusion_gain)
    return {"linear": linear, "phenotypes": predicted, "gate": asdict(said)}
