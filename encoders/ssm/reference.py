"""The selective scan as a text: one loop over time, to be read and to check the others against.

    h_t = exp(delta_t A) h_{t-1} + delta_t u_t B_t,    y_t = C_t h_t        (Gu & Dao 2023, Mamba, eq. 2)

Glossary: B batch · D channels · L time steps · N numbers of state per channel.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def scan_reference(
    u: Float[Tensor, "B D L"],
    delta: Float[Tensor, "B D L"],
    A: Float[Tensor, "D N"],
    B: Float[Tensor, "B N L"],
    C: Float[Tensor, "B N L"],
    *,
    reverse: bool = False,
) -> Float[Tensor, "B D L"]:
    """Scan step by step; with ``reverse`` from the last step to the first.

    Args:
        u: Input.
        delta: Step size, positive (softplus already applied).
        A: Decay rates, negative.
        B: What of the input enters the state.
        C: What of the state is read out.
        reverse: Walk backwards in time.
    """
    steps = list(zip(u.unbind(2), delta.unbind(2), B.unbind(2), C.unbind(2), strict=True))
    state = u.new_zeros(u.shape[0], *A.shape)
    outputs = []
    for u_t, delta_t, B_t, C_t in reversed(steps) if reverse else steps:
        decay = torch.exp(delta_t[:, :, None] * A)
        state = decay * state + (delta_t * u_t)[:, :, None] * B_t[:, None, :]
        outputs.append((state * C_t[:, None, :]).sum(2))
    return torch.stack(outputs[::-1] if reverse else outputs, dim=2)
