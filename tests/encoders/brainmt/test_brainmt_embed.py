"""Embedding: strategies, averaging, preparation that must fit, resuming, damage."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.brainmt import embed as embedding
from encoders.brainmt.checkpoint import save_pretrained
from encoders.brainmt.embed import embed
from encoders.brainmt.embed_config import EmbedFMRI
from encoders.brainmt.model import BrainMT
from encoders.brainmt.model_config import BrainMTConfig
from encoders.brainmt.store import FMRIStore
from encoders.brainmt.windows import scatter
from encoders.runs.errors import InputError

spec = importlib.util.spec_from_file_location("tiny_study", Path(__file__).with_name("tiny_study.py"))
tiny = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tiny)

CPU = torch.device("cpu")
CONFIG = BrainMTConfig(
    grid=(7, 5, 6), num_frames=8, widths=(2, 2, 4, 8), mamba_layers=1, attention_layers=1, d_state=2
)


def save(folder, config=CONFIG, **preparation):
    torch.manual_seed(0)
    model = BrainMT(config).eval()
    card = {
        "trained_on": {"split_digest": "d", "ids": ["sub-0001"]},
        "preprocessing": {"options": {**tiny.OPTIONS, **preparation}},
    }
    save_pretrained(model, folder, card)
    return model


@pytest.fixture
def study(tmp_path):
    study = tiny.make_study(tmp_path / "study", train=3, val=1, test=1)
    return FMRIStore(study.path("store")), tmp_path / "model", tmp_path / "partial.safetensors"


def window(store, run, start, frames):
    tensors, _ = store.read(run)
    part, place = (torch.from_numpy(tensors[name]) for name in ("frames", "mask_index"))
    return scatter(part[start : start + frames], place, grid=run.grid, background=run.background)


def test_windows_then_runs_then_people_are_averaged(study):
    store, folder, partial = study
    model = save(folder)
    vectors, of_runs = embed(store, folder, EmbedFMRI(windows=3, batch_size=5), partial=partial, device=CPU)
    assert vectors.ids == store.subjects and vectors.provenance["strategy"] == "rsfmri_brainmt_windows_v1"
    with torch.no_grad():
        runs = [
            np.mean(
                [model.forward_features(window(store, run, s, 8)[None]).numpy()[0] for s in (0, 8, 16)],
                axis=0,
            )
            for run in store.of("sub-0000")
        ]
    assert len(runs) == 2
    there = [k for k, name in enumerate(of_runs.ids) if name.partition("\t")[0] == "sub-0000"]
    np.testing.assert_allclose(of_runs.values[there], runs, rtol=1e-4, atol=1e-5)
    assert len(of_runs.ids) == len(store.runs)
    np.testing.assert_allclose(vectors.select(["sub-0000"])[0], np.mean(runs, axis=0), rtol=1e-4, atol=1e-5)


def test_segments_are_the_users_recipe(study, monkeypatch):
    store, folder, partial = study
    model = save(folder)
    config = EmbedFMRI(strategy="rsfmri_brainmt_segments_v1")
    with pytest.raises(InputError, match="no 32 frames in a row"):
        embed(store, folder, config, partial=partial, device=CPU)
    monkeypatch.setattr(embedding, "SEGMENT", 10)  # the tiny scans have 24 frames
    vectors, _ = embed(store, folder, config, partial=partial, device=CPU)
    run = store.of("sub-0002")[0]
    with torch.no_grad():
        parts = [
            model.attended_tokens(model.scanned_tokens(window(store, run, s, 10)[None]))[0, 1:].mean(0)
            for s in (0, 10)
        ]
    np.testing.assert_allclose(
        vectors.select(["sub-0002"])[0], np.mean([p.numpy() for p in parts], axis=0), rtol=1e-4, atol=1e-5
    )
    assert vectors.provenance["frames"] == 10


def test_scans_prepared_otherwise_are_refused(study):
    store, folder, partial = study
    save(folder, normalisation="voxel")
    with pytest.raises(InputError, match="normalisation=voxel"):
        embed(store, folder, EmbedFMRI(), partial=partial, device=CPU)
    save(folder, config=replace(CONFIG, grid=(7, 5, 9)))
    with pytest.raises(InputError, match="5 x 7 x 6 voxels, the model was trained on 5 x 7 x 9"):
        embed(store, folder, EmbedFMRI(), partial=partial, device=CPU)


def test_a_killed_run_continues(study, monkeypatch):
    store, folder, partial = study
    save(folder)
    config = EmbedFMRI(windows=2, batch_size=2)
    whole, _ = embed(store, folder, config, partial=partial, device=CPU)
    assert not partial.exists()

    monkeypatch.setattr(embedding, "SAVE_EVERY", 0.0)
    (store.folder / store.runs[-1].file).rename(store.folder / "away")
    with pytest.raises(InputError):
        embed(store, folder, config, partial=partial, device=CPU)
    (store.folder / "away").rename(store.folder / store.runs[-1].file)
    for run in store.runs[:-1]:
        (store.folder / run.file).unlink()  # what is done is not read again
    again, _ = embed(store, folder, config, partial=partial, device=CPU)
    np.testing.assert_array_equal(again.values, whole.values)


def test_a_damaged_scan_is_refused(study):
    store, folder, partial = study
    save(folder)
    path = store.folder / store.runs[2].file
    content = bytearray(path.read_bytes())
    content[-9] ^= 4
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        embed(store, folder, EmbedFMRI(), partial=partial, device=CPU)
