"""Checkpoints of the original code: the same numbers, both ways, every mismatch named, nothing run."""

import importlib.util
import json
import os
import random
import zipfile
from collections import OrderedDict
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.brainmt.checkpoint import from_pretrained, save_pretrained
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.released import NAMES, SECOND_DIRECTION, from_released, to_released
from encoders.brainmt.released_file import read_released
from encoders.runs.artifact import file_sha256
from encoders.runs.errors import InputError

spec = importlib.util.spec_from_file_location("released_form", Path(__file__).with_name("released_form.py"))
form = importlib.util.module_from_spec(spec)
spec.loader.exec_module(form)

GRID, FRAMES = (33, 17, 16), 3  # Y, X, Z: 3 x 2 x 1 patches


def write(path, content):
    torch.save(content, path)
    return path


def released(path, **changes):
    """A whole file of a small network, and its weights."""
    state = form.random_state(patches=6, frames=FRAMES, **changes)
    return write(path, form.whole_file(state, grid=GRID)), state


SHAPES = {
    "small": (GRID, {"patches": 6, "frames": 3}, 2),
    "odd": ((19, 31, 49), {"patches": 2 * 2 * 4, "frames": 2, "outputs": 3}, 4),
    "deep": (
        (16, 18, 15),
        {"patches": 2, "frames": 5, "layers": 4, "blocks": 3, "state_size": 5, "taps": 3, "hidden": 11},
        1,
    ),
    "wide": ((17, 16, 33), {"patches": 6, "frames": 2, "widths": (2, 5, 7, 36), "expand": 3}, 3),
}


@pytest.mark.parametrize("name", SHAPES)
def test_features_and_predictions_are_those_of_the_released_network(name, tmp_path):
    grid, shape, heads = SHAPES[name]
    state = form.random_state(**shape)
    path = write(tmp_path / "best.pth", form.whole_file(state, grid=grid, num_heads=heads))
    model, _ = from_released(path)
    x = torch.randn(2, shape["frames"], 1, *grid, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = form.features(state, x, num_heads=heads)
        torch.testing.assert_close(model.forward_features(x), wanted, rtol=0, atol=1e-5)
        torch.testing.assert_close(model(x), form.predictions(state, x, num_heads=heads), rtol=0, atol=1e-5)
    assert wanted.std() > 0.1  # features that are all alike would agree with anything


def test_at_the_true_size_features_agree_to_1e_4(tmp_path):
    widths = (64, 128, 256, 512)
    state = form.random_state(
        patches=252, frames=1, widths=widths, layers=12, blocks=8, state_size=16, hidden=1024
    )
    model, card = from_released(write(tmp_path / "best.pth", state))
    assert sum(p.numel() for p in model.parameters()) == 39_104_961 - 199 * 512  # with 200 frames
    assert len(card["source"]["notes"]) == 2  # grid and heads were assumed
    x = torch.randn(1, 1, 1, 109, 91, 91, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        wanted = form.features(state, x, num_heads=2)
        torch.testing.assert_close(model.forward_features(x), wanted, rtol=0, atol=1e-4)


def test_the_configuration_is_read_off_the_shapes_and_the_file(tmp_path):
    path, _ = released(tmp_path / "best.pth", state_size=5, taps=3, hidden=11, outputs=3, blocks=1)
    model, card = from_released(path)
    assert model.config == BrainMTConfig(
        grid=GRID,
        num_frames=FRAMES,
        widths=(3, 4, 6, 8),
        mamba_layers=2,
        attention_layers=1,
        num_heads=2,
        mlp_ratio=11 / 8,
        bidirectional=False,
        shared_attention_mlp=True,
        d_state=5,
        d_conv=3,
        drop_path=0.25,
    )
    assert not model.training and model.head.linear.out_features == 3
    assert card == {
        "source": {
            "format": "checkpoint of the original BrainMT code",
            "file": "best.pth",
            "sha256": file_sha256(path),
            "epoch": 7,
            "val_loss": 0.375,
            "notes": [],
        },
        "targets": None,
        "preprocessing": None,
        "trained_on": None,
    }


@pytest.mark.parametrize("hidden", [1, 2, 31])  # of 49 they are fractions that rounding spoils
def test_every_hidden_width_comes_back(hidden, tmp_path):
    assert hidden == 31 or int(49 * (hidden / 49)) != hidden
    state = form.random_state(patches=2, frames=1, widths=(2, 2, 2, 49), layers=1, blocks=1, hidden=hidden)
    path = write(tmp_path / "best.pth", form.whole_file(state, grid=(17, 16, 16), num_heads=7))
    assert from_released(path)[0].attention[0].mlp.fc1.out_features == hidden


@pytest.mark.parametrize("wrapped", [True, False], ids=["module.", "bare names"])
@pytest.mark.parametrize("whole", [True, False], ids=["whole", "weights only"])
@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_all_the_forms_a_file_may_have_give_the_same_model(wrapped, whole, zipped, tmp_path):
    _, state = released(tmp_path / "best.pth")
    wanted = list(from_released(tmp_path / "best.pth")[0].parameters())
    named = OrderedDict((f"module.{n}" if wrapped else n, t) for n, t in state.items())
    content = form.whole_file(state, grid=GRID) | {"model_state_dict": named} if whole else named
    torch.save(content, tmp_path / "other.pth", _use_new_zipfile_serialization=zipped)
    model, _ = from_released(tmp_path / "other.pth", grid=None if whole else GRID)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), wanted, strict=True))


def test_the_scalar_is_read_as_either_numpy_writes_it(tmp_path):
    path, _ = released(tmp_path / "best.pth")
    content = path.read_bytes()
    assert b"numpy._core.multiarray" in content
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(tmp_path / "numpy1.pth", "w") as new:
        for member in old.namelist():  # the pickle names its globals in lines of text: any length will do
            new.writestr(
                member, old.read(member).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
            )
    assert read_released(tmp_path / "numpy1.pth").val_loss == read_released(path).val_loss == 0.375


def test_some_names_with_module_only_are_not_touched(tmp_path):
    _, state = released(tmp_path / "best.pth")
    state["module.cls_token"] = state.pop("cls_token")
    with pytest.raises(InputError) as error:
        from_released(write(tmp_path / "mixed.pth", state), grid=GRID)
    assert "Missing (1): cls_token." in str(error.value)
    assert "Unexpected (1): module.cls_token [1, 1, 8]." in str(error.value)


def test_every_mismatch_of_names_is_named(tmp_path):
    _, state = released(tmp_path / "best.pth")
    for name in ("norm.bias", "layers.1.mixer.D", "blocks.0.qkv.bias"):
        del state[name]
    state["layers.4.norm.weight"] = state.pop("layers.0.norm.weight")
    state["gamma"] = torch.ones(2, 3)
    state["pos_embed"] = state["pos_embed"][0]
    with pytest.raises(InputError) as error:
        from_released(write(tmp_path / "bad.pth", state), grid=GRID)
    message = str(error.value)
    for name in ("norm.bias", "layers.1.mixer.D", "blocks.0.qkv.bias", "layers.0.norm.weight"):
        assert name in message.split("Missing")[1].split("Unexpected")[0]
    assert "layers.4.norm.weight [8]" in message.split("Unexpected")[1] and "gamma [2, 3]" in message
    assert "pos_embed is [7, 8], [1, 1 + patches, width] was wanted" in message


def test_every_wrong_shape_is_named(tmp_path):
    _, state = released(tmp_path / "best.pth")
    state["norm_f.weight"] = torch.ones(9)
    state["layers.1.mixer.dt_proj.weight"] = torch.ones(16, 2)  # a rank that this width does not give
    state["mlp.fc2.weight"] = torch.ones(8, 15)
    with pytest.raises(InputError) as error:
        from_released(write(tmp_path / "bad.pth", state), grid=GRID)
    for sentence in (
        "Of another shape (3)",
        "norm_f.weight is [9], [8] was wanted",
        "layers.1.mixer.dt_proj.weight is [16, 2], [16, 1] was wanted",
        "mlp.fc2.weight is [8, 15], [8, 16] was wanted",
    ):
        assert sentence in str(error.value)


def test_a_missing_second_direction_is_named_in_all_layers(tmp_path):
    _, state = released(tmp_path / "best.pth")
    state["layers.0.mixer.D_b"] = state["layers.0.mixer.D"]
    with pytest.raises(InputError, match=r"Missing \(13\): .*layers\.1\.mixer\.D_b"):
        from_released(write(tmp_path / "bad.pth", state), grid=GRID)


def test_the_grid_must_be_known_and_fit(tmp_path):
    path, state = released(tmp_path / "best.pth")
    bare = write(tmp_path / "bare.pth", state)
    with pytest.raises(
        InputError, match="has 6 patches, but the standard grid of 109 x 91 x 91 makes 252.*--grid"
    ):
        from_released(bare)
    with pytest.raises(InputError, match="has 6 patches, but the grid that was passed makes 8"):
        from_released(path, grid=(32, 32, 32))
    assert from_released(bare, grid=GRID)[0].config.grid == GRID
    content = form.whole_file(state, grid=(64, 64, 64))
    with pytest.raises(
        InputError, match=r"img_size \[64, 64, 64\] of the configuration in the file makes 64"
    ):
        from_released(write(tmp_path / "other.pth", content))


def test_heads_come_from_the_caller_then_the_file_then_an_assumption_that_is_said(tmp_path):
    state = form.random_state(patches=6, frames=FRAMES)
    path = write(tmp_path / "best.pth", form.whole_file(state, grid=GRID, num_heads=4))
    assert from_released(path)[0].config.num_heads == 4
    model, card = from_released(path, num_heads=8)
    assert model.config.num_heads == 8 and card["source"]["notes"] == [
        "8 attention heads, as passed; the configuration in the file says 4"
    ]
    model, card = from_released(write(tmp_path / "bare.pth", state), grid=GRID)
    assert model.config.num_heads == 2
    assert card["source"]["notes"] == ["2 attention heads were assumed: the file does not say how many"]
    with pytest.raises(InputError, match="no multiple of num_heads 3"):
        from_released(path, num_heads=3)


def test_what_differs_from_the_originals_inference_is_said(tmp_path):
    state = form.random_state(patches=6, frames=FRAMES)
    content = form.whole_file({n: t.half() for n, t in state.items()}, grid=GRID)
    content["config"]["model"]["attn_drop_rate"] = 0.5
    model, card = from_released(write(tmp_path / "best.pth", content))
    assert model.config.attention_dropout == 0.5 and model.cls_token.dtype == torch.float32
    assert "leaves it on" in card["source"]["notes"][0]
    assert "torch.float16 became float32" in card["source"]["notes"][1]


# ---- what must be refused


class Command:
    """Runs a command when it is unpickled."""

    def __init__(self, witness):
        self.command = f"touch {witness}"

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
def test_a_file_that_would_run_a_command_is_refused_and_does_not(zipped, tmp_path):
    _, state = released(tmp_path / "best.pth")
    content = form.whole_file(state, grid=GRID) | {"extra": Command(tmp_path / "witness")}
    torch.save(content, tmp_path / "evil.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(InputError, match=r"E_PICKLE.*posix\.system.*nothing of it was run.*weights alone"):
        from_released(tmp_path / "evil.pth")
    assert not (tmp_path / "witness").exists()
    torch.load(tmp_path / "evil.pth", weights_only=False)
    assert (tmp_path / "witness").exists()  # the file was indeed dangerous


@pytest.mark.parametrize(
    ("extra", "named"),
    [(np.ones(2), "_reconstruct"), (np.float32(1), "Float32DType"), (Path("a"), "pathlib")],
    ids=["array", "another scalar", "path"],
)
def test_nothing_beyond_the_four_names_is_let_in(extra, named, tmp_path):
    _, state = released(tmp_path / "best.pth")
    content = form.whole_file(state, grid=GRID) | {"val_loss": extra}
    before = set(torch.serialization.get_safe_globals())
    with pytest.raises(InputError, match=f"E_PICKLE.*{named}"):
        from_released(write(tmp_path / "other.pth", content))
    assert set(torch.serialization.get_safe_globals()) == before  # the list holds for this one reading


def test_damaged_files_are_one_sentence_whatever_is_damaged(tmp_path):
    path, state = released(tmp_path / "best.pth")
    torch.save(state, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    chance = random.Random(0)
    refused = 0
    for source in (path, tmp_path / "legacy.pth"):
        content = source.read_bytes()
        for trial in range(60):
            damaged = bytearray(content)
            if trial % 2:
                del damaged[chance.randrange(len(damaged)) :]
            else:
                for _ in range(3):
                    damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
            (tmp_path / "damaged.pth").write_bytes(damaged)
            try:
                from_released(tmp_path / "damaged.pth", grid=GRID)
            except InputError:
                refused += 1
            else:
                assert trial % 2 == 0  # a truncated file is never read
    assert refused > 80  # a flipped bit in the zip is found by its checksum; the legacy format has none


def test_a_flipped_bit_in_the_weights_is_found(tmp_path):
    path, state = released(tmp_path / "best.pth")
    content = bytearray(path.read_bytes())
    place = content.index(state["head.bias"].numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    torch.load(path, weights_only=False)  # PyTorch does not notice
    with pytest.raises(InputError, match="does not match its checksum"):
        from_released(path)


def test_weights_that_no_training_leaves_are_named(tmp_path):
    _, state = released(tmp_path / "best.pth")

    def refuse(pattern, **changes):
        bad = {n: t.clone() for n, t in state.items()} | changes
        with pytest.raises(InputError, match=pattern):
            from_released(write(tmp_path / "bad.pth", bad), grid=GRID)

    refuse(
        "NaN or infinite weights in cls_token, norm_f.weight",
        **{"cls_token": torch.full((1, 1, 8), torch.nan), "norm_f.weight": torch.full((8,), torch.inf)},
    )
    refuse("not floating-point numbers: cls_token", cls_token=torch.ones(1, 1, 8, dtype=torch.int64))
    refuse("not dense: cls_token", cls_token=torch.ones(1, 1, 8).to_sparse())
    refuse("empty: cls_token", cls_token=torch.ones(1, 0, 8))
    refuse(r"not tensors: cls_token \(list\)", cls_token=[1.0])
    # a few bytes that declare a gigabyte
    refuse("declare .* bytes, but the file has", cls_token=torch.ones(1).expand(1, 2**28, 1))


def test_files_without_weights_are_one_sentence(tmp_path):
    with pytest.raises(InputError, match="holds no weights, but epoch, val_loss; a dictionary"):
        from_released(write(tmp_path / "a.pth", {"epoch": 3, "val_loss": 0.5}))
    with pytest.raises(InputError, match="holds no weights, but list"):
        from_released(write(tmp_path / "b.pth", [torch.ones(2)]))
    for name, content in (("c.pth", b""), ("d.pth", b"<html>no such file</html>")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="is damaged or no file of torch.save"):
            from_released(tmp_path / name)
    with pytest.raises(InputError, match="is not a file"):
        from_released(tmp_path / "none.pth")


# ---- and back


def test_there_and_back_gives_the_same_names_and_numbers(tmp_path):
    path, state = released(tmp_path / "best.pth", outputs=2)
    model, _ = from_released(path)
    assert to_released(model, tmp_path / "back.pth", epoch=7, val_loss=0.375)[-1].startswith("the original's")
    content = torch.load(tmp_path / "back.pth", weights_only=True)  # without any allow-list
    assert (content["epoch"], content["val_loss"]) == (7, 0.375) and type(content["val_loss"]) is float
    assert set(content["model_state_dict"]) == set(state)
    assert all(torch.equal(content["model_state_dict"][name], state[name]) for name in state)
    own = form.whole_file(state, grid=GRID)["config"]["model"]
    assert content["config"] == {"model": own}
    assert (tmp_path / "back.pth").stat().st_mode & 0o777 == 0o600
    again, _ = from_released(tmp_path / "back.pth")
    assert again.config == model.config


def test_the_folder_keeps_where_the_model_came_from(tmp_path):
    path, _ = released(tmp_path / "best.pth")
    model, card = from_released(path)
    save_pretrained(model, tmp_path / "ours", card)
    again, read = from_pretrained(tmp_path / "ours")
    assert read["source"] == card["source"] and read["trained_on"] is None
    x = torch.randn(1, FRAMES, 1, *GRID)
    assert torch.equal(again(x), model(x))
    assert "/data/somebody" not in json.dumps(read)  # of the original's configuration only the model is used


SMALL = BrainMTConfig(
    grid=GRID,
    num_frames=FRAMES,
    widths=(3, 4, 6, 8),
    mamba_layers=2,
    attention_layers=2,
    d_state=2,
    bidirectional=False,
    shared_attention_mlp=True,
)


def with_options(**options):
    return BrainMT(replace(SMALL, **options)).eval()


def test_a_bidirectional_model_is_written_with_vision_mambas_names_and_said_to_be(tmp_path):
    model = with_options(bidirectional=True)
    notes = to_released(model, tmp_path / "two.pth")
    assert "second direction" in notes[0] and "cannot load them" in notes[0]
    names = torch.load(tmp_path / "two.pth", weights_only=True)["model_state_dict"]
    assert {name for name in names if "layers.1." in name} == {
        theirs.format(1) for theirs in [*NAMES, *SECOND_DIRECTION] if theirs.startswith("layers")
    }
    again, _ = from_released(tmp_path / "two.pth")
    x = torch.randn(2, FRAMES, 1, *GRID)
    assert again.config.bidirectional and torch.equal(again(x), model(x))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"shared_attention_mlp": False}, "norms and MLPs of their own"),
        ({"embedding": "mean"}, "reads the embedding mean"),
        ({"tokens": "brain", "brain_patches": (0, 2)}, "keeps the patches of the brain only"),
        ({"attention_layers": 0}, "lacks Mamba blocks or attention blocks"),
    ],
)
def test_a_model_that_the_original_has_no_form_for_is_refused_with_the_reason(options, reason, tmp_path):
    with pytest.raises(InputError, match=reason):
        to_released(with_options(**options), tmp_path / "x.pth")
    assert not list(tmp_path.iterdir())


def test_of_a_model_of_the_original_size_nothing_is_said(tmp_path):
    model = BrainMT(bidirectional=False, shared_attention_mlp=True, num_frames=2)
    assert to_released(model, tmp_path / "big.pth") == []
    content = torch.load(tmp_path / "big.pth", weights_only=True)
    assert np.isnan(content["val_loss"]) and content["config"]["model"]["img_size"] == [91, 109, 91]
    assert read_released(tmp_path / "big.pth").val_loss is None


def test_the_table_reads_both_ways():
    both = NAMES | SECOND_DIRECTION
    assert len(set(both.values())) == len(both)
    for theirs, ours in both.items():
        assert theirs.count("{}") == ours.count("{}")
