"""Windows of frames as the model reads them.

B batch · T frames of a window · V in-mask voxels · X, Y, Z grid in RAS order · K targets. The model's spatial
axes are Y, X, Z (the order of the original BrainMT, so that its weights fit), with one channel.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32, Int, Int8, Int64
from torch import Tensor
from torch.utils.data import Dataset

from encoders.brainmt.prefetch import prefetched
from encoders.brainmt.quantise import dequantise
from encoders.brainmt.store import FMRIStore, Run, Stored
from encoders.runs.errors import InputError
from encoders.runs.progress import progress

LARGE_GRID = 2**18  # voxels
NUMPY = {torch.float16: np.float16, torch.float32: np.float32}


def scatter(
    frames: Float[Tensor, "T V"],
    mask_index: Int[Tensor, " V"],
    *,
    grid: tuple[int, int, int],
    background: float,
    out: Float[Tensor, "T 1 Y X Z"] | None = None,
) -> Float[Tensor, "T 1 Y X Z"]:
    """Spread in-mask voxels over the dense grid, on the device of ``frames``.

    Args:
        frames: Normalised signal.
        mask_index: Place of each voxel in the C-order flattened X, Y, Z grid.
        grid: Voxels along X, Y, Z.
        background: Value outside the mask.
        out: Contiguous tensor to fill; made as float32 if not given.
    """
    if out is None:
        x, y, z = grid
        out = torch.empty(len(frames), 1, y, x, z, dtype=torch.float32, device=frames.device)
    return _place(Held(frames, model_order(mask_index, grid)), background, out)


def _place(held: "Held", background: float, out: Float[Tensor, "T 1 Y X Z"]) -> Float[Tensor, "T 1 Y X Z"]:
    """Numbers of ``held`` onto the grid, on the device of ``out``."""
    flat = out.view(len(out), -1)
    if out.device.type == "cpu" and out.dtype in NUMPY and flat.shape[1] > LARGE_GRID:
        _place_by_frames(held, background, flat.numpy())
        return out
    values = held.frames
    if held.scale is not None and held.offset is not None:
        values = values.to(torch.float32).mul_(held.scale).add_(held.offset)
    # as fast as index_copy_ at 2 mm, twice as fast at 8 mm
    flat.fill_(background).scatter_(1, held.order.expand(len(values), -1), values.to(out.dtype))
    return out


def _place_by_frames(held: "Held", background: float, flat: Float[np.ndarray, "T N"]) -> None:
    """The same numbers on a CPU, frame by frame and without threads.

    A frame stays in the cache, and one thread is as fast as two are: memory sets the pace. On a busy machine, where
    threads wait for each other at each of 200 frames, it is ten times faster.
    """
    order = held.order.numpy()
    scale, offset = (None if part is None else part.numpy() for part in (held.scale, held.offset))
    for row, frame in zip(flat, held.frames.numpy(), strict=True):
        row.fill(background)
        row[order] = dequantise(frame[None], scale, offset)[0]


def _empty(shape: tuple[int, ...], device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """As torch.empty; on a CPU in memory that NumPy asks huge pages for, which are filled several times faster."""
    if torch.device(device).type == "cpu" and dtype in NUMPY:
        return torch.from_numpy(np.empty(shape, NUMPY[dtype]))
    return torch.empty(shape, device=device, dtype=dtype)


def model_order(mask_index: Int[Tensor, " V"], grid: tuple[int, int, int]) -> Int64[Tensor, " V"]:
    """Place of each voxel in the flattened Y, X, Z grid of the model."""
    num_x, num_y, num_z = grid
    index = mask_index.long()
    column = index // num_z  # x * num_y + y
    return ((column % num_y) * num_x + column // num_y) * num_z + index % num_z


class Held(NamedTuple):
    """A window as it is moved to a device: as stored, and where each voxel goes there."""

    frames: Float[Tensor, "T V"] | Int8[Tensor, "T V"]
    order: Int64[Tensor, " V"]
    scale: Float32[Tensor, " V"] | None = None
    offset: Float32[Tensor, " V"] | None = None

    def each(self, move: Callable[[Tensor], Tensor]) -> "Held":
        """The same with every tensor moved."""
        return Held(*(None if part is None else move(part) for part in self))


class FMRIWindows(Dataset):
    """Windows of the runs of some people.

    In training, each epoch draws new windows from (seed, epoch, index), so a resumed run sees the same ones. In
    evaluation the windows of a run are evenly spaced and never change. A window never spans dropped frames.
    DataLoader workers copy the dataset: call :meth:`set_epoch` before the epoch's iterator is made, and do
    not keep workers alive between epochs.

    Args:
        store: The fMRI store; checked by its ``verify_all``, or by ``preload``.
        frames: T, frames of a window.
        subjects: Whose runs; default: everyone in the store.
        targets: Subject id -> K numbers, NaN where missing; people without an entry get K times NaN.
        windows_per_run: Items per run and epoch.
        training: Random windows instead of evenly spaced ones.
        seed: Seed of the random windows.
        preload: Keep all runs in memory as they are stored, read once and checked against their sha256.

    Raises:
        InputError: a run is shorter than the window, the grids differ, or nobody has a run.
    """

    def __init__(
        self,
        store: FMRIStore,
        *,
        frames: int,
        subjects: Iterable[str] | None = None,
        targets: Mapping[str, Sequence[float | int] | Float[np.ndarray, " K"]] | None = None,
        windows_per_run: int = 1,
        training: bool = False,
        seed: int = 0,
        preload: bool = False,
    ) -> None:
        self.store, self.frames, self.windows_per_run = store, frames, windows_per_run
        self.training, self.seed, self.epoch = training, seed, 0
        wanted = None if subjects is None else set(subjects)
        self.runs: list[Run] = [run for run in store.runs if wanted is None or run.subject in wanted]
        self.missing: list[str] = sorted((wanted or set()) - {run.subject for run in self.runs})
        self._starts = [_starts(run, max(frames, 1)) for run in self.runs]
        self._check(store)
        self.targets: Float32[Tensor, "N K"] = _targets(self.runs, targets or {})
        self._memory: list[tuple[Stored, Held]] = []
        if preload:
            for run in progress(self.runs, "reading the fMRI store", unit="run"):
                stored = store.read_stored(run)
                self._memory.append((stored, _held(stored, run)))

    def __len__(self) -> int:
        return len(self.runs) * self.windows_per_run

    def __getitem__(self, index: int) -> tuple[Float32[Tensor, "T 1 Y X Z"], Float32[Tensor, " K"]]:
        """Dense window and targets, as a DataLoader wants them; ``run_of(index)`` tells whose they are."""
        if not 0 <= index < len(self):
            raise IndexError(index)
        dense, targets = self.batch([index])
        return dense[0], targets[0]

    def set_epoch(self, epoch: int) -> None:
        """Draw the training windows of this epoch."""
        self.epoch = epoch

    def run_of(self, index: int) -> Run:
        """The run that item ``index`` is a window of."""
        return self.runs[index // self.windows_per_run]

    def start_of(self, index: int, epoch: int | None = None) -> int:
        """First frame of item ``index`` (in ``epoch``, by default the current one)."""
        place, window = divmod(index, self.windows_per_run)
        starts = self._starts[place]
        if self.training:
            epoch = self.epoch if epoch is None else epoch
            return int(starts[np.random.default_rng((self.seed, epoch, index)).integers(len(starts))])
        if self.windows_per_run == 1:
            return int(starts[(len(starts) - 1) // 2])
        return int(starts[round(window * (len(starts) - 1) / (self.windows_per_run - 1))])

    def masked(self, index: int, epoch: int | None = None) -> tuple[Float[Tensor, "T V"], Int[Tensor, " V"]]:
        """Item ``index`` before :func:`scatter`: numbers and mask index, a fraction of the dense bytes."""
        start = self.start_of(index, epoch)
        if self._memory:
            whole, _ = self._memory[index // self.windows_per_run]
            part = whole.frames[start : start + self.frames]
            frames, mask_index = dequantise(part, whole.scale, whole.offset), whole.mask_index
        else:
            frames, mask_index = self.store.window(self.run_of(index), start, self.frames)
        return torch.from_numpy(frames), torch.from_numpy(mask_index)

    def batch(
        self,
        indices: Sequence[int],
        epoch: int | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> tuple[Float[Tensor, "B T 1 Y X Z"], Float32[Tensor, "B K"]]:
        """Several items at once; needs no DataLoader.

        They are moved as they are stored, from pinned memory if ``device`` is a GPU, and become numbers of ``dtype``
        on the grid there.
        """
        return self._spread(indices, (self._held(index, epoch, device) for index in indices), device, dtype)

    def prefetch(
        self,
        batches: Iterable[Sequence[int]],
        epoch: int | None = None,
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        ahead: int = 2,
    ) -> Iterator[tuple[Float[Tensor, "B T 1 Y X Z"], Float32[Tensor, "B K"]]]:
        """What :meth:`batch` gives for each of ``batches``, in order; up to ``ahead`` are read meanwhile.

        A thread reads and pins; the move to ``device`` and the spreading are the caller's, so that the device's memory
        holds one batch at a time. The epoch is the one at the time of the call.
        """
        epoch = self.epoch if epoch is None else epoch

        def read(indices: Sequence[int]) -> tuple[Sequence[int], list[Held]]:
            return indices, [self._held(index, epoch, device) for index in indices]

        return (
            self._spread(indices, held, device, dtype)
            for indices, held in prefetched(read, batches, ahead=ahead)
        )

    def _spread(
        self, indices: Sequence[int], held: Iterable[Held], device: torch.device | str, dtype: torch.dtype
    ) -> tuple[Float[Tensor, "B T 1 Y X Z"], Float32[Tensor, "B K"]]:
        x, y, z = self.store.grid
        dense = _empty((len(indices), self.frames, 1, y, x, z), device, dtype)
        for row, (index, part) in enumerate(zip(indices, held, strict=True)):
            moved = part.each(lambda tensor: tensor.to(device, non_blocking=True))
            _place(moved, self.run_of(index).background, dense[row])
        rows = [index // self.windows_per_run for index in indices]
        return dense, self.targets[rows].to(device, non_blocking=True)

    def _held(self, index: int, epoch: int | None, device: torch.device | str) -> Held:
        """Item ``index`` as stored, in pinned memory if a GPU is to fetch it."""
        start, run = self.start_of(index, epoch), self.run_of(index)
        if self._memory:
            _, whole = self._memory[index // self.windows_per_run]
            held = whole._replace(frames=whole.frames[start : start + self.frames])
        else:
            held = _held(self.store.stored(run, start, self.frames), run)
        return held.each(Tensor.pin_memory) if torch.device(device).type == "cuda" else held

    def _check(self, store: FMRIStore) -> None:
        if self.frames < 1 or self.windows_per_run < 1:
            raise InputError(
                f"{self.windows_per_run} windows of {self.frames} frames per run were asked for; both must be 1 or more"
            )
        if not self.runs:
            raise InputError(
                f"none of the {len(self.missing)} people asked for has a run in {store.folder}; "
                f"check the ids, or its quarantine.tsv"
            )
        short = [run for run, starts in zip(self.runs, self._starts, strict=True) if not len(starts)]
        if short:
            longest = min(max(last - first for first, last in run.segments) for run in short)
            raise InputError(
                f"{len(short)} of {len(self.runs)} runs are shorter than a window of {self.frames} frames, e.g. "
                f"{short[0].name}; lower the window to {longest} frames, or prepare the store again with "
                f"--min_frames={self.frames}"
            )
        grids = {run.grid for run in self.runs}
        if len(grids) > 1:
            raise InputError(
                f"the runs in {store.folder} lie on {len(grids)} grids, {sorted(grids)}; one is wanted"
            )


def _held(stored: Stored, run: Run) -> Held:
    frames, mask_index = torch.from_numpy(stored.frames), torch.from_numpy(stored.mask_index)
    scaling = (None if part is None else torch.from_numpy(part) for part in (stored.scale, stored.offset))
    return Held(frames, model_order(mask_index, run.grid), *scaling)


def _starts(run: Run, frames: int) -> Int64[np.ndarray, " S"]:
    """Every frame at which a window can start without spanning a gap."""
    return np.concatenate(
        [np.arange(first, max(last - frames + 1, first), dtype=np.int64) for first, last in run.segments]
    )


def _targets(
    runs: Sequence[Run], targets: Mapping[str, Sequence[float | int] | Float[np.ndarray, " K"]]
) -> Float32[Tensor, "N K"]:
    widths = {len(values) for values in targets.values()}
    if len(widths) > 1:
        raise InputError(f"targets have {sorted(widths)} numbers per person; the same for everyone is wanted")
    unknown = np.full(max(widths, default=0), np.nan)
    rows = [np.asarray(targets.get(run.subject, unknown), np.float32) for run in runs]
    return torch.from_numpy(np.stack(rows))
