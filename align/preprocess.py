"""What happens to vectors before a projector: confounds out (if asked), then scaling; all fitted on train.

Glossary: S people · D input columns · C kept components.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from encoders.stats.components import principal_axes


@dataclass(kw_only=True)
class Whitener:
    """Principal components, each divided by the root of its variance plus a ridge.

    Without a ridge every component counts alike, the noisiest too; with a ridge of many times the mean variance
    the data keep their shape. In between lies what ridge regression does.

    Args:
        ridge: Ridge in units of the mean variance of the components.
        components: Most components kept; 0 keeps all.
    """

    ridge: float = 0.0
    components: int = 0
    mean_: Float[np.ndarray, " D"] | None = None
    matrix_: Float[np.ndarray, "D C"] | None = None

    def fit(self, values: Float[np.ndarray, "S D"]) -> "Whitener":
        """Learn means, axes and scales from training people; never keeps more axes than the data have."""
        data = values.astype(np.float64)
        self.mean_ = data.mean(axis=0)
        axes, variance = principal_axes(data - self.mean_)
        kept = min(self.components or len(variance), len(variance))
        axes, variance = axes[:, :kept], variance[:kept]
        scaled = axes / np.sqrt(variance + self.ridge * variance.mean())
        self.matrix_ = scaled * np.sqrt(1 + self.ridge)  # components of mean variance get variance 1
        return self

    def transform(self, values: Float[np.ndarray, "S D"]) -> Float[np.ndarray, "S C"]:
        """Scaled float32 inputs of any people."""
        if self.mean_ is None or self.matrix_ is None:
            raise RuntimeError("Whitener.transform before fit")
        return ((values - self.mean_) @ self.matrix_).astype(np.float32)
