"""Ancestry of people whose table names none: clusters of the genetic principal components, fitted on training people.

Galleries are matched by the clusters, and the confound design regresses them out: were only one of the two to know them,
what the noisy components leave of a cluster would stay in the adjusted vectors.
"""

import dataclasses
from collections.abc import Iterable

import numpy as np
import pandas as pd
from sklearn.cluster import KMeans

from encoders.cohort.table import Cohort

NUM_CLUSTERS, NUM_PCS = 4, 4
FEWEST = 20  # training people


def names_ancestry(frame: pd.DataFrame) -> bool:
    """Whether the table says somebody's ancestry itself."""
    return "ancestry" in frame and bool(frame["ancestry"].notna().any())


def ancestry_clusters(frame: pd.DataFrame, train: pd.DataFrame) -> list[str | None] | None:
    """k-means cluster of each person; nobody's without any component is known, of some missing ones the mean is taken.

    Args:
        frame: Anybody.
        train: Training people.

    Returns:
        Names such as `cluster 2`, None for people without components; None where components or people are missing.
    """
    columns = [f"pcs_{k}" for k in range(1, NUM_PCS + 1) if f"pcs_{k}" in frame]
    known = train[train[columns].notna().any(axis=1)] if columns else train
    if not columns or len(known) < FEWEST:
        return None
    fill = known[columns].mean().fillna(0.0)
    values = known[columns].fillna(fill).to_numpy()
    clusters = min(NUM_CLUSTERS, len(np.unique(values, axis=0)))
    model = KMeans(n_clusters=clusters, n_init=10, random_state=0).fit(values)
    labels = model.predict(frame[columns].fillna(fill).to_numpy())
    there = frame[columns].notna().any(axis=1)
    return [f"cluster {label + 1}" if known else None for label, known in zip(labels, there, strict=True)]


def with_ancestry(cohort: Cohort, train: Iterable[str]) -> tuple[Cohort, bool]:
    """The cohort with a column `ancestry`, where the table lacks it and the components allow it; and whether it was made.

    Args:
        cohort: The people.
        train: Ids of training people; those without a row are passed over.
    """
    frame = cohort.frame
    if names_ancestry(frame):
        return cohort, False
    clusters = ancestry_clusters(frame, frame.loc[[name for name in train if name in frame.index]])
    if clusters is None:
        return cohort, False
    return dataclasses.replace(cohort, frame=frame.assign(ancestry=clusters)), True
