"""The index: exact, tie-aware, private, and refused when anything about it is wrong."""

import shutil
import struct

import faiss
import numpy as np
import pytest

from align.index import build_index, open_index, query
from encoders.runs import InputError, load_json, save_json, save_tensors
from encoders.runs.artifact import file_sha256, load_tensors

ENTRIES = ("brain_raw", "genetics_raw", "brain_adjusted", "genetics_adjusted")


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def made(folder, vectors, folds=None, digest=None):
    """An index and its source file; every person is called p0, p1, ..."""
    ids = [f"p{i}" for i in range(len(vectors["brain_raw"]))]
    source = folder / "aligned.safetensors"
    stored = save_tensors(source, "neurohelix.aligned", 2, vectors, {"ids": ids})
    build_index(
        folder / "index",
        ids=ids,
        folds=folds or ["test"] * len(ids),
        vectors=vectors,
        source_digest=digest or stored,
    )
    return folder / "index", source


@pytest.fixture
def vectors():
    rng = np.random.default_rng(3)
    rows = {name: unit(rng.normal(size=(9, 5))) for name in ENTRIES}
    rows["brain_raw"][2] = rows["brain_adjusted"][2] = np.nan
    return rows


def test_round_trip_leaves_out_who_lacks_the_modality(tmp_path, vectors):
    folder, source = made(tmp_path, vectors)
    brain, genetics = open_index(folder, "brain_raw", "genetics_raw", source=source)
    assert brain.ids == [f"p{i}" for i in range(9) if i != 2]
    assert len(genetics.ids) == 9 and set(brain.folds) == set(genetics.ids)
    np.testing.assert_array_equal(brain.vector("p3"), vectors["brain_raw"][3])


def test_only_the_owner_can_read_it(tmp_path, vectors):
    folder, _ = made(tmp_path, vectors)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}
    assert len(list(folder.iterdir())) == 5


def test_query_agrees_with_numpy(tmp_path, vectors):
    folds = ["train", "test", "val"] * 3
    folder, source = made(tmp_path, vectors, folds)
    brain, genetics = open_index(folder, "brain_adjusted", "genetics_adjusted", source=source)
    similarity = vectors["genetics_adjusted"] @ vectors["brain_adjusted"][4]
    order = np.argsort(-similarity)
    answer = query(brain, genetics, "p4", k=3)
    assert [person.subject for person in answer.nearest] == [f"p{i}" for i in order[:3]]
    np.testing.assert_allclose(
        [person.similarity for person in answer.nearest], similarity[order[:3]], rtol=1e-5
    )
    assert answer.own.rank == 1 + int(np.sum(similarity > similarity[4]))
    assert answer.num_gallery == 9 and answer.num_by_fold == {"train": 3, "val": 3, "test": 3}

    held_out = query(brain, genetics, "p4", k=99, fold="test")
    assert [person.subject for person in held_out.nearest] == [f"p{i}" for i in order if i in (1, 4, 7)]
    assert held_out.own.rank == 1 + int(np.sum(similarity[[1, 7]] > similarity[4]))
    assert query(brain, genetics, "p3", k=1, fold="test").own is None


def test_ties_share_the_mean_rank(tmp_path, vectors):
    same = unit(np.ones((9, 5)))
    folder, source = made(tmp_path, {**vectors, "genetics_raw": same})
    brain, genetics = open_index(folder, "brain_raw", "genetics_raw", source=source)
    answer = query(brain, genetics, "p7", k=4)
    assert answer.own.rank == 5 and answer.num_tied == 8
    assert {person.rank for person in answer.nearest} == {5.0}


def test_partly_missing_or_unscaled_rows_are_refused_and_the_old_index_stays(tmp_path, vectors):
    folder, _ = made(tmp_path, vectors)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    for bad in (2.0, np.nan):
        broken = {name: rows.copy() for name, rows in vectors.items()}
        broken["genetics_raw"][5, 0] = bad
        with pytest.raises(ValueError, match="genetics_raw: rows must have length 1"):
            made(tmp_path, broken)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["aligned.safetensors", "index"]


def test_rebuilding_replaces_everything_and_sweeps_up_after_a_killed_run(tmp_path, vectors):
    folder, _ = made(tmp_path, vectors)
    (folder / "stranger.faiss").write_bytes(b"of an older release")
    killed = tmp_path / ".index.0123abcd.tmp"
    killed.mkdir()
    (killed / "brain_raw.faiss").write_bytes(b"half")
    folder, source = made(tmp_path, {name: rows[:6] for name, rows in vectors.items()})
    assert not killed.exists() and not (folder / "stranger.faiss").exists()
    assert len(open_index(folder, "genetics_raw", source=source)[0].ids) == 6


@pytest.mark.parametrize("place", [10, 60, -1])
def test_a_flipped_byte_is_refused(tmp_path, vectors, place):
    folder, source = made(tmp_path, vectors)
    path = folder / "genetics_raw.faiss"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    open_index(folder, "brain_raw", source=source)
    with pytest.raises(
        InputError,
        match=r"E_HASH: .*genetics_raw.faiss is damaged.* accelerate launch scripts/align.py --redo=true",
    ):
        open_index(folder, "brain_raw", "genetics_raw", source=source)


def test_a_damaged_or_missing_table_of_rows_is_refused(tmp_path, vectors):
    folder, source = made(tmp_path, vectors)
    table = folder / "index.json"
    table.write_text(table.read_text().replace('"p1"', '"p8"', 1))
    with pytest.raises(InputError, match=r"index.json is damaged.*; rebuild the index with: make it so"):
        open_index(folder, "brain_raw", source=source, rebuild="make it so")
    table.unlink()
    with pytest.raises(InputError, match=r"index.json does not exist.*rebuild"):
        open_index(folder, "brain_raw", source=source)


def test_files_of_two_builds_are_refused(tmp_path, vectors):
    folder, source = made(tmp_path / "a", vectors)
    other, _ = made(tmp_path / "b", {name: rows[::-1].copy() for name, rows in vectors.items()})
    shutil.copy(other / "brain_raw.faiss", folder / "brain_raw.faiss")
    with pytest.raises(InputError, match="E_HASH"):
        open_index(folder, "brain_raw", source=source)


def test_an_index_of_other_vectors_is_refused(tmp_path, vectors):
    folder, source = made(tmp_path, vectors)
    _, metadata = load_tensors(source, "neurohelix.aligned", 2)
    vectors["brain_raw"][0] *= -1
    save_tensors(source, "neurohelix.aligned", 2, vectors, metadata)
    with pytest.raises(
        InputError, match=r"E_STALE: .*built from other aligned vectors.*rebuild the index with"
    ):
        open_index(folder, "brain_raw", source=source)
    source.unlink()
    with pytest.raises(InputError, match=r"aligned.safetensors does not exist"):
        open_index(folder, "brain_raw", source=source)


def forge(folder, name, **changes):
    """Rewrite one entry of index.json with a valid hash over the forged content."""
    content = load_json(folder / "index.json", "neurohelix.index", 1)
    path = folder / content["entries"][name]["file"]
    content["entries"][name] |= {"sha256": file_sha256(path), **changes}
    save_json(folder / "index.json", "neurohelix.index", 1, content)


def test_row_counts_must_agree_even_where_hashes_do(tmp_path, vectors):
    folder, source = made(tmp_path, vectors)
    forge(folder, "genetics_raw", ids=[f"p{i}" for i in range(8)])
    with pytest.raises(InputError, match=r"E_INDEX: .*has 8 ids, but index.json says 9 rows"):
        open_index(folder, "genetics_raw", source=source)
    forge(folder, "genetics_raw", ids=[f"p{i}" for i in range(8)], rows=8)
    with pytest.raises(InputError, match=r"E_INDEX: .*has 9 rows of width 5, but index.json says 8 rows"):
        open_index(folder, "genetics_raw", source=source)


def test_other_kinds_of_index_and_absurd_sizes_are_refused(tmp_path, vectors):
    folder, source = made(tmp_path, vectors)
    path = folder / "genetics_raw.faiss"
    content = path.read_bytes()
    size_at = len(content) - 4 * 9 * 5 - 8  # the number of floats stands before the floats
    assert struct.unpack_from("<Q", content, size_at) == (9 * 5,)
    path.write_bytes(content[:size_at] + struct.pack("<Q", 2**24) + content[size_at + 8 :])
    forge(folder, "genetics_raw")
    with pytest.raises(InputError, match=r"E_INDEX: .*no readable FAISS index") as error:
        open_index(folder, "genetics_raw", source=source)
    assert "byte_limit" in str(error.value.__cause__)  # refused before 64 MiB were taken for 180 bytes

    euclidean = faiss.IndexFlatL2(5)
    euclidean.add(vectors["genetics_raw"])
    faiss.write_index(euclidean, str(path))
    forge(folder, "genetics_raw")
    with pytest.raises(InputError, match=r"E_INDEX: .*holds an? IndexFlatL2, not an IndexFlatIP"):
        open_index(folder, "genetics_raw", source=source)
