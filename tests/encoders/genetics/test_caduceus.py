"""The native Caduceus against a direct, step-by-step reading of the architecture in float64."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch.utils.flop_counter import FlopCounterMode

from encoders.genetics import caduceus
from encoders.genetics.caduceus_checkpoint import load_caduceus, write_random_checkpoint
from encoders.genetics.tokenizer import encode_bases
from encoders.runs.errors import InputError

SEQUENCES = ["ACGTTGCANGGATCC", "TTTACGGRCATAGCA"]


@pytest.fixture
def checkpoint(tmp_path):
    """A folder with weights that are all different: ones and zeros would hide a swapped name."""

    def make(kind="ph", n_layer=3, changes=None):
        folder = tmp_path / f"{kind}{n_layer}"
        write_random_checkpoint(folder, kind=kind, n_layer=n_layer, d_model=20, d_state=5, expand=2)
        path = folder / "model.safetensors"
        random = torch.Generator().manual_seed(7)
        tensors = load_file(path)
        for name, tensor in tensors.items():
            if tensor.is_floating_point():
                tensors[name] = tensor + 0.3 * torch.randn(tensor.shape, generator=random)
        save_file(tensors, path)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(config | (changes or {})))
        return folder

    return make


# -- the same model written down independently, token by token, on the tensors as the file names them


def norm(x, weight, eps=1e-5):
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + eps) * weight


def mamba(u, w, own, shared):
    """One direction over (L, D); ``own`` and ``shared`` are name prefixes."""
    x, z = (u @ w[f"{shared}.in_proj.weight"].T).chunk(2, -1)
    taps, bias = w[f"{own}.conv1d.weight"][:, 0], w[f"{own}.conv1d.bias"]
    padded = torch.cat([torch.zeros(taps.shape[1] - 1, x.shape[1], dtype=x.dtype), x])
    x = F.silu(torch.stack([(padded[t : t + taps.shape[1]].T * taps).sum(1) + bias for t in range(len(u))]))
    rank = w[f"{own}.dt_proj.weight"].shape[1]
    state = w[f"{own}.A_log"].shape[1]
    dt, B, C = (x @ w[f"{own}.x_proj.weight"].T).split([rank, state, state], -1)
    dt = F.softplus(dt @ w[f"{own}.dt_proj.weight"].T + w[f"{own}.dt_proj.bias"])
    A = -torch.exp(w[f"{own}.A_log"])
    s, out = torch.zeros_like(A), []
    for t in range(len(u)):
        s = torch.exp(dt[t, :, None] * A) * s + dt[t, :, None] * B[t] * x[t, :, None]
        out.append(s @ C[t] + w[f"{own}.D"] * x[t])
    return (torch.stack(out) * F.silu(z)) @ w[f"{shared}.out_proj.weight"].T


def bimamba(u, w, prefix):
    forward, reverse = f"{prefix}.mamba_fwd", f"{prefix}.mamba_rev"
    return mamba(u, w, forward, forward) + mamba(u.flip(0), w, reverse, forward).flip(0)


def rc(x):
    return x.flip(0, 1)


def naive_ph(ids, w, n_layer):
    h, r = w["caduceus.backbone.embeddings.word_embeddings.weight"][ids], 0
    for i in range(n_layer):
        layer = f"caduceus.backbone.layers.{i}"
        r = h + r
        h = bimamba(norm(r, w[f"{layer}.norm.weight"]), w, f"{layer}.mixer")
    return norm(h + r, w["caduceus.backbone.norm_f.weight"])


def naive_ps(ids, w, n_layer, *, exchange=True, names=("norm.weight", "norm_f.weight")):
    table = w["caduceus.backbone.embeddings.word_embeddings.embedding.weight"]
    complement = w["caduceus.backbone.embeddings.word_embeddings.complement_map"].long()
    p, q = table[ids], rc(table[complement[ids.flip(0)]])
    rp, rq = torch.zeros_like(p), torch.zeros_like(q)
    for i in range(n_layer):
        layer = f"caduceus.backbone.layers.{i}"
        if exchange:
            p, q, rp, rq = q, p, rq, rp
        rp, rq = p + rp, q + rq
        weight, mixer = w[f"{layer}.{names[0]}"], f"{layer}.mixer.submodule"
        p, q = bimamba(norm(rp, weight), w, mixer), rc(bimamba(norm(rc(rq), weight), w, mixer))
    weight = w[f"caduceus.backbone.{names[1]}"]
    return torch.cat([norm(p + rp, weight), rc(norm(rc(q + rq), weight))], -1)


@pytest.mark.parametrize("kind", ["ph", "ps"])
@pytest.mark.parametrize("n_layer", [1, 2, 3])
def test_equals_the_direct_reading(checkpoint, kind, n_layer):
    folder = checkpoint(kind, n_layer=n_layer)
    model, _ = load_caduceus(folder)
    w = {name: t.double() for name, t in load_file(folder / "model.safetensors").items()}
    ids = encode_bases(SEQUENCES)
    naive = naive_ph if kind == "ph" else naive_ps
    expected = torch.stack([naive(row, w, n_layer) for row in ids])
    torch.testing.assert_close(model(ids).double(), expected, atol=5e-5, rtol=0)
    torch.testing.assert_close(model.double()(ids), expected, atol=1e-11, rtol=0)


def unfuse(path):
    """Rename the norms as a model with `fused_add_norm: false` calls them."""
    names = {"norm.weight": "norm.submodule.weight", "norm_f.weight": "norm_f.submodule.weight"}
    renamed = {}
    for name, tensor in load_file(path).items():
        end = name.rsplit(".", 2)[-2] + ".weight"
        renamed[name.removesuffix(end) + names[end] if end in names else name] = tensor
    save_file(renamed, path)
    return renamed


@pytest.mark.parametrize("n_layer", [2, 3])
def test_ps_without_fused_norm_has_other_names_and_no_exchange(checkpoint, n_layer):
    folder = checkpoint("ps", n_layer=n_layer, changes={"fused_add_norm": False})
    w = {name: t.double() for name, t in unfuse(folder / "model.safetensors").items()}
    model, _ = load_caduceus(folder)
    ids = encode_bases(SEQUENCES[:1])
    names = ("norm.submodule.weight", "norm_f.submodule.weight")
    plain = naive_ps(ids[0], w, n_layer, exchange=False, names=names)
    torch.testing.assert_close(model(ids)[0].double(), plain, atol=5e-5, rtol=0)
    torch.testing.assert_close(model.double()(ids)[0], plain, atol=1e-11, rtol=0)
    assert (plain - naive_ps(ids[0], w, n_layer, names=names)).abs().max() > 0.1


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "n_layer"), [("ph", 4), ("ps", 4), ("ph", 16), ("ps", 16), ("ps", 15)])
def test_released_widths_equal_the_direct_reading(tmp_path, kind, n_layer):
    write_random_checkpoint(tmp_path, kind=kind, d_model=256, n_layer=n_layer, d_state=16, expand=2)
    path = tmp_path / "model.safetensors"
    random = torch.Generator().manual_seed(7)
    tensors = load_file(path)
    for name, t in tensors.items():
        if t.is_floating_point():  # nothing stays 1 or equal
            tensors[name] = t + 0.02 * torch.randn(t.shape, generator=random)
    save_file(tensors, path)
    model, _ = load_caduceus(tmp_path)
    ids = encode_bases([SEQUENCES[0] * 8], sep=True)
    naive = naive_ph if kind == "ph" else naive_ps
    expected = naive(ids[0], {name: t.double() for name, t in tensors.items()}, n_layer)
    torch.testing.assert_close(model(ids)[0].double(), expected, atol=5e-5, rtol=0)
    assert expected.abs().max() > 2


def test_the_complement_is_the_checkpoints_own(checkpoint):
    """Its buffer decides, not the order of keys in config.json."""
    folder = checkpoint("ps", changes={"complement_map": {"0": 0, "1": 1, "10": 10, "2": 2}})
    path = folder / "model.safetensors"
    own = torch.tensor([0, 1, 2, 3, 4, 5, 6, 8, 7, 10, 9, 11, 12, 13, 14, 15])
    name = "caduceus.backbone.embeddings.word_embeddings.complement_map"
    change(path, lambda t: t.update({name: own}))
    model, _ = load_caduceus(folder)
    ids = encode_bases(SEQUENCES)
    w = {name: t.double() for name, t in load_file(path).items()}
    expected = torch.stack([naive_ps(row, w, 3) for row in ids])
    torch.testing.assert_close(model.double()(ids), expected, atol=1e-11, rtol=0)


def test_the_rank_of_the_step_size_is_read(checkpoint):
    """ "auto" is D / 16, rounded up: 2 of 20; another is written as a number."""
    folder = checkpoint()
    path = folder / "model.safetensors"
    config = json.loads((folder / "config.json").read_text())
    config["ssm_cfg"]["dt_rank"] = 3
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"x_proj.weight has shape \(12, 40\), .* \(13, 40\)"):
        load_caduceus(folder)

    def wider(t):
        for name in list(t):
            if name.endswith("dt_proj.weight"):
                t[name] = torch.cat([t[name], t[name][:, :1] / 2], dim=1)
            elif name.endswith("x_proj.weight"):
                t[name] = torch.cat([t[name][:1], t[name]])

    change(path, wider)
    model, _ = load_caduceus(folder)
    ids = encode_bases(SEQUENCES[:1])
    w = {name: t.double() for name, t in load_file(path).items()}
    torch.testing.assert_close(model.double()(ids)[0], naive_ph(ids[0], w, 3), atol=1e-11, rtol=0)


@pytest.mark.parametrize("kind", ["ph", "ps"])
def test_long_windows_go_strand_by_strand_to_the_same(checkpoint, kind, monkeypatch):
    model, _ = load_caduceus(checkpoint(kind))
    ids = encode_bases(SEQUENCES)
    together = model.features(ids)
    monkeypatch.setattr(caduceus, "TOGETHER", 0)
    torch.testing.assert_close(model.features(ids), together, atol=1e-5, rtol=0)


def test_in_half_precision_decays_stay_whole_and_the_residual_is_what_the_configuration_says(checkpoint):
    ids = encode_bases(SEQUENCES)
    exact = load_caduceus(checkpoint("ps"))[0].features(ids)
    for wide in (False, True):
        model, _ = load_caduceus(checkpoint("ps", changes={"residual_in_fp32": wide}))
        assert torch.equal(model.features(ids), exact)  # no matter in fp32
        residuals = []
        model.layers[1].norm.register_forward_pre_hook(lambda _, x, seen=residuals: seen.append(x[0].dtype))
        assert model.in_dtype(torch.bfloat16).features(ids).dtype == torch.float32
        assert residuals == [torch.float32 if wide else torch.bfloat16]
        assert model.layers[0].mixer.A_log.dtype == torch.float32
        assert model.layers[0].mixer.in_proj.weight.dtype == torch.bfloat16


def test_a_model_saved_without_the_class_for_language_modelling(checkpoint):
    folder = checkpoint("ps")
    ids = encode_bases(SEQUENCES)
    expected = load_caduceus(folder)[0](ids)
    path = folder / "model.safetensors"
    bare = {name.removeprefix("caduceus."): t for name, t in load_file(path).items() if "lm_head" not in name}
    save_file(bare, path)
    assert torch.equal(load_caduceus(folder)[0](ids), expected)


@pytest.mark.parametrize("kind", ["ph", "ps"])
def test_operations_are_those_that_torch_counts(tmp_path, kind):
    write_random_checkpoint(tmp_path, kind=kind, d_model=48, n_layer=3, d_state=16, expand=2)
    model, _ = load_caduceus(tmp_path)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.features(torch.full((1, 500), 7))
    inner, steps = 96, 2 * 2 * 3 * 500  # strands, directions, layers, bases
    unseen = steps * inner * (2 * 4 + 5 * 16)  # the convolution and the recursion are no matrix products
    assert model.config.operations(500) == counter.get_total_flops() + unseen


@pytest.mark.parametrize("n_layer", [2, 3])
def test_ps_is_equivariant_and_its_fold_invariant(checkpoint, n_layer):
    model, _ = load_caduceus(checkpoint("ps", n_layer=n_layer))
    model = model.double()
    ids = encode_bases(SEQUENCES)
    other = model.complement_map[ids.flip(-1)]
    here, there = model(ids), model(other)
    torch.testing.assert_close(there, here.flip(1, 2), atol=1e-10, rtol=0)
    folded = model.features(ids)
    torch.testing.assert_close(folded, (here[..., :20] + here[..., 20:].flip(-1)) / 2, atol=1e-10, rtol=0)
    torch.testing.assert_close(model.features(other), folded.flip(1), atol=1e-10, rtol=0)
    # the trap: averaging the halves as they are
    assert (here.mean(1) - there.mean(1)).abs().max() > 0.01


def test_ph_features_average_both_strands(checkpoint):
    model, _ = load_caduceus(checkpoint("ph"))
    model = model.double()
    ids = encode_bases(SEQUENCES)
    other = model.complement_map[ids.flip(-1)]
    torch.testing.assert_close(
        model.features(ids), (model(ids) + model(other).flip(1)) / 2, atol=1e-10, rtol=0
    )
    torch.testing.assert_close(model.features(other), model.features(ids).flip(1), atol=1e-10, rtol=0)
    assert (model(ids) - model(other).flip(1)).abs().max() > 0.1


@pytest.mark.parametrize(("kind", "n_layer", "size"), [("ph", 4, 7_746_792), ("ps", 16, 30_937_760)])
def test_files_are_as_long_as_the_hubs_to_the_byte(tmp_path, kind, n_layer, size):
    """Names, shapes, number formats and what is stored once all enter the length of a safetensors file."""
    write_random_checkpoint(tmp_path, kind=kind, d_model=256, n_layer=n_layer, d_state=16, expand=2)
    assert (tmp_path / "model.safetensors").stat().st_size == size
    load_caduceus(tmp_path)


def test_names_of_both_kinds(tmp_path):
    write_random_checkpoint(tmp_path / "ph", d_model=256, n_layer=4, d_state=16, expand=2)
    stored = load_file(tmp_path / "ph" / "model.safetensors")
    layer = "caduceus.backbone.layers.3.mixer"
    assert stored[f"{layer}.mamba_fwd.in_proj.weight"].shape == (1024, 256)
    assert f"{layer}.mamba_rev.in_proj.weight" not in stored
    assert stored[f"{layer}.mamba_rev.x_proj.weight"].shape == (48, 512)
    write_random_checkpoint(tmp_path / "ps", kind="ps", d_model=8)
    stored = load_file(tmp_path / "ps" / "model.safetensors")
    assert stored["lm_head.complement_map"].dtype == torch.int64
    assert "caduceus.backbone.layers.0.mixer.submodule.mamba_fwd.A_log" in stored
    assert "weights\nare random numbers" in (tmp_path / "ps" / "README.md").read_text()
    with pytest.raises(ValueError, match="'ph' or 'ps'"):
        write_random_checkpoint(tmp_path / "other", kind="other")
    assert not (tmp_path / "other").exists()


def test_random_weights_follow_their_seed_and_leave_the_global_generator_alone(tmp_path):
    before = torch.random.get_rng_state()
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_random_checkpoint(tmp_path / name, seed=seed)
    load_caduceus(tmp_path / "a")
    assert torch.equal(before, torch.random.get_rng_state())
    a, b, c = ((tmp_path / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b != c


def change(path, edit):
    tensors = load_file(path)
    edit(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, path)


LAYER = "caduceus.backbone.layers.0.mixer"


def rename(tensors, old, new):
    tensors[new] = tensors.pop(old)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t.pop(f"{LAYER}.mamba_rev.D"), r"1 missing \(caduceus.*mamba_rev.D\), 0 unexpected"),
        (lambda t: t.update(extra=torch.ones(1)), r"0 missing \(none\), 1 unexpected \(extra\)"),
        (
            lambda t: t.update({f"{LAYER}.mamba_fwd.D": torch.ones(3)}),
            r"mamba_fwd.D has shape \(3,\), .* \(40,\)",
        ),
        (lambda t: t[f"{LAYER}.mamba_fwd.D"].fill_(torch.nan), "mamba_fwd.D holds NaN"),
        (
            lambda t: t.update({f"{LAYER}.mamba_rev.in_proj.weight": torch.ones(80, 20)}),
            "mamba_fwd.in_proj.weight and .*mamba_rev.in_proj.weight differ",
        ),
    ],
)
def test_loading_is_strict_and_names_the_tensor(checkpoint, edit, message):
    folder = checkpoint()
    change(folder / "model.safetensors", edit)
    with pytest.raises(InputError, match=message):
        load_caduceus(folder)


def test_tied_projections_may_be_stored_twice_or_under_their_other_name(checkpoint):
    folder = checkpoint()
    ids = encode_bases(SEQUENCES)
    expected = load_caduceus(folder)[0](ids)
    forward, reverse = (f"{LAYER}.mamba_{d}.out_proj.weight" for d in ("fwd", "rev"))
    change(folder / "model.safetensors", lambda t: t.update({reverse: t[forward].clone()}))
    assert torch.equal(load_caduceus(folder)[0](ids), expected)
    change(folder / "model.safetensors", lambda t: t.pop(forward))
    assert torch.equal(load_caduceus(folder)[0](ids), expected)
    change(folder / "model.safetensors", lambda t: t.update({"lm_head.weight": torch.ones(16, 20)}))
    assert torch.equal(load_caduceus(folder)[0](ids), expected)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 8}, "vocab_size = 8"),
        ({"bidirectional_weight_tie": False}, "bidirectional_weight_tie = False"),
        ({"rms_norm": False}, "rms_norm = False"),
        ({"model_type": "llama"}, "model_type = 'llama'"),
        ({"d_model": None}, "no Caduceus configuration"),
        ({"n_layer": 4}, "17 missing"),
        ({"rcps": True}, "missing"),
    ],
)
def test_other_configurations_are_refused(checkpoint, changes, message):
    with pytest.raises(InputError, match=message):
        load_caduceus(checkpoint(changes=changes))


def test_unreadable_files(checkpoint):
    folder = checkpoint()
    (folder / "model.safetensors").write_bytes(b"<html>")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_caduceus(folder)
    (folder / "config.json").write_text("{")
    with pytest.raises(InputError, match="a Caduceus config.json was wanted"):
        load_caduceus(folder)
