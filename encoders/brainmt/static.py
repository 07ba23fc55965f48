"""The static-only control: one vector per person from the time-averaged images in the fMRI store.

S people · V voxels that all runs share · D numbers per person (voxels, blocks or components) · X, Y, Z grid.

Two passes over the store, one run in memory at a time: which voxels carry signal in every run, then their means.
"""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from encoders.brainmt.run_file import RunFile
from encoders.brainmt.static_config import ExportStatic
from encoders.brainmt.store import FMRIStore, Run
from encoders.cohort import Split
from encoders.runs.artifact import content_digest
from encoders.runs.errors import InputError
from encoders.runs.progress import progress
from encoders.vectors import SubjectVectors

FEWEST_SHARED = 0.5  # of a typical mask: fewer voxels in common, and the masks do not fit one another
LEAST_LEVEL = 1.0  # temporal deviations; in scanner units the mean of a BOLD scan is some 20 to 100


def static_vectors(store: FMRIStore, config: ExportStatic, split: Split | None = None) -> SubjectVectors:
    """Vectors of everyone in the store.

    Args:
        store: fMRI store; every run is checked against its sha256.
        config: Options.
        split: Who may be seen; needed for components.

    Raises:
        InputError: the masks have too little in common, an image is not in scanner units, the store is damaged, or
            there are too few training people for the components.
    """
    shared = np.flatnonzero(shared_voxels(store))
    block_of = blocks(shared, store, config.block_mm)
    ids = store.subjects
    row = {name: k for k, name in enumerate(ids)}
    values = np.zeros((len(ids), int(block_of.max()) + 1), np.float32)
    for run in progress(store.runs, "averaging", unit="run"):
        store.verify(run)
        image = _relative_image(store, run, shared)
        sums = np.bincount(block_of, weights=image)
        values[row[run.subject]] += (sums / np.bincount(block_of) / len(store.of(run.subject))).astype(
            np.float32
        )
    provenance: dict[str, Any] = {
        "encoder": "static mean image",
        "weights_sha256": None,
        "config": {"block_mm": config.block_mm, "components": config.components},
        "level": "divided by the run's mean over the shared voxels",
        "shared_voxels": len(shared),
        "shared_voxels_sha256": content_digest(shared.tolist()),
        "store_digest": store.digest,
        "trained_on": None,
    }
    if config.components:
        assert split is not None, "components are fitted on the training people of a split"
        values, fitted = _components(values, ids, split, config.components)
        provenance |= fitted
    return SubjectVectors(ids=ids, values=values, provenance=provenance)


def shared_voxels(store: FMRIStore) -> Bool[np.ndarray, " XYZ"]:
    """Voxels of the flattened grid that carry signal in every run."""
    shared = np.ones(int(np.prod(store.grid)), bool)
    sizes = []
    for run in progress(store.runs, "comparing masks", unit="run"):
        with RunFile(store.folder / run.file) as file:
            alive = np.zeros_like(shared)
            alive[file.rows("mask_index")[file.rows("sd") > 0]] = True
        shared &= alive
        sizes.append(int(alive.sum()))
    typical = float(np.median(sizes))
    if shared.sum() < max(1, FEWEST_SHARED * typical):
        raise InputError(
            f"only {shared.sum()} voxels carry signal in all {len(sizes)} runs, a typical run has {typical:.0f} and the "
            f"smallest {min(sizes)}; prepare the scans with one mask for everyone (--mask=FILE), or leave out those that "
            f"do not cover the brain (--min_coverage)"
        )
    return shared


def blocks(shared: Int64[np.ndarray, " V"], store: FMRIStore, block_mm: float) -> Int64[np.ndarray, " V"]:
    """Which block each shared voxel belongs to, numbered from 0; by itself if ``block_mm`` is 0.

    A block holds the same shared voxels for everyone, even where it reaches beyond the brain.
    """
    if not block_mm:
        return np.arange(len(shared))
    edges = np.linalg.norm(np.asarray(store.manifest["affine"])[:3, :3], axis=0)
    steps = np.maximum(np.rint(block_mm / edges), 1).astype(int)
    place = np.stack(np.unravel_index(shared, store.grid)) // steps[:, None]
    return np.unique(np.ravel_multi_index(tuple(place), store.grid), return_inverse=True)[1].reshape(-1)


def _relative_image(store: FMRIStore, run: Run, shared: Int64[np.ndarray, " V"]) -> Float64[np.ndarray, " V"]:
    """Means over time at the shared voxels, their own mean being 1."""
    with RunFile(store.folder / run.file) as file:
        where = np.searchsorted(file.rows("mask_index"), shared)
        image, sd = file.rows("mean")[where].astype(np.float64), file.rows("sd")[where]
    level, change = float(image.mean()), float(sd.mean())
    if not level > LEAST_LEVEL * change:
        raise InputError(
            f"the mean image of {run.file} averages to {level:.3g} where its voxels vary by {change:.3g}: its mean over "
            f"time was taken out before it came here, so it holds no static image; export from scans in scanner units"
        )
    return image / level


def _components(
    values: Float32[np.ndarray, "S V"], ids: list[str], split: Split, number: int
) -> tuple[Float32[np.ndarray, "S D"], dict[str, Any]]:
    """Scores on the principal components of the training people, and what is recorded of them."""
    from sklearn.decomposition import PCA

    seen = sorted(set(ids) & set(split.train))
    most = min(len(seen) - 1, values.shape[1])
    if number > most:
        raise InputError(
            f"components is {number}, but {len(seen)} training people with {values.shape[1]} numbers each have at most "
            f"{max(most, 0)}; lower --components"
        )
    row = {name: k for k, name in enumerate(ids)}
    pca = PCA(number, svd_solver="full", random_state=0).fit(values[[row[name] for name in seen]])
    record = {
        "weights_sha256": content_digest(pca.components_.tolist()),
        "explained_variance": round(float(pca.explained_variance_ratio_.sum()), 6),
        "trained_on": {"split_digest": split.digest, "ids": seen, "complete": True},
    }
    return pca.transform(values).astype(np.float32), record
