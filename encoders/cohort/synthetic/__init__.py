"""A synthetic cohort whose truth is known: people, genomes, scans, and the reader that knows the answer."""

from importlib import import_module

_HOMES = {
    "SyntheticCohort": "config",
    "VectorCohort": "vectors",
    "load_truth": "truth",
    "oracle_similarity": "oracle",
    "simulate_bold": "bold",
    "simulate_genotypes": "genomes",
    "simulate_people": "people",
    "vector_cohort": "vectors",
    "write_cohort": "write",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> object:
    """Load pandas, SciPy and scikit-learn only with the names that need them."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
