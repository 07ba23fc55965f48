"""Mamba: a token mixer built on the selective scan, in one direction or in both.

Gu & Dao 2023 (Mamba); Zhu et al. 2024 (Vision Mamba) for the second direction, which Caduceus has too, as
two mixers with tied projections. Parameter names, shapes and initial values are those of mamba-ssm.

Glossary: B batch · L tokens · M model width · D inner width (expand * M) · N numbers of state per channel ·
R rank of the step size · K taps of the convolution · G directions.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from encoders.ssm.convolution import directional_conv
from encoders.ssm.scan import scan_directions


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight, computed in fp32 at least.

    The result has the dtype of the weight, so that a model in half precision may carry its residual stream
    in fp32; under autocast, where weights stay fp32, that of x.

    Args:
        dim: M.
        eps: Added to the mean square.
    """

    def __init__(self, dim: int, *, eps: float = 1e-5) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "*batch M"]) -> Float[Tensor, "*batch M"]:
        kind = x.device.type
        # there is no autocast on the meta device
        mixed = torch.amp.is_autocast_available(kind) and torch.is_autocast_enabled(kind)
        dtype = x.dtype if mixed else self.weight.dtype
        wide = torch.promote_types(torch.promote_types(x.dtype, dtype), torch.float32)
        return F.rms_norm(x.to(wide), self.weight.shape, self.weight.to(wide), self.eps).to(dtype)


class MambaMixer(nn.Module):
    """One direction: project, convolve, scan, gate, project.

    Args:
        d_model: M.
        d_state: N.
        d_conv: K.
        expand: D / M.
        dt_rank: R; by default M / 16, rounded up.
        dt_min: Smallest initial step size.
        dt_max: Largest initial step size.
        backend: Implementation of the scan; "auto" takes the best one there is.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        backend: str = "auto",
    ) -> None:
        super().__init__()
        self.d_state, self.backend = d_state, backend
        self.dt_range = (dt_min, dt_max)
        self.d_inner = expand * d_model
        self.dt_rank = dt_rank or math.ceil(d_model / 16)
        self.in_proj = nn.Linear(d_model, 2 * self.d_inner, bias=False)
        self.out_proj = nn.Linear(self.d_inner, d_model, bias=False)
        self.conv1d = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner)
        self.x_proj = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj = nn.Linear(self.dt_rank, self.d_inner)
        self.A_log = nn.Parameter(torch.empty(self.d_inner, d_state))
        self.D = nn.Parameter(torch.ones(self.d_inner))
        self._reset_direction(self.A_log, self.dt_proj)

    def _reset_direction(self, A_log: nn.Parameter, dt_proj: nn.Linear) -> None:
        """Decay rates 1..N; step sizes log-uniform in [dt_min, dt_max], stored through softplus's inverse."""
        with torch.no_grad():
            A_log.copy_(torch.arange(1, self.d_state + 1).log().expand_as(A_log))
            nn.init.uniform_(dt_proj.weight, -(self.dt_rank**-0.5), self.dt_rank**-0.5)
            low, high = (math.log(x) for x in self.dt_range)
            dt = torch.empty_like(dt_proj.bias).uniform_(low, high).exp_().clamp_(min=1e-4)
            dt_proj.bias.copy_(dt + torch.log(-torch.expm1(-dt)))

    def forward(self, x: Float[Tensor, "B L M"], *, reverse: bool = False) -> Float[Tensor, "B L M"]:
        """Mix along L; with ``reverse`` every token sees itself and those after it (no flipped copies)."""
        own = (self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        return self._mix(x, [own], (reverse,))

    def _mix(
        self,
        x: Tensor,
        directions: list[tuple[nn.Conv1d, nn.Linear, nn.Linear, Tensor, Tensor]],
        reverse: tuple[bool, ...],
    ) -> Tensor:
        """out_proj(sum of the directions' outputs * silu(z)); all directions go through each step together."""
        convs, x_projs, dt_projs, A_logs, Ds = zip(*directions, strict=True)
        x, z = self.in_proj(x).chunk(2, dim=-1)  # [B, L, D] each
        weight, bias = torch.stack([c.weight for c in convs]), torch.stack([c.bias for c in convs])
        u = F.silu(directional_conv(x, weight, bias, reverse=reverse))  # [G, B, L, D]

        tokens = u.flatten(1, 2)  # [G, B L, D]
        low, B, C = (tokens @ torch.stack([p.weight.mT for p in x_projs])).split(
            [self.dt_rank, self.d_state, self.d_state], dim=-1
        )
        dt_bias = torch.stack([p.bias for p in dt_projs])[:, None]
        delta = torch.baddbmm(dt_bias, low, torch.stack([p.weight.mT for p in dt_projs]))
        A = -torch.exp(torch.stack(A_logs).float() if x.dtype != torch.float64 else torch.stack(A_logs))
        delta, B, C = (v.unflatten(1, u.shape[1:3]).mT for v in (delta, B, C))  # [G, B, D or N, L]
        y = scan_directions(u.mT, delta, A, B, C, reverse=reverse, backend=self.backend).mT
        y = torch.addcmul(y, u, torch.stack(Ds)[:, None, None].to(u.dtype))
        return self.out_proj(y.sum(0) * F.silu(z))


class BiMamba(MambaMixer):
    """Both directions with shared `in_proj` and `out_proj`, as in Vision Mamba and Caduceus.

    The second direction's own parameters are `conv1d_b, x_proj_b, dt_proj_b, A_b_log, D_b`. Arguments as
    :class:`MambaMixer`.
    """

    def __init__(
        self,
        d_model: int,
        *,
        d_state: int = 16,
        d_conv: int = 4,
        expand: int = 2,
        dt_rank: int | None = None,
        dt_min: float = 0.001,
        dt_max: float = 0.1,
        backend: str = "auto",
    ) -> None:
        super().__init__(
            d_model,
            d_state=d_state,
            d_conv=d_conv,
            expand=expand,
            dt_rank=dt_rank,
            dt_min=dt_min,
            dt_max=dt_max,
            backend=backend,
        )
        self.conv1d_b = nn.Conv1d(self.d_inner, self.d_inner, d_conv, groups=self.d_inner)
        self.x_proj_b = nn.Linear(self.d_inner, self.dt_rank + 2 * d_state, bias=False)
        self.dt_proj_b = nn.Linear(self.dt_rank, self.d_inner)
        self.A_b_log = nn.Parameter(torch.empty(self.d_inner, d_state))
        self.D_b = nn.Parameter(torch.ones(self.d_inner))
        self._reset_direction(self.A_b_log, self.dt_proj_b)

    def forward(self, x: Float[Tensor, "B L M"]) -> Float[Tensor, "B L M"]:
        """Mix along L; every token sees every other."""
        ahead = (self.conv1d, self.x_proj, self.dt_proj, self.A_log, self.D)
        back = (self.conv1d_b, self.x_proj_b, self.dt_proj_b, self.A_b_log, self.D_b)
        return self._mix(x, [ahead, back], (False, True))
