"""Every YAML in configs/ is accepted by the script it is named after."""

import importlib

import pytest
import yaml

from encoders.runs.config import parse
from encoders.runs.study import REPOSITORY

OTHERS = ("accelerate", "sweeps")  # settings of other programs, below
FILES = sorted(p for p in (REPOSITORY / "configs").glob("*/*.yaml") if p.parent.name not in OTHERS)


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_settings_are_accepted_and_change_something(path):
    config_class = importlib.import_module(f"scripts.{path.stem}").main.config_class
    given = parse(config_class, [f"--config={path}"], prog=path.stem, description="")
    assert given != config_class() or path.parent.name == "paper"


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs" / "accelerate").glob("*.yaml")), ids=lambda p: p.stem
)
def test_launch_files_are_accelerates_own(path):
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import _validate_launch_command, launch_command_parser

    assert load_config_from_file(str(path)).num_processes in (1, 2, 4)
    script = str(REPOSITORY / "scripts" / "pretrain_brainmt.py")
    args = launch_command_parser().parse_args(["--config_file", str(path), script])
    args, *_ = _validate_launch_command(args)
    assert args.use_fsdp == (path.stem == "fsdp")
    assert args.multi_gpu == (path.stem in ("ddp", "cpu-2"))


def test_the_sharded_launch_wraps_blocks_that_exist(monkeypatch):
    import torch
    from accelerate import FullyShardedDataParallelPlugin
    from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy

    from encoders.brainmt.model import BrainMT

    options = yaml.safe_load((REPOSITORY / "configs" / "accelerate" / "fsdp.yaml").read_text())["fsdp_config"]
    for name, value in options.items():
        monkeypatch.setenv(f"FSDP_{name.removeprefix('fsdp_').upper()}", str(value))
    monkeypatch.setenv("FSDP_TRANSFORMER_CLS_TO_WRAP", options["fsdp_transformer_layer_cls_to_wrap"])
    plugin = FullyShardedDataParallelPlugin(fsdp_version=options["fsdp_version"])
    with torch.device("meta"):
        model = BrainMT(depth=(2, 3))
    plugin.set_auto_wrap_policy(model)
    wrap = fsdp2_prepare_auto_wrap_policy(plugin, model)
    assert sum(wrap(module) for module in model.modules()) == 5


@pytest.mark.parametrize(
    "path", sorted((REPOSITORY / "configs" / "sweeps").glob("*.yaml")), ids=lambda p: p.stem
)
def test_every_parameter_of_a_sweep_is_taken_by_the_script(path):
    from wandb.sdk.launch.sweeps.utils import create_sweep_command_args

    sweep = yaml.safe_load(path.read_text())
    script = importlib.import_module(
        f"scripts.{sweep['program'].removeprefix('scripts/').removesuffix('.py')}"
    )
    assert (REPOSITORY / sweep["program"]).exists() and sweep["method"] in ("bayes", "random", "grid")
    fixed = [word for word in sweep["command"] if word.startswith("--")]
    for name, entry in sweep["parameters"].items():
        assert set(entry) in ({"values"}, {"distribution", "min", "max"}), name
        values = entry.get("values") or [entry["min"], entry["max"]]
        parsed = []
        for value in values:
            words = create_sweep_command_args({"args": {name: {"value": value}}})["args"]
            config = parse(script.main.config_class, [*fixed, *words], prog=script.__name__, description="")
            for part in name.split("."):
                config = getattr(config, part)
            parsed.append(config)
        assert parsed == values, name


def test_runs_of_a_sweep_have_folders_and_a_metric_of_their_own(monkeypatch):
    from encoders.brainmt.training.config import PretrainBrainMT, stage_name

    sweep = yaml.safe_load((REPOSITORY / "configs" / "sweeps" / "brainmt.yaml").read_text())
    assert sweep["metric"]["name"] == f"val_{PretrainBrainMT().metric}"
    assert PretrainBrainMT().name == ""
    monkeypatch.setenv("WANDB_SWEEP_ID", "abc")
    monkeypatch.setenv("WANDB_RUN_ID", "x1y2")
    assert stage_name(None, PretrainBrainMT().name) == "pretrain_brainmt_x1y2"
