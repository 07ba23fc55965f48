import json

import pytest
import yaml

from encoders.genetics.encoder_choice import kind_of
from encoders.genetics.evo2.checkpoint import empty_model
from encoders.genetics.evo2.config import Evo2Config
from encoders.genetics.evo2.model_files import evo2_facts, read_config
from encoders.genetics.evo2.released import NEEDS_FP8, RELEASED, needs_fp8, released_config, released_name
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles

PARAMETERS = {
    "1b_base": 1_107_989_760,
    "7b_base": 6_481_059_584,
    "7b_262k": 6_481_059_584,
    "7b": 6_581_722_880,
    "40b": 41_117_574_144,
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_models_have_the_sizes_that_are_known_of_them(name):
    config = released_config(f"evo2_{name}")
    model = empty_model(config)
    if name in PARAMETERS:
        assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]
    assert config.head_size == 128
    assert needs_fp8(config) == (name in NEEDS_FP8)
    order = "".join(config.kind(block)[-1] for block in range(8))
    assert order == "smlnsmls"[:8] or config.kind(3) == "attn"
    attention = [block for block in range(config.num_layers) if config.kind(block) == "attn"]
    assert attention == [block for block in (3, 10, 17, 24, 31, 35, 42, 49) if block < config.num_layers]


def test_the_1b_has_the_tensors_that_are_known_of_it():
    model = empty_model(released_config("1b_base"))
    assert (len(list(model.parameters())), len(list(model.buffers()))) == (265, 4)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert shapes["blocks.0.filter.h"] == (128, 1, 7)
    assert shapes["blocks.1.filter.h"] == (128, 1, 128)
    assert shapes["blocks.2.filter.log_poles"] == (1920, 16, 1)
    assert shapes["blocks.3.inner_mha_cls.rotary_emb.inv_freq"] == (64,)


def test_names_of_files_repositories_and_folders():
    known = {
        "arcinstitute/evo2_7b": "7b",
        "evo2_40b.pt.part1": "40b",
        "evo-design/evo-2-7b-8k-microviridae": "7b_microviridae",
        "/data/evo2_1b_base/": "1b_base",
        "EVO2_7B_262K.pt": "7b_262k",
        "arcinstitute/evo2_9b": None,
        "caduceus": None,
    }
    assert {text: released_name(text) for text in known} == known
    with pytest.raises(InputError, match="evo2_9b is no released Evo 2; known are 1b_base, 7b_base"):
        released_config("evo2_9b")


def test_the_advised_layers():
    assert released_config("7b").default_layer() == "blocks.28.mlp.l3"
    assert released_config("7b_base").default_layer() == "blocks.28.mlp.l3"
    assert released_config("40b").default_layer() == "blocks.20.mlp.l3"
    assert released_config("1b_base").default_layer() == "blocks.21.mlp.l3"


def test_official_keys_are_read_and_written_alike(official, tmp_path):
    content = official.config(use_interpolated_rotary_pos_emb=True, rotary_emb_scaling_factor=32)
    path = tmp_path / "evo2.yml"
    path.write_text(yaml.safe_dump(content))
    config = Evo2Config.from_yaml(path)
    assert (config.hidden_size, config.hcl_layer_idxs, config.rotary_emb_scaling_factor) == (64, (2, 6), 32.0)
    assert Evo2Config.from_official(config.official(), "again") == config
    # without interpolation the factor means nothing; a text such as 1e-6 is a number in YAML 1.1's eyes too
    assert (
        Evo2Config.from_official(
            content | {"use_interpolated_rotary_pos_emb": False}, "x"
        ).rotary_emb_scaling_factor
        == 1
    )
    assert Evo2Config.from_official(content | {"eps": "1e-6"}, "x").eps == 1e-6
    del content["inner_mlp_size"]  # 8/3 of 64, rounded up to a multiple of 16
    assert Evo2Config.from_official(content, "x").inner_mlp_size == 176
    with pytest.raises(InputError, match="x lacks inner_mlp_size"):
        Evo2Config.from_official(content | {"inner_size_multiple_of": "16"}, "x")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"hidden_size": None}, "lacks hidden_size"),
        ({"interleave": False}, "interleave is False; every released Evo 2 has True"),
        ({"proj_groups": 4}, "proj_groups is 4"),
        ({"hcs_layer_idxs": [0]}, r"name blocks \[0, 1, 2, 3, 5, 6\]; each of 0 to 6"),
        ({"hcs_layer_idxs": "0, 4"}, "hcs_layer_idxs is '0, 4'; a list of blocks"),
        ({"hcm_filter_length": 7}, "fewer than 128 taps"),
        ({"hcm_filter_groups": 24}, "hidden_size 64 is no multiple of hcm_filter_groups 24"),
        ({"num_heads": 4, "num_attention_heads": 64}, "heads of 1 channels"),
        ({"max_seqlen": True}, "max_seqlen is True; a number above 0"),
        ({"eps": -1}, "eps is -1; a number above 0"),
        ({"mlp_activation": "relu"}, "gelu or silu"),
        ({"hcl_filter_groups": 8}, "hcl_filter_groups differs"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*num_heads unknown")
def test_what_is_not_a_released_kind_of_model_is_refused(change, told, official):
    with pytest.raises(InputError, match=told):
        Evo2Config.from_official(official.config(**change), "tiny.yml")


def test_unknown_keys_are_named(official):
    with pytest.warns(UserWarning, match=r"tiny.yml: a_new_key unknown to this release and not used"):
        Evo2Config.from_official(official.config(a_new_key=1), "tiny.yml")


def test_unreadable_yaml(tmp_path):
    path = tmp_path / "evo2.yml"
    for text, told in (("a: [", "not a readable YAML"), ("- 1", "holds no mapping")):
        path.write_text(text)
        with pytest.raises(InputError, match=told):
            Evo2Config.from_yaml(path)


def test_where_a_folder_says_its_shape(official, tmp_path):
    def files(*names, **contents):
        folder = tmp_path / f"folder{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        for name in names:
            (folder / name).touch()
        for name, text in contents.items():
            (folder / name.replace("_", ".")).write_text(text)
        return ModelFiles(folder=folder, name=folder.name)

    shape = yaml.safe_dump(official.config())
    found, random_weights = read_config(files("evo2_7b.pt", tiny_yml=shape))  # a YAML beside a known name
    assert (found.hidden_size, random_weights) == (64, False)
    assert read_config(files("evo2_7b.pt"))[0] == released_config("7b")
    assert read_config(files("evo2_40b.pt.part0", "evo2_40b.pt.part1"))[0] == released_config("40b")
    ours = json.dumps({"model_type": "evo2"} | official.config() | {"random_weights_seed": 1})
    assert read_config(files("model.safetensors", config_json=ours))[1] is True
    with pytest.raises(InputError, match="holds 2 YAML files"):
        read_config(files("a.yml", "b.yaml"))
    with pytest.raises(InputError, match=r"says nowhere what shape .*evo2_7b.pt"):
        read_config(files("weights.pt", config_json='{"model_type": "evo2"}'))
    for made in (files("evo2_7b.pt"), files("x.pt.part0", tiny_yml=shape), files("x", config_json=ours)):
        assert kind_of(made).name == "Evo 2"
    with pytest.raises(InputError, match="holds weights.pt, but nothing says what it is"):
        kind_of(files("weights.pt"))


def test_operations_are_those_of_the_matrices(official, tmp_path):
    (tmp_path / "evo2_7b.pt").touch()
    facts = evo2_facts(ModelFiles(folder=tmp_path, name="x"))
    assert (facts.dim, facts.context) == (4096, 1_048_576)
    # two operations per weight and base in 29 of 32 blocks, two strands; attention over 1,000 bases adds little
    weights = 29 * (4 * 4096**2 + 3 * 4096 * 11264)
    assert facts.operations(1000) / (2 * 2 * 1000 * weights) == pytest.approx(1.0, abs=0.01)
    assert facts.operations(2_000_000) / facts.operations(1_000_000) > 3  # where attention is most of it
    config = released_config("7b")
    assert config.operations(10, layer="embedding_layer") == 0
    assert config.operations(10, layer="norm") < config.operations(10)
