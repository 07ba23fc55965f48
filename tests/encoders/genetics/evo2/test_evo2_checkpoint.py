"""Files in the released layout: `.pt`, parts, safetensors; what is wrong with them is named; memory stays small."""

import io
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from encoders.genetics.evo2.checkpoint import load_evo2, regroup_heads
from encoders.genetics.evo2.config import Evo2Config
from encoders.genetics.evo2.convert import convert
from encoders.genetics.evo2.weight_files import open_weights
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles

ROOT = Path(__file__).parents[4]


@pytest.fixture
def tiny(official, tmp_path):
    config = official.config()
    weights = official.tensors(config)
    return official.write(tmp_path / "tiny", config=config, weights=weights), weights, config


def load(folder, **options):
    return load_evo2(open_weights(folder), Evo2Config.from_yaml(next(folder.glob("*.yml"))), **options)


def change(folder, edit):
    """Rewrite the .pt after editing what it holds."""
    path = folder / "tiny.pt"
    with torch.serialization.safe_globals([io.BytesIO]):
        content = torch.load(path, weights_only=True)
    edit(content)
    torch.save(content, path)


def test_all_tensors_are_those_of_the_file_but_wqkv_is_regrouped(tiny):
    folder, weights, _ = tiny
    loaded = load(folder, dtype=torch.bfloat16)
    assert (
        loaded.dropped == 5 + 1 + 2 + 1 + 2
    )  # projections; copy of the embedding; attention's two; time axes
    for name, tensor in loaded.model.state_dict().items():
        wanted = weights[name]
        if name.endswith("Wqkv.weight"):
            head0 = wanted[:48].view(3, 16, 64)  # rows of the file: head, then q k v, then channel
            assert torch.equal(tensor.view(3, 4, 16, 64)[:, 0], head0)
            wanted = regroup_heads(wanted, 4)
        assert tensor.dtype == wanted.dtype and torch.equal(tensor, wanted), name
    assert not any(p.requires_grad for p in loaded.model.parameters())


def test_rotary_frequencies_are_the_stored_ones(tiny):
    folder, weights, _ = tiny
    found = load(folder).model.blocks[3].inner_mha_cls.rotary_emb.inv_freq
    assert torch.equal(found, weights["blocks.3.inner_mha_cls.rotary_emb.inv_freq"])
    exact = 1 / 10000 ** (torch.arange(0, 16, 2) / 16)
    assert 1e-4 < ((found - exact) / exact).abs().max() < 2**-8  # which are rounded to bf16


@pytest.mark.parametrize("dtype", [pytest.param(torch.float32, marks=pytest.mark.slow), torch.bfloat16])
def test_parts_and_safetensors_hold_the_same_model(dtype, tiny, official, tmp_path):
    folder, weights, config = tiny
    whole = load(folder, dtype=dtype).model.state_dict()
    parts = official.write(tmp_path / "parts", config=config, weights=weights, parts=11)
    assert len(list(parts.glob("*.part*"))) == 11 and not list(parts.glob("*.pt"))
    made = convert(ModelFiles(folder=parts, name="tiny"), tmp_path / "ours", shard_bytes=200_000)
    assert len(made.files) > 2 and made.dropped == 11
    for other in (parts, tmp_path / "ours"):
        shape = Evo2Config.from_yaml(folder / "tiny.yml")
        found = load_evo2(open_weights(other), shape, dtype=dtype).model.state_dict()
        assert all(
            torch.equal(found[name], whole[name]) and found[name].dtype == whole[name].dtype for name in whole
        )


def test_a_missing_part_is_named(tiny, official, tmp_path):
    _, weights, config = tiny
    folder = official.write(tmp_path / "parts", config=config, weights=weights, parts=4)
    (folder / "tiny.pt.part2").unlink()
    with pytest.raises(InputError, match=r"has parts 0, 1, 3 of tiny.pt, but not part 2; download all"):
        load(folder)
    (folder / "tiny.pt.part3").unlink()
    with pytest.raises(InputError, match="not a readable checkpoint"):
        load(folder)


def test_every_missing_and_unexpected_tensor_is_named(tiny):
    folder, _, _ = tiny

    def edit(content):
        del content["blocks.2.filter.D"], content["blocks.3.inner_mha_cls.out_proj.bias"]
        content["blocks.0.filter.D"] = torch.zeros(64)
        content["extra"] = 3

    change(folder, edit)
    with pytest.raises(
        InputError,
        match=r"2 missing \(blocks.2.filter.D, blocks.3.inner_mha_cls.out_proj.bias\), 2 unexpected \(blocks.0.filter.D, extra\)",
    ):
        load(folder)


def test_other_shapes_and_numbers_that_are_not_finite_are_named(tiny):
    folder, _, _ = tiny
    change(folder, lambda content: content.update({"norm.scale": torch.ones(32)}))
    with pytest.raises(InputError, match=r"norm.scale \(32,\) instead of \(64,\)"):
        load(folder)

    def poison(content):
        content["norm.scale"] = torch.ones(64)
        content["blocks.1.filter.h"][3, 0, 5] = float("nan")

    change(folder, poison)
    with pytest.raises(InputError, match="blocks.1.filter.h holds NaN"):
        load(folder)


@pytest.mark.parametrize("dtype", [torch.int32, torch.complex64, torch.float8_e4m3fn])
def test_other_number_formats_are_named(dtype, tiny, tmp_path):
    folder, _, _ = tiny
    change(folder, lambda content: content.update({"norm.scale": torch.ones(64).to(dtype)}))
    told = rf"norm.scale holds numbers of the format {str(dtype).removeprefix('torch.')}; .* was wanted"
    with pytest.raises(InputError, match=told):
        load(folder)
    with pytest.raises(InputError, match=told):
        convert(ModelFiles(folder=folder, name="tiny"), tmp_path / "ours")
    assert not list(tmp_path.glob("*ours*"))


@pytest.mark.parametrize("parts", [0, 2])
def test_a_sparse_tensor_is_no_weight(parts, tiny, official, tmp_path):
    _, weights, config = tiny
    sparse = weights | {"blocks.0.mlp.l1.weight": weights["blocks.0.mlp.l1.weight"].to_sparse()}
    folder = official.write(tmp_path / "sparse", config=config, weights=sparse, parts=parts)
    with pytest.raises(InputError, match=r"blocks.0.mlp.l1.weight \(\) instead of \(96, 64\)"):
        load(folder)


def test_parts_of_a_file_of_an_old_pytorch_are_told_apart_from_damage(tiny, official, tmp_path):
    _, weights, config = tiny
    folder = official.write(tmp_path / "old", config=config, weights=weights)
    path = folder / "tiny.pt"
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    path.unlink()
    for part in range(2):
        (folder / f"tiny.pt.part{part}").write_bytes(data[part * 9_999 : 9_999 if not part else None])
    with pytest.raises(InputError, match=r"format of PyTorch before 1.6; join them \(cat\)"):
        load(folder)


def test_a_file_that_would_run_code_is_refused_and_nothing_stays_allowed(tiny, tmp_path):
    folder, _, _ = tiny
    before = set(torch.serialization.get_safe_globals())
    load(folder)
    assert set(torch.serialization.get_safe_globals()) == before
    marker = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {marker}",)

    change(folder, lambda content: None)
    content = {"embedding_layer.weight": torch.zeros(2), "x": Evil()}
    for parts in (0, 2):
        for path in folder.glob("tiny.pt*"):
            path.unlink()
        torch.save(content, folder / "tiny.pt")
        if parts:
            data = (folder / "tiny.pt").read_bytes()
            (folder / "tiny.pt").unlink()
            for part in range(2):
                (folder / f"tiny.pt.part{part}").write_bytes(
                    data[part * 500 : (part + 1) * 500 if not part else None]
                )
        with pytest.raises(
            InputError, match="not a readable checkpoint.*need code to be unpickled are refused"
        ):
            load(folder)
        assert not marker.exists()
    assert set(torch.serialization.get_safe_globals()) == before


def test_truncated_html_and_wrong_content(tiny):
    folder, _, _ = tiny
    path = folder / "tiny.pt"
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"<html>not found</html>", b""):
        path.write_bytes(content)
        with pytest.raises(InputError, match="not a readable checkpoint"):
            load(folder)
    torch.save([torch.zeros(3)], path)
    with pytest.raises(InputError, match="holds a list; a dictionary of tensors was wanted"):
        load(folder)


def test_one_model_per_folder(tiny):
    folder, _, _ = tiny
    (folder / "other.pt").touch()
    with pytest.raises(InputError, match="holds several Evo 2 weights: other.pt, tiny.pt"):
        open_weights(folder)
    for path in folder.glob("*.pt"):
        path.unlink()
    with pytest.raises(InputError, match="holds no Evo 2 weights"):
        open_weights(folder)


def test_a_damaged_or_incomplete_conversion_is_noticed(tiny, tmp_path):
    folder, _, _ = tiny
    source, target = ModelFiles(folder=folder, name="tiny"), tmp_path / "ours"
    made = convert(source, target, shard_bytes=300_000)
    with pytest.raises(InputError, match="exists; pass a folder that does not"):
        convert(source, target)
    files = ModelFiles(folder=target, name="ours")
    hashes = {name: files.sha256(name) for name in made.files}
    open_weights(target).check(hashes)
    path = target / made.files[1]
    content = bytearray(path.read_bytes())
    content[-5] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"E_HASH: .*{path.name} is damaged"):
        open_weights(target).check(
            hashes | {path.name: ModelFiles(folder=target, name="ours").sha256(path.name)}
        )
    with pytest.raises(InputError, match=rf"E_HASH: .*{path.name} is damaged"):
        convert(ModelFiles(folder=target, name="ours"), tmp_path / "again")
    path.unlink()
    with pytest.raises(InputError, match=f"lacks {path.name}"):
        open_weights(target)
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


MEASURE = """
    import sys, torch
    from pathlib import Path
    from encoders.genetics.evo2.checkpoint import empty_model, load_evo2
    from encoders.genetics.evo2.config import Evo2Config
    from encoders.genetics.evo2.weight_files import open_weights

    folder, dtype = Path(sys.argv[1]), getattr(torch, sys.argv[2])
    config = Evo2Config.from_yaml(folder / "tiny.yml")
    empty_model(config)  # what torch imports for it is no weights
    open_weights(folder).shapes()

    def peak():
        return int(next(l for l in open("/proc/self/status") if l.startswith("VmHWM")).split()[1]) * 1024

    before = peak()
    model = load_evo2(open_weights(folder), config, dtype=dtype).model
    size = sum(t.nbytes for t in model.state_dict().values())
    print((peak() - before) / size, size)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's record of peak memory")
@pytest.mark.parametrize("parts", [0, 3])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
def test_loading_needs_little_more_memory_than_the_weights(parts, dtype, official, tmp_path):
    """In a process of its own, on a checkpoint of 470 MB."""
    config = official.config(
        hidden_size=1024, num_filters=1024, hcl_filter_groups=1024, num_attention_heads=8, inner_mlp_size=4096,
        num_layers=14, attn_layer_idxs=[3, 10], hcs_layer_idxs=[0, 4, 7, 11], hcm_layer_idxs=[1, 5, 8, 12],
        hcl_layer_idxs=[2, 6, 9, 13],
    )  # fmt: skip
    weights = official.tensors(config)
    folder = official.write(tmp_path / "large", config=config, weights=weights, parts=parts)
    run = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(MEASURE), str(folder), dtype],
        capture_output=True, text=True, cwd=ROOT, check=False, timeout=300,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr[-2000:]
    share, size = map(float, run.stdout.split())
    assert size > 3e8
    assert share < 1.2, f"peak memory is {share:.2f} of the weights"
