"""The retrieval figures under one flat name each, as sweeps, W&B and tables of many studies want them.

`DIRECTION_METRIC`, then `_adjusted` or `_matched` (nothing for the raw gallery), then `_ci_low`, `_ci_high`, `_p_perm` or
`_n_gallery`; `DIRECTION_lift@k` is R@k over chance. No R@k stands without the size of its gallery.
"""

from collections.abc import Mapping
from typing import Any

from align.retrieval import DIRECTIONS

SUFFIX = {"raw": "", "adjusted": "_adjusted", "matched": "_matched"}
PARTS = ("ci_low", "ci_high", "p_perm")
METRICS, METRICS_FORMAT = "neurohelix.metrics", 1


def flat_metrics(galleries: Mapping[str, Any]) -> dict[str, float]:
    """Name -> number.

    Args:
        galleries: `galleries` of `evaluation.json`.
    """
    found: dict[str, float] = {}
    for gallery, suffix in SUFFIX.items():
        result = galleries[gallery]
        for direction in DIRECTIONS:
            for metric, told in result.get(direction, {}).items():
                name = f"{direction}_{metric}{suffix}"
                found[name] = told["value"]
                found |= {f"{name}_{part}": told[part] for part in PARTS}
                found[f"{name}_n_gallery"] = result["median_gallery"]
                if metric.startswith("R@"):
                    lift = f"{direction}_lift@{metric[2:]}{suffix}"
                    found |= {lift: told["lift"], f"{lift}_n_gallery": result["median_gallery"]}
    return found
