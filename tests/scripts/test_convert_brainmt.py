"""`scripts/convert_brainmt.py` as a user runs it: both ways, for sharing, from the hub, and what it refuses."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from encoders.brainmt.checkpoint import from_pretrained, save_pretrained
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from scripts.convert_brainmt import main

ROOT = Path(__file__).resolve().parents[2]
GRID, FRAMES = (33, 17, 16), 3  # Y, X, Z: 3 x 2 x 1 patches
CARD = {
    "trained_on": {"split_digest": "cd" * 32, "ids": ["sub-0417", "sub-0932"]},
    "preprocessing": {"store_digest": "ab" * 32, "options": {"normalisation": "global"}},
    "epoch": 4,
}


def module(name, path):
    spec = importlib.util.spec_from_file_location(name, ROOT / "tests" / "encoders" / path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


form = module("released_form", "brainmt/released_form.py")
hub_server = module("hub_server", "runs/hub_server.py")


@pytest.fixture
def theirs(tmp_path):
    """A whole file as the original's trainer writes it under several processes' names, and its weights."""
    state = form.random_state(patches=6, frames=FRAMES, outputs=2)
    content = form.whole_file(state, grid=GRID)
    content["model_state_dict"] = {f"module.{name}": tensor for name, tensor in state.items()}
    torch.save(content, tmp_path / "best.pth")
    return tmp_path / "best.pth", state


@pytest.fixture
def ours(tmp_path):
    """The folder of a model of the paper's form, and the model."""
    torch.manual_seed(0)
    config = BrainMTConfig(
        grid=GRID, num_frames=FRAMES, widths=(3, 4, 6, 8), mamba_layers=1, attention_layers=2, d_state=2
    )
    model = BrainMT(config, num_outputs=2).eval()
    save_pretrained(model, tmp_path / "ours", CARD)
    return tmp_path / "ours", model


def convert(source, output, *options):
    return main([f"--source={source}", f"--output={output}", *options])


def test_a_whole_file_of_the_original_becomes_a_folder_with_the_same_features(theirs, tmp_path, capsys):
    path, state = theirs
    assert convert(path, tmp_path / "made") == 0
    told = capsys.readouterr().out
    for line in (
        f"parameters: {sum(t.numel() for t in state.values()):,}",
        "2 Mamba (forwards only), 2 attention",
        "norm and MLP shared by the attention blocks, 2 heads, width 8",
        "3 frames of 33 x 17 x 16 voxels (Y, X, Z)",
        "outputs: 2",
        "Nobody can tell from such a file whom it was trained on",
    ):
        assert line in told
    model, card = from_pretrained(tmp_path / "made")
    assert card["source"]["file"] == "best.pth" and card["source"]["val_loss"] == 0.375
    x = torch.randn(2, FRAMES, 1, *GRID)
    with torch.no_grad():
        torch.testing.assert_close(
            model.forward_features(x), form.features(state, x, num_heads=2), rtol=0, atol=1e-5
        )


def test_there_and_back_loses_nothing(theirs, tmp_path, capsys):
    path, state = theirs
    assert convert(path, tmp_path / "made") == 0 and convert(tmp_path / "made", tmp_path / "back.pth") == 0
    assert "cannot load patches (3, 2, 1)" in capsys.readouterr().out
    back = torch.load(tmp_path / "back.pth", weights_only=True)
    assert (back["epoch"], back["val_loss"]) == (7, 0.375)
    assert list(back["config"]["model"]["depth"]) == [2, 2]
    assert all(torch.equal(back["model_state_dict"][name], tensor) for name, tensor in state.items())
    assert len(back["model_state_dict"]) == len(state)


def test_bare_weights_need_the_grid_and_may_be_told_the_heads(theirs, tmp_path, capsys):
    _, state = theirs
    torch.save(state, tmp_path / "bare.pth")
    assert convert(tmp_path / "bare.pth", tmp_path / "made") == 2
    assert "--grid=[109,91,91]" in capsys.readouterr().err and not (tmp_path / "made").exists()
    assert convert(tmp_path / "bare.pth", tmp_path / "made", "--grid=[33,17,16]", "--num_heads=4") == 0
    config = from_pretrained(tmp_path / "made")[0].config
    assert config.grid == GRID and config.num_heads == 4


def test_a_shareable_folder_names_nobody(ours, tmp_path, capsys):
    folder, model = ours
    assert convert(folder, tmp_path / "shared", "--shareable=true") == 0
    told = capsys.readouterr().out
    assert "2 people, not named any more" in told and "ask first" in told and "sub-" not in told
    for path in (tmp_path / "shared").iterdir():
        assert not [name for name in CARD["trained_on"]["ids"] if name.encode() in path.read_bytes()]
    again, card = from_pretrained(tmp_path / "shared")
    assert card["trained_on"]["people"] == 2 and card["trained_on"]["ids"] is None
    x = torch.randn(1, FRAMES, 1, *GRID)
    assert torch.equal(again(x), model(x))
    assert convert(tmp_path / "shared", tmp_path / "again", "--shareable=true") == 0
    assert from_pretrained(tmp_path / "again")[1]["trained_on"] == card["trained_on"]


def test_a_hub_id_becomes_a_folder_that_keeps_the_commit_in_what_is_printed(ours, tmp_path):
    folder, _ = ours
    program = """
import contextlib, io, json, sys
from scripts.convert_brainmt import main
with contextlib.redirect_stdout(io.StringIO()) as told, contextlib.redirect_stderr(io.StringIO()) as errors:
    codes = [main(argv) for argv in json.loads(sys.argv[1])]
print(json.dumps([codes, told.getvalue(), errors.getvalue()]))
"""
    made = f"--output={tmp_path / 'made'}"
    with hub_server.serving(folder) as (_, endpoint):
        calls = [
            [
                f"--source={hub_server.REPOSITORY}",
                made,
                "--shareable=true",
                f"--revision={hub_server.COMMIT}",
            ],
            ["--source=nobody/nothing", f"--output={tmp_path / 'other'}", "--shareable=true"],
        ]
        codes, told, errors = hub_server.run_against(endpoint, tmp_path / "cache", program, json.dumps(calls))
    assert codes == [0, 2] and f"revision: {hub_server.COMMIT}" in told
    assert "could not be downloaded" in errors and "pass the folder to --source" in errors
    assert from_pretrained(tmp_path / "made")[1]["trained_on"]["people"] == 2


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, witness):
        self.command = f"touch {witness}"

    def __reduce__(self):
        return os.system, (self.command,)


def test_a_file_that_would_run_a_command_is_one_sentence_and_nothing_runs(theirs, tmp_path, capsys):
    _, state = theirs
    torch.save(
        form.whole_file(state, grid=GRID) | {"config": Command(tmp_path / "witness")}, tmp_path / "evil.pth"
    )
    assert convert(tmp_path / "evil.pth", tmp_path / "made") == 2
    told = capsys.readouterr().err
    assert told.startswith("error: E_PICKLE") and told.count("\n") == 1 and "nothing of it was run" in told
    assert not (tmp_path / "witness").exists() and not (tmp_path / "made").exists()


def test_truncated_and_mismatching_files_are_one_sentence(theirs, tmp_path, capsys):
    path, state = theirs
    content = path.read_bytes()
    (tmp_path / "half.pth").write_bytes(content[: len(content) // 2])
    del state["norm_f.weight"], state["blocks.1.qkv.bias"]
    torch.save(form.whole_file(state, grid=GRID), tmp_path / "less.pth")
    for name, parts in {
        "half.pth": ["E_TRUNCATED", "half.pth is damaged"],
        "less.pth": ["Missing (2): norm_f.weight, blocks.1.qkv.bias."],
        "none.pth": ["none.pth is not a file"],
    }.items():
        assert convert(tmp_path / name, tmp_path / "made") == 2
        told = capsys.readouterr().err
        assert told.count("\n") == 1 and all(part in told for part in parts)
    assert not (tmp_path / "made").exists()


def test_what_exists_is_not_overwritten(theirs, ours, tmp_path, capsys):
    (tmp_path / "there").mkdir()
    (tmp_path / "there.pth").write_bytes(b"precious")
    assert convert(theirs[0], tmp_path / "there") == 2
    assert convert(ours[0], tmp_path / "there.pth") == 2
    assert capsys.readouterr().err.count("exists; pass an --output that does not") == 2
    assert (tmp_path / "there.pth").read_bytes() == b"precious"
    assert convert(theirs[0], tmp_path / "there.pth" / "below") == 2
    assert "nothing can be written below" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--source={ours}", "--output=x"], "in our form already"),
        (["--source={theirs}", "--output=x.pth"], "both .pth"),
        (["--source={ours}", "--output=x.pth", "--shareable=true"], "never names a person"),
        (["--source={ours}", "--output=x.pth", "--num_heads=4"], "are for a .pth"),
        (["--source={ours}", "--output=x.pth"], "norms and MLPs of their own"),
        (["--source={ours}", "--output=x", "--shareable=true", "--revision=v1"], "has no revision 'v1'"),
        (["--source={theirs}", "--output=x", "--revision=v1"], "goes with a hub id"),
        (["--source={theirs}", "--output=x", "--num_heads=0"], "num_heads is 0"),
        (["--source=nowhere", "--output=x.pth"], "nowhere is neither a file, nor a folder, nor a hub id"),
        (["--output=x.pth"], "source"),
    ],
)
def test_wrong_options_are_one_sentence(options, message, theirs, ours, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert main([option.format(theirs=theirs[0], ours=ours[0]) for option in options]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1 and set(tmp_path.iterdir()) == before


def test_help_needs_no_torch():
    program = (
        "import sys; from scripts.convert_brainmt import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "assert 'torch' not in sys.modules"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    assert run.returncode == 0 and "--num_heads" in run.stdout, run.stderr
