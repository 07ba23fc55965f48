"""BrainMT as a tower to tune: the same windows twice, one vector per person, vectors as embed_fmri makes them."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from align.tower import Tower
from encoders.brainmt.checkpoint import from_pretrained, save_pretrained
from encoders.brainmt.embed import embed
from encoders.brainmt.embed_config import EmbedFMRI
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.store import FMRIStore
from encoders.brainmt.tunable import TunableBrainMT, TunableOptions, provenance_of, starting_tower
from encoders.brainmt.tuned_card import tuned_card
from encoders.cohort import Split
from encoders.runs.devices import accelerator as make_accelerator

spec = importlib.util.spec_from_file_location("tiny_study", Path(__file__).with_name("tiny_study.py"))
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)
CONFIG = BrainMTConfig(
    grid=(7, 5, 6),
    num_frames=8,
    widths=(4, 4, 8, 16),
    mamba_layers=2,
    attention_layers=1,
    d_state=2,
    drop_path=0.2,
    embedding="mean",
)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A store of twelve people and a model."""
    made = tiny.make_study(tmp_path_factory.mktemp("made") / "study", train=6, val=3, test=3)
    torch.manual_seed(0)
    save_pretrained(BrainMT(CONFIG), made.path("brainmt"), {})
    return made


def tower_of(study, **options):
    store, split = FMRIStore(study.path("store")), Split.load(study.path("splits"))
    model, _ = starting_tower(
        study.path("brainmt"), drop_path=None, use_checkpoint=False, device=torch.device("cpu")
    )
    options = TunableOptions(**{"windows": 3, "eval_windows": 2, **options})
    return TunableBrainMT(
        module=model, store=store, train=split.train, options=options, best=study.folder / "best"
    )


def test_it_is_a_tower(study):
    assert isinstance(tower_of(study), Tower)


@pytest.mark.parametrize("preload", [True, False])
def test_a_second_walk_reads_the_same_windows_and_another_epoch_others(study, preload):
    tower = tower_of(study, preload=preload)
    chunks = [["sub-0000", "sub-0003"], ["sub-0002"], []]
    first, again, later = (list(tower.feed(chunks, epoch=epoch)) for epoch in (4, 4, 5))
    assert [len(windows) for windows in first] == [6, 3, 0]
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], later[0])
    alone = next(tower.feed([["sub-0003"]], epoch=4))
    assert torch.equal(alone, first[0][3:])  # whoever else is in the chunk


def test_all_runs_of_a_person_are_drawn(study):
    tower = tower_of(study)
    drawn = {
        tower._windows.run_of(index).name for epoch in range(20) for index in tower.items("sub-0000", epoch)
    }
    assert len(drawn) == 2 and all("sub-0000" in name for name in drawn)


def test_a_persons_vector_is_the_mean_of_his_windows(study):
    tower = tower_of(study)
    (windows,) = tower.feed([["sub-0001", "sub-0004"]], epoch=0)
    with torch.no_grad():
        found = tower.forward(windows)
        wanted = tower.module.forward_features(windows[3:]).mean(0)
    assert found.shape == (2, 16)
    torch.testing.assert_close(found[1], wanted, atol=1e-6, rtol=1e-5)
    assert tower.forward(windows[:0]).shape == (0, 16)


def test_vectors_are_those_of_embed_fmri_and_leave_the_mode_as_it_was(study):
    tower = tower_of(study, unfrozen_blocks=1)
    tower.training_mode()
    modes = [part.training for part in tower.module.modules()]
    found = tower.vectors(["sub-0007", "sub-0000"], make_accelerator(seed=0))
    assert [part.training for part in tower.module.modules()] == modes and any(modes)
    wanted, _ = embed(
        tower.store,
        study.path("brainmt"),
        EmbedFMRI(windows=2),
        partial=study.folder / "partial.safetensors",
        device=torch.device("cpu"),
    )
    np.testing.assert_allclose(found, wanted.select(["sub-0007", "sub-0000"]), atol=1e-5)


def test_rates_fall_from_the_last_block_down_and_frozen_blocks_rest(study):
    tower = tower_of(study, lr=0.1, layer_decay=0.5)
    groups = tower.parameter_groups()
    rates = sorted({round(group["peak_lr"], 9) for group in groups}, reverse=True)
    assert rates[:3] == [0.1, 0.05, 0.025]
    trained = {id(p) for group in groups for p in group["params"]}
    assert trained == {id(p) for n, p in tower.module.named_parameters() if not n.startswith("head.")}
    frozen = tower_of(study, unfrozen_blocks=1, lr=0.1)
    (rate,) = {group["peak_lr"] for group in frozen.parameter_groups()}
    assert rate == pytest.approx(0.1)
    frozen.training_mode()
    assert frozen.module.attention[0].training and not frozen.module.mamba[0].training


def test_drop_path_can_be_set_anew(study):
    model, card = starting_tower(
        study.path("brainmt"), drop_path=0.0, use_checkpoint=True, device=torch.device("cpu")
    )
    assert (model.config.drop_path, model.config.use_checkpoint) == (0.0, True)
    assert model.attention[0].drop_path.probability == 0.0
    x = torch.randn(2, 8, 1, 7, 5, 6)
    with torch.no_grad():
        whole, _ = from_pretrained(study.path("brainmt"))
        torch.testing.assert_close(model.forward_features(x), whole.forward_features(x))
    assert provenance_of(card, FMRIStore(study.path("store")))["trained_on"]["complete"] is False


@pytest.mark.parametrize(
    ("before", "partner", "seen", "complete"),
    [
        ({"split_digest": "a", "ids": ["x"]}, {}, {"p", "x"}, True),
        (None, {}, {"p"}, False),
        ({"split_digest": "a", "ids": ["x"]}, {"split_digest": "b", "ids": ["g"]}, {"p", "x", "g"}, True),
        ({"split_digest": "a", "ids": ["x"]}, {"split_digest": "b", "ids": None}, {"p", "x"}, False),
        (
            {"split_digest": "a", "ids": ["x"]},
            {"split_digest": "own", "ids": None},
            {"p", "x", "sub-0000", "sub-0008"},
            True,
        ),
        (
            {"split_digest": "a", "ids": ["x"], "complete": False},
            {"split_digest": "b", "ids": ["g"]},
            {"p", "x", "g"},
            False,
        ),
    ],
)
def test_the_card_names_everybody_that_anything_was_learned_from(study, before, partner, seen, complete):
    split = Split.load(study.path("splits"))
    if partner.get("split_digest") == "own":
        partner = {"split_digest": split.digest, "ids": None}
    card = tuned_card(
        {"weights_sha256": "w", "revision": None, "trained_on": before},
        people=["p"],
        partner={"trained_on": partner or None},
        split=split,
        store=FMRIStore(study.path("store")),
        training={"lr": 1},
    )
    assert seen <= set(card["trained_on"]["ids"]) and not set(split.test) & set(card["trained_on"]["ids"])
    assert card["trained_on"]["complete"] is complete
    assert card["trained_on"]["split_digest"] == split.digest
