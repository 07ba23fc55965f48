"""What happens to vectors before a projector: confounds out (if asked), then scaling; all fitted on train.

Glossary: S people · D input columns · C kept components.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float


@dataclass(kw_only=True)
class Whitener:
    """Principal components with unit variance, or plain z-scores.

    Args:
        components: Components kept; 0 keeps every column, z-scored.
    """

    components: int = 0
    mean_: Float[np.ndarray, " D"] | None = None
    matrix_: Float[np.ndarray, "D C"] | None = None

    def fit(self, values: Float[np.ndarray, "S D"]) -> "Whitener":
        """Learn means, axes and scales from training people; never keeps more axes than the data have."""
        data = values.astype(np.float64)
        self.mean_ = data.mean(axis=0)
        centred = data - self.mean_
        if not self.components:
            sd = centred.std(axis=0)
            self.matrix_ = np.diag(np.where(sd > 1e-8, 1 / np.maximum(sd, 1e-8), 0.0))
            return self
        _, singular, axes = np.linalg.svd(centred, full_matrices=False)
        kept = min(self.components, int((singular > 1e-6 * singular[0]).sum()), len(data) - 1)
        self.matrix_ = axes[:kept].T / singular[:kept] * np.sqrt(len(data) - 1)
        return self

    def transform(self, values: Float[np.ndarray, "S D"]) -> Float[np.ndarray, "S C"]:
        """Scaled float32 inputs of any people."""
        if self.mean_ is None or self.matrix_ is None:
            raise RuntimeError("Whitener.transform before fit")
        return ((values - self.mean_) @ self.matrix_).astype(np.float32)
