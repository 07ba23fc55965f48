"""Operations of a training step: known total, known shares, and PyTorch's own counter on a small network."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

import encoders.ssm.mamba
from encoders.brainmt.flops import step_flops, total_flops
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.training.optimizer import freeze

RELEASED = {"bidirectional": False, "shared_attention_mlp": True}


def test_a_step_at_the_papers_size():
    stages = step_flops(BrainMTConfig(**RELEASED, embedding="mean"))
    total = total_flops(stages)
    assert total == pytest.approx(188.7e12, rel=1e-3)
    assert stages["attention core"].total / total == pytest.approx(0.772, abs=0.001)
    assert total_flops(step_flops(BrainMTConfig(**RELEASED))) / total <= 0.91  # only CLS in the last block
    brain = BrainMTConfig(**RELEASED, embedding="mean", tokens="brain", brain_patches=tuple(range(130)))
    assert total_flops(step_flops(brain)) / total <= 0.42


@pytest.mark.parametrize(
    "changes",
    [{}, {"embedding": "mean"}, {"embedding": "voxel"}, {"unfrozen_blocks": 1}, {"unfrozen_blocks": 0}],
)
@pytest.mark.parametrize("bidirectional", [True, False])
def test_the_formula_agrees_with_the_counter(changes, bidirectional, monkeypatch):
    """Scan, depthwise convolution and fused attention are left to the formula: the counter cannot see into them."""
    # matrix products in place of the fused kernel, whose backward is 2.0 instead of 2.5 times its forward
    monkeypatch.setattr(encoders.ssm.mamba, "scan_directions", lambda u, delta, A, B, C, **_: u * delta)
    unfrozen = changes.pop("unfrozen_blocks", None) if changes else None
    config = BrainMTConfig(
        grid=(32, 48, 33),
        num_frames=3,
        widths=(8, 16, 32, 64),
        mamba_layers=2,
        attention_layers=2,
        bidirectional=bidirectional,
        **changes,
    )
    model = BrainMT(config)
    freeze(model, unfrozen)
    x = torch.randn(1, 3, 1, *config.grid)
    with (
        FlopCounterMode(display=False) as counter,
        torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH),
    ):
        model(x).sum().backward()
    stages = step_flops(config, unfrozen_blocks=unfrozen)
    core = stages["attention core"]
    counted = total_flops(stages) - stages["scan"].total - core.backward * (1 - 2.0 / 2.5)
    assert counter.get_total_flops() == pytest.approx(counted, rel=0.04)
