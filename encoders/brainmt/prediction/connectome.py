"""The rival that is hard to beat: functional connectomes of the same scans, as features for a linear model.

Voxels are averaged over parcels, and each run becomes a matrix of how the parcels move together: `correlation`, the
usual one, or `tangent` (Varoquaux et al. 2010; the best of the kinds that Dadi et al. 2019, NeuroImage, compared):
the run's covariance seen from the training people's geometric mean. Tangent matrices keep amplitudes, correlations
do not. Runs are averaged per person.

Parcels come from an atlas, or are made from training people alone: Ward clustering of neighbouring voxels that move
together. Frames on both sides of a gap are simply put one after the other.

Glossary: X, Y, Z grid · V in-mask voxels · T frames of a run · P parcels · S people · F features · K numbers of a
voxel's profile.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Float64, Int, Int64, Num

from encoders.brainmt.store import FMRIStore, Run
from encoders.runs.errors import InputError
from encoders.runs.progress import progress

Kind = Literal["correlation", "tangent"]
KINDS: tuple[Kind, ...] = ("correlation", "tangent")
CLUSTERED_RUNS = 16  # training runs whose signal shapes the parcels
PROFILE = 8  # numbers that a voxel's time course in one run is compressed to
FEWEST_VOXELS = 8  # per parcel, on average: small masks get fewer parcels than asked for
FEWEST_PARCELS, FEWEST_LEARNERS = 3, 3
GRID_FAULT = "prepare the scans again with scripts/prepare_fmri.py"


@dataclass(frozen=True, kw_only=True)
class Connectomes:
    """Connectomes of some people.

    Args:
        ids: S people.
        features: Kind -> (S, F): the matrix's upper triangle, for `tangent` with its diagonal.
        told: How they were made: parcels, where these come from, what was left out.
    """

    ids: list[str]
    features: dict[str, Float64[np.ndarray, "S F"]]
    told: dict[str, Any]

    def of(self, kind: str, people: Sequence[str]) -> Float64[np.ndarray, "N F"]:
        """Features of the given people, in their order."""
        row = {name: k for k, name in enumerate(self.ids)}
        return self.features[kind][[row[name] for name in people]]


def connectomes(
    store: FMRIStore,
    *,
    train: Sequence[str],
    people: Sequence[str],
    atlas: Path | None = None,
    parcels: int = 100,
    kinds: Sequence[str] = KINDS,
    seed: int = 0,
) -> Connectomes:
    """Connectomes of training people and of others; whatever is learned, is learned from the training people.

    Args:
        store: fMRI store; every run is checked against its sha256 as it is read, one at a time.
        train: Training people.
        people: The others.
        atlas: NIfTI file of integer labels in MNI space, 0 outside; None for parcels made from the training people.
        parcels: Parcels to make (count) where there is no atlas; fewer where the mask is small.
        kinds: Which matrices.
        seed: Seed of the choice of runs that parcels are made from.

    Raises:
        InputError: an atlas that does not fit, a run without signal in most parcels, or nobody to learn from.
    """
    wanted = {*train, *people}
    runs = [run for run in store.runs if run.subject in wanted]
    known = {run.subject for run in runs}
    learners = [name for name in train if name in known]
    if len(learners) < FEWEST_LEARNERS:
        raise InputError(
            f"{len(learners)} of the {len(train)} training people have a run in {store.folder}, too few for a "
            f"connectome to learn from; check the ids of the split"
        )
    if atlas is not None:
        labels, told = atlas_labels(atlas, store), {"parcels_from": f"atlas {atlas.name}"}
    else:
        labels, told = ward_labels(store, learners, parcels=parcels, seed=seed)
    series = _all_series(store, runs, labels)
    kept = _shared_parcels(series, runs, labels, store)
    series = [part[:, kept] for part in series]
    told |= {
        "parcels": int(kept.sum()),
        "parcels_without_voxels_in_some_run": int((~kept).sum()),
        "training_runs": sum(run.subject in set(learners) for run in runs),
    }
    ids = sorted(known)
    features = {kind: _features(kind, series, runs, set(learners), ids) for kind in kinds}
    return Connectomes(ids=ids, features=features, told=told)


def atlas_labels(path: Path, store: FMRIStore) -> Int64[np.ndarray, "X Y Z"]:
    """Labels of an atlas on the store's grid, taken from the nearest voxel; 0 outside.

    Raises:
        InputError: no such file, not one volume of integers, no overlap, or a store without an affine.
    """
    import nibabel as nib
    from nilearn.image import resample_img

    if (affine := store.manifest.get("affine")) is None:
        raise InputError(f"{store.folder} does not record where its grid lies in MNI space; {GRID_FAULT}")
    try:
        image = nib.load(path)
        values = np.asanyarray(image.dataobj)
    except (OSError, EOFError, nib.filebasedimages.ImageFileError) as cause:
        raise InputError(
            f"{path} is no readable NIfTI file ({cause}); pass an atlas of integer labels"
        ) from cause
    values = values[..., 0] if values.ndim == 4 and values.shape[3] == 1 else values
    if values.ndim != 3 or not np.array_equal(values, np.rint(values)) or values.min() < 0:
        raise InputError(
            f"{path} is an image of shape {values.shape} from {values.min():g} to {values.max():g}; one volume of "
            f"integer labels, 0 outside, was wanted (a probabilistic atlas has to be thresholded first)"
        )
    resampled = resample_img(
        nib.Nifti1Image(values.astype(np.int32), image.affine),
        target_affine=np.asarray(affine),
        target_shape=store.grid,
        interpolation="nearest",
        force_resample=True,
        copy_header=True,
    )
    labels = np.asarray(resampled.dataobj).astype(np.int64)
    if len(np.unique(labels[labels > 0])) < FEWEST_PARCELS:
        raise InputError(
            f"{path} has fewer than {FEWEST_PARCELS} labels on the grid of {store.folder}; an atlas in the MNI space "
            f"of the scans was wanted"
        )
    return labels


def ward_labels(
    store: FMRIStore, train: Sequence[str], *, parcels: int, seed: int
) -> tuple[Int64[np.ndarray, "X Y Z"], dict[str, Any]]:
    """Parcels of neighbouring voxels that move together in some training people; returns (labels, how).

    A voxel's time courses are standardised and compressed by a random projection, which keeps distances between
    voxels; then neighbours are merged by Ward's criterion. Voxels outside the largest connected part of the mask
    that these runs share get no parcel.

    Args:
        store: fMRI store.
        train: Training people with a run.
        parcels: Parcels asked for (count).
        seed: Seed of the choice of people and of the projection.
    """
    from scipy import ndimage
    from sklearn.cluster import FeatureAgglomeration
    from sklearn.feature_extraction.image import grid_to_graph

    rng = np.random.default_rng(seed)
    chosen = rng.permutation(sorted(train))[:CLUSTERED_RUNS].tolist()
    runs = [store.of(name)[0] for name in chosen]
    size = int(np.prod(store.grid))
    seen, profiles = np.zeros(size, np.int64), np.zeros((len(runs) * PROFILE, size), np.float32)
    for k, run in enumerate(progress(runs, "making parcels", unit="run")):
        frames, mask_index = _frames(store, run)
        seen[mask_index] += 1
        frames -= frames.mean(axis=0)
        frames /= np.maximum(frames.std(axis=0), 1e-6)
        projection = rng.standard_normal((PROFILE, len(frames))).astype(np.float32) / np.sqrt(len(frames))
        profiles[k * PROFILE : (k + 1) * PROFILE, mask_index] = projection @ frames
    parts, _ = ndimage.label((seen == len(runs)).reshape(store.grid))
    sizes = np.bincount(parts.ravel())[1:]
    num = min(parcels, int(sizes.max(initial=0)) // FEWEST_VOXELS)
    if num < FEWEST_PARCELS:
        raise InputError(
            f"the {len(runs)} training runs of {store.folder} that parcels are made from share a mask of "
            f"{int(sizes.sum())} voxels, which is too small for connectomes; pass an --atlas, or leave the connectome "
            f"out of --baselines"
        )
    mask = parts == sizes.argmax() + 1
    graph = grid_to_graph(*store.grid, mask=mask)
    ward = FeatureAgglomeration(n_clusters=num, connectivity=graph, linkage="ward")
    labels = np.zeros(store.grid, np.int64)
    labels[mask] = ward.fit(profiles[:, mask.ravel()]).labels_ + 1
    return labels, {
        "parcels_from": f"Ward clustering of {len(runs)} training runs",
        "voxels_without_parcel": int(sizes.sum() - mask.sum()),
    }


def _frames(store: FMRIStore, run: Run) -> tuple[Float32[np.ndarray, "T V"], Int[np.ndarray, " V"]]:
    tensors, _ = store.read(run)
    frames = tensors["frames"].astype(np.float32)
    if not np.isfinite(frames).all():
        raise InputError(f"{store.folder / run.file} holds values that are not finite; {GRID_FAULT}")
    return frames, tensors["mask_index"]


def _all_series(
    store: FMRIStore, runs: Sequence[Run], labels: Int64[np.ndarray, "X Y Z"]
) -> list[Float32[np.ndarray, "_ P"]]:
    """Mean signal of each parcel in each run, NaN where a run has no voxel of it."""
    names = np.unique(labels[labels > 0])
    flat = np.searchsorted(names, labels.ravel()) + (labels.ravel() > 0)  # 0 outside, else 1 to P
    series = []
    for run in progress(runs, "parcel signals", unit="run"):
        frames, mask_index = _frames(store, run)
        series.append(parcel_means(frames, flat[mask_index], len(names)))
    return series


def parcel_means(
    frames: Num[np.ndarray, "T V"], parcel: Int[np.ndarray, " V"], num: int
) -> Float32[np.ndarray, "T P"]:
    """Mean over the voxels of each parcel 1 to ``num``; NaN for a parcel without voxels, 0 is no parcel."""
    order = np.argsort(parcel, kind="stable")
    order = order[parcel[order] > 0]
    found, starts, counts = np.unique(parcel[order], return_index=True, return_counts=True)
    means = np.full((len(frames), num), np.nan, np.float32)
    if len(found):
        sums = np.add.reduceat(frames[:, order].astype(np.float64), starts, axis=1)
        means[:, found - 1] = sums / counts
    return means


def _shared_parcels(
    series: Sequence[np.ndarray], runs: Sequence[Run], labels: np.ndarray, store: FMRIStore
) -> np.ndarray:
    """Parcels with a voxel in every run; the others are left out for everyone and counted.

    Labels that lie outside all masks say nothing about any run.

    Raises:
        InputError: a run lacks so many that the rest would be no connectome.
    """
    there = np.stack([np.isfinite(part[0]) for part in series])
    kept, anywhere = there.all(axis=0), int(there.any(axis=0).sum())
    if kept.sum() < max(FEWEST_PARCELS, anywhere / 2):
        worst = int(there.sum(axis=1).argmin())
        raise InputError(
            f"only {int(kept.sum())} of {anywhere} parcels have a voxel in every run of {store.folder}; "
            f"{runs[worst].name} covers the fewest ({int(there[worst].sum())}): remove that scan, or pass an --atlas "
            f"with larger parcels"
        )
    return kept


def _features(
    kind: str, series: Sequence[np.ndarray], runs: Sequence[Run], train: set[str], ids: Sequence[str]
) -> Float64[np.ndarray, "S F"]:
    from nilearn.connectome import ConnectivityMeasure
    from threadpoolctl import threadpool_limits

    # on standardised signals a tangent matrix would lose the amplitudes
    measure = ConnectivityMeasure(
        kind=kind,
        vectorize=True,
        discard_diagonal=kind == "correlation",
        standardize="zscore_sample" if kind == "correlation" else False,
    )
    signals = [part.astype(np.float64) for part in series]
    with threadpool_limits(1, user_api="blas"):  # thousands of matrices so small that threads only wait
        measure.fit([signal for signal, run in zip(signals, runs, strict=True) if run.subject in train])
        found = measure.transform(signals)
    vectors: dict[str, list[np.ndarray]] = {}
    for vector, run in zip(found, runs, strict=True):
        vectors.setdefault(run.subject, []).append(vector)
    return np.stack([np.mean(vectors[name], axis=0) for name in ids])
