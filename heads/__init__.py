"""Small modules on top of frozen or trained towers: projectors into the shared space, task heads. Torch only."""

from heads.projectors import (
    BrainMTProjector,
    GeneticsProjector,
    LinearProjector,
    NarrowingProjector,
    Projector,
)
from heads.tasks import TaskHead

__all__ = [
    "BrainMTProjector",
    "GeneticsProjector",
    "LinearProjector",
    "NarrowingProjector",
    "Projector",
    "TaskHead",
]
