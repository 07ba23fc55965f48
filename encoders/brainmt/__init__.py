"""BrainMT: from NIfTI scans to one vector per person: preparation, fMRI store, model, trainer, embedding.

Names load on first use, so that reading options or an existing store does not import torch.
"""

from importlib import import_module

_HOME = {
    "BrainMT": "model",
    "BrainMTConfig": "model_config",
    "FMRIStore": "store",
    "FMRIWindows": "windows",
}
__all__ = ["BrainMT", "BrainMTConfig", "FMRIStore", "FMRIWindows"]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
