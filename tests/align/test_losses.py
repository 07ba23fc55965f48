"""The CLIP loss: equal to open_clip's in value and gradient, masks, two processes equal to one."""

import importlib.util
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from align.losses import clip_loss


def _batch(num=6, dim=5, dtype=torch.float64):
    torch.manual_seed(0)
    vectors = [F.normalize(torch.randn(num, dim, dtype=dtype), dim=1).requires_grad_() for _ in range(2)]
    return *vectors, torch.tensor(7.0, dtype=dtype, requires_grad=True)


def test_value_and_gradients_equal_open_clip():
    spec = importlib.util.find_spec("open_clip")
    if spec is None:
        pytest.skip("open_clip is not installed (make setup installs it)")
    # its package imports torchvision; the loss itself needs torch only, so it is loaded by file
    path = os.path.join(os.path.dirname(spec.origin), "loss.py")
    loss_spec = importlib.util.spec_from_file_location("open_clip_loss", path)
    module = importlib.util.module_from_spec(loss_spec)
    loss_spec.loader.exec_module(module)

    ours, theirs = _batch(), _batch()
    clip_loss(*ours).backward()
    module.ClipLoss()(*theirs).backward()
    assert clip_loss(*ours).item() == pytest.approx(module.ClipLoss()(*theirs).item(), abs=1e-12)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a.grad, b.grad, atol=1e-12)


def test_masked_pairs_do_not_push_and_the_diagonal_always_counts():
    brain, genetics, scale = _batch()
    mask = torch.zeros(6, 6, dtype=torch.bool)
    assert clip_loss(brain, genetics, scale, not_negative=mask) == clip_loss(brain, genetics, scale)
    mask[:] = True
    assert clip_loss(brain, genetics, scale, not_negative=mask).item() == 0
    mask[:] = False
    mask[0, 1] = mask[1, 0] = True
    logits = (scale * brain @ genetics.T).detach()
    logits[0, 1] = logits[1, 0] = -torch.inf
    own = torch.arange(6)
    expected = (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2
    assert clip_loss(brain, genetics, scale, not_negative=mask).item() == pytest.approx(
        expected.item(), abs=1e-12
    )


TWO_PROCESSES = """
import torch, torch.nn.functional as F
from encoders.runs.devices import accelerator
from align.losses import clip_loss
from align.gather import gather_with_gradient, shard
import numpy as np
def main():
    a = accelerator(seed=0)
    torch.manual_seed(0)
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 3, dtype=torch.float64)
    model = torch.nn.ModuleList([torch.nn.Linear(4, 5), torch.nn.Linear(3, 5)]).double()
    class Both(torch.nn.Module):
        def __init__(self): super().__init__(); self.m = model; self.s = torch.nn.Parameter(torch.tensor(1.0).double())
        def forward(self, x, y): return F.normalize(self.m[0](x), dim=1), F.normalize(self.m[1](y), dim=1), self.s.exp()
    both = Both()
    wrapped = a.prepare(both)
    batch = np.array([3, 0, 7, 5, 1, 8, 2, 4])
    part = shard(batch, a)
    b, g, s = wrapped(x[part], y[part])
    loss = clip_loss(gather_with_gradient(b, a), gather_with_gradient(g, a), s)
    a.backward(loss)
    if a.is_main_process:
        grads = torch.cat([p.grad.flatten() for p in both.parameters()])
        print("RESULT", a.num_processes, loss.item(), *grads.tolist())
    a.wait_for_everyone()
main()
"""


def test_two_processes_give_the_gradient_of_one_big_batch(tmp_path):
    script = tmp_path / "two.py"
    script.write_text(TWO_PROCESSES)
    results = []
    for num in (1, 2):
        command = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={num}",
            str(script),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        out = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        line = next(line for line in out.splitlines() if line.startswith("RESULT"))
        results.append(torch.tensor([float(v) for v in line.split()[1:]], dtype=torch.float64))
    assert results[0][0] == 1
    assert results[1][0] == 2
    assert torch.allclose(results[0][1:], results[1][1:], atol=1e-9)
    assert results[0][2:].abs().max() > 1e-3
