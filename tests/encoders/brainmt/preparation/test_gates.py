"""Repetition time, space and motion: what lets a scan in."""

from types import SimpleNamespace

import numpy as np
import pytest

from encoders.brainmt.preparation.config import PrepareFMRI
from encoders.brainmt.preparation.discover import discover
from encoders.brainmt.preparation.gates import repetition_time, space_of, still_enough
from encoders.brainmt.preparation.motion import Motion
from encoders.brainmt.preparation.nifti import read_nifti
from encoders.brainmt.preparation.quarantine import ScanRefused

NAN = float("nan")
MS, S, US, UNKNOWN = 16, 8, 24, 0


def scan_of(tree, **options):
    tree.add("01", **options)
    scan = discover(tree.root).scans[0]
    return scan, read_nifti(scan.path, max_bytes=2**24)


@pytest.mark.parametrize(
    ("tr", "unit", "sidecar", "wanted"),
    [
        (2.0, S, 2.0, 2.0),
        (735.0, MS, 0.735, 0.735),
        (0.735, UNKNOWN, None, 0.735),
        (0.72000003, S, 0.72, 0.72),
    ],
)
def test_times_that_agree_pass(tree, tr, unit, sidecar, wanted):
    scan, image = scan_of(tree, tr=tr, unit=unit, sidecar={"RepetitionTime": sidecar} if sidecar else {})
    assert repetition_time(image, scan.sidecar, fix=False) == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize(
    ("tr", "sidecar", "repaired"),
    [
        (735.0, 0.735, 0.735),
        (735.0, 735.0, 0.735),
        (735.0, None, 0.735),
        (0.0, 2.0, 2.0),
        (NAN, 2.0, 2.0),
        (2.0, 0.8, None),
        (0.0, None, None),
        (NAN, None, None),
        (50.0, 50.0, None),
        (2.0, NAN, None),
    ],
)
def test_times_that_cannot_be_right_are_refused_and_only_two_faults_are_repaired(tree, tr, sidecar, repaired):
    scan, image = scan_of(tree, tr=tr, sidecar={"RepetitionTime": sidecar} if sidecar else {})
    with pytest.raises(ScanRefused, match="E_TR: the header states") as caught:
        repetition_time(image, scan.sidecar, fix=False)
    assert f"{tr:g} s" in caught.value.sentence
    assert ("no sidecar" if sidecar is None else f"sidecar {sidecar:g} s") in caught.value.sentence
    if repaired:
        assert repetition_time(image, scan.sidecar, fix=True) == pytest.approx(repaired)
    else:
        with pytest.raises(ScanRefused, match="E_TR"):
            repetition_time(image, scan.sidecar, fix=True)


def test_a_broken_sidecar_is_named(tree):
    scan, image = scan_of(tree)
    for content in ("{", "[]", '{"RepetitionTime": "two"}'):
        scan.sidecar.write_text(content)
        with pytest.raises(ScanRefused, match="E_TR: its sidecar .* cannot be read"):
            repetition_time(image, scan.sidecar, fix=True)


@pytest.mark.parametrize(
    ("space", "code", "assume", "wanted"),
    [
        ("MNI152NLin6Asym", 1, False, "MNI152NLin6Asym"),
        ("", 4, False, "MNI (NIfTI code 4)"),
        ("", 1, True, "assumed MNI"),
        ("T1w", 4, True, "assumed MNI"),
        ("", 1, False, None),
        ("T1w", 4, False, None),
    ],
)
def test_mni_space_must_be_stated(space, code, assume, wanted):
    scan, image = SimpleNamespace(space=space), SimpleNamespace(space_code=code)
    space_of_ = getattr(space_of, "__wrapped__", space_of)  # plain stand-ins carry all it reads
    if wanted:
        assert space_of_(scan, image, assume) == wanted
    else:
        with pytest.raises(ScanRefused, match=f"E_SPACE.* code {code} .*--assume_mni"):
            space_of_(scan, image, assume)


def moved(*displacements):
    return Motion(fd=np.array([np.nan, *displacements]), definition="Power", source="x.par")


def test_motion_within_its_limits_is_recorded_with_its_definition():
    found = still_enough(moved(0.1, 0.3, 0.6), PrepareFMRI())
    assert found == {
        "mean_fd": pytest.approx(1 / 3, abs=1e-6),
        "max_fd": 0.6,
        "fd_share": pytest.approx(1 / 3, abs=1e-6),
        "fd_definition": "Power",
    }
    assert set(still_enough(None, PrepareFMRI()).values()) == {None}


@pytest.mark.parametrize(
    ("displacements", "options", "words", "fix"),
    [
        ((0.8, 0.8), {}, r"mean .* 0.800 mm \(Power\), the limit is 0.5 mm", "--max_mean_fd"),
        ((0.1, 0.1, 6.0, *[0.1] * 60), {}, r"largest .* 6.000 mm .*limit is 5 mm", "--max_fd"),
        (
            (0.1, 0.4, 0.1, 0.1),
            {"fd_threshold": 0.3, "max_fd_share": 0.2},
            "25.0% of its frames moved more",
            "share",
        ),
    ],
)
def test_motion_beyond_a_limit_is_refused(displacements, options, words, fix):
    with pytest.raises(ScanRefused, match=f"E_MOTION: .*{words}") as caught:
        still_enough(moved(*displacements), PrepareFMRI(**options))
    assert fix in caught.value.fix


def test_motion_before_the_first_kept_frame_does_not_count():
    jerk = moved(0.1, 9.0, 0.1, 0.3)
    with pytest.raises(ScanRefused, match="E_MOTION"):
        still_enough(jerk, PrepareFMRI(max_mean_fd=5.0))
    assert still_enough(jerk, PrepareFMRI(), first=2)["mean_fd"] == pytest.approx(0.2)
    assert still_enough(jerk, PrepareFMRI(), first=4)["mean_fd"] is None


@pytest.mark.parametrize(
    ("tr", "unit", "sidecar", "stated", "wanted"),
    [
        (0.0, S, None, 0.8, 0.8),  # nothing says more
        (NAN, S, None, 0.8, 0.8),
        (0.0, UNKNOWN, 0.8, 0.8, 0.8),
        (0.8, S, None, 0.8, 0.8),
        (735000.0, US, None, None, 0.735),
        (2.0, S, None, 0.8, None),
        (0.0, S, 2.0, 0.8, None),
        (735.0, S, None, 0.735, None),  # a wrong header is wrong still
        (735.0, UNKNOWN, None, None, None),
        (-2.0, S, None, None, None),
        (0.735, MS, None, None, None),
    ],
)
def test_what_the_user_says_counts_where_nothing_else_does(tree, tr, unit, sidecar, stated, wanted):
    scan, image = scan_of(tree, tr=tr, unit=unit, sidecar={"RepetitionTime": sidecar} if sidecar else {})
    if wanted:
        assert repetition_time(image, scan.sidecar, fix=False, stated=stated) == pytest.approx(wanted)
    else:
        with pytest.raises(ScanRefused, match="E_TR: the header states") as caught:
            repetition_time(image, scan.sidecar, fix=False, stated=stated)
        assert stated is None or f"--tr {stated:g} s" in caught.value.sentence
