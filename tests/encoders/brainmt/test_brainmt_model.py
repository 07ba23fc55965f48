"""BrainMT's network: size of the released form, order of tokens, what CLS sees, shapes, exact shortcuts."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from encoders.runs.errors import InputError

ROOT = Path(__file__).resolve().parents[3]
SMALL = {
    "grid": (20, 33, 17),
    "num_frames": 5,
    "widths": (2, 3, 4, 8),
    "mamba_layers": 2,
    "attention_layers": 2,
    "d_state": 3,
    "drop_path": 0.0,
}
PATCHES = 2 * 3 * 2


def make(seed=0, **changes):
    torch.manual_seed(seed)
    return BrainMT(BrainMTConfig(**{**SMALL, **changes}), num_outputs=3).double().eval()


def window(batch=2, frames=5, seed=1, grid=SMALL["grid"]):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, frames, 1, *grid, generator=generator, dtype=torch.float64)


def test_the_released_form_has_its_number_of_parameters():
    with torch.device("meta"):
        released = BrainMT(bidirectional=False, shared_attention_mlp=True)
        paper = BrainMT()
    assert sum(p.numel() for p in released.parameters()) == 39_104_961
    assert released.config.patches == (7, 6, 6) and released.space_table.shape == (1, 253, 512)
    # own norms and MLP in 8 blocks instead of 1, and 12 second directions
    mlp, norms = 2 * 512 * 1024 + 1024 + 512, 15 * 2 * 512
    second = 1024 * (4 + 1) + 64 * 1024 + 1024 * 32 + 1024 + 1024 * 16 + 1024
    assert sum(p.numel() for p in paper.parameters()) == 39_104_961 + 7 * mlp + norms + 12 * second


def test_the_names_people_know_make_the_same_network():
    with torch.device("meta"):
        known = BrainMT(embed_dim=256, depth=[3, 2], num_heads=4, num_frames=50, use_checkpoint=True)
        sized = BrainMT(img_size=(91, 109, 91), drop_path_rate=0.2)
    assert known.config == BrainMTConfig(
        widths=(32, 64, 128, 256),
        mamba_layers=3,
        attention_layers=2,
        num_heads=4,
        num_frames=50,
        use_checkpoint=True,
    )
    assert sized.config == BrainMTConfig(drop_path=0.2)
    with pytest.raises(TypeError, match="embed_dim"):
        BrainMT(BrainMTConfig(), embed_dim=64)


def test_a_model_configuration_of_the_original_is_taken_as_it_is():
    theirs = {
        "name": "BrainMT",
        "img_size": [91, 109, 91],
        "patch_size": 4,
        "in_chans": 1,
        "num_classes": 3,
        "embed_dim": 512,
        "depth": [12, 8],
        "rms_norm": True,
        "residual_in_fp32": True,
        "fused_add_norm": True,
        "num_heads": 2,
        "qkv_bias": True,
        "num_frames": 200,
        "drop_rate": 0.0,
        "drop_path_rate": 0.1,
        "attn_drop_rate": 0.0,
        "fc_drop_rate": 0.0,
    }
    with torch.device("meta"):
        model = BrainMT(**theirs)
        assert model.config == BrainMTConfig() and model.head.linear.out_features == 3
        with pytest.raises(InputError, match="patch_size=8 was asked for, but BrainMT has patch_size=4 only"):
            BrainMT(**{**theirs, "patch_size": 8})
        with pytest.raises(InputError, match=r"two numbers were wanted.*depth=\(12, 8\)"):
            BrainMT(depth=24)
        with pytest.raises(TypeError, match="no option window_size"):
            BrainMT(window_size=4)


@pytest.mark.parametrize("embedding", ["cls", "mean", "voxel"])
def test_shapes_for_any_grid_and_length(embedding):
    model = make(embedding=embedding)
    assert model.config.patches == (2, 3, 2)
    for frames in (1, 4, 5, 8):  # shorter and longer than the time table
        assert model.forward_features(window(frames=frames)).shape == (2, 8)
    assert model(window()).shape == (2, 3)
    assert model.voxel_features(window()).shape == (2, PATCHES, 8)
    assert model.forward_features(window(grid=(33, 17, 40))).shape == (2, 8)  # interpolated space table


def test_tokens_are_cls_then_patch_major_with_time_inside():
    model = make()
    x = window(batch=1)
    tokens = model.embed_tokens(x)[0]
    frames = model.stem(x[0]).flatten(2)  # [T, D, P]
    space, time = model.space_table[0], model.time_table[0]
    torch.testing.assert_close(tokens[0], model.cls_token[0, 0] + space[0])
    for patch in range(PATCHES):
        for t in range(5):
            expected = frames[t, :, patch].float() + space[1 + patch] + time[t]
            torch.testing.assert_close(tokens[1 + patch * 5 + t], expected, rtol=1e-5, atol=1e-6)


def test_axes_are_y_x_z():
    model = make(widths=(8, 8, 8, 8), grid=(40, 90, 70))
    assert model.config.patches == (3, 6, 5)
    x = torch.zeros(1, 1, 1, 40, 90, 70, dtype=torch.float64)
    empty = model.embed_tokens(x)
    x[..., :6, -6:, :6] = 10.0  # first voxels along Y and Z, last along X
    changed = (model.embed_tokens(x) - empty).abs().sum(-1)[0, 1:].reshape(3, 6, 5)
    assert changed[:, 5, 0].min() > 0
    assert changed[:, 0].sum() == changed[:, :, 4].sum() == 0  # a patch sees 39 voxels to each side


@pytest.mark.parametrize("form", [{}, {"shared_attention_mlp": True}])
def test_cls_depends_on_every_frame_and_every_patch(form):
    model, x = make(**form), window(batch=1).requires_grad_()
    model.forward_features(x).square().sum().backward()
    assert (x.grad.abs().sum((0, 2, 3, 4, 5)) > 0).all()
    tokens = model.embed_tokens(window(batch=1)).detach().requires_grad_()
    scanned = tokens
    for block in model.mamba:
        scanned = block(scanned)
    scanned[:, 0].square().sum().backward()  # even before the attention
    assert (tokens.grad.abs().sum(-1) > 0).all()


def test_in_the_released_form_cls_sees_nothing_before_the_attention():
    model = make(bidirectional=False, shared_attention_mlp=True)
    one, other = (model.scanned_tokens(window(seed=seed)) for seed in (1, 2))
    assert torch.equal(one[:, 0], other[:, 0]) and not torch.equal(one[:, 1], other[:, 1])
    one, other = (model.forward_features(window(seed=seed)) for seed in (1, 2))
    assert not torch.allclose(one, other)


def test_computing_only_cls_in_the_last_block_is_exact():
    model = make()
    tokens = model.scanned_tokens(window())
    whole = model.attended_tokens(tokens)
    assert whole.shape == (2, 1 + PATCHES * 5, 8)
    torch.testing.assert_close(model.attended_tokens(tokens, num_queries=1), whole[:, :1])
    torch.testing.assert_close(model.forward_features(window()), whole[:, 0])


def test_shared_norm_and_mlp_are_one_module_and_own_ones_are_not():
    shared, own = make(shared_attention_mlp=True), make()
    first, second = shared.attention
    assert first.norm1 is first.norm2 is second.norm1 and first.mlp is second.mlp
    first, second = own.attention
    assert len({id(m) for m in (first.norm1, first.norm2, second.norm1, second.norm2)}) == 4
    assert first.mlp is not second.mlp


KEPT = (0, 3, 4, 10)


def test_brain_tokens_are_the_tokens_of_those_patches_with_their_own_positions():
    whole, part = make(), make(tokens="brain", brain_patches=KEPT)
    part.load_state_dict(whole.state_dict())
    tokens, kept = whole.embed_tokens(window()), part.embed_tokens(window())
    assert kept.shape == (2, 1 + 4 * 5, 8)
    assert torch.equal(kept[:, 0], tokens[:, 0])
    assert torch.equal(kept[:, 1:].unflatten(1, (4, 5)), tokens[:, 1:].unflatten(1, (PATCHES, 5))[:, KEPT])
    assert part.voxel_features(window()).shape == (2, 4, 8)
    everything = make(tokens="brain", brain_patches=tuple(range(PATCHES)))
    torch.testing.assert_close(everything(window()), whole(window()))


def test_brain_tokens_that_make_no_sense_are_refused():
    with pytest.raises(InputError, match="needs brain_patches"):
        BrainMT(BrainMTConfig(**SMALL, tokens="brain"))
    with pytest.raises(InputError, match="patches 0 to 11"):
        BrainMTConfig(**SMALL, tokens="brain", brain_patches=(3, 12))
    with pytest.raises(InputError, match=r"3 x 2 x 3 patches.*keeps the brain's patches of 2 x 3 x 2"):
        make(tokens="brain", brain_patches=KEPT)(window(grid=(33, 17, 40)))


def test_recomputing_gives_the_same_gradients():
    plain, saving = make(), make(use_checkpoint=True)
    for model in (plain, saving):
        model.train()
        model(window()).square().sum().backward()
    for (name, a), b in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad, msg=name)


def test_recomputing_leaves_the_attention_core_alone(monkeypatch):
    calls = []
    core = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or core(*a, **k)
    )
    model = make(use_checkpoint=True).train()
    model(window()).sum().backward()
    assert len(calls) == 2  # one per block, none in backward


def test_drop_path_skips_whole_samples_in_training_only():
    model = make(drop_path=0.5, attention_layers=1, mamba_layers=1)
    x = window(batch=1).expand(16, -1, -1, -1, -1, -1)
    same = model(x).detach()
    assert (same - same[:1]).abs().max() < 1e-12
    torch.manual_seed(0)
    skipped = model.train()(x).detach()
    assert 2 <= len(skipped.round(decimals=9).unique(dim=0)) <= 8  # two blocks with two and one branches


def test_attention_dropout_is_off_in_evaluation():
    with_dropout, without = make(attention_dropout=0.5), make()
    assert torch.equal(with_dropout(window()), without(window()))


def test_convolutions_start_from_he_initialisation():
    stem = BrainMT(widths=(16, 32, 64, 128), grid=(32, 32, 32), mamba_layers=0, attention_layers=0).stem
    for conv in (stem.block1.conv1, stem.downsample1):
        wanted = (2 / (27 * conv.in_channels)) ** 0.5
        assert abs(conv.weight.std() / wanted - 1) < 0.05


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("embedding", ["cls", "mean", "voxel"])
def test_half_precision_stays_close_as_autocast_and_as_weights(dtype, embedding):
    model, x = make(embedding=embedding).float(), window().float()
    exact = model.forward_features(x)
    with torch.autocast("cpu", dtype):
        mixed = model.forward_features(x)
    pure = model.to(dtype).forward_features(x.to(dtype))
    assert pure.dtype == dtype
    for found in (mixed, pure):
        torch.testing.assert_close(found.float(), exact, rtol=0.1, atol=0.1 * exact.abs().max().item())


def test_the_residual_stream_is_wide_whatever_the_weights_are():
    model = make().to(torch.bfloat16)
    seen = []
    for block in model.mamba:
        block.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    model(window().to(torch.bfloat16))
    assert seen == [torch.float32, torch.float32]


COMPILED = """
import torch
from encoders.brainmt.model import BrainMT
torch.manual_seed(0)
model = BrainMT(img_size=(33, 20, 17), num_frames=3, embed_dim=16, depth=(1, 2), drop_path_rate=0.0, use_checkpoint=True)
x = torch.randn(2, 3, 1, 20, 33, 17)
def outcome():
    model.zero_grad()
    y = model(x)
    y.sum().backward()
    return [y.detach()] + [p.grad.clone() for p in model.parameters()]
exact, names = outcome(), list(model.state_dict())
model.compile_dense(backend="aot_eager")
for a, b in zip(outcome(), exact, strict=True):
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
assert list(model.state_dict()) == names
print(torch._dynamo.utils.counters["stats"]["unique_graphs"])
"""


def test_the_dense_parts_compile_each_as_one_graph_to_the_same_values():
    # a process of its own: the run-time type checks of pytest would break the graphs
    done = subprocess.run(
        [sys.executable, "-c", COMPILED], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 3  # the stem and two different attention blocks


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_heads": 3}, "no multiple of num_heads 3"),
        ({"num_heads": 0}, "num_heads is 0; give 1 or more"),
        ({"num_frames": 0}, "num_frames is 0; give 1 or more"),
        ({"grid": (0, 5, 5)}, r"grid is \(0, 5, 5\); give 1 or more"),
        ({"expand": 0}, "expand is 0; give 1 or more"),
        ({"mamba_layers": -1}, "mamba_layers is -1; give 0 or more"),
        ({"drop_path": 1.0}, "drop_path is 1.0; give a probability"),
        ({"attention_dropout": -0.1}, "attention_dropout is -0.1; give a probability"),
        ({"mlp_ratio": 0.001}, "mlp_ratio is 0.001; give at least 1 / 512"),
    ],
)
def test_bad_shapes_are_one_sentence(option, message):
    with pytest.raises(InputError, match=message):
        BrainMTConfig(**option)
