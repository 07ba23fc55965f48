"""How a stage runs: configuration, study folder, artefacts, records, progress. Nothing here imports torch
except `checkpoint` and `devices`, which are imported by name."""

from encoders.runs.artifact import load_json, load_tensors, save_json, save_tensors
from encoders.runs.config import command
from encoders.runs.errors import InputError
from encoders.runs.stage import Stage
from encoders.runs.study import Study

__all__ = [
    "InputError",
    "Stage",
    "Study",
    "command",
    "load_json",
    "load_tensors",
    "save_json",
    "save_tensors",
]
