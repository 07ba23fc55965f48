"""Two real processes: losses over gathered parts, equal or not, step like one process on the whole batch."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

PROGRAM = '''
"""Loss and DDP's gradients for every case; run alone or under torchrun."""
import json, sys, warnings
warnings.simplefilter("error", FutureWarning)  # no deprecated collective
import numpy as np, torch, torch.nn.functional as F
from encoders.runs.devices import accelerator as make_accelerator
from align.gather import gather_with_gradient, shard
from align.losses import clip_loss, siglip_loss
from align.soft_targets import SoftTargets

PARTS = {"equal": (4, 4), "unequal": (5, 3), "one is empty": (8, 0)}

class Towers(torch.nn.Module):
    def __init__(self, bias):
        super().__init__()
        self.left, self.right = torch.nn.Linear(4, 5).double(), torch.nn.Linear(3, 5).double()
        self.log_scale = torch.nn.Parameter(torch.tensor(1.0).double())
        if bias:
            self.bias = torch.nn.Parameter(torch.tensor(-2.0).double())
    def forward(self, x, y):
        scalars = [self.log_scale.exp()] + ([self.bias * 1] if hasattr(self, "bias") else [])
        return F.normalize(self.left(x), dim=1), F.normalize(self.right(y), dim=1), *scalars

accelerator = make_accelerator(seed=0)
torch.manual_seed(0)
x, y = torch.randn(8, 4).double(), torch.randn(8, 3).double()
groups = torch.tensor([0, 1, 2, 0, 3, 1, 4, 5])[:, None]
soft = SoftTargets(features=F.normalize(x, dim=1), weight=0.3)
found = {"part": shard(np.array([5, 3, 8, 1, 9, 0, 2]), accelerator).tolist()}
for kind in ("clip", "siglip"):
    for parts, lengths in PARTS.items():
        for chunk in (0, 3):
            for masked in (False, True):
                torch.manual_seed(1)
                towers = Towers(kind == "siglip")
                wrapped = accelerator.prepare(towers)
                own = slice(0, 8)
                if accelerator.num_processes == 2:
                    first = sum(lengths[: accelerator.process_index])
                    own = slice(first, first + lengths[accelerator.process_index])
                left, right, *scalars = wrapped(x[own], y[own])
                loss = {"clip": clip_loss, "siglip": siglip_loss}[kind](
                    gather_with_gradient(left, accelerator), gather_with_gradient(right, accelerator), *scalars,
                    not_negative=groups if masked else None, soft=soft if masked else None, chunk=chunk)
                accelerator.backward(loss)
                gradients = torch.cat([p.grad.flatten() for p in towers.parameters()])
                found[f"{kind}, {parts}, {chunk}, {masked}"] = [loss.item(), *gradients.tolist()]
with open(f"{sys.argv[1]}/{accelerator.num_processes}-{accelerator.process_index}.json", "w") as file:
    json.dump(found, file)
accelerator.wait_for_everyone()
'''


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """(Number of processes, process) -> case -> loss and gradients."""
    folder = tmp_path_factory.mktemp("gather")
    (folder / "program.py").write_text(PROGRAM)
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    for num in (1, 2):
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num}"] if num > 1 else []
        command = [sys.executable, *launch, str(folder / "program.py"), str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
    return {
        (num, rank): json.loads((folder / f"{num}-{rank}.json").read_text())
        for num, rank in ((1, 0), (2, 0), (2, 1))
    }


def test_two_processes_give_value_and_gradients_of_one_big_batch(found):
    alone = {case: numbers for case, numbers in found[1, 0].items() if case != "part"}
    assert len(alone) == 24
    for rank in (0, 1):
        for case, numbers in alone.items():
            np.testing.assert_allclose(found[2, rank][case], numbers, atol=1e-12, rtol=0, err_msg=case)
            assert np.abs(numbers[1:]).max() > 1e-3, case


def test_the_cases_differ_where_they_should(found):
    alone = found[1, 0]
    assert abs(alone["clip, equal, 0, True"][0] - alone["clip, equal, 0, False"][0]) > 1e-3
    assert alone["clip, equal, 0, True"][0] == pytest.approx(alone["clip, unequal, 3, True"][0], abs=1e-12)
    assert len(alone["siglip, equal, 0, True"]) == len(alone["clip, equal, 0, True"]) + 1  # the bias


def test_parts_together_are_the_batch_in_order_with_nobody_left_out(found):
    batch = [5, 3, 8, 1, 9, 0, 2]
    assert found[1, 0]["part"] == batch
    assert found[2, 0]["part"] + found[2, 1]["part"] == batch
    assert len(found[2, 0]["part"]) == 4
