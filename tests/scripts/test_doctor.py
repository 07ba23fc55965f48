"""`doctor`: what runs here and why, and what a strict one objects to."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from scripts import doctor

ROOT = Path(__file__).resolve().parents[2]
without_gpu = pytest.mark.skipif(
    torch.cuda.is_available(), reason="describes a machine without a CUDA device"
)


def told(capsys, *options) -> tuple[int, dict[str, str]]:
    """Exit code and the lines, by their first words."""
    code = doctor.main(list(options))
    return code, {line[:16].strip(): line[16:] for line in capsys.readouterr().out.splitlines()}


@without_gpu
def test_every_part_says_what_runs_and_why(capsys):
    code, lines = told(capsys)
    assert code == 0
    assert lines["torch"].startswith(torch.__version__)
    assert f"{torch.get_num_threads()} of" in lines["device"] and "no CUDA device" in lines["device"]
    assert lines["selective scan"] == "chunked: no compiled kernel for device cpu"
    assert lines["convolution"].startswith("shifted: ")
    assert "math" in lines["attention"]
    for distributions, *_, cost in doctor.PACKAGES:
        line = lines[distributions[0]]
        assert re.search(r"\d+\.\d+", line) or line == f"absent: {cost}"


def test_an_absent_package_costs_what_is_said_and_fails_a_strict_doctor_only(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "PACKAGES", [(["nobody-has-it"], None, False, "little")])
    code, lines = told(capsys)
    assert code == 0 and lines["nobody-has-it"] == "absent: little"
    before = lines["in short"]
    monkeypatch.setattr(doctor, "PACKAGES", [(["nobody-has-it"], None, True, "everything")])
    code, lines = told(capsys)
    assert code == 0 and lines["nobody-has-it"] == "absent: everything"
    assert lines["in short"] != before
    code, lines = told(capsys, "--strict=true")
    assert code == 1 and "make setup" in lines["fault"]


@without_gpu
def test_a_package_that_does_not_load_is_a_fault(tmp_path):
    (tmp_path / "faiss").mkdir()
    (tmp_path / "faiss/__init__.py").write_text(
        "raise ImportError('libfaiss.so: cannot open shared object file')"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts/doctor.py"), "--strict=true"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert "libfaiss.so: cannot open shared object file" in done.stdout


@without_gpu
def test_a_driver_without_a_device_is_a_fault(capsys, monkeypatch, tmp_path):
    assert told(capsys, "--strict=true")[0] == 0
    monkeypatch.setattr(doctor, "NVIDIA_DRIVER", tmp_path)  # exists
    code, lines = told(capsys, "--strict=true")
    assert code == 1 and "NVIDIA driver" in lines["fault"] and lines["in short"] == "1 fault"


def test_attention_kernels_are_named_only_where_they_run():
    kernels = doctor.attention_kernels(torch.device("cpu"))
    assert "math" in kernels and not {"cudnn", "efficient"} & set(kernels)  # both are CUDA's


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_on_its_slow_path_fails_a_strict_doctor(capsys):
    code, lines = told(capsys, "--strict=true")
    assert "cuda:" in lines["device"]
    slow = not (lines["selective scan"].startswith("cuda") and lines["convolution"].startswith("causal"))
    assert code == ("fault" in lines) and (not slow or code == 1)


def test_help_needs_no_torch():
    program = "import sys; from scripts.doctor import main; main(['--help'])"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", program], cwd=ROOT, capture_output=True, text=True
    )
    assert "--strict" in done.stdout and not re.search(r"\| +torch$", done.stderr, re.M)
