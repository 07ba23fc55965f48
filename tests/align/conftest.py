"""Fixtures of the alignment's tests."""

import importlib.util
import shutil
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("finished_study", Path(__file__).with_name("finished_study.py"))
finished = importlib.util.module_from_spec(spec)
spec.loader.exec_module(finished)


@pytest.fixture(scope="session")
def finished_study_master(tmp_path_factory):
    """A small finished study, written once; tests get copies of it."""
    return finished.write_finished_study(tmp_path_factory.mktemp("master") / "study", people=(40, 12, 32))


@pytest.fixture
def finished_study(finished_study_master, tmp_path):
    """A copy of the finished study that a test may damage."""
    return Path(shutil.copytree(finished_study_master, tmp_path / "study"))
