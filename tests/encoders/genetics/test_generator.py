"""GENERator against a Llama written down step by step in float64, and what its folders must hold."""

import importlib.util
import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from encoders.genetics.generator import load_generator, read_config
from encoders.genetics.kmer_tokenizer import VOCAB, encode_kmers
from encoders.runs.errors import InputError

spec = importlib.util.spec_from_file_location(
    "generator_files", Path(__file__).with_name("generator_files.py")
)
generator_files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generator_files)
write = generator_files.write_random_generator

IDS = torch.from_numpy(encode_kmers("ACGTTGCANGGATCCATTAGCTTGACCAGTAAATTTGGCC" * 3))


def norm(x, weight, eps=1e-5):
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + eps) * weight


def rotate(x, theta):
    """(T, H, d): pairs (k, k + d/2) turn by t * theta^(-2k/d)."""
    half = x.shape[-1] // 2
    angles = torch.arange(len(x), dtype=x.dtype)[:, None] * theta ** (
        -torch.arange(half, dtype=x.dtype) / half
    )
    cos, sin = angles.cos()[:, None], angles.sin()[:, None]
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], -1)


def naive_llama(ids, w, *, layers, heads, kv_heads, theta=5e5):
    x = w["model.embed_tokens.weight"][ids]
    future = torch.ones(len(ids), len(ids)).triu(1).bool()
    for i in range(layers):
        layer = {n.split(".", 3)[3]: t for n, t in w.items() if n.startswith(f"model.layers.{i}.")}
        u = norm(x, layer["input_layernorm.weight"])
        q = rotate((u @ layer["self_attn.q_proj.weight"].T).unflatten(1, (heads, -1)), theta)
        k = rotate((u @ layer["self_attn.k_proj.weight"].T).unflatten(1, (kv_heads, -1)), theta)
        v = (u @ layer["self_attn.v_proj.weight"].T).unflatten(1, (kv_heads, -1))
        out = []
        for h in range(heads):
            g = h // (heads // kv_heads)
            scores = q[:, h] @ k[:, g].T / q.shape[-1] ** 0.5
            out.append(scores.masked_fill(future, -torch.inf).softmax(-1) @ v[:, g])
        x = x + torch.cat(out, -1) @ layer["self_attn.o_proj.weight"].T
        u = norm(x, layer["post_attention_layernorm.weight"])
        gate = F.silu(u @ layer["mlp.gate_proj.weight"].T)
        x = x + (gate * (u @ layer["mlp.up_proj.weight"].T)) @ layer["mlp.down_proj.weight"].T
    return norm(x, w["model.norm.weight"])


@pytest.mark.parametrize(
    "shape",
    [
        {"hidden_size": 32, "layers": 2, "heads": 4, "kv_heads": 2, "mlp": 44},
        {"hidden_size": 48, "layers": 3, "heads": 6, "kv_heads": 1, "mlp": 50},
        {"hidden_size": 24, "layers": 1, "heads": 3, "kv_heads": 3, "mlp": 40, "shards": 3},
    ],
)
def test_equals_the_direct_reading(tmp_path, shape):
    tensors = write(tmp_path, **shape)
    model = load_generator(tmp_path)
    numbers = {name: shape[name] for name in ("layers", "heads", "kv_heads")}
    expected = naive_llama(IDS, {name: t.double() for name, t in tensors.items()}, **numbers)
    with torch.inference_mode():
        found = model(input_ids=IDS[None], use_cache=False).last_hidden_state[0]
    torch.testing.assert_close(found.double(), expected, atol=5e-5, rtol=0)
    assert expected.abs().max() > 1  # the tolerance means something
    # a wrong rotary base would be seen
    other = naive_llama(IDS, {name: t.double() for name, t in tensors.items()}, **numbers, theta=1e4)
    assert (other - expected).abs().max() > 1e-3


@pytest.mark.slow
def test_the_width_of_the_released_1_2b_in_two_layers(tmp_path):
    tensors = write(
        tmp_path, hidden_size=2048, layers=2, heads=32, kv_heads=4, mlp=5632, positions=16384, scale=0.02
    )
    model = load_generator(tmp_path)
    assert read_config(tmp_path).context == 98_298
    expected = naive_llama(
        IDS, {name: t.double() for name, t in tensors.items()}, layers=2, heads=32, kv_heads=4
    )
    with torch.inference_mode():
        found = model(input_ids=IDS[None], use_cache=False).last_hidden_state[0]
    torch.testing.assert_close(found.double(), expected, atol=5e-5, rtol=0)


def test_no_code_of_the_folder_runs(tmp_path, capfd):
    write(tmp_path)
    assert {path.read_text() for path in tmp_path.glob("*.py")} == {generator_files.TRAP}
    model = load_generator(tmp_path)
    assert type(model).__module__ == "transformers.models.llama.modeling_llama"
    assert capfd.readouterr().err == ""  # nor does the library's report of the missing head reach the user


def edit(folder, change):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: t.contiguous() for name, t in tensors.items()}, path)


LAYER = "model.layers.0.self_attn"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda t: t.pop(f"{LAYER}.q_proj.weight"),
            r"1 missing \(model.layers.0.self_attn.q_proj.weight\), 0 unex",
        ),
        (
            lambda t: t.update({f"{LAYER}.q_proj.bias": torch.ones(32)}),
            r"0 missing \(none\), 1 unexpected \(model.layers.0.self_attn.q_proj.bias\)",
        ),
        (
            lambda t: t.update({f"{LAYER}.k_proj.weight": torch.ones(3, 32)}),
            r"k_proj.weight has shape \(3, 32\), .* \(16, 32\)",
        ),
        (lambda t: t["model.norm.weight"].fill_(torch.nan), "norm.weight holds NaN"),
    ],
)
def test_loading_is_strict_and_names_the_tensor(tmp_path, change, message):
    write(tmp_path)
    edit(tmp_path, change)
    with pytest.raises(InputError, match=message):
        load_generator(tmp_path)


def test_the_head_may_be_there_or_not(tmp_path):
    write(tmp_path)
    with_head = load_generator(tmp_path).state_dict()
    edit(tmp_path, lambda t: t.pop("lm_head.weight"))
    without = load_generator(tmp_path).state_dict()
    bare = {name.removeprefix("model."): t for name, t in load_file(tmp_path / "model.safetensors").items()}
    save_file(bare, tmp_path / "model.safetensors")  # a Llama saved without the class around it
    for loaded in (without, load_generator(tmp_path).state_dict()):
        assert all(torch.equal(loaded[name], tensor) for name, tensor in with_head.items())


def test_shards(tmp_path):
    write(tmp_path / "one")
    write(tmp_path / "three", shards=3)
    one, three = (load_generator(tmp_path / name).state_dict() for name in ("one", "three"))
    assert all(torch.equal(three[name], tensor) for name, tensor in one.items())
    (tmp_path / "three" / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(InputError, match=r"lacks model-00002-of-00003\.safetensors, 1 of the 3 files"):
        load_generator(tmp_path / "three")
    index = tmp_path / "three" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"model.norm.weight": "../one/model.safetensors"}}))
    with pytest.raises(InputError, match=r"names '\.\./one/model\.safetensors', a file elsewhere"):
        load_generator(tmp_path / "three")
    index.write_text("{")
    with pytest.raises(InputError, match="index.json is not readable"):
        load_generator(tmp_path / "three")
    index.unlink()
    with pytest.raises(InputError, match=r"lacks model\.safetensors, and model\.safetensors\.index\.json"):
        load_generator(tmp_path / "three")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 32000}, "vocab_size = 32000"),
        ({"model_type": "mistral"}, "model_type = 'mistral'"),
        ({"hidden_size": None}, "no GENERator configuration"),
        ({"num_hidden_layers": 3}, "9 missing"),
    ],
)
def test_other_configurations_are_refused(tmp_path, changes, message):
    write(tmp_path, changes=changes)
    with pytest.raises(InputError, match=message):
        load_generator(tmp_path)


def test_another_vocabulary_is_refused(tmp_path):
    write(tmp_path)
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("".join(f"{token}\n" for token in VOCAB))  # without ids
    load_generator(tmp_path)
    vocabulary.write_text(vocabulary.read_text().replace("AAAAAT\n", "AAAAAC\n", 1))
    with pytest.raises(
        InputError, match="has 'AAAAAC' as token 33, GENERator's 6-mer tokenizer has 'AAAAAT'"
    ):
        load_generator(tmp_path)


def test_unreadable_files(tmp_path):
    write(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"<html>")
    with pytest.raises(InputError, match="not a readable safetensors file"):
        load_generator(tmp_path)
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(InputError, match="a GENERator config.json was wanted"):
        load_generator(tmp_path)
