"""Residuals that may be permuted: confounds out of the data without tying the people together.

Least-squares residuals R y (R = I - Z Z⁺) live in S - rank(Z) dimensions but have S rows, so their rows are dependent
and permuting them is not valid: with 5 x 5 variables and 30 confounds a CCA rejects a true null 36 times in 100 at
n = 100 instead of 5. Huh and Jhun (2001) project them onto an orthonormal basis Q of the residual space (Q'Q = I,
QQ' = R): Q'y has S - rank(Z) rows that are independent if the people were. Winkler et al. 2020, NeuroImage 220:117065,
show that this keeps the level in CCA.

Any rotation of Q serves, but with most of them a row belongs to nobody, and then "permute within a site" or "keep
families together" has no meaning. Theil's choice (1965, JASA 60:1067; section 2.6 of Winkler et al.) is the rotation
whose rows stay as near as can be to the residuals of S - rank(Z) selected people: Q = R S' (S R S')^(-1/2) with the
selection matrix S. It is the one used here, always: without blocks it is a Huh-Jhun basis like any other, with blocks
each kept row carries its person's site and family. Errors that are correlated within a family stay so up to the
rotation (a rank(Z) / S share), which the tests check on cohorts of siblings. Nothing of size S x S is made.

Glossary: S people · C confounds · K = S - rank(Z) kept people · D columns.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.linalg import qr

from encoders.runs.errors import InputError

FEWEST_LEFT = 3  # residual dimensions without which nothing can be permuted


@dataclass(frozen=True, kw_only=True)
class ResidualSpace:
    """The residual space of some confounds, with one person for each of its dimensions.

    Args:
        kept: Row numbers of the people who carry a dimension each; the others only helped to estimate confounds.
        rank: Rank of the confounds, intercept included: how many people were left over.
    """

    kept: Int[np.ndarray, " K"]
    rank: int
    _basis: Float[np.ndarray, "S _"]  # orthonormal columns that span intercept and confounds
    _turn: Float[np.ndarray, "_ _"]  # (S R S')^(-1/2) = I + G turn G' with G the kept rows of the basis

    @classmethod
    def of(cls, confounds: Float[np.ndarray, "S C"]) -> "ResidualSpace":
        """The residual space of ``confounds`` and an intercept; columns that repeat others are ignored.

        People are left over where the confounds single them out most (pivoted QR), so that the rest is well
        conditioned; data play no part in it.

        Raises:
            InputError: fewer than three dimensions would be left.
        """
        people = len(confounds)
        design = np.concatenate([np.ones((people, 1)), confounds.astype(np.float64)], axis=1)
        design /= np.maximum(np.linalg.norm(design, axis=0), 1e-300)
        q, r, _ = qr(design, mode="economic", pivoting=True)
        diagonal = np.abs(np.diag(r))
        rank = int((diagonal > 1e-9 * diagonal[0]).sum())
        if people - rank < FEWEST_LEFT:
            raise InputError(
                f"{people} people are too few for {rank} independent confound columns (intercept included): "
                f"{max(people - rank, 0)} dimensions would be left to permute; name fewer confounds"
            )
        basis = q[:, :rank]
        _, pivots = qr(basis.T, mode="r", pivoting=True)
        kept = np.sort(pivots[rank:])
        power, axes = np.linalg.eigh(basis[kept].T @ basis[kept])
        # 1 - power are the squared singular values of the left-over people's rows: above 0 by the choice of pivots
        power = np.clip(power, 0.0, 1 - 1e-12)
        # (I - GG')^(-1/2) = I + G a diag((1-s)^(-1/2) - 1)/s a' G' where G'G = a diag(s) a'; the limit at s = 0 is 1/2
        small = power < 1e-9
        factor = np.where(small, 0.5, ((1 - power) ** -0.5 - 1) / np.where(small, 1.0, power))
        return cls(kept=kept, rank=rank, _basis=basis, _turn=(axes * factor) @ axes.T)

    def project(self, values: Float[np.ndarray, "S D"]) -> Float[np.ndarray, "K D"]:
        """Q' times the columns: what confounds leave of them, one row per kept person."""
        data = values.astype(np.float64)
        residual = (data - self._basis @ (self._basis.T @ data))[self.kept]
        rows = self._basis[self.kept]
        return residual + rows @ (self._turn @ (rows.T @ residual))
