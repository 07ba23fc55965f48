"""A study of its own for a control: everything linked to the study it controls but the vectors of one modality."""

import os
from pathlib import Path
from typing import Literal

from encoders.runs.errors import InputError
from encoders.runs.study import DEMO, DEMO_SETTINGS, Study

LINKED = ("raw", "splits", "configs")


def make_control_study(
    study: Study, vectors: Path, folder: Path, *, replaced: Literal["brain", "genetics"]
) -> Study:
    """Link people, split, settings and the other modality of ``study``, and ``vectors`` in place of ``replaced``.

    Align, evaluate and report then run there as they did in the study, and nothing of it is overwritten. Made again it
    changes nothing.

    Args:
        study: The study to be controlled.
        vectors: File of the control's vectors; it need not exist yet.
        folder: The control's folder.
        replaced: Which of the two modalities ``vectors`` stands for.

    Raises:
        InputError: something else lies where a link should.
    """
    control, kept = Study(folder), "genetics" if replaced == "brain" else "brain"
    links = {control.folder / name: study.folder / name for name in LINKED if (study.folder / name).exists()}
    if study.folder == DEMO:  # its settings lie in the repository
        links[control.folder / "configs"] = DEMO_SETTINGS
    if study.path(kept).exists():
        links[control.path(kept)] = study.path(kept)
    for link, target in {**links, control.path(replaced): vectors}.items():
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            if not (link.is_symlink() and Path(os.readlink(link)) == target):
                link.symlink_to(target)
        except OSError as cause:
            raise InputError(
                f"cannot link {link} to {target} ({cause.strerror}); pass another folder, or remove what lies there"
            ) from cause
    return control


def offer_control_study(
    study: Study, vectors: Path, folder: Path | None, *, replaced: Literal["brain", "genetics"]
) -> int:
    """:func:`make_control_study` if a folder is given, and how to go on there, printed; returns exit code 0."""
    if folder is not None:
        control = make_control_study(study, vectors, folder, replaced=replaced)
        print(f"control: {control.folder}; next: accelerate launch scripts/align.py --study {control.folder}")
    return 0
