"""What a kind of files needs is asked for once, before any work, not once per scan."""

import sys

import pytest
import torch

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.recording import need_options
from encoders.runs.errors import InputError


@pytest.fixture
def no_fslpy(monkeypatch, tmp_path):
    """This process as if fslpy were not installed."""
    for name in [name for name in sys.modules if name.split(".")[0] == "fsl"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if "site-packages" not in path])


def test_fslpy_is_asked_for_where_a_zip_or_folder_must_be_warped(origin, no_fslpy):
    origin.put("1000000_20227_2_0.zip", b"<html>")  # says nothing about the others
    origin.ukb_zip("1000001_20227_2_0.zip", origin.ukb_files())
    with pytest.raises(InputError, match="pip install fslpy"):
        need_options(discover(origin.root).scans, PrepareFMRI())


def test_fslpy_is_not_asked_for_where_users_have_warped_their_scans(origin, no_fslpy):
    origin.ukb_folder("1000001", origin.ukb_files(warped=True))
    origin.ukb_zip("1000002_20227_2_0.zip", origin.ukb_files(warped=True))
    need_options(discover(origin.root).scans, PrepareFMRI())


def test_tensors_ask_for_grid_and_time_wherever_they_are_listed(origin):
    path = origin.root / "img/1/func_data_MNI_fp16.pt"
    path.parent.mkdir(parents=True)
    torch.save(torch.zeros(1), path)
    table = origin.put(
        "cohort.tsv", "path\tsubject\ttr\nother.nii.gz\t2\t\nimg/1/func_data_MNI_fp16.pt\t1\t0.7\n"
    )
    with pytest.raises(InputError, match="--affine and --tr must be stated"):
        need_options(discover(origin.root, layout="original").scans, PrepareFMRI())
    with pytest.raises(InputError, match="time: --affine must be stated"):
        need_options(discover(table).scans, PrepareFMRI())
    need_options(discover(table).scans, PrepareFMRI(affine="mni2mm_fsl"))
