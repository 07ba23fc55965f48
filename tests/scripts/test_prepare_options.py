"""Grid, mask, dummies, retiming and cleaning through `scripts/prepare_fmri.py`: recorded, shown, not mixed."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from encoders.brainmt.store import FMRIStore
from scripts.prepare_fmri import main

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("bids_tree", ROOT / "tests/encoders/brainmt/bids_tree.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)

SETTINGS = """
mask: {mask}
grid: {grid}
dummy_frames: 3
target_tr: 2.5
clean:
  confounds: [trans_x]
  high_pass: 0.01
  detrend: true
"""


@pytest.fixture
def study(tmp_path):
    """Two people whose scans lie on two grids, and settings that bring them together."""
    tree = build.BidsTree(tmp_path / "study/raw")
    tree.add("1", frames=60)
    wide = np.zeros((7, 9, 8, 60), "i2")
    wide[1:-1, 1:-1, 1:-1] = build.bold(9, frames=60)
    place = build.AFFINE.copy()
    place[:3, 3] -= 24
    tree.add("2", data=wide, affine=place, mask=wide[..., 0] > 0)
    for path in tree.root.rglob("*_timeseries.tsv"):
        rows = [line.split("\t")[0] for line in path.read_text().splitlines()[1:]]
        cells = [f"{fd}\t{np.sin(k):.6f}" for k, fd in enumerate(rows)]
        path.write_text("\n".join(["framewise_displacement\ttrans_x", *cells]) + "\n")
    mask, grid = tmp_path / "space-MNI152NLin2009cAsym_mask.nii", tmp_path / "tpl-MNI152NLin2009cAsym_T1w.nii"
    mask.write_bytes(build.nifti(build.brain().astype("u1"), sform=1))
    grid.write_bytes(build.nifti(np.zeros(build.GRID, "u1"), sform=1))
    settings = tmp_path / "study/configs/prepare_fmri.yaml"
    settings.parent.mkdir()
    settings.write_text(SETTINGS.format(mask=mask, grid=grid))

    def run(*options):
        return main(["--study", str(tmp_path / "study"), "--num_workers=1", *options])

    return run, tmp_path / "study/store", mask


def test_what_was_done_to_each_scan_is_recorded_and_they_share_their_columns(study, capsys):
    run, store, _ = study
    assert run("--dry_run=true") == 0
    assert "resampled to the grid tpl-MNI152NLin2009cAsym_T1w.nii (linear)" in capsys.readouterr().out
    assert run() == 0
    opened = FMRIStore(store)
    (_, one), (_, two) = (opened.read(run_) for run_ in opened.runs)
    assert one["mask_sha256"] == two["mask_sha256"] and one["grid"] == two["grid"] == list(build.GRID)
    assert one["resampled"] is None and two["resampled"]["from_grid"] == [7, 9, 8]
    for made in (one, two):
        assert made["tr"] == 2.5 and made["retimed"]["from_tr"] == 2.0 and made["frames"] == 45
        assert made["dropped_frames"] == [0, 1, 2] and made["dummy_frames"] == 3
        assert made["cleaned"]["confounds"] == ["trans_x"] and made["cleaned"]["high_pass"] == 0.01
        assert made["mask"] == "given" and made["source_checksum"] == "gzip CRC"


def test_without_a_common_grid_one_of_them_is_refused(study, capsys):
    run, _, _ = study
    assert run("--grid=none") == 3
    assert "E_GRID" in capsys.readouterr().out


def test_other_options_or_another_mask_under_the_same_name_are_not_mixed(study, capsys):
    run, store, mask = study
    assert run() == 0 and run() == 0
    assert "already done" in capsys.readouterr().out
    assert run("--clean.high_pass=0.02") == 2
    assert "clean.high_pass: 0.01 -> 0.02" in capsys.readouterr().err
    before = FMRIStore(store).runs[0]
    brain = build.brain()
    brain[2, 3] = False
    mask.write_bytes(build.nifti(brain.astype("u1"), sform=1))
    assert run() == 0  # the mask's content changed: both are made anew
    after = FMRIStore(store).runs[0]
    assert after.voxels == brain.sum() < before.voxels
