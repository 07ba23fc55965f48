"""What a dry run prints about scans of several origins."""

import numpy as np
import pytest

from encoders.brainmt.preparation.config import Clean, PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.dry_run_table import summary, table
from encoders.brainmt.preparation.prepare import dry_run, prepare


def test_each_scan_of_a_layout_has_its_line_and_the_summary_counts_by_code(origin, tmp_path):
    origin.ukb_zip("1000001_20227_2_0.zip", origin.ukb_files(seed=1))
    origin.ukb_zip("1000002_20227_2_0.zip", origin.ukb_files(seed=2, warp=False))
    origin.put("1000003_20227_2_0.zip", b"<html>")
    origin.put("1000004_20227_2_0 (1).zip", b"")
    listing = discover(origin.root)
    outcome = dry_run(listing, tmp_path / "store", PrepareFMRI())
    header, first, *others = table(outcome)
    assert header.split() == ["action", "frames", "voxels", "TR", "s", "FD", "mm", "scan"]
    assert first.split()[:6] == ["prepare", "40", "82", "2", "0.150", "1000001_20227_2_0.zip"]
    for words in (
        "MNI152NLin6Asym",
        "warped to MNI by example_func2standard_warp.nii.gz (relative",
        "FD Power",
    ):
        assert words in first
    assert [line.split()[0] for line in others] == ["E_SPACE", "E_ARCHIVE", "E_NAME"]
    assert "1000002_20227_2_0.zip: it holds UK Biobank's series" in others[0] and "applywarp" in others[0]
    assert [line.split() for line in summary(listing, outcome)] == [
        ["layout", "ukb:", "4", "found"],
        ["prepare", "1"],
        ["E_ARCHIVE", "1"],
        ["E_NAME", "1"],
        ["E_SPACE", "1"],
    ]
    assert not (tmp_path / "store").exists()


def test_what_is_done_already_is_kept_and_what_is_dropped_is_said(tree, tmp_path):
    tree.add("01")
    tree.add("02", fd=None)
    options = PrepareFMRI(dummy_frames=4)
    prepare(discover(tree.root), tmp_path / "store", options)
    outcome = dry_run(discover(tree.root), tmp_path / "store", options)
    _, first, second = table(outcome)
    assert first.startswith("keep") and "4 frames dropped, FD fMRIPrep framewise_displacement" in first
    assert second.split()[4] == "-" and "FD " not in second
    assert [line.split() for line in summary(discover(tree.root), outcome)] == [
        ["layout", "bids:", "2", "found"],
        ["keep", "2"],
    ]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (PrepareFMRI(clean=Clean(high_pass=0.008)), "cleaned of what is slower than 0.008 Hz, FD"),
        (
            PrepareFMRI(clean=Clean(confounds=["trans_x"], low_pass=0.1, detrend=True)),
            "cleaned of 1 confound, what is faster than 0.1 Hz, a linear trend",
        ),
        (PrepareFMRI(dummy_frames=1, max_nan=0.05), "1 frame dropped, 1 NaN voxel set to 0, FD"),
    ],
)
def test_every_step_that_changes_the_numbers_is_named(tree, build, tmp_path, options, words):
    data = build.bold(1).astype("f4")
    if options.max_nan > 0.01:
        data[2, 3, 2, 5] = np.nan
    tree.add("01", data=data)
    _, line = table(dry_run(discover(tree.root), tmp_path / "store", options))
    assert words in line
