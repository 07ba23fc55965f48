"""Two real processes: training goes on from a checkpoint to the very weights of a run that never stopped."""

import os
import subprocess
import sys

import pytest

PROGRAM = '''
"""Train; take the last checkpoint away, as if killed before it; train on; compare."""
import shutil, sys
from pathlib import Path
import numpy as np, torch
from align.config import Align, ProjectorConfig
from align.pairs import join
from align.train import scaled, train_alignment
from encoders.cohort import Cohort, groups_of, make_split
from encoders.cohort.synthetic import SyntheticCohort, vector_cohort
from encoders.runs.checkpoint import checkpoints
from encoders.runs.devices import accelerator as make_accelerator
from encoders.vectors import SubjectVectors

made = vector_cohort(SyntheticCohort(arm="signal", people=120, seed=0))
cohort = Cohort(frame=made.frame, path=Path("participants.tsv"))
split = make_split(cohort, groups_of(cohort, made.related), val_fraction=0.2, test_fraction=0.1, stratify=["sex"], seed=0)
vectors = {"brain": SubjectVectors(ids=made.ids, values=made.brain),
           "genetics": SubjectVectors(ids=made.ids, values=made.gene.astype(np.float32))}
joined = join(vectors, split=split, cohort=cohort)
config = Align(projector=ProjectorConfig(output_dim=8, hidden_dim=16, dropout=0.5), epochs=3, batch_size=32, eval_every=1)
inputs, folder, accelerator = scaled(joined, config), Path(sys.argv[1]), make_accelerator(seed=0)
assert accelerator.num_processes == 2

def weights():
    train_alignment(inputs, joined, config, name="raw", folder=folder, accelerator=accelerator)
    accelerator.wait_for_everyone()
    found = (checkpoints(folder)[-1] / "tensors.safetensors").read_bytes()
    accelerator.wait_for_everyone()  # before one of them takes the checkpoint away
    return found

whole = weights()
if accelerator.is_main_process:
    shutil.rmtree(checkpoints(folder)[-1])
accelerator.wait_for_everyone()
assert weights() == whole
'''


@pytest.mark.slow
def test_two_processes_go_on_with_the_noise_that_each_would_have_drawn(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    command = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node=2",
        str(tmp_path / "program.py"),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *command, str(tmp_path / "run")], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "resuming after epoch 2" in done.stdout
