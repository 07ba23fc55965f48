"""The Hyena mixer: input projections, a short filter on each, a gate, a longer causal filter, a second gate.

    z = FIR3(projections(u))       x2, x1, v = every third channel of z
    out = x2 * (filter(x1 v) + D x1 v)

Three kinds of filter: short explicit (7 taps, no D), medium explicit (128 taps), long implicit (16 real poles per
channel, as long as the sequence). Channels never meet between the projections and the dense layer behind the
mixer, so a mixer works through them in groups of a fixed size in bytes: its memory does not grow with the width.
Ku et al. 2025, "Systems and Algorithms for Convolutional Multi-Hybrid Language Models at Scale".

Glossary: B sequences · L positions · D width · W channels of the output (D, or 3 D).
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from encoders.genetics.evo2.config import Evo2Config
from encoders.genetics.evo2.convolution import Method, causal_fir, causal_powers, powers_state

GROUP_BYTES = {"cpu": 256 << 20, "cuda": 1 << 30}  # of the buffers of one group of channels
NUMBERS = 16  # fp32 numbers per channel and position that those buffers hold, about


@dataclass(frozen=True)
class HyenaState:
    """What a mixer keeps of the positions it has seen: (B, 3 D, 2) before the 3-tap filter, and its filter's own.

    Args:
        projected: Last inputs of the filter behind the projections, (B, 3 D, taps - 1).
        inner: Last K - 1 inputs of an explicit filter, (B, D, K - 1); or the states of an implicit one, (B, D, N).
    """

    projected: Tensor
    inner: Tensor


class HyenaFilter(nn.Module):
    """Everything between the input projections and the dense layer of a Hyena block.

    Args:
        config: Shape of the model.
        kind: "hcs", "hcm" or "hcl".
    """

    def __init__(self, config: Evo2Config, kind: str) -> None:
        super().__init__()
        D = config.hidden_size
        self.kind, self.width = kind, D
        self.method: Method = "auto"
        self.short_filter_weight = nn.Parameter(torch.empty(3 * D, 1, config.short_filter_length))
        if kind == "hcl":
            self.log_poles = nn.Parameter(torch.empty(D, config.state_size, 1))
            self.residues = nn.Parameter(torch.empty(D, config.state_size))
            self.groups = D
        else:
            self.groups = config.hcs_filter_groups if kind == "hcs" else config.hcm_filter_groups
            taps = config.hcs_filter_length if kind == "hcs" else config.hcm_filter_length
            self.h = nn.Parameter(torch.empty(self.groups, 1, taps))
        if kind != "hcs":
            self.D = nn.Parameter(torch.empty(D))

    def forward(
        self,
        u: Float[Tensor, "B L D"],
        projections: Float[Tensor, "D3 D"],
        state: HyenaState | None = None,
        keep: bool = False,
    ) -> tuple[Float[Tensor, "B L D"], HyenaState | None]:
        """Mix along the sequence.

        Args:
            u: Normed activations.
            projections: Weights of the input projections.
            state: Of earlier positions; None: there are none.
            keep: Whether to return the state behind the last position.
        """
        batch, length, _ = u.shape
        out = torch.empty_like(u)
        projected, inner = [], []
        for first, last in self._channel_groups(batch, length, u.device):
            weights = projections[3 * first : 3 * last].expand(batch, -1, -1)
            z = torch.bmm(weights, u.transpose(1, 2))  # channels first: filters run along the last axis
            before = None if state is None else state.projected[:, 3 * first : 3 * last]
            if keep:
                projected.append(_last(z, before, self.short_filter_weight.shape[-1] - 1))
            taps = self.short_filter_weight[3 * first : 3 * last, 0].flip(-1)  # last tap meets the present
            z = _explicit(z, taps, before, "direct")
            x2, x1, v = z[:, 0::3], z[:, 1::3], z[:, 2::3]
            gated = x1 * v
            earlier = None if state is None else state.inner[:, first:last]
            mixed, after = self._filter(gated, slice(first, last), earlier, keep)
            inner.append(after)
            out[:, :, first:last] = (x2 * mixed).transpose(1, 2)
        return out, HyenaState(torch.cat(projected, 1), torch.cat(inner, 1)) if keep else None

    def _filter(
        self, x: Tensor, channels: slice, earlier: Tensor | None, keep: bool
    ) -> tuple[Tensor, Tensor | None]:
        """filter(x) + D x of a group of channels, and its state; numbers are rounded where the authors round."""
        if self.kind == "hcl":
            poles, residues = _wide(self.log_poles[channels, :, 0]), _wide(self.residues[channels])
            y = causal_powers(_wide(x), poles, residues, state=earlier, method=self.method).to(x.dtype)
            after = powers_state(_wide(x), poles, state=earlier) if keep else None
            return y + x * self.D[channels, None], after
        per_filter = self.width // self.groups
        h = self.h[channels.start // per_filter : channels.stop // per_filter, 0]
        after = _last(x, earlier, h.shape[-1] - 1) if keep else None
        if self.kind == "hcs":
            return _explicit(x, h.flip(-1), earlier, "direct"), after  # last tap meets the present
        y = causal_fir(
            _wide(x), _wide(h), history=_wide(earlier), method=self.method
        )  # first tap meets the present
        return (y + _wide(x) * self.D[channels, None]).to(x.dtype), after

    def _channel_groups(self, batch: int, length: int, device: torch.device) -> list[tuple[int, int]]:
        """Ranges of channels whose buffers fit into the allowance; no filter is cut."""
        per_filter = self.width // self.groups
        allowed = GROUP_BYTES.get(device.type, GROUP_BYTES["cpu"]) // (4 * NUMBERS * batch * length)
        size = max(1, allowed // per_filter) * per_filter
        return [(first, min(first + size, self.width)) for first in range(0, self.width, size)]


def _explicit(x: Tensor, taps: Tensor, history: Tensor | None, method: Method) -> Tensor:
    """An explicit filter, computed in fp32 at least and rounded back."""
    return causal_fir(_wide(x), _wide(taps), history=_wide(history), method=method).to(x.dtype)


def _last(x: Tensor, history: Tensor | None, count: int) -> Float[Tensor, "B C K"]:
    """The last ``count`` inputs; zeros before the first."""
    before = x.new_zeros(*x.shape[:2], count) if history is None else history
    return torch.cat([before, x], dim=-1)[..., x.shape[-1] :].clone()


def _wide(x: Tensor | None) -> Tensor | None:
    """fp32, unless it is fp64."""
    return x if x is None or x.dtype == torch.float64 else x.float()
