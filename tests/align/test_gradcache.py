"""GradCache: gradients of the whole batch, whatever the chunks, with the random choices of the first pass."""

import json
import os
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from align.gradcache import cached_backward
from align.losses import clip_loss, siglip_loss
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig

CONFIG = BrainMTConfig(
    grid=(7, 5, 6),
    num_frames=4,
    widths=(4, 4, 8, 16),
    mamba_layers=1,
    attention_layers=2,
    num_heads=2,
    d_state=2,
    drop_path=0.3,
    attention_dropout=0.2,
    embedding="mean",
)
PEOPLE = 24


class Small(torch.nn.Module):
    """BrainMT, a projector with dropout, and the loss among everybody."""

    def __init__(self, kind, **changes):
        super().__init__()
        torch.manual_seed(0)
        self.kind = kind
        self.tower = BrainMT(CONFIG)
        self.tower.head.requires_grad_(False)
        self.projector = torch.nn.Sequential(
            torch.nn.Linear(16, 12), torch.nn.Dropout(0.2), torch.nn.Linear(12, 8)
        )
        self.genes = F.normalize(torch.randn(PEOPLE, 8), dim=1)
        self.log_scale = torch.nn.Parameter(torch.tensor(1.5))
        if kind == "siglip":
            self.bias = torch.nn.Parameter(torch.tensor(-2.0))
        self.options = changes

    def loss(self, vectors, gather=lambda part: part):
        brain = gather(F.normalize(self.projector(vectors), dim=1))
        if self.kind == "clip":
            return clip_loss(brain, self.genes, self.log_scale.exp(), **self.options)
        return siglip_loss(brain, self.genes, self.log_scale.exp(), self.bias, **self.options)

    def gradients(self):
        return {name: p.grad.clone() for name, p in self.named_parameters() if p.grad is not None}


@pytest.fixture(scope="module")
def scans():
    """Windows of `PEOPLE` people."""
    return torch.randn(PEOPLE, 4, 1, 7, 5, 6, generator=torch.Generator().manual_seed(1))


def relative_error(found, wanted):
    """Largest difference of all gradients, relative to the largest of them; and nothing is missing."""
    assert found.keys() == wanted.keys() and len(wanted) > 20
    largest = max(value.abs().max() for value in wanted.values())
    assert largest > 1e-3
    return max(((found[name] - value).abs().max() / largest).item() for name, value in wanted.items())


@pytest.mark.parametrize(("tiles", "sizes"), [(0, 5), (7, 5), (7, 11), (0, PEOPLE)])
@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_gradients_are_those_of_the_whole_batch_with_dropout_drop_path_and_masks(scans, kind, tiles, sizes):
    groups = torch.arange(PEOPLE)[:, None] // 3
    chunks = list(scans.split(sizes))
    results, losses, after = [], [], []
    for cached in (True, False):
        small = Small(kind, not_negative=groups, chunk=tiles).train()
        torch.manual_seed(5)
        if cached:
            loss = cached_backward(small.tower.forward_features, chunks, small.loss)
        else:
            loss = small.loss(torch.cat([small.tower.forward_features(chunk) for chunk in chunks]))
            loss.backward()
        results.append(small.gradients())
        losses.append(loss.item())
        after.append(torch.rand(3).tolist())
    assert losses[0] == losses[1]
    assert relative_error(*results) < 1e-6
    assert after[0] == after[1]  # what is drawn next is the same too


def test_without_dropout_they_are_those_of_one_single_pass(scans):
    results = []
    for cached in (True, False):
        small = Small("clip").eval()
        if cached:
            cached_backward(small.tower.forward_features, scans.split(7), small.loss)
        else:
            small.loss(small.tower.forward_features(scans)).backward()
        results.append(small.gradients())
    assert relative_error(*results) < 1e-5


def test_only_unfrozen_parts_get_gradients(scans):
    small = Small("clip").train()
    small.tower.requires_grad_(False)
    small.tower.attention[-1].requires_grad_(True)
    cached_backward(small.tower.forward_features, scans.split(8), small.loss)
    below = {name for name in small.gradients() if name.startswith("tower.")}
    assert below and all(name.startswith("tower.attention.1.") for name in below)


def test_a_frozen_tower_still_trains_what_is_above_it(scans):
    small = Small("clip").train()
    small.tower.requires_grad_(False)
    cached_backward(small.tower.forward_features, scans.split(8), small.loss)
    assert {name.split(".")[0] for name in small.gradients()} == {"projector", "log_scale"}


def test_choices_of_numpy_and_python_are_made_again_as_they_were(scans):
    small, drawn = Small("clip").eval(), []

    def encode(chunk):
        drawn.append((random.random(), np.random.rand()))
        return small.tower.forward_features(chunk) * drawn[-1][0] + drawn[-1][1]

    cached_backward(encode, scans.split(8), small.loss)
    assert drawn[:3] == drawn[3:] and len(set(drawn)) == 3


def test_another_second_pass_is_noticed(scans):
    small, calls = Small("clip").eval(), []

    def encode(chunk):
        calls.append(1)
        return small.tower.forward_features(chunk * (1 + len(calls) // 4))

    with pytest.raises(RuntimeError, match="chunk 0 has other vectors"):
        cached_backward(encode, scans.split(8), small.loss)


def test_chunks_that_can_be_walked_only_once_are_noticed(scans):
    small = Small("clip").eval()
    with pytest.raises(ValueError, match="zip"):
        cached_backward(small.tower.forward_features, iter(scans.split(8)), small.loss)


def test_activations_of_one_chunk_are_alive_at_a_time(scans):
    small, alive = Small("clip").train(), []
    count = {"now": 0}

    class Counted(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            count["now"] += 1
            alive.append(count["now"])
            return x.clone()

        @staticmethod
        def backward(ctx, gradient):
            count["now"] -= 1
            return gradient

    def encode(chunk):
        vectors = small.tower.forward_features(chunk)
        return Counted.apply(vectors) if torch.is_grad_enabled() else vectors

    cached_backward(encode, scans.split(4), small.loss)
    assert alive == [1] * 6  # each chunk went backward before the next went forward


PROGRAM = """
\"\"\"Gradients of one batch in every way; run alone or under torchrun.\"\"\"
import json, sys
import numpy as np, torch
from align.gather import gather_with_gradient, shard
from align.gradcache import average_gradients, cached_backward
from encoders.runs.devices import accelerator as make_accelerator
sys.path.insert(0, sys.argv[2])
from test_gradcache import PEOPLE, Small

accelerator = make_accelerator(seed=0)
scans = torch.randn(PEOPLE, 4, 1, 7, 5, 6, generator=torch.Generator().manual_seed(1))
own = torch.from_numpy(shard(np.arange(PEOPLE - 1), accelerator))  # unequal parts
found = {}
for kind in ("clip", "siglip"):
    for tiles in (0, 7):
        for noisy in (True, False):
            for cached in (True, False):
                groups = torch.arange(PEOPLE - 1)[:, None] // 3
                small = Small(kind, not_negative=groups, chunk=tiles).train(noisy)
                small.genes = small.genes[: PEOPLE - 1]
                tower = small.tower.forward_features
                chunks = list(scans[own].split(5))
                torch.manual_seed(5 + accelerator.process_index)

                def loss_of(vectors):
                    return small.loss(vectors, lambda part: gather_with_gradient(part, accelerator))

                if cached:
                    cached_backward(tower, chunks, loss_of)
                else:
                    loss_of(torch.cat([tower(chunk) for chunk in chunks])).backward()
                average_gradients([p for p in small.parameters() if p.requires_grad], accelerator)
                flat = torch.cat([p.grad.flatten() for p in small.parameters() if p.grad is not None])
                found[f"{kind} {tiles} {noisy} {cached}"] = flat.tolist()
with open(f"{sys.argv[1]}/{accelerator.num_processes}-{accelerator.process_index}.json", "w") as file:
    json.dump(found, file)
accelerator.wait_for_everyone()
"""


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_the_whole_batch_uncached(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    for num in (1, 2):
        launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={num}"] if num > 1 else []
        command = [
            sys.executable,
            *launch,
            str(tmp_path / "program.py"),
            str(tmp_path),
            os.path.dirname(__file__),
        ]
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
    alone, first, second = (
        json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1")
    )

    def error(found, wanted):
        return np.abs(np.subtract(found, wanted)).max() / np.abs(wanted).max()

    for case, found in first.items():
        assert found == second[case]  # all processes step alike
        kind, tiles, noisy, _ = case.split()
        assert error(found, first[f"{kind} {tiles} {noisy} False"]) < 1e-5, case
        if noisy == "False":  # drop path falls otherwise where people are divided
            assert error(found, alone[f"{kind} {tiles} False False"]) < 1e-5, case
        else:
            assert error(found, first[f"{kind} {tiles} False False"]) > 1e-2, case
