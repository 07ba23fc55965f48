"""Every YAML in configs/ is accepted by the script it is named after."""

import importlib

import pytest

from encoders.runs.config import parse
from encoders.runs.study import REPOSITORY

FILES = sorted(p for p in (REPOSITORY / "configs").glob("*/*.yaml") if p.parent.name != "accelerate")


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_settings_are_accepted_and_change_something(path):
    config_class = importlib.import_module(f"scripts.{path.stem}").main.config_class
    given = parse(config_class, [f"--config={path}"], prog=path.stem, description="")
    assert given != config_class() or path.parent.name == "paper"
