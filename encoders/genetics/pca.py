"""Principal components of genome vectors, fitted on training people only, and kept for people to come.

Glossary: S people · N training people · G numbers of a vector before · K components.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32
from threadpoolctl import threadpool_limits

from encoders.runs.artifact import load_tensors, save_tensors
from encoders.runs.errors import InputError

KIND, FORMAT = "neurohelix.genetics_pca", 1
FEWEST_PEOPLE = 3
SEED = 0  # of the randomised solver, which large cohorts get
WIDE = 2**27  # numbers above which the fit stays in fp32, for memory


@dataclass(frozen=True, kw_only=True)
class GeneticsPCA:
    """Fitted components.

    Args:
        mean: (G,) mean over training people.
        components: (K, G) orthonormal rows, the largest variance first.
        explained: (K,) share of the training people's variance, 0 to 1.
        asked: Components that were asked for; more than there can be are cut to K.
        basis: What made the vectors it was fitted on; other vectors are refused.
        trained_on: ``split_digest``, ``ids`` of the training people, ``complete``.
    """

    mean: Float32[np.ndarray, " G"]
    components: Float32[np.ndarray, "K G"]
    explained: Float32[np.ndarray, " K"]
    asked: int
    basis: dict[str, Any]
    trained_on: dict[str, Any]

    @classmethod
    def fit(
        cls,
        values: Float32[np.ndarray, "N G"],
        asked: int,
        *,
        basis: dict[str, Any],
        trained_on: dict[str, Any],
    ) -> "GeneticsPCA":
        """Fit on training people; at most N - 1 components, and no more than their vectors have dimensions.

        Runs on one thread, so that the same people give the same bits however many there are.

        Raises:
            InputError: too few training people.
        """
        if len(values) < FEWEST_PEOPLE:
            raise InputError(
                f"{len(values)} training people of the split have a genome vector, but a PCA needs {FEWEST_PEOPLE} at "
                f"least; make the split for these people, or drop --pca"
            )
        from sklearn.decomposition import PCA

        most = min(asked, len(values) - 1, values.shape[1])
        exact = values.astype(np.float64) if values.size <= WIDE else values
        with threadpool_limits(1):
            fitted = PCA(most, random_state=SEED).fit(exact)
        size = fitted.singular_values_
        rank = int((size > size.max(initial=0) * 1e-6).sum())
        return cls(
            mean=fitted.mean_.astype(np.float32),
            components=fitted.components_[:rank].astype(np.float32),
            explained=fitted.explained_variance_ratio_[:rank].astype(np.float32),
            asked=asked,
            basis=basis,
            trained_on=trained_on,
        )

    def transform(self, values: Float32[np.ndarray, "S G"]) -> Float32[np.ndarray, "S K"]:
        """Scores of any people."""
        with threadpool_limits(1):
            return (values - self.mean) @ self.components.T

    def check(self, basis: dict[str, Any], path: Path) -> None:
        """Refuse vectors of another model, strategy or set of windows than it was fitted on.

        Raises:
            InputError: names what differs.
        """
        if other := [name for name in self.basis if self.basis[name] != basis.get(name)]:
            raise InputError(
                f"{path} was fitted on vectors with another {' and '.join(other)}; its components mean nothing for "
                f"these: run with the same model, windows and strategy, or without --pca_from"
            )

    @property
    def digest(self) -> str:
        """sha256 of the fitted numbers."""
        return hashlib.sha256(
            self.mean.tobytes() + np.ascontiguousarray(self.components).tobytes()
        ).hexdigest()

    def save(self, path: Path) -> None:
        """Write one artefact, readable by its owner only: it names the training people."""
        tensors = {"mean": self.mean, "components": self.components, "explained": self.explained}
        metadata = {"asked": self.asked, "basis": self.basis, "trained_on": self.trained_on}
        save_tensors(path, KIND, FORMAT, tensors, metadata)

    @classmethod
    def load(cls, path: Path) -> "GeneticsPCA":
        """Read and check an artefact written by :meth:`save`."""
        tensors, metadata = load_tensors(path, KIND, FORMAT)
        return cls(**tensors, **metadata)

    def __str__(self) -> str:
        kept = (
            f"{len(self.components)} components, {self.explained.sum():.1%} of the training people's variance"
        )
        return kept if len(self.components) == self.asked else f"{self.asked} asked for, {kept}"
