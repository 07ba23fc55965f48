"""Is our model better than a rival? A paired test of their 2AFC on the same people, with families resampled.

Glossary: N evaluated people · B resamples.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from align.galleries import Gallery
from align.influence import METRIC, resampled_auc
from align.retrieval import DIRECTIONS
from encoders.stats import cluster_weights
from encoders.stats.paired import Resampled, paired_difference


class PairedTests:
    """Our model, to be compared with any number of rivals; what all comparisons share is computed once.

    Args:
        ours: Gallery -> direction -> similarities of all evaluated people.
        galleries: Who competes with whom, among all evaluated people.
        num_bootstraps: B.
        seed: Seed of the resamples, the same for all models.
    """

    def __init__(
        self,
        ours: Mapping[str, Mapping[str, Float[np.ndarray, "N N"]]],
        galleries: Mapping[str, Gallery],
        *,
        num_bootstraps: int,
        seed: int,
    ) -> None:
        self._ours, self._galleries, self._seed = ours, galleries, seed
        self._num = len(next(iter(galleries.values())).strata)
        self._num_bootstraps = num_bootstraps
        self._kept: dict[tuple[str, bytes], dict[str, Resampled]] = {}
        self._weights: dict[bytes, Float[np.ndarray, "B M"]] = {}

    def against(
        self,
        theirs: Mapping[str, Mapping[str, Float[np.ndarray, "M M"]]],
        rows: Int[np.ndarray, " M"],
    ) -> dict[str, Any]:
        """Our 2AFC minus a rival's, per gallery and direction.

        Args:
            theirs: Gallery -> direction -> the rival's similarities of the people in ``rows``.
            rows: Whom the rival was scored on: our model is scored on just these people again.

        Returns:
            Per gallery: ``people`` and, per direction, ``value``, ``ci_low``, ``ci_high``, ``p``, and both 2AFCs.
        """
        found: dict[str, Any] = {}
        for name, gallery in self._galleries.items():
            part = gallery if len(rows) == self._num else restricted(gallery, rows)
            weights = self._drawn(part, rows)
            ours = self._ours_on(name, part, weights, rows)
            rival = _both_directions(theirs[name], part, weights)
            if any(not np.isfinite(model[d].values[METRIC]) for model in (ours, rival) for d in DIRECTIONS):
                continue  # nobody has a distractor
            found[name] = {"people": len(rows)}
            for direction in DIRECTIONS:
                first, second = ours[direction], rival[direction]
                found[name][direction] = asdict(paired_difference(first, second, METRIC)) | {
                    "ours": first.values[METRIC],
                    "theirs": second.values[METRIC],
                }
        return found

    def _drawn(self, gallery: Gallery, rows: Int[np.ndarray, " M"]) -> Float[np.ndarray, "B M"]:
        key = rows.tobytes()
        if key not in self._weights:
            self._weights[key] = cluster_weights(
                gallery.families, self._num_bootstraps, np.random.default_rng(self._seed)
            )
        return self._weights[key]

    def _ours_on(
        self, name: str, gallery: Gallery, weights: Float[np.ndarray, "B M"], rows: Int[np.ndarray, " M"]
    ) -> dict[str, Resampled]:
        key = (name, rows.tobytes())
        if key not in self._kept:
            whole = len(rows) == self._num
            picked = {d: s if whole else s[np.ix_(rows, rows)] for d, s in self._ours[name].items()}
            self._kept[key] = _both_directions(picked, gallery, weights)
        return self._kept[key]


def restricted(gallery: Gallery, rows: Int[np.ndarray, " M"]) -> Gallery:
    """The gallery of some of its people, matched on the same variables."""
    picked = {name: [getattr(gallery, name)[i] for i in rows] for name in ("strata", "families")}
    return Gallery(**{**vars(gallery), **picked})


def _both_directions(
    similarities: Mapping[str, Float[np.ndarray, "M M"]],
    gallery: Gallery,
    weights: Float[np.ndarray, "B M"],
) -> dict[str, Resampled]:
    return {
        d: resampled_auc(similarities[d] if d == DIRECTIONS[0] else similarities[d].T, gallery, weights)
        for d in DIRECTIONS
    }
