"""Site harmonisation by empirical Bayes, fitted on training people and applied to anybody: ComBat.

Johnson, Li and Rabinovic (Biostatistics 2007, doi:10.1093/biostatistics/kxj037), parametric priors: a site shifts and
stretches each column; since one site's shifts (and stretches) of all columns are draws of one distribution, each estimate
is drawn towards it, the more the fewer people the site has. Section and equation numbers below are the paper's.

What the site explains is told apart from what covariates explain, which stays in the data. Never keep what is to be
predicted: a kept covariate of people to come would have to be known, and would be written into their data.

Glossary: S people · D columns · C covariate columns · N sites.
"""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from encoders.cohort.confounds import ConfoundDesign, columns_of
from encoders.runs.errors import InputError

FEWEST = 2  # people of a site: below, it has no variance
TOLERANCE, MOST_STEPS = 1e-6, 1000


@dataclass(kw_only=True)
class Combat:
    """Take the shift and stretch of each site out of each column, and keep what covariates explain.

    A site that training does not know, or knows by a single person, gets the mean site effect: the shift and variance of
    all training people's sites, averaged over people. Missing sites too. Both are recorded.

    Args:
        site: Column of the table of people that says where.
        keep: Terms of the covariates whose effects stay (as in :class:`ConfoundDesign`).
        unseen_: Sites treated by the mean effect because training does not hold them.
        small_: Sites treated so because training holds one person of them.
        sites_: N names.
        mean_: Grand mean of each column: alpha.
        slopes_: Effects of the covariates: beta.
        sd_: Residual standard deviation of each column: sigma.
        shift_: gamma*, in units of sd_.
        variance_: delta*^2, in units of sd_^2.
        weights_: Share of training people at each site.
    """

    site: str = "site"
    keep: tuple[str, ...] = ()
    unseen_: list[str] = field(default_factory=list)
    small_: list[str] = field(default_factory=list)
    sites_: list[str] = field(default_factory=list)
    mean_: Float[np.ndarray, " D"] | None = None
    slopes_: Float[np.ndarray, "C D"] | None = None
    sd_: Float[np.ndarray, " D"] | None = None
    shift_: Float[np.ndarray, "N D"] | None = None
    variance_: Float[np.ndarray, "N D"] | None = None
    weights_: Float[np.ndarray, " N"] | None = None

    def fit(self, values: Float[np.ndarray, "S D"], frame: pd.DataFrame) -> "Combat":
        """Learn everything from training people.

        Raises:
            InputError: no such column, a kept covariate is the site itself, fewer than two sites of two people, or too
                few people for the covariates.
        """
        if self.site not in frame:
            raise InputError(
                f"the table of people has no column {self.site!r}, which harmonisation goes by; name another with "
                f"--harmonise_by, or pass --harmonise=none"
            )
        if bad := [term for term in self.keep if self.site in columns_of(term)]:
            raise InputError(f"harmonisation cannot keep {bad[0]!r}: it is the effect that it takes out")
        where = _sites(frame, self.site)
        counts = where[where != ""].value_counts()
        self.sites_ = sorted(counts.index[counts >= FEWEST])
        self.small_, self.unseen_ = sorted(counts.index[counts < FEWEST]), []
        if len(self.sites_) < 2:
            raise InputError(
                f"column {self.site!r} has {len(self.sites_)} sites with {FEWEST} or more training people; two are needed to "
                f"tell a site's effect: pass --harmonise=none"
            )
        known = where.isin(self.sites_).to_numpy()
        data, people = values[known].astype(np.float64), frame[known]
        self._design = ConfoundDesign(terms=self.keep).fit(people)
        at = (where[known].to_numpy()[:, None] == np.array(self.sites_)).astype(float)
        covariates = self._design.transform(people)
        columns = np.concatenate([at, covariates], axis=1)
        if len(data) < 2 * columns.shape[1]:
            raise InputError(
                f"{len(data)} training people are too few for {len(self.sites_)} sites and {covariates.shape[1]} covariate "
                f"columns; keep fewer with --harmonise_keep"
            )
        effects = np.linalg.lstsq(columns, data, rcond=None)[0]
        self.weights_ = at.mean(axis=0)
        self.mean_ = self.weights_ @ effects[: len(self.sites_)]  # sum of n_i gamma_i is 0 (section 3.1)
        self.slopes_ = effects[len(self.sites_) :]
        sd = (data - columns @ effects).std(axis=0)
        self.sd_ = np.where(sd > 1e-12 * (np.abs(self.mean_) + 1), sd, 1.0)
        varies = sd > 1e-12 * (np.abs(self.mean_) + 1)
        standard = (data - self.mean_ - covariates @ self.slopes_) / self.sd_
        found = [_posterior(standard[at[:, k] > 0], varies) for k in range(len(self.sites_))]
        self.shift_ = np.stack([shift for shift, _ in found])
        self.variance_ = np.stack([variance for _, variance in found])
        return self

    def transform(self, values: Float[np.ndarray, "S D"], frame: pd.DataFrame) -> Float[np.ndarray, "S D"]:
        """Harmonised values of any people (section 3.3), with the training people's estimates."""
        if self.shift_ is None:
            raise RuntimeError("Combat.transform before fit")
        where = _sites(frame, self.site)
        self.unseen_ = sorted({*self.unseen_, *where} - {*self.sites_, *self.small_, ""})
        # one more row: the mean site effect
        shift = np.concatenate([self.shift_, self.weights_[None] @ self.shift_])
        variance = np.concatenate([self.variance_, self.weights_[None] @ self.variance_])
        row = where.map({name: k for k, name in enumerate(self.sites_)}).fillna(len(self.sites_)).astype(int)
        kept = self.mean_ + self._design.transform(frame) @ self.slopes_
        standard = (values - kept) / self.sd_
        clean = (standard - shift[row]) / np.sqrt(variance[row])
        return (clean * self.sd_ + kept).astype(values.dtype)


def _posterior(
    standard: Float[np.ndarray, "n D"], varies: Bool[np.ndarray, " D"]
) -> tuple[Float[np.ndarray, " D"], Float[np.ndarray, " D"]]:
    """gamma* and delta*^2 of one site (section 3.2): priors by moments over the columns, then alternate to a fixed point.

    Columns that do not vary have no effect; fewer than two columns, or columns that all agree, leave nothing to learn a
    prior from: the site's own mean and variance stand.
    """
    num = len(standard)
    shift, variance = standard.mean(axis=0), standard.var(axis=0, ddof=1)
    prior_shift, spread_shift = _moments(shift[varies])
    prior_variance, spread_variance = _moments(variance[varies])
    new_shift, new_variance = shift.copy(), variance.copy()
    if spread_shift > 0 and spread_variance > 0:
        shape = (prior_variance**2 + 2 * spread_variance) / spread_variance  # lambda
        rate = (prior_variance**3 + prior_variance * spread_variance) / spread_variance  # theta
        squares = ((standard - shift) ** 2).sum(axis=0)
        for _ in range(MOST_STEPS):
            before = new_shift, new_variance
            new_shift = (num * spread_shift * shift + new_variance * prior_shift) / (
                num * spread_shift + new_variance
            )
            around = squares + num * (shift - new_shift) ** 2  # sum of (Z - gamma*)^2
            new_variance = (rate + around / 2) / (num / 2 + shape - 1)
            if (
                max(np.abs(a - b).max() for a, b in zip((new_shift, new_variance), before, strict=True))
                < TOLERANCE
            ):
                break
    return np.where(varies, new_shift, 0.0), np.where(varies & (new_variance > 0), new_variance, 1.0)


def _moments(numbers: Float[np.ndarray, " D"]) -> tuple[float, float]:
    """Mean and variance; no variance of fewer than two."""
    if len(numbers) < 2:
        return (float(numbers.mean()) if len(numbers) else 0.0), 0.0
    return float(numbers.mean()), float(numbers.var(ddof=1))


def _sites(frame: pd.DataFrame, column: str) -> pd.Series:
    """Everybody's site as text; empty where it is missing."""
    return frame[column].map(lambda value: "" if pd.isna(value) else str(value))
