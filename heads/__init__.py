"""Small modules on top of frozen or trained towers: projectors into the shared space, task heads. Torch only."""

from heads.projectors import BrainMTProjector, GeneticsProjector, Projector
from heads.tasks import TaskHead

__all__ = ["BrainMTProjector", "GeneticsProjector", "Projector", "TaskHead"]
