"""A study of its own for a control: everything linked to the study it controls but the brain vectors."""

import os
from pathlib import Path

from encoders.runs.errors import InputError
from encoders.runs.study import Study

LINKED = ("raw", "splits", "vectors/genetics.safetensors")


def make_control_study(study: Study, vectors: Path, folder: Path) -> Study:
    """Link people, split and genome vectors of ``study`` and ``vectors`` as brain vectors into ``folder``.

    Align, evaluate and report then run there as they did in the study, and nothing of it is overwritten. Made again it
    changes nothing.

    Raises:
        InputError: something else lies where a link should.
    """
    control = Study(folder)
    links = {control.folder / name: study.folder / name for name in LINKED if (study.folder / name).exists()}
    for link, target in {**links, control.path("brain"): vectors}.items():
        try:
            link.parent.mkdir(parents=True, exist_ok=True)
            if not (link.is_symlink() and Path(os.readlink(link)) == target):
                link.symlink_to(target)
        except OSError as cause:
            raise InputError(
                f"cannot link {link} to {target} ({cause.strerror}); pass another folder, or remove what lies there"
            ) from cause
    return control
