"""A trained model on disk: round trips, damage, cards that do not fit."""

import json

import numpy as np
import pytest
import torch

from encoders.brainmt.checkpoint import WEIGHTS, from_pretrained, save_pretrained
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from encoders.runs.artifact import load_tensors, save_tensors
from encoders.runs.errors import InputError


@pytest.fixture(params=[False, True], ids=["own", "shared"])
def model(request):
    torch.manual_seed(0)
    config = BrainMTConfig(
        grid=(17, 16, 16),
        num_frames=3,
        widths=(2, 2, 4, 8),
        mamba_layers=1,
        attention_layers=2,
        d_state=2,
        shared_attention_mlp=request.param,
    )
    return BrainMT(config, num_outputs=3).eval()


def test_round_trip(model, tmp_path):
    card = {"trained_on": {"split_digest": "d", "ids": ["sub-1"]}}
    digest = save_pretrained(model, tmp_path / "best", card)
    again, read = from_pretrained(tmp_path / "best")
    assert again.config == model.config and read["trained_on"] == card["trained_on"]
    assert read["weights_sha256"] == digest
    x = torch.randn(2, 3, 1, 17, 16, 16)
    assert torch.equal(again(x), model(x))
    assert sum(p.numel() for p in again.parameters()) == sum(p.numel() for p in model.parameters())
    shown = json.loads((tmp_path / "best" / "card.json").read_text())["content"]
    assert shown["weights_sha256"] == digest and shown["config"]["d_state"] == 2


def test_only_its_owner_may_read_who_was_seen(model, tmp_path):
    save_pretrained(model, tmp_path, {"trained_on": {"ids": ["sub-1"]}})
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_the_same_weights_have_the_same_digest_and_others_another(model, tmp_path):
    first, again = (save_pretrained(model, tmp_path / name, {}) for name in "ab")
    with torch.no_grad():
        model.cls_token.flatten()[0] += 1
    assert first == again != save_pretrained(model, tmp_path / "c", {})


def test_a_flipped_byte_is_refused(model, tmp_path):
    save_pretrained(model, tmp_path, {})
    path = tmp_path / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        from_pretrained(tmp_path)


def test_tensors_that_do_not_fit_the_card_are_named(model, tmp_path):
    save_pretrained(model, tmp_path, {})
    tensors, card = load_tensors(tmp_path / WEIGHTS, "neurohelix.brainmt", 1)
    tensors["time_table"] = np.zeros((1, 4, 8), np.float32)
    save_tensors(tmp_path / WEIGHTS, "neurohelix.brainmt", 1, tensors, card)
    with pytest.raises(InputError, match="1 tensors do not fit.*time_table"):
        from_pretrained(tmp_path)


def test_an_empty_folder_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="holds no trained BrainMT"):
        from_pretrained(tmp_path)
