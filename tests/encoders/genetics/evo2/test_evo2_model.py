"""The whole network against a second implementation; what is causal stays causal; a prefix can be kept."""

import pytest
import torch

from encoders.genetics.evo2 import attention, block, hyena
from encoders.genetics.evo2.model import Evo2Model
from encoders.runs.errors import InputError

LENGTH = 70
# logits of about 5, and of about 34: the scales at which the released models' outputs were compared
SCALES = {5: 0.15, 34: 1.0}


def bases(rows, length, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.tensor([65, 67, 71, 84])[torch.randint(0, 4, (rows, length), generator=rng)]


@pytest.fixture(scope="module")
def tiny(official, load_tiny):
    config = official.config()
    return load_tiny(config, official.tensors(config)), config


@pytest.mark.parametrize("scale", SCALES)
def test_every_block_the_norm_and_the_logits_are_those_of_the_second_implementation(
    scale, official, reference, load_tiny
):
    config = official.config()
    tensors = official.tensors(config, scale=SCALES[scale])
    ids = bases(2, LENGTH)
    wanted = reference.run(config, tensors, ids)
    model = load_tiny(config, tensors)
    assert 0.6 * scale < wanted["unembed"].abs().max() < 1.6 * scale
    with torch.inference_mode():
        for name, exact in wanted.items():
            found, _ = model.output(ids, layer=name)
            error = (found.double() - exact).abs().max()
            limit = {"norm": 1e-4, "unembed": 6e-4}.get(name, 1e-5 * max(1, exact.abs().max()))
            assert error < limit, (name, error)
    exact64 = load_tiny(config, tensors, torch.float64)
    with torch.inference_mode():
        assert (exact64(ids) - wanted["unembed"]).abs().max() < 1e-11


@pytest.mark.parametrize(
    "change",
    [
        {"use_interpolated_rotary_pos_emb": True, "rotary_emb_scaling_factor": 128},
        {"rotary_emb_base": 1_000_000, "num_attention_heads": 2},
        {"eps": 0.1},  # large enough to tell outside the root from inside
        {"attn_layer_idxs": [0], "hcs_layer_idxs": [1], "hcm_layer_idxs": [2], "hcl_layer_idxs": [3], "num_layers": 4},
        {"hcm_filter_groups": 64, "hcs_filter_groups": 1, "state_size": 16},
    ],
)  # fmt: skip
def test_other_shapes_are_right_as_well(change, official, reference, load_tiny):
    config = official.config(**change)
    tensors = official.tensors(config)
    ids = bases(1, 40)
    wanted = reference.run(config, tensors, ids)["unembed"]
    with torch.inference_mode():
        assert (load_tiny(config, tensors, torch.float64)(ids) - wanted).abs().max() < 1e-11


def test_the_second_implementation_tells_the_details_apart(official, reference):
    """Each detail of the released models changes its outputs by more than the comparison allows."""
    config = official.config()
    tensors, ids = official.tensors(config), bases(1, 40)
    exact = reference.run(config, tensors, ids)["unembed"]

    def moved(change, settings=config):
        return (reference.run(settings, tensors | change, ids)["unembed"] - exact).abs().max()

    exactly = 1 / 10000 ** (torch.arange(0, 16, 2) / 16)
    heads = tensors["blocks.3.inner_mha_cls.Wqkv.weight"]
    flipped = {name: tensors[name].flip(-1) for name in tensors if name.endswith(".h")}
    assert moved({"blocks.3.inner_mha_cls.rotary_emb.inv_freq": exactly}) > 1e-3
    assert (
        moved(
            {"blocks.3.inner_mha_cls.Wqkv.weight": heads.view(3, 4, 16, 64).transpose(0, 1).reshape(192, 64)}
        )
        > 1
    )
    for name, taps in flipped.items():
        assert moved({name: taps}) > 0.1
    assert moved({}, config | {"eps": 1e-3}) > 1e-3


@pytest.mark.parametrize("method", ["fft", "blocks"])
def test_a_later_base_changes_nothing_before_it(method, tiny):
    model, _ = tiny
    ids = bases(2, 300)
    other = ids.clone()
    other[:, 200] = 78
    for module in model.modules():
        if isinstance(module, hyena.HyenaFilter):
            module.method = method
    with torch.inference_mode():
        a, b = model(ids), model(other)
    for module in model.modules():
        if isinstance(module, hyena.HyenaFilter):
            module.method = "auto"
    # blocks: nothing at all; FFT: its rounding, as in the authors' implementation (4e-5 at 34)
    assert (a[:, :200] - b[:, :200]).abs().max() <= {"blocks": 0, "fft": 3e-4}[method]
    assert (a[:, 200] - b[:, 200]).abs().max() > 1


def test_pads_on_the_right_change_nothing_before_them(tiny):
    model, _ = tiny
    ids = bases(3, 260)
    with torch.inference_mode():
        for pads in (1, 40, 800):
            padded = torch.cat([ids, torch.ones(3, pads, dtype=torch.int64)], 1)
            for layer, allowed in (("blocks.6.mlp.l3", 3e-4), ("norm", 3e-5), ("unembed", 3e-4)):
                alone, together = (model.output(i, layer=layer)[0][:, :260] for i in (ids, padded))
                assert (alone - together).abs().max() < allowed, (pads, layer)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_kept_prefix_gives_what_the_full_pass_gives(dtype, official, load_tiny):
    config = official.config()
    model, ids = load_tiny(config, official.tensors(config), dtype), bases(2, 400)
    exact, allowed = dtype == torch.float64, {torch.float64: 1e-11, torch.float32: 4e-4}[dtype]
    with torch.inference_mode():
        whole = model(ids)
        for cuts in ([200], [1, 2, 3], [127, 255, 256], [399], [130, 131]):
            prefix, pieces = None, []
            for first, last in zip([0, *cuts], [*cuts, 400], strict=True):
                out, prefix = model.output(ids[:, first:last], prefix=prefix, keep=True)
                assert prefix.length == last
                pieces.append(out)
            error = (torch.cat(pieces, 1) - whole).abs().max()
            assert error < allowed, (cuts, error)
        early, _ = model.output(
            ids[:, 200:], layer="blocks.4.mlp.l3", prefix=model.output(ids[:, :200], keep=True)[1]
        )
        wanted = model.output(ids, layer="blocks.4.mlp.l3")[0][:, 200:]
        assert (early - wanted).abs().max() < (1e-11 if exact else 1e-3)
        with pytest.raises(ValueError, match="kept by all blocks"):
            model.output(ids, layer="blocks.1", keep=True)


def test_small_pieces_give_what_large_ones_give(tiny, monkeypatch):
    """Groups of channels and heads, pieces of the MLP and rows of attention are a matter of memory only."""
    model, _ = tiny
    ids = bases(2, 300)
    with torch.inference_mode():
        whole = {
            layer: model.output(ids, layer=layer)[0]
            for layer in ("unembed", "blocks.2.filter", "blocks.1.mlp.l1")
        }
        _, prefix = model.output(ids[:, :100], keep=True)
        rest = model.output(ids[:, 100:], prefix=prefix)[0]
        for module in (attention, block, hyena):
            monkeypatch.setitem(module.GROUP_BYTES, "cpu", 70_000)
        monkeypatch.setattr(attention, "QUERIES", 7)
        assert len(model.blocks[2].filter._channel_groups(2, 300, torch.device("cpu"))) == 64
        for layer, wanted in whole.items():
            found = model.output(ids, layer=layer)[0]
            assert (found - wanted).abs().max() < 1e-5 * wanted.abs().max(), layer
        assert (model.output(ids[:, 100:], prefix=prefix)[0] - rest).abs().max() < 4e-4


def test_a_pass_stops_at_the_layer_asked_for(tiny):
    """Nothing behind it is computed: what lies behind can be missing."""
    model, _ = tiny
    broken = Evo2Model(model.config)
    broken.load_state_dict(model.state_dict())
    ids = bases(1, 20)
    with torch.inference_mode():
        wanted = model.output(ids, layer="blocks.4.mlp.l3")[0]
        for name in ("blocks.5", "blocks.6", "norm"):
            parent, _, last = name.rpartition(".")
            broken.get_submodule(parent).register_module(last, None)
        torch.testing.assert_close(broken.output(ids, layer="blocks.4.mlp.l3")[0], wanted, atol=0, rtol=0)
        with pytest.raises(TypeError):
            broken(ids)


def test_all_layers_of_the_authors_package_can_be_asked_for(tiny):
    model, _ = tiny
    layers = model.config.layers()
    ids = bases(2, 9)
    with torch.inference_mode():
        found = {layer: model.output(ids, layer=layer)[0] for layer in layers}
    for layer, value in found.items():
        assert value.shape == (2, 9, model.config.width(layer)), layer
        if layer not in ("unembed",) and "inner_attn" not in layer:
            model.get_submodule(layer)  # the same names as the modules and tensors of the files
    hyena_layers = {name.removeprefix("blocks.0.") for name in layers if name.startswith("blocks.0.")}
    assert hyena_layers == {
        "pre_norm", "projections", "filter", "out_filter_dense", "post_norm", "mlp", "mlp.l1", "mlp.l2", "mlp.l3",
    }  # fmt: skip
    mixed = found["embedding_layer"] + found["blocks.0.out_filter_dense"]
    torch.testing.assert_close(mixed + found["blocks.0.mlp.l3"], found["blocks.0"], atol=1e-5, rtol=0)
    with pytest.raises(InputError, match=r"no layer 'blocks.7'; it has 7 blocks, .*blocks.6.mlp.l3"):
        model.output(ids, layer="blocks.7")


def test_the_activation_is_in_the_first_block_only(tiny):
    model, _ = tiny
    kinds = [type(b.mlp.act).__name__ for b in model.blocks]
    assert kinds == ["GELU"] + ["Identity"] * 6


def test_bf16_rounds_weights_and_activations_but_not_poles_and_angles(official, load_tiny):
    config = official.config()
    tensors = official.tensors(config)
    half, exact, ids = load_tiny(config, tensors, torch.bfloat16), load_tiny(config, tensors), bases(1, 200)
    numbers = {name: tensor.dtype for name, tensor in half.state_dict().items()}
    wide = {name.rpartition(".")[2] for name, dtype in numbers.items() if dtype == torch.float32}
    assert wide == {"log_poles", "residues", "inv_freq"}
    assert set(numbers.values()) == {torch.float32, torch.bfloat16}
    with torch.inference_mode():
        found, wanted = half.output(ids, layer="norm")[0], exact.output(ids, layer="norm")[0]
    assert found.dtype == torch.bfloat16
    assert 1e-3 < (found.float() - wanted).norm() / wanted.norm() < 0.1
