"""`scripts/qc_fmri.py` as a user runs it: a page to share, and on request one that stays private."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from scripts.prepare_fmri import main as prepare
from scripts.qc_fmri import main

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("bids_tree", ROOT / "tests/encoders/brainmt/bids_tree.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A study of 16 people at two sites, one of them restless, and one refused scan."""
    study = tmp_path_factory.mktemp("study")
    tree = build.BidsTree(study / "raw")
    rows = ["participant_id\tsite"]
    for k in range(16):
        tree.add(f"{k:04d}", data=build.bold(k), fd=0.4 if k == 3 else 0.1 + 0.002 * k)
        rows.append(f"{'sub-' if k % 2 else ''}{k:04d}\t{'north' if k < 9 else 'south'}")
    tree.add("short", frames=5)
    (study / "raw/participants.tsv").write_text("\n".join(rows) + "\n")
    assert prepare(["--study", str(study)]) == 3
    return study


@pytest.fixture
def study(prepared, tmp_path):
    shutil.copytree(prepared, tmp_path / "study")
    return tmp_path / "study"


def test_one_command_writes_the_page_and_nothing_of_anybody(study, capsys):
    assert main(["--study", str(study)]) == 0
    page = (study / "reports/qc.html").read_text()
    assert "unusual scans: 1" in capsys.readouterr().out
    visible = re.sub(r'"data:[^"]*"', "", page)
    assert (
        "sub-" not in visible and str(study) not in visible and "north" in visible and "E_FRAMES" in visible
    )
    assert page.count("data:image/svg+xml") >= 4 and "://" not in visible and "<script" not in page
    assert not (study / "private").exists()
    assert main(["--study", str(study)]) == 0 and "already done" in capsys.readouterr().out


def test_thumbnails_go_to_a_private_page_that_only_its_owner_reads(study):
    assert main(["--study", str(study), "--thumbnails=true", "--most_scans=5"]) == 0
    path = study / "private/qc_scans.html"
    page = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert page.count("data:image/png") == 5 and page.index("sub-0003") < page.index("sub-0015")
    assert "Unusual:</b> mean framewise displacement" in page
    assert "sub-0003" not in (study / "reports/qc.html").read_text()


def test_an_id_that_would_be_printed_is_refused(study, capsys):
    table = study / "raw/participants.tsv"
    table.write_text(table.read_text().replace("north", "sub-0001"))
    assert main(["--study", str(study)]) == 2
    assert "E_PRIVACY" in capsys.readouterr().err and not (study / "reports/qc.html").exists()


def test_without_a_store_the_command_that_makes_it_is_named(tmp_path, capsys):
    assert main(["--study", str(tmp_path)]) == 2
    assert "make it with: python scripts/prepare_fmri.py" in capsys.readouterr().err


@pytest.mark.browser
def test_the_page_fits_a_screen_and_works_offline(study, tmp_path):
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if browser is None:
        assert os.environ.get("NEUROHELIX_BROWSER") != "required", "install chromium"
        pytest.skip("no Chromium found")
    assert main(["--study", str(study)]) == 0
    shot = tmp_path / "page.png"
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--window-size=1000,1500",
        f"--screenshot={shot}",
    ]
    subprocess.run(
        [browser, *options, (study / "reports/qc.html").as_uri()],
        check=True,
        capture_output=True,
        timeout=120,
    )
    from PIL import Image

    image = Image.open(shot).convert("L")
    dark = sum(image.histogram()[:96]) / (image.width * image.height)
    assert image.size == (1000, 1500) and 0.005 < dark < 0.3
