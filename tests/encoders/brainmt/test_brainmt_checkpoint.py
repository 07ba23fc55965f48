"""A trained model on disk: round trips, the hub, damage, cards that do not fit, copies that name nobody."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.brainmt.checkpoint import WEIGHTS, from_pretrained, save_pretrained
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from encoders.runs.artifact import load_tensors, save_tensors
from encoders.runs.errors import InputError

spec = importlib.util.spec_from_file_location(
    "hub_server", Path(__file__).parents[1] / "runs" / "hub_server.py"
)
hub_server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hub_server)
IDS = ["sub-0417", "1733842", "sub-0932"]
CARD = {
    "targets": [
        {"name": "sex", "classes": ["F", "M"], "mean": 0.0, "sd": 1.0, "weights": [0.75, 1.5]},
        {"name": "age", "classes": [], "mean": 51.25, "sd": 7.5, "weights": []},
    ],
    "preprocessing": {"store_digest": "ab" * 32, "options": {"normalisation": "global"}},
    "trained_on": {"split_digest": "cd" * 32, "ids": IDS},
    "training": {"seed": 3, "init": "/home/somebody/project-x/best", "lr": 0.001},
    "started_from": {"weights_sha256": "ef" * 32, "revision": None},
    "epoch": 4,
    "validation": {"sex": {"auroc": 0.625}},
    "private_remarks": "sub-0417 moved a lot",
}


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


def rewrite(folder, change):
    """Change (tensors, card) of a saved model in place, with a valid sha256."""
    tensors, card = load_tensors(folder / WEIGHTS, "neurohelix.brainmt", 1)
    change(tensors, card)
    save_tensors(folder / WEIGHTS, "neurohelix.brainmt", 1, tensors, card)


def test_every_tensor_that_does_not_fit_the_card_is_named_with_its_shape(model, tmp_path):
    save_pretrained(model, tmp_path, {})

    def spoil(tensors, _):
        tensors["time_table"] = np.zeros((1, 4, 8), np.float32)
        tensors["cls_token"] = np.zeros((1, 1, 9), np.float32)
        del tensors["norm_f.weight"], tensors["head.linear.bias"]
        tensors["extra"] = np.zeros((2, 5), np.float32)

    rewrite(tmp_path, spoil)
    with pytest.raises(InputError) as error:
        from_pretrained(tmp_path)
    message = str(error.value)
    assert "Missing (2): norm_f.weight [8], head.linear.bias [3]." in message
    assert "Unexpected (1): extra [2, 5]." in message
    assert "cls_token is [1, 1, 9], [1, 1, 8] was wanted; time_table is [1, 4, 8], [1, 3, 8]" in message
    assert "Of another shape (2)" in message


def test_a_card_of_a_newer_release_or_without_a_configuration_is_one_sentence(model, tmp_path):
    save_pretrained(model, tmp_path, {})
    rewrite(tmp_path, lambda _, card: card["config"].update(rotary=True))
    with pytest.raises(InputError, match=r"does not know \(rotary\); upgrade"):
        from_pretrained(tmp_path)
    rewrite(tmp_path, lambda _, card: card.pop("config"))
    with pytest.raises(InputError, match="the card lacks config"):
        from_pretrained(tmp_path)


def test_what_a_card_does_not_say_is_unknown_and_what_belongs_to_a_file_is_not_copied(model, tmp_path):
    save_pretrained(model, tmp_path / "a", {"weights_sha256": "of another", "revision": "of another"})
    header = load_tensors(tmp_path / "a" / WEIGHTS, "neurohelix.brainmt", 1)[1]
    assert header["targets"] is header["preprocessing"] is header["trained_on"] is None
    assert not {"weights_sha256", "revision"} & set(header)
    assert set(header["versions"]) == {"neurohelix", "torch"}


def test_the_methods_of_the_model_do_the_same(model, tmp_path):
    digest = model.save_pretrained(str(tmp_path / "m"), CARD)
    again = BrainMT.from_pretrained(str(tmp_path / "m"))
    assert not again.training and again.config == model.config
    assert again.card["weights_sha256"] == digest and again.card["revision"] is None
    assert again.card["trained_on"] == CARD["trained_on"]
    assert again.save_pretrained(tmp_path / "copy") == digest  # whom it has seen is not forgotten
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), model.parameters(), strict=True))


def test_half_precision_weights_are_kept_exactly(model, tmp_path):
    model.to(torch.bfloat16).save_pretrained(tmp_path)
    again = BrainMT.from_pretrained(tmp_path)
    for ours, theirs in zip(again.parameters(), model.parameters(), strict=True):
        assert ours.dtype == torch.float32 and torch.equal(ours, theirs.float())


LOAD = """
import json, sys
from encoders.brainmt.checkpoint import from_pretrained
from encoders.runs.errors import InputError

found = []
for name, revision in json.loads(sys.argv[1]):
    try:
        model, card = from_pretrained(name, revision=revision)
        found.append([card["revision"], card["weights_sha256"], model.training])
    except InputError as error:
        found.append(str(error))
print(json.dumps(found))
"""


@pytest.mark.parametrize("model", [False], ids=["own"], indirect=True)
def test_a_hub_id_gives_the_model_and_the_commit_it_is_of(model, tmp_path):
    def load(cache, *wanted):
        return hub_server.run_against(endpoint, tmp_path / cache, LOAD, json.dumps(wanted))

    digest = save_pretrained(model, tmp_path / "published", CARD, shareable=True)
    (tmp_path / "published" / "modeling.py").write_text("raise SystemExit('code must not be fetched')")
    with hub_server.serving(tmp_path / "published") as (served, endpoint):
        name, commit = hub_server.REPOSITORY, hub_server.COMMIT
        newest, pinned, absent = load("a", (name, None), (name, commit), ("nobody/nothing", None))
        assert newest == pinned == [commit, digest, False]
        assert served.fetched == [WEIGHTS]  # no card, no code, and the second time nothing
        assert absent.startswith("nobody/nothing (revision main) could not be downloaded")
        del served.files[WEIGHTS]
        (message,) = load("b", (name, None))
        assert "has no model.safetensors" in message


def test_a_revision_of_a_folder_and_a_file_for_a_folder_are_one_sentence(model, tmp_path):
    save_pretrained(model, tmp_path / "m", {})
    with pytest.raises(InputError, match="is a folder, which has no revision 'v1'"):
        from_pretrained(tmp_path / "m", revision="v1")
    (tmp_path / "best.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"convert_brainmt\.py --source .*best\.pth"):
        from_pretrained(tmp_path / "best.pth")
    with pytest.raises(InputError, match="neither a folder nor a hub id"):
        from_pretrained("no-such-model")


def test_a_shareable_copy_names_nobody_in_any_byte_and_predicts_the_same(model, tmp_path):
    save_pretrained(model, tmp_path / "own", CARD)
    assert all(name.encode() in (tmp_path / "own" / WEIGHTS).read_bytes() for name in IDS)
    save_pretrained(*from_folder(tmp_path / "own"), shareable=True)
    shared = tmp_path / "shared"
    assert {path.name for path in shared.iterdir()} == {WEIGHTS, "card.json"}
    for path in shared.iterdir():
        content = path.read_bytes()
        assert not [
            name for name in [*IDS, "somebody", "project-x", "private_remarks"] if name.encode() in content
        ]
        assert path.stat().st_mode & 0o777 == 0o644
    again, card = from_pretrained(shared)
    note = card["trained_on"].pop("note")
    seen = {"split_digest": "cd" * 32, "people": 3, "ids": None, "complete": True}
    assert card["trained_on"] == seen and "sharing" in note
    assert card["training"] == {"seed": 3, "init": "(path removed)", "lr": 0.001}
    assert [target["weights"] for target in card["targets"]] == [[], []]  # class counts follow from them
    assert card["targets"][1]["mean"] == 51.25 and card["preprocessing"] == CARD["preprocessing"]
    assert card["started_from"] == CARD["started_from"]
    assert card["epoch"] == 4 and card["validation"] == CARD["validation"]
    x = torch.randn(2, 3, 1, 17, 16, 16)
    assert torch.equal(again(x), model(x))

    save_pretrained(again, tmp_path / "again", card | {"trained_on": card["trained_on"]}, shareable=True)
    assert from_pretrained(tmp_path / "again")[1]["trained_on"]["people"] == 3


def from_folder(folder):
    """Arguments of `save_pretrained` that copy a model into the folder `shared` beside it."""
    model, card = from_pretrained(folder)
    return model, folder.with_name("shared"), card


def test_an_id_that_cannot_be_removed_stops_the_sharing(model, tmp_path):
    for card in (
        {"validation": {"r of sub-0417": 0.5}},
        {"targets": [{"name": "sub-0417", "weights": []}]},
        {"source": {"file": "1733842_best.pth"}},
    ):
        with pytest.raises(InputError, match="names people that the model has seen, in "):
            save_pretrained(model, tmp_path / "x", CARD | card, shareable=True)
        assert not (tmp_path / "x").exists()
    # no id, although one is part of it; and an id too short to be told from a number
    near = {"source": {"file": "91733842"}, "trained_on": {"split_digest": "d", "ids": [*IDS, "4"]}}
    save_pretrained(model, tmp_path / "x", CARD | near, shareable=True)


def test_an_empty_folder_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="holds no trained BrainMT"):
        from_pretrained(tmp_path)
