"""Parameters divided over processes (FSDP 2), and whole again."""

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor

from encoders.brainmt.model import BrainMT


def make_shardable(model: BrainMT) -> None:
    """Lay parameters out in plain order: FSDP refuses the channels-last order of the convolutions."""
    for parameter in model.parameters():
        parameter.data = parameter.data.contiguous()


def unsharded(model: BrainMT) -> BrainMT:
    """The model itself, or where it is sharded a whole copy; every process must call it."""
    if not any(isinstance(parameter, DTensor) for parameter in model.parameters()):
        return model
    copy = BrainMT(model.config, num_outputs=model.head.linear.out_features)
    own = dict(copy.named_parameters())
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            own[name].copy_(whole(parameter))
    return copy


def whole(value: Tensor) -> Tensor:
    """A tensor put together from its shards, on every process; without gradient."""
    return value.full_tensor().detach() if isinstance(value, DTensor) else value.detach()


def laid_out_like(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor as a parameter is: on its device, in its memory order, divided as it is."""
    if value.shape != parameter.shape:
        return value.to(parameter.device)  # the optimizer's count of steps
    if isinstance(parameter, DTensor):
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    # the fused step pairs numbers by memory order: channels last
    return torch.empty_like(parameter).copy_(value)
