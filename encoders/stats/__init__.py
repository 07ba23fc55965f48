"""How sure: permutations that respect families and strata, bootstraps that resample families, p-values."""

from encoders.stats.bootstrap import cluster_weights, percentile_interval
from encoders.stats.permutation import block_permutations, p_value

__all__ = ["block_permutations", "cluster_weights", "p_value", "percentile_interval"]
