"""Checkpoints of a training run: whole tensors whether the run was sharded or not, and on from there with either."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[4]
# Accelerate leaves FSDP out on CPUs, so PyTorch's own call shards the model here, as Accelerate does on GPUs.
RUN = """
import json, os, sys
import torch
from pathlib import Path
from torch.distributed.fsdp import fully_shard
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.training.optimizer import make_optimizer
from encoders.brainmt.training.resume import resume, save
from encoders.brainmt.training.sharding import make_shardable, unsharded
from encoders.runs.devices import accelerator as make_accelerator

folder, first, last, shard = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "sharded"
accelerator = make_accelerator(seed=0)
config = BrainMTConfig(
    grid=(17, 16, 20), num_frames=3, widths=(2, 4, 4, 8), mamba_layers=1, attention_layers=1, d_state=2, drop_path=0.0
)
model = BrainMT(config, num_outputs=2)
if shard:
    make_shardable(model)
    for block in [*model.mamba, *model.attention]:
        fully_shard(block)
    fully_shard(model)
optimizer = make_optimizer(model, lr=0.01, layer_decay=0.9, weight_decay=0.05, betas=(0.9, 0.999))
state = resume(folder, model, optimizer, accelerator)
assert state.step == first, state
for step in range(first, last):
    x = torch.randn(2, 3, 1, 17, 16, 20, generator=torch.Generator().manual_seed(step))
    model(x).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()
    state.step += 1
save(folder, state, model, optimizer, accelerator)
whole = unsharded(model)
if accelerator.is_main_process:
    torch.save(dict(whole.named_parameters()), folder / f"after-{last}.pt")
accelerator.wait_for_everyone()
"""


def train(folder, first, last, *, processes):
    launch = (
        ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        if processes > 1
        else []
    )
    script = folder / "run.py"
    script.write_text(RUN)
    done = subprocess.run(
        [
            sys.executable,
            *launch,
            str(script),
            str(folder),
            str(first),
            str(last),
            "sharded" if processes > 1 else "whole",
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return {n: p.detach() for n, p in torch.load(folder / f"after-{last}.pt", weights_only=True).items()}


@pytest.mark.parametrize(
    "processes",
    [
        pytest.param((2, 2), id="sharded"),
        pytest.param((2, 1), id="then one", marks=pytest.mark.slow),
        pytest.param((1, 2), id="then sharded", marks=pytest.mark.slow),
    ],
)
def test_a_sharded_run_is_saved_whole_and_goes_on_in_either_form(tmp_path, processes):
    alone, parts = tmp_path / "alone", tmp_path / "parts"
    alone.mkdir()
    parts.mkdir()
    wanted = train(alone, 0, 4, processes=1)
    before = train(parts, 0, 2, processes=processes[0])
    found = train(parts, 2, 4, processes=processes[1])
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if name.endswith(
            "qkv.bias"
        ):  # a bias of the keys changes no attention weight: its gradient is rounding
            for tensors in (wanted, before, found):
                tensors[name].unflatten(0, (3, -1))[1].zero_()
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5, msg=name)
        assert not torch.equal(before[name], value), name
    state = json.loads((parts / "checkpoints" / "step-00000004" / "state.json").read_text())["content"]
    assert state["progress"]["step"] == 4
