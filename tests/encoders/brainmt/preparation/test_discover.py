"""Finding scans: entities, companions, versions of one recording, names that cannot be trusted."""

import os

import pytest

from encoders.brainmt.preparation.discover import discover
from encoders.runs.errors import InputError


def test_sessions_and_runs_are_kept_apart(tree):
    tree.add("01", session="a", run="1")
    tree.add("01", session="a", run="2")
    tree.add("01", session="b", run="1")
    tree.add("02")
    listing = discover(tree.root)
    assert [scan.name for scan in listing.scans] == [
        "sub-01_ses-a_task-rest_run-1",
        "sub-01_ses-a_task-rest_run-2",
        "sub-01_ses-b_task-rest_run-1",
        "sub-02_task-rest",
    ]
    first = listing.scans[0]
    assert (first.subject, first.session, first.task, first.run) == ("sub-01", "a", "rest", "1")
    assert first.space == "MNI152NLin2009cAsym"
    assert listing.refused == []


def test_each_scan_gets_the_files_of_its_own_run(tree):
    tree.add("01", run="1")
    tree.add("01", run="2")
    for scan in discover(tree.root).scans:
        mark = f"run-{scan.run}_"
        assert mark in scan.sidecar.name and mark in scan.mask.name and mark in scan.confounds.name
        assert [path for path, _, _ in scan.sources] == [
            p.relative_to(tree.root).as_posix() for p in (scan.path, scan.sidecar, scan.mask, scan.confounds)
        ]


def test_a_mask_of_another_space_is_not_taken(tree):
    scan = tree.add("01", mask=b"never read")
    mask = next(scan.parent.glob("*mask.nii.gz"))
    mask.rename(mask.with_name(mask.name.replace("MNI152NLin2009cAsym", "T1w")))
    assert discover(tree.root).scans[0].mask is None


def test_the_version_in_mni_space_is_preferred_and_the_others_are_counted(tree):
    tree.add("01", space="T1w")
    tree.add("01", space="MNI152NLin2009cAsym")
    tree.add("01", space="MNI152NLin2009cAsym", desc="smoothed")
    listing = discover(tree.root)
    assert "space-MNI152NLin2009cAsym_desc-preproc" in listing.scans[0].path.name
    assert listing.passed_over == 2


def test_two_equally_good_versions_are_refused_until_a_space_is_chosen(tree):
    tree.add("01", space="MNI152NLin2009cAsym")
    tree.add("01", space="MNI152NLin6Asym")
    listing = discover(tree.root)
    assert listing.scans == []
    assert [row.code for row in listing.refused] == ["E_DUPLICATE"] * 2
    assert "--space" in listing.refused[0].fix
    assert [scan.space for scan in discover(tree.root, space="MNI152NLin6Asym").scans] == ["MNI152NLin6Asym"]


def test_run_1_and_run_01_are_the_same_run(tree):
    tree.add("01", run="1")
    tree.add("01", run="01")
    refused = discover(tree.root).refused
    assert [row.code for row in refused] == ["E_DUPLICATE"] * 2
    assert "run-01" in refused[1].sentence or "run-01" in refused[0].sentence


@pytest.mark.parametrize(
    ("name", "reason"),
    [("sub-02_task-rest_bold.nii.gz", "sub-02"), ("rest_bold.nii.gz", "no sub-")],
)
def test_a_name_that_contradicts_its_folder_is_refused(tree, name, reason):
    scan = tree.add("01")
    scan.with_name(name).write_bytes(b"x")
    listing = discover(tree.root)
    assert [row.code for row in listing.refused] == ["E_NAME"]
    assert reason in listing.refused[0].sentence
    assert [scan.name for scan in listing.scans] == ["sub-01_task-rest"]


def test_tasks_can_be_chosen_and_the_others_are_counted(tree):
    tree.add("01", task="rest")
    tree.add("01", task="movie")
    listing = discover(tree.root, task="rest")
    assert [scan.task for scan in listing.scans] == ["rest"] and listing.other_tasks == 1
    with pytest.raises(InputError, match="none of the 2 scans .* task-sleep"):
        discover(tree.root, task="sleep")


def test_hidden_twins_of_macos_are_no_scans(tree):
    scan = tree.add("01")
    scan.with_name("._" + scan.name).write_bytes(b"x")
    listing = discover(tree.root)
    assert len(listing.scans) == 1 and listing.refused == []


def test_without_scans_the_layout_is_named(tree):
    with pytest.raises(InputError, match=r"sub-\*/\[ses-\*/\]func/\*_bold.nii.gz; pass the root"):
        discover(tree.root)
    (tree.root / "derivatives/fmriprep/sub-01").mkdir(parents=True)
    with pytest.raises(InputError, match="--scans=.*derivatives/fmriprep"):
        discover(tree.root)


def test_sources_change_with_the_files(tree):
    scan = tree.add("01")
    before = discover(tree.root).scans[0].sources
    assert discover(tree.root).scans[0].sources == before
    os.utime(scan, ns=(1, 1))
    assert discover(tree.root).scans[0].sources != before
