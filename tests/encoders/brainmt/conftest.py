"""Fixtures of the fMRI tests: small BIDS trees."""

import importlib.util
from pathlib import Path

import pytest

spec = importlib.util.spec_from_file_location("bids_tree", Path(__file__).with_name("bids_tree.py"))
bids_tree = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bids_tree)


@pytest.fixture(scope="session")
def build():
    """The builder module: `nifti`, `pack`, `bold`, `brain`, `GRID`, `AFFINE`."""
    return bids_tree


@pytest.fixture
def tree(tmp_path):
    """An empty tree below `tmp_path / raw`."""
    return bids_tree.BidsTree(tmp_path / "raw")


def _module(name: str):
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def fsl():
    """The module that writes FSL's files: `warp_field`, `save_warp` and the convention they follow."""
    return _module("fsl_files")


@pytest.fixture(scope="session")
def layouts():
    """The module that writes trees of other origins than BIDS: `LayoutTree`, `zip_bytes`."""
    return _module("layout_trees")


@pytest.fixture
def origin(tmp_path, build, fsl, layouts):
    """An empty tree of another origin below `tmp_path / raw`."""
    return layouts.LayoutTree(tmp_path / "raw", build, fsl)
