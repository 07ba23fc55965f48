"""Folders of tensors that the preprocessing of the original BrainMT wrote.

    [img/]<id>/func_data_MNI_fp16.pt

A mask may lie beside each tensor as `mask.nii.gz`; without one it is recovered from the background. The name of the
folder is the id: the original knows one scan per folder.
"""

from collections.abc import Iterable
from pathlib import Path

from encoders.brainmt.preparation.discovery.scan import Listing, Scan, entity_name, sources, visible
from encoders.brainmt.preparation.discovery.select import select

TENSOR = "func_data_MNI_fp16.pt"
MASKS = ("mask.nii.gz", "mask.nii")


def discover_original(root: Path, *, task: str = "", space: str = "") -> Listing:
    """List the tensors below ``root``, only of one ``task`` or ``space`` if given.

    Raises:
        InputError: there is none; the message says what layout was looked for.
    """
    return select(
        [_scan(path, root) for path in _tensors(root)],
        root,
        layout="original",
        task=task,
        space=space,
        wanted=f"the layout of the original BrainMT, [img/]<id>/{TENSOR}",
    )


def looks_like_original(root: Path) -> bool:
    """Whether somebody has such a tensor."""
    return next(iter(_tensors(root)), None) is not None


def _tensors(root: Path) -> Iterable[Path]:
    for folder in [root, root / "img"]:
        if folder.is_dir():
            yield from (person / TENSOR for person in visible(folder) if (person / TENSOR).is_file())


def _scan(path: Path, root: Path) -> Scan:
    subject = path.parent.name
    mask = next((path.with_name(name) for name in MASKS if path.with_name(name).is_file()), None)
    return Scan(
        name=entity_name(sub=subject.removeprefix("sub-")),
        subject=subject,
        session="",
        task="",
        run="",
        space="",
        path=path,
        sidecar=None,
        mask=mask,
        confounds=None,
        sources=sources([path, mask], root),
        layout="original",
    )
