"""Framewise displacement from the files of every origin, against values worked out by hand."""

import numpy as np
import pytest

from encoders.brainmt.preparation.discovery.scan import MotionFile
from encoders.brainmt.preparation.motion import motion_of, power_fd, read_motion
from encoders.brainmt.preparation.quarantine import ScanRefused


@pytest.fixture
def read(tmp_path):
    """Write a file and read it."""

    def write_and_read(text, form, frames=3, name="motion.txt"):
        (tmp_path / name).write_text(text)
        return read_motion(MotionFile(path=tmp_path / name, form=form), frames)

    return write_and_read


def table(rows):
    return "\n".join("  ".join(f"{x:.9f}" for x in row) for row in rows) + "\n"


# one head: 0.1 mm along x, then 0.2 mm back along z and 0.01 rad about y, an arc of 0.5 mm at 50 mm
SHIFTS = np.array([[0, 0, 0], [0.1, 0, 0], [0.1, 0, -0.2]])
TURNS = np.array([[0, 0, 0], [0, 0, 0], [0, 0.01, 0]])
POWER = [0.1, 0.7]


def test_powers_displacement_adds_shifts_and_arcs_on_a_sphere_of_50_mm():
    fd = power_fd(SHIFTS, TURNS)
    assert np.isnan(fd[0]) and fd[1:] == pytest.approx(POWER)


def test_one_head_moves_alike_in_the_files_of_uk_biobank_and_of_the_hcp(read):
    ukb = read(table(np.hstack([TURNS, SHIFTS])), "mcflirt_par")
    regressors = np.hstack([SHIFTS, np.rad2deg(TURNS)])
    hcp = read(table(np.hstack([regressors, np.gradient(regressors, axis=0)])), "hcp_regressors")
    for motion in (ukb, hcp):
        assert np.isnan(motion.fd[0]) and motion.fd[1:] == pytest.approx(POWER, abs=1e-6)
        assert motion.definition == "Power"
        assert motion.mean == pytest.approx(0.4, abs=1e-6) and motion.max == pytest.approx(0.7, abs=1e-6)
        assert motion.share_over(0.5) == 0.5 and motion.share_over(0.8) == 0


def test_relative_rms_of_the_hcp_is_taken_as_it_is_and_called_so(read):
    motion = read("0\n0.11\n0.05\n", "hcp_rms")
    assert np.isnan(motion.fd[0]) and motion.fd[1:].tolist() == [0.11, 0.05]
    assert (motion.definition, motion.source) == ("Jenkinson relative RMS", "motion.txt")


@pytest.mark.parametrize("column", ["framewise_displacement", "FramewiseDisplacement"])
def test_a_confounds_table_of_fmriprep_is_read_by_its_column(read, column):
    motion = read(f"trans_x\t{column}\n0\tn/a\n0\t0.1\n0\t0.3\n", "fmriprep")
    assert np.isnan(motion.fd[0]) and motion.mean == pytest.approx(0.2)
    assert motion.definition == "fMRIPrep framewise_displacement"


def test_what_is_not_there_is_unknown(read, tmp_path):
    assert read("trans_x\n0\n0\n0\n", "fmriprep") is None
    assert read("framewise_displacement\nn/a\nn/a\nn/a\n", "fmriprep") is None
    assert read("0\n", "hcp_rms", frames=1) is None  # one frame has no predecessor


def test_a_scan_without_a_motion_file_has_unknown_motion(tree):
    from encoders.brainmt.preparation.discover import discover

    tree.add("01", fd=None)
    tree.add("02", fd=0.25)
    without, with_table = discover(tree.root).scans
    assert motion_of(without, 40) is None
    assert motion_of(with_table, 40).mean == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("text", "form", "words"),
    [
        ("framewise_displacement\n0.1\n", "fmriprep", "has 1 rows for 3 frames"),
        ("framewise_displacement\n0.1\nlots\n0.1\n", "fmriprep", "cannot be read"),
        ("trans_x\tframewise_displacement\n0\n0\n0\n", "fmriprep", "cannot be read"),
        ("", "fmriprep", "cannot be read"),
        ("framewise_displacement\nn/a\n-0.1\n0\n", "fmriprep", "infinite or negative"),
        ("0\n0.1\n", "hcp_rms", "has 2 rows for 3 frames"),
        ("0 1\n0 1\n0 1\n", "hcp_rms", "rows of [2] numbers, 1 were wanted"),
        ("0 0 0\n0 0 0\n0 0 0\n", "mcflirt_par", "rows of [3] numbers, 6 were wanted"),
        ("0 0 0 0 0 0\n" * 2 + "0 0 0 0 0 nan\n", "hcp_regressors", "NaN or infinite"),
        ("", "mcflirt_par", "numbers, 6 were wanted"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_and_named(read, text, form, words):
    with pytest.raises(ScanRefused, match="E_MOTION: motion.txt") as caught:
        read(text, form)
    assert words in caught.value.sentence
