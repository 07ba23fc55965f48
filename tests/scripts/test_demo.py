"""The demo itself, at its full size: what the README says of it holds."""

import json
import subprocess
import sys

import pytest

from encoders.runs import Study, load_json
from encoders.runs.study import REPOSITORY


@pytest.mark.slow
def test_the_demo_finds_the_planted_alignment(tmp_path):
    study = Study(tmp_path / "demo")
    command = [sys.executable, str(REPOSITORY / "scripts" / "demo.py"), f"--study={study.folder}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    content = load_json(study.path("evaluation"), "neurohelix.evaluation", 1)
    assert content["people"]["test"] >= 150
    assert content["verdict"]["label"] == "beyond confounds"
    for direction in ("brain_to_gene", "gene_to_brain"):
        matched = content["galleries"]["matched"][direction]["auc2afc"]
        assert matched["value"] >= 0.7
        assert matched["p_perm"] <= 0.01
    assert content["oracle_share"]["matched"] >= 0.5
    assert content["models"]["confounds_only"]["matched"]["brain_to_gene"]["value"] < 0.6

    path = study.run_folder("pretrain_brainmt") / "test_metrics.json"
    reader = json.loads(path.read_text(encoding="utf-8"))["content"]["targets"]
    assert all(reader[f"trait_{k}"]["r"] >= 0.6 for k in range(1, 6))  # amplitudes; the coupling may fail
