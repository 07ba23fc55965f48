"""The tiny checkpoints and the second implementation that these tests share."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent


def _module(name):
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, HERE / f"{name.removeprefix('evo2_')}.py")
        sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[name])
    return sys.modules[name]


@pytest.fixture(scope="session")
def official():
    """Writes checkpoints in the layout of the released files."""
    return _module("evo2_official")


@pytest.fixture(scope="session")
def reference():
    """Evo 2 by definition, in fp64."""
    return _module("evo2_reference")


@pytest.fixture(scope="session")
def load_tiny(official, tmp_path_factory):
    """(configuration, tensors, dtype) -> our model, through the files."""
    from encoders.genetics.evo2.checkpoint import load_evo2
    from encoders.genetics.evo2.config import Evo2Config
    from encoders.genetics.evo2.weight_files import open_weights

    def load(config, tensors, dtype=torch.float32):
        folder = official.write(tmp_path_factory.mktemp("tiny"), config=config, weights=tensors)
        return load_evo2(open_weights(folder), Evo2Config.from_yaml(folder / "tiny.yml"), dtype=dtype).model

    return load
