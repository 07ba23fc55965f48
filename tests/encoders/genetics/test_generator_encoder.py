import importlib.util
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from encoders.genetics.batches import encode_batches, workers_of
from encoders.genetics.encoder_choice import encoder_facts, load_encoder
from encoders.genetics.generator import load_generator
from encoders.genetics.generator_encoder import Generator
from encoders.genetics.haplotypes import reverse_complement
from encoders.genetics.kmer_tokenizer import encode_kmers
from encoders.genetics.sequence_encoder import SequenceEncoder
from encoders.runs.errors import InputError

spec = importlib.util.spec_from_file_location(
    "generator_files", Path(__file__).with_name("generator_files.py")
)
generator_files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(generator_files)
write = generator_files.write_random_generator


def words(lengths, seed=0):
    rng = random.Random(seed)
    return ["".join(rng.choices("ACGT", k=length)) for length in lengths]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generator")
    write(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(str(folder), batch_bases=700)


def states(encoder, sequence):
    ids = torch.from_numpy(encode_kmers(sequence))[None]
    with torch.inference_mode():
        return encoder.model(input_ids=ids, use_cache=False).last_hidden_state[0].numpy()


def test_a_vector_does_not_depend_on_its_batch(encoder):
    sequences = words([100, 101, 100, 37, 700, 100, 6, 1, 250, 1200, 5] * 2)
    together = encoder.encode(sequences)
    alone = np.concatenate([encoder.encode([sequence]) for sequence in sequences])
    np.testing.assert_allclose(together, alone, atol=1e-5, rtol=0)
    np.testing.assert_allclose(together, encoder.encode(sequences[::-1])[::-1], atol=1e-5, rtol=0)
    assert together.shape == (22, 32) and together.dtype == np.float32
    assert encoder.encode([]).shape == (0, 32)


def test_vectors_are_the_same_bits_on_any_number_of_cores(folder):
    """One process has all cores, each of two has half of them."""
    todo = [words([7, 8, 6]), words([200, 190]), words([100]), words([33] * 9)]
    before, found = torch.get_num_threads(), []
    try:
        for cores in (1, 2, 3):
            torch.set_num_threads(cores)
            encoder = load_encoder(str(folder))
            assert workers_of(encoder) == cores
            found.append([v for _, v in encode_batches(encoder, todo, workers=workers_of(encoder))])
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        for ours, theirs in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_pads_with_the_librarys_own_mask_give_the_same(encoder):
    short, long = (torch.from_numpy(encode_kmers(s)) for s in words([60, 200]))
    ids = torch.nn.utils.rnn.pad_sequence([short, long], batch_first=True, padding_value=3)
    mask = (torch.arange(ids.shape[1]) < torch.tensor([[len(short)], [len(long)]])).long()
    with torch.inference_mode():
        masked = encoder.model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    own = encoder.hidden_states(ids)
    torch.testing.assert_close(own[0, : len(short)], masked[0, : len(short)], atol=1e-5, rtol=0)
    torch.testing.assert_close(own[1], masked[1], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pool", ["mean", "last"])
def test_a_vector_does_not_depend_on_the_strand(encoder, pool):
    sequences = [*words([90, 41]), "ACGTNNNRYACGT"]
    turned = [reverse_complement(sequence) for sequence in sequences]
    here, there = encoder.encode(sequences, pool=pool), encoder.encode(turned, pool=pool)
    np.testing.assert_allclose(here, there, atol=1e-5, rtol=0)


def test_pools_are_means_over_both_strands(encoder):
    (sequence,) = words([80])  # not a multiple of 6: the strands are cut differently
    ahead, back = states(encoder, sequence), states(encoder, reverse_complement(sequence))
    assert len(ahead) == 15
    expected = {
        "mean": (ahead[1:].mean(0) + back[1:].mean(0)) / 2,
        "last": (ahead[-1] + back[-1]) / 2,
        # bases 10..19 lie in 6-mers 1..3 of this strand; on the other they are 60..69: 6-mers 10 and 11
        "stretch": (ahead[2:5].mean(0) + back[11:13].mean(0)) / 2,
    }
    for pool in ("mean", "last"):
        np.testing.assert_allclose(encoder.encode([sequence], pool=pool)[0], expected[pool], atol=1e-5)
    pair = encoder.encode([sequence, sequence], pool=[(10, 20), (0, 80)])
    np.testing.assert_allclose(pair[0], expected["stretch"], atol=1e-5)
    np.testing.assert_allclose(pair[1], expected["mean"], atol=1e-5)
    turned = encoder.encode([reverse_complement(sequence)], pool=[(60, 70)])
    np.testing.assert_allclose(turned[0], expected["stretch"], atol=1e-5)
    for bad in ([(5, 5)], [(0, 81)], "max"):
        with pytest.raises(ValueError, match="stretch|pool"):
            encoder.encode([sequence], pool=bad)


def test_lower_case_is_read_as_capitals_and_one_changed_base_is_seen(encoder):
    (sequence,) = words([400])
    assert np.array_equal(encoder.encode([sequence.lower()]), encoder.encode([sequence]))
    for place in (0, 200, 398, 399):  # the tail of 4 bases is not cut off
        base = "A" if sequence[place] != "A" else "C"
        other = sequence[:place] + base + sequence[place + 1 :]
        assert np.abs(encoder.encode([sequence]) - encoder.encode([other])).max() > 1e-3


def test_longer_than_the_context_is_refused_with_both_numbers(encoder):
    assert encoder.context == 6 * 255
    assert np.isfinite(encoder.encode(words([1530]))).all()
    with pytest.raises(InputError, match=r"E_CONTEXT: .*1,531 bases .*context of generator, 1,530 bases"):
        encoder.encode(words([1531]))


def test_operations_are_those_that_torch_counts(folder, encoder):
    (sequence,) = words([500])
    with FlopCounterMode(display=False) as counter:
        encoder.encode([sequence])
    attention = 2 * 2 * 4 * 85**2 * 32  # strands, layers: torch does not count its CPU attention
    assert encoder.operations(500) == counter.get_total_flops() + attention
    facts = encoder_facts(str(folder))
    assert (facts.name, facts.dim, facts.context) == (encoder.name, encoder.dim, encoder.context)
    assert facts.operations(500) == encoder.operations(500)


def test_bf16_is_near_fp32_and_another_identity(folder, encoder):
    sequences = words([300, 120])
    half = load_encoder(str(folder), dtype="bf16")
    assert next(half.model.parameters()).dtype == torch.bfloat16
    a, b = encoder.encode(sequences), half.encode(sequences)
    assert b.dtype == np.float32
    assert np.linalg.norm(a - b) < 0.03 * np.linalg.norm(a)
    assert half.identity == encoder.identity | {"dtype": "bfloat16"}


def test_identity_names_everything_that_decides_a_vector(folder, encoder, tmp_path):
    assert isinstance(encoder, SequenceEncoder) and isinstance(encoder, Generator)
    json.dumps(encoder.identity)
    assert encoder.identity["architecture"]["rope_parameters"]["rope_theta"] == 5e5
    assert not encoder.random_weights
    write(tmp_path / "a", seed=1, changes={"random_weights_seed": 1})
    write(tmp_path / "b", shards=2)
    a, b = (load_encoder(str(tmp_path / name)) for name in "ab")
    assert a.random_weights
    assert a.identity["weights_sha256"] != encoder.identity["weights_sha256"]
    assert a.identity | {"weights_sha256": ""} == encoder.identity | {"weights_sha256": ""}
    np.testing.assert_allclose(b.encode(words([77])), encoder.encode(words([77])), atol=1e-6)


def test_weights_that_give_no_numbers_are_refused(tmp_path):
    write(tmp_path, scale=1e30)
    load_generator(tmp_path)
    with pytest.raises(InputError, match="different vectors for a sequence and its reverse complement"):
        load_encoder(str(tmp_path))
