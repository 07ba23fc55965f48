"""scripts/make_cohort.py as a user runs it: twice, interrupted, killed, with wrong options, on a real study."""

import gzip
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.cohort.synthetic.folder import list_files
from encoders.runs.config import parse
from encoders.runs.study import REPOSITORY
from scripts.make_cohort import main

SCRIPT, CONFIGS = REPOSITORY / "scripts" / "make_cohort.py", REPOSITORY / "configs"
TINY = ["--config", str(CONFIGS / "tiny" / "make_cohort.yaml")]


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in list_files(folder)}


def test_second_run_has_nothing_to_do_and_another_configuration_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    here = ["--study", str(tmp_path), *TINY]
    assert main(here) == 0
    first = capsys.readouterr().out
    assert "people: 24" in first and "sibling pairs: 3" in first and "24 in 2 windows" in first
    assert main([*here, "--num_workers", "1"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main([*here, "--seed", "7"]) == 2
    assert "seed: 0 -> 7" in capsys.readouterr().err
    truth = (tmp_path / "raw" / "truth.json").read_bytes()
    next((tmp_path / "raw" / "sub-0005" / "func").glob("*bold.nii.gz")).unlink()
    assert main(here) == 0
    assert "scans kept from an interrupted run: 23" in capsys.readouterr().out
    assert (tmp_path / "raw" / "truth.json").read_bytes() == truth
    assert main([*here, "--seed", "7", "--redo=true"]) == 0
    assert (tmp_path / "raw" / "truth.json").read_bytes() != truth


def test_redo_never_deletes_a_real_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = tmp_path / "raw" / "participants.tsv"
    table.parent.mkdir()
    table.write_text("participant_id\nsub-9\n")
    assert main(["--study", str(tmp_path), *TINY, "--redo=true"]) == 2
    assert "pass another --study" in capsys.readouterr().err
    assert table.read_text() == "participant_id\nsub-9\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--people", "3"], "people is 3, but 8 to 100000 was wanted"),
        (["--arm", "placebo"], "placebo"),
        (["--heritability", "lots"], "heritability"),
        (["--peeple", "30"], "peeple"),
    ],
)
def test_wrong_options_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], sentence: str
) -> None:
    assert main(["--study", str(tmp_path / "new"), *options]) == 2
    error = capsys.readouterr().err
    assert sentence in error and error.count("\n") == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "path", sorted(CONFIGS.glob("*/make_cohort.yaml")), ids=lambda path: path.parent.name
)
def test_every_configuration_works(path: Path, tmp_path: Path) -> None:
    config = parse(SyntheticCohort, ["--config", str(path)], prog="x", description="")
    stated = yaml.safe_load(path.read_text())
    assert {key: getattr(config, key) for key in stated} == stated
    small = ["--people", "8", "--frames", "4", "--voxel_mm", "16"]
    assert main(["--study", str(tmp_path), "--config", str(path), *small]) == 0


def test_an_interrupted_cohort_is_never_half_written_and_resumes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--people", "40", "--frames", "60", "--windows", "2"]
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert main(["--study", str(whole), *options]) == 0
    command = [sys.executable, str(SCRIPT), "--study", str(broken), *options]

    def run_until(scans: int, how: signal.Signals) -> int:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
        deadline = time.monotonic() + 120
        while len(list(broken.glob("raw/sub-*/func/*desc-preproc_bold.nii.gz"))) < scans:
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.002)
        process.send_signal(how)
        process.communicate()
        return process.returncode

    assert run_until(4, signal.SIGKILL) == -signal.SIGKILL
    for path in broken.glob("raw/sub-*/func/*.nii.gz"):
        assert not path.name.startswith(".")
        gzip.decompress(path.read_bytes())  # whole, to its checksum
    assert not (broken / "raw" / "truth.json").exists()
    assert run_until(12, signal.SIGINT) == 130
    capsys.readouterr()
    assert main(["--study", str(broken), *options]) == 0
    kept = int(capsys.readouterr().out.split("interrupted run: ")[1].split()[0])
    assert 12 <= kept < 40
    assert contents(broken / "raw") == contents(whole / "raw")
