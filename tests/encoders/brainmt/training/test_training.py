"""The trainer's parts: learning rates and groups, schedule, targets, metrics, learning, broken scans."""

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from encoders.brainmt.checkpoint import from_pretrained
from encoders.brainmt.inference import subject_means, window_outputs
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.store import FMRIStore
from encoders.brainmt.targets import Target
from encoders.brainmt.training.config import PretrainBrainMT
from encoders.brainmt.training.log import TrainingLog
from encoders.brainmt.training.losses import task_loss
from encoders.brainmt.training.optimizer import LAST_SHARE, freeze, lr_share, make_optimizer, training_mode
from encoders.brainmt.training.resume import Progress
from encoders.brainmt.windows import FMRIWindows
from encoders.cohort import Split
from encoders.runs.devices import accelerator as make_accelerator
from encoders.runs.errors import InputError
from encoders.runs.tracking import read_metrics
from scripts.pretrain_brainmt import main

spec = importlib.util.spec_from_file_location("tiny_study", Path(__file__).parents[1] / "tiny_study.py")
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)


def small_model(**changes):
    config = BrainMTConfig(
        grid=(16, 16, 16),
        num_frames=4,
        widths=(2, 4, 4, 8),
        mamba_layers=2,
        attention_layers=2,
        d_state=2,
        **changes,
    )
    return BrainMT(config, num_outputs=2)


def test_every_group_gets_its_rate_and_the_peak_is_reached(tmp_path):
    """Read from the optimizer at each of its steps, not from the configuration."""
    study = tiny.make_study(tmp_path / "study")
    seen = []
    hook = register_optimizer_step_pre_hook(
        lambda optimizer, args, kwargs: seen.append(
            [(group["layer"], group["lr"], group["weight_decay"]) for group in optimizer.param_groups]
        )
    )
    try:
        assert main([f"--study={study.folder}", "--layer_decay=0.5"]) == 0
    finally:
        hook.remove()
    assert len(seen) == 4 * (22 // 4)  # epochs * steps
    by_layer = {layer: [] for layer, *_ in seen[0]}
    for step in seen:
        for layer, rate, decay in step:
            by_layer[layer].append(rate)
            assert decay in (0.0, 0.05)
    top = max(by_layer)
    assert max(by_layer[top]) == pytest.approx(0.003)
    assert by_layer[top][-1] == pytest.approx(0.003 * LAST_SHARE)
    for layer, rates in by_layer.items():
        assert max(rates) == pytest.approx(0.003 * 0.5 ** (top - layer))
    assert read_metrics(study.run_folder("pretrain_brainmt"))[-1]["lr"] == pytest.approx(0.003 * LAST_SHARE)


def test_layers_and_decay_of_every_parameter():
    model = small_model()
    optimizer = make_optimizer(model, lr=1.0, layer_decay=0.5, weight_decay=0.1, betas=(0.9, 0.999))
    names = {id(p): name for name, p in model.named_parameters()}
    layer, decay = {}, {}
    for group in optimizer.param_groups:
        for p in group["params"]:
            layer[names[id(p)]], decay[names[id(p)]] = group["layer"], group["weight_decay"]
    assert set(layer) == set(names.values())
    order = [
        layer[n]
        for n in (
            "space_table",
            "stem.block0.conv1.weight",
            "stem.block1.conv1.weight",
            "mamba.0.mixer.in_proj.weight",
            "mamba.1.mixer.in_proj.weight",
            "attention.0.mlp.fc1.weight",
            "attention.1.mlp.fc1.weight",
            "head.linear.weight",
        )
    ]
    assert order == sorted(set(order))
    free = {n for n, d in decay.items() if d == 0}
    assert {
        "cls_token",
        "space_table",
        "time_table",
        "mamba.0.mixer.A_log",
        "mamba.0.mixer.A_b_log",
        "mamba.1.mixer.D",
        "norm_f.weight",
        "head.linear.bias",
        "stem.block0.norm1.weight",
    } <= free
    assert all(name not in free for name in ("mamba.0.mixer.conv1d.weight", "stem.patch_embed.0.weight"))


def test_schedule_is_per_step_and_reaches_exactly_the_peak():
    shares = [lr_share(step, steps=50, warmup=5) for step in range(50)]
    assert shares[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert np.argmax(shares) == 4 and shares[-1] == pytest.approx(LAST_SHARE)
    assert all(np.diff(shares[4:]) < 0)
    assert lr_share(0, steps=3, warmup=0) < 1.0 and lr_share(2, steps=3, warmup=0) == pytest.approx(
        LAST_SHARE
    )


def test_warm_restarts_jump_back_to_a_lower_peak_after_longer_and_longer_cosines():
    options = {"steps": 34, "warmup": 4, "restart": 10, "mult": 2.0, "gamma": 0.5}
    shares = np.array([lr_share(step, **options) for step in range(34)])
    assert shares[3] == 1.0 and shares[13] == pytest.approx(LAST_SHARE)
    assert 0.49 < shares[14] < 0.5 and all(np.diff(shares[14:34]) < 0)
    assert shares[33] == pytest.approx(0.5 * LAST_SHARE)
    once = [lr_share(step, steps=34, warmup=4) for step in range(34)]
    assert once == [lr_share(step, steps=34, warmup=4, restart=30) for step in range(34)]


@pytest.mark.parametrize(
    "blocks, trained",
    [(0, {"head"}), (1, {"head", "attention"}), (3, {"head", "attention", "mamba", "norm_f"})],
)
def test_partial_unfreezing_trains_the_last_blocks_alone(blocks, trained):
    model = small_model(drop_path=0.5)
    freeze(model, blocks)
    free = {name for name, p in model.named_parameters() if p.requires_grad}
    assert {name.partition(".")[0] for name in free} == trained
    assert not any(name.startswith(("attention.0", "mamba.0")) for name in free if blocks == 1)
    optimizer = make_optimizer(model, lr=0.1, layer_decay=1.0, weight_decay=0.0, betas=(0.9, 0.999))
    training_mode(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    model(torch.randn(2, 4, 1, 16, 16, 16)).square().sum().backward()
    optimizer.step()
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert changed <= free and {name.partition(".")[0] for name in changed} == trained
    assert model.training and model.stem.training is False  # no drop path in what is frozen
    assert model.attention[-1].training == (blocks > 0)


def test_blocks_that_the_embedding_does_not_read_are_not_trained():
    model = small_model(embedding="voxel")
    freeze(model, None)
    assert {name.partition(".")[0] for name, p in model.named_parameters() if not p.requires_grad} == {
        "attention"
    }
    optimizer = make_optimizer(model, lr=1.0, layer_decay=0.5, weight_decay=0.1, betas=(0.9, 0.999))
    rates = sorted({group["peak_lr"] for group in optimizer.param_groups}, reverse=True)
    assert rates == [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125]  # the head lies on the last of two Mamba blocks
    freeze(model, 1)
    assert {name.partition(".")[0] for name, p in model.named_parameters() if p.requires_grad} == {
        "mamba",
        "norm_f",
        "head",
    }


def test_the_batch_may_be_cut_in_any_way_without_changing_the_loss():
    wanted = torch.tensor([[1.0, torch.nan], [torch.nan, 3.0], [2.0, 2.0]])
    predicted, columns = torch.zeros(3, 2), [Target(name="a"), Target(name="b")]
    whole = task_loss(predicted, wanted, columns)
    halves = [task_loss(predicted[k], wanted[k], columns, labels=4 / 2) for k in (slice(0, 1), slice(1, 3))]
    assert whole.item() == pytest.approx((1 + 9 + 4 + 4) / 4)
    assert (sum(halves) / 2).item() == pytest.approx(whole.item())


def test_windows_are_averaged_per_run_then_per_person(tmp_path):
    study = tiny.make_study(tmp_path / "study", train=3, val=2, test=2)
    windows = FMRIWindows(FMRIStore(study.path("store")), frames=8, windows_per_run=3)
    outputs = np.arange(len(windows), dtype=np.float32)[:, None]
    ids, means = subject_means(outputs, windows)
    assert ids[0] == "sub-0000" and len(windows.runs) == 8
    assert means[0, 0] == np.mean([np.mean([0, 1, 2]), np.mean([3, 4, 5])]) and means[1, 0] == 7
    counted = window_outputs(
        lambda frames: torch.ones(len(frames), 1),
        windows,
        1,
        batch_size=5,
        accelerator=make_accelerator(seed=0),
    )
    assert counted.tolist() == [[1.0]] * 24  # each window exactly once


def test_the_model_can_fit_a_few_scans():
    torch.manual_seed(0)
    model = small_model(drop_path=0.0, embedding="mean")
    x, wanted = torch.randn(6, 4, 1, 16, 16, 16), torch.randn(6, 2)
    optimizer = make_optimizer(model, lr=5e-3, layer_decay=1.0, weight_decay=0.0, betas=(0.9, 0.999))
    losses = []
    for _ in range(120):
        loss = task_loss(model(x), wanted, [Target(name="a"), Target(name="b")])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] > 0.5 and losses[-1] < 0.05


def test_a_loss_that_is_not_finite_stops_with_its_step(tmp_path, capsys):
    study = tiny.make_study(tmp_path / "study", spoil="sub-0004")
    assert main([f"--study={study.folder}"]) == 2
    message = capsys.readouterr().err.partition("error: ")[2]
    assert message.startswith("the loss is nan at optimizer step ")
    step = int(message.split("optimizer step ")[1].split(";")[0])
    assert 1 <= step <= 5
    listed = study.run_folder("pretrain_brainmt") / "not_finite.tsv"
    assert "sub-0004_task-rest_run-1" in listed.read_text() and str(listed) in message
    assert listed.stat().st_mode & 0o777 == 0o600
    assert not study.path("brainmt").exists()


def test_a_gradient_that_is_not_finite_stops_with_its_step_before_it_is_saved(tmp_path):
    config, state = PretrainBrainMT(log_every=100), Progress()
    shape = BrainMTConfig(
        grid=(16, 16, 16), num_frames=4, widths=(2, 4, 4, 8), mamba_layers=1, attention_layers=1
    )
    log = TrainingLog(tmp_path, config, state, shape, frames=4, accelerator=make_accelerator(seed=0))
    for step, norm in enumerate((2.0, np.inf, np.nan), start=1):
        state.step = step
        log.step(torch.tensor(1.0), torch.tensor(norm), [f"run-{step}"], lr=0.1)
    with pytest.raises(InputError, match="its gradient is inf at optimizer step 2"):
        log.check()
    assert (tmp_path / "not_finite.tsv").read_text() == "run-2\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"betas": (1.5, 0.9)}, r"betas is \[1.5, 0.9\]"),
        ({"layer_decay": 0.0}, "layer_decay is 0.0; give a number above 0"),
        ({"class_weights": "balanced"}, "class_weights is balanced, but numbers have no classes"),
        ({"loss": "huber", "task": "classification"}, "loss is huber, which is for numbers"),
    ],
)
def test_options_that_would_do_nothing_or_harm_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        PretrainBrainMT(**options)


@pytest.mark.skipif(torch.cuda.is_available(), reason="half precision runs here")
def test_half_precision_without_a_gpu_is_one_sentence(tmp_path, capsys):
    study = tiny.make_study(tmp_path / "study")
    assert main([f"--study={study.folder}", "--mixed_precision=fp16"]) == 2
    assert "fp16, which needs a CUDA device" in capsys.readouterr().err


def test_too_few_people_for_a_step(tmp_path, capsys):
    study = tiny.make_study(tmp_path / "study", train=5)
    assert main([f"--study={study.folder}", "--batch_size=32"]) == 2
    assert "6 training runs do not fill one step of 32 windows" in capsys.readouterr().err


def test_people_without_scan_or_label_are_listed(tmp_path, capsys):
    study = tiny.make_study(tmp_path / "study")
    split = Split.load(study.path("splits"))
    more = {
        "train": [*split.train, "sub-9999"],
        "groups": {**split.groups, "sub-9999": "sub-9999"},
        "folds": [],
    }
    dataclasses.replace(split, **more).save(study.path("splits"))
    table = study.path("participants")
    lines = [line for line in table.read_text().splitlines(keepends=True) if not line.startswith("sub-0003")]
    table.write_text("".join(lines))
    assert main([f"--study={study.folder}", "--epochs=1"]) == 0
    assert "left out for want of a scan or label: 2 (listed in left_out.tsv)" in capsys.readouterr().out
    listed = study.run_folder("pretrain_brainmt") / "left_out.tsv"
    assert listed.read_text() == "sub-0003\ttrain\tno label\nsub-9999\ttrain\tno scan\n"
    assert listed.stat().st_mode & 0o777 == 0o600
    assert "sub-0003" not in from_pretrained(study.path("brainmt"))[1]["trained_on"]["ids"]


@pytest.mark.parametrize(("column", "task"), [("status", "classification"), ("trait_1", "regression")])
def test_validation_people_who_are_all_alike_are_noticed_before_training(tmp_path, capsys, column, task):
    study = tiny.make_study(tmp_path / "study")
    table = study.path("participants")
    header, *rows = (line.split("\t") for line in table.read_text().splitlines())
    place, val = header.index(column), set(Split.load(study.path("splits")).val)
    for row in rows:
        if row[0] in val:
            row[place] = "ill" if task == "classification" else "0.5"
    table.write_text("".join("\t".join(row) + "\n" for row in [header, *rows]))
    options = [f"--study={study.folder}", f"--targets=[{column}]", f"--task={task}", "--epochs=1"]
    assert main(options) == 2
    assert "undefined for the 9 validation people" in capsys.readouterr().err
    assert main([*options[:1], "--targets=[trait_1,trait_2]", "--epochs=1", "--redo=true"]) == 0


def test_too_few_held_out_people_are_noticed_before_training(tmp_path, capsys):
    study = tiny.make_study(tmp_path / "study", test=2)
    assert main([f"--study={study.folder}"]) == 2
    assert "2 of the 2 test people have a scan" in capsys.readouterr().err
    assert not (study.run_folder("pretrain_brainmt") / "metrics.jsonl").exists()
