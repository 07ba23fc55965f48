import json
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from encoders.genetics.batches import batches, encode_batches
from encoders.genetics.caduceus_checkpoint import write_random_checkpoint
from encoders.genetics.caduceus_encoder import Caduceus
from encoders.genetics.haplotypes import reverse_complement
from encoders.genetics.tokenizer import encode_bases
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles


def words(lengths, seed=0):
    rng = random.Random(seed)
    return ["".join(rng.choices("ACGT", k=length)) for length in lengths]


@pytest.fixture(scope="module", params=["ph", "ps"])
def encoder(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    write_random_checkpoint(folder, kind=request.param)
    return Caduceus(ModelFiles(folder=folder, name="test"), batch_bases=600)


def test_a_vector_does_not_depend_on_its_batch(encoder):
    sequences = words([100, 101, 100, 37, 100, 100, 101, 1, 250] * 2)
    together = encoder.encode(sequences)
    alone = np.concatenate([encoder.encode([sequence]) for sequence in sequences])
    shuffled = encoder.encode(sequences[::-1])[::-1]
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)
    np.testing.assert_allclose(together, shuffled, atol=1e-5, rtol=0)
    assert together.shape == (18, encoder.dim)
    assert together.dtype == np.float32


def test_a_vector_does_not_depend_on_the_strand(encoder):
    sequences = [*words([90, 41]), "ACGTNNNRY"]
    turned = [reverse_complement(sequence) for sequence in sequences]
    # ambiguity letters are all [UNK], on either strand
    np.testing.assert_allclose(encoder.encode(sequences), encoder.encode(turned), atol=1e-5, rtol=0)


def test_one_changed_base_is_seen(encoder):
    (sequence,) = words([400])
    other = sequence[:200] + ("A" if sequence[200] != "A" else "C") + sequence[201:]
    difference = np.abs(encoder.encode([sequence]) - encoder.encode([other])).max()
    assert difference > 1e-4  # a hundred times what batching may change


def test_stretches(encoder):
    (sequence,) = words([80])
    with torch.inference_mode():
        features = encoder.model.features(encode_bases([sequence]))[0].numpy()
    vectors = encoder.encode([sequence, sequence], pool=[(10, 20), (0, 80)])
    np.testing.assert_allclose(vectors[0], features[10:20].mean(0), atol=1e-5)
    np.testing.assert_allclose(vectors[1], encoder.encode([sequence])[0], atol=1e-5)
    for bad in ([(5, 5)], [(0, 81)], "last"):
        with pytest.raises(ValueError, match="stretch|pool"):
            encoder.encode([sequence], pool=bad)
    with pytest.raises(ValueError, match="must hold bases"):
        encoder.encode([""])


def test_batches_hold_one_length_and_no_more_bases_than_allowed():
    sequences = words([10, 30, 10, 10, 30, 500])
    found = list(batches(sequences, 20))
    assert found == [[0, 2], [3], [1], [4], [5]]
    assert list(batches([], 20)) == []


def test_batches_side_by_side_give_the_same_in_the_same_order(encoder):
    todo = [words([60] * 3, seed=k) for k in range(7)]
    threads = torch.get_num_threads()
    alone = list(encode_batches(encoder, todo, workers=1))
    side_by_side = list(encode_batches(encoder, todo, workers=3))
    assert [batch for batch, _ in side_by_side] == [batch for batch, _ in alone] == todo
    for (_, a), (_, b) in zip(alone, side_by_side, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6, rtol=0)
    with pytest.raises(ValueError, match="must hold bases"):
        list(encode_batches(encoder, [["ACGT"], [""], ["ACGT"]], workers=3))
    assert torch.get_num_threads() == threads


def test_identity_names_everything_that_decides_a_vector(encoder, tmp_path):
    assert encoder.random_weights
    assert set(encoder.identity) == {
        "encoder",
        "architecture",
        "weights_sha256",
        "tokens",
        "strands",
        "dtype",
    }
    write_random_checkpoint(tmp_path, kind=encoder.model.config.kind, seed=1)
    other = Caduceus(ModelFiles(folder=tmp_path, name="test"))
    assert other.identity["weights_sha256"] != encoder.identity["weights_sha256"]
    assert other.identity | {"weights_sha256": ""} == encoder.identity | {"weights_sha256": ""}
    json.dumps(encoder.identity)


def test_bf16_is_near_fp32_and_another_identity(encoder, tmp_path):
    write_random_checkpoint(tmp_path, kind=encoder.model.config.kind)
    half = Caduceus(ModelFiles(folder=tmp_path, name="test"), dtype="bf16", batch_bases=600)
    sequences = words([300, 120, 300])
    a, b = encoder.encode(sequences), half.encode(sequences)
    assert b.dtype == np.float32
    assert 0 < np.linalg.norm(a - b) < 0.03 * np.linalg.norm(a)
    np.testing.assert_allclose(half.encode(sequences[:1])[0], b[0], atol=1e-5, rtol=0)
    assert half.identity == encoder.identity | {"dtype": "bfloat16"}


def test_weights_whose_complement_is_not_that_of_the_bases_are_refused(tmp_path):
    write_random_checkpoint(tmp_path, kind="ps")
    path = tmp_path / "model.safetensors"
    tensors = load_file(path)
    tensors["caduceus.backbone.embeddings.word_embeddings.complement_map"][7:11] = torch.tensor([8, 7, 10, 9])
    save_file(tensors, path)
    with pytest.raises(InputError, match="different features for a sequence and its reverse complement"):
        Caduceus(ModelFiles(folder=tmp_path, name="test"))


def test_weights_without_the_mark_are_not_called_random(tmp_path):
    write_random_checkpoint(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["random_weights_seed"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert not Caduceus(ModelFiles(folder=tmp_path, name="test")).random_weights
