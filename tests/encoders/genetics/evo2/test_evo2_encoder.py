"""Evo 2 as an encoder of the genomes pipeline: vectors, scores, files from the hub, devices, and embed_genome."""

import importlib
import importlib.util
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from encoders.cohort.synthetic.config import SyntheticCohort
from encoders.cohort.synthetic.genome_files import write_reference, write_variants, write_windows
from encoders.cohort.synthetic.genomes import simulate_genotypes
from encoders.cohort.synthetic.people import simulate_people
from encoders.genetics.config import EmbedGenome
from encoders.genetics.embed_inputs import check_cards
from encoders.genetics.encoder_choice import encoder_facts, load_encoder
from encoders.genetics.evo2.devices import load_on, with_room
from encoders.genetics.evo2.hyena import GROUP_BYTES
from encoders.genetics.evo2.released import RELEASED
from encoders.genetics.evo2.tokenizer import encode_bytes
from encoders.genetics.evo2.weight_files import open_weights
from encoders.genetics.haplotypes import reverse_complement
from encoders.genetics.sequence_encoder import SequenceEncoder
from encoders.runs.errors import InputError
from encoders.runs.hub import ModelFiles
from encoders.vectors import SubjectVectors

spec = importlib.util.spec_from_file_location(
    "hub_server", Path(__file__).parents[2] / "runs" / "hub_server.py"
)
hub_server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hub_server)


def words(lengths, seed=0):
    rng = random.Random(seed)
    return ["".join(rng.choices("ACGT", k=length)) for length in lengths]


@pytest.fixture(scope="module")
def folder(official, tmp_path_factory):
    config = official.config()
    return official.write(
        tmp_path_factory.mktemp("evo2") / "tiny", config=config, weights=official.tensors(config)
    )


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(str(folder), batch_bases=2_000)


def test_it_is_a_sequence_encoder(encoder, folder):
    assert isinstance(encoder, SequenceEncoder)
    assert (encoder.name, encoder.dim, encoder.context, encoder.pads) == ("evo2", 64, 8192, True)
    assert not encoder.random_weights
    facts = encoder_facts(str(folder))
    assert (facts.name, facts.dim, facts.context) == ("evo2", 64, 8192)
    assert (
        facts.operations(500)
        == encoder.operations(500)
        == 2 * encoder.config.operations(500, layer=encoder.layer)
    )


def test_tokens_are_bytes_and_case_is_kept():
    ids = encode_bytes(["ACGTN", "ac", "\u00e4"])
    assert ids.tolist() == [[65, 67, 71, 84, 78], [97, 99, 1, 1, 1], [195, 164, 1, 1, 1]]


def test_a_vector_does_not_depend_on_its_batch_or_its_pads(encoder):
    sequences = words([300, 310, 295, 300, 40, 1, 1100, 1090])
    for pool in ("mean", "last", [(0, 1)] * 8):
        together = encoder.encode(sequences, pool=pool)
        alone = [encoder.encode([s], pool=pool if isinstance(pool, str) else [(0, 1)]) for s in sequences]
        np.testing.assert_allclose(together, np.concatenate(alone), atol=1e-5, rtol=0)
    assert together.shape == (8, 64) and together.dtype == np.float32


def test_a_vector_does_not_depend_on_the_strand(encoder):
    sequences = [*words([290, 301, 33]), "ACGTNNNRY"]
    turned = [reverse_complement(sequence) for sequence in sequences]
    spans = [(10, 40), (200, 301), (0, 1), (8, 9)]
    mirrored = [(len(s) - b, len(s) - a) for s, (a, b) in zip(sequences, spans, strict=True)]
    for pool, other in (("mean", "mean"), ("last", "last"), (spans, mirrored)):
        a, b = encoder.encode(sequences, pool=pool), encoder.encode(turned, pool=other)
        np.testing.assert_allclose(a, b, atol=1e-5, rtol=0)


def test_what_is_pooled(encoder):
    (sequence,) = words([80])
    layer = encoder.layer
    ahead, back = encode_bytes([sequence]), encode_bytes([reverse_complement(sequence)])
    with torch.inference_mode():
        ahead, back = (encoder.model.output(ids, layer=layer)[0][0].numpy() for ids in (ahead, back))
    wanted = {
        "mean": (ahead.mean(0) + back.mean(0)) / 2,
        "last": (ahead[-1] + back[-1]) / 2,
        (10, 21): (ahead[10:21].mean(0) + back[59:70].mean(0)) / 2,
    }
    for pool, vector in wanted.items():
        found = encoder.encode([sequence], pool=pool if isinstance(pool, str) else [pool])
        np.testing.assert_allclose(found[0], vector, atol=1e-5)
    for bad in ("first", [(5, 5)], [(0, 81)]):
        with pytest.raises(ValueError, match="pool|stretch"):
            encoder.encode([sequence], pool=bad)
    with pytest.raises(ValueError, match="must hold bases"):
        encoder.encode([""])
    with pytest.raises(InputError, match="E_CONTEXT: a sequence of 8,193 bases"):
        encoder.encode(["A" * 8193])


def test_scores_are_mean_log_probabilities_whatever_shares_the_batch(encoder):
    sequences = words([290, 300, 310, 2, 90])
    with torch.inference_mode():
        wanted = []
        for sequence in sequences:
            ids = encode_bytes([sequence])
            likely = torch.log_softmax(encoder.model(ids).double(), -1)[0, :-1]
            wanted.append(likely.gather(1, ids[0, 1:, None]).mean().item())
    np.testing.assert_allclose(encoder.score(sequences), wanted, rtol=1e-5)
    lengths = np.array([len(s) - 1 for s in sequences])
    np.testing.assert_allclose(encoder.score(sequences, reduce="sum"), wanted * lengths, rtol=1e-5)
    turned = [reverse_complement(s) for s in sequences]
    both = (encoder.score(sequences) + encoder.score(turned)) / 2
    np.testing.assert_allclose(encoder.score(sequences, both_strands=True), both, rtol=1e-5)
    with pytest.raises(ValueError, match="1 sequences have less than two bases"):
        encoder.score(["ACGT", "A"])


def test_scores_of_long_sequences_are_summed_in_pieces(encoder, monkeypatch):
    sequences = words([700, 650])
    whole = encoder.score(sequences)
    monkeypatch.setattr(importlib.import_module("encoders.genetics.evo2.encoder"), "SCORED", 97)
    np.testing.assert_allclose(encoder.score(sequences), whole, rtol=1e-6)


def test_identity_names_everything_that_decides_a_vector(encoder, folder, official, tmp_path):
    identity = encoder.identity
    json.dumps(identity)
    assert set(identity) == {
        "encoder",
        "architecture",
        "weights_sha256",
        "layer",
        "tokens",
        "strands",
        "dtype",
    }
    config = official.config()
    other = official.write(tmp_path / "o", config=config, weights=official.tensors(config, seed=1))
    for changed, key in (
        (load_encoder(str(other)), "weights_sha256"),
        (load_encoder(str(folder), dtype="bf16"), "dtype"),
        (load_encoder(str(folder), layer="blocks.4"), "layer"),
    ):
        assert {name for name in identity if changed.identity[name] != identity[name]} == {key}


def test_layers_by_name_and_options_of_other_models(folder, tmp_path):
    assert load_encoder(str(folder), layer="blocks.6.mlp.l1").encode(["ACGT"]).shape == (1, 96)
    for ask in (load_encoder, encoder_facts):
        with pytest.raises(InputError, match=r"no layer 'blocks.28.mlp.l3'; it has 7 blocks"):
            ask(str(folder), layer="blocks.28.mlp.l3")
    caduceus = importlib.import_module("encoders.genetics.caduceus_checkpoint")
    caduceus.write_random_checkpoint(tmp_path)
    with pytest.raises(InputError, match="--layer is an option of Evo 2; this model is a Caduceus"):
        load_encoder(str(tmp_path), layer="blocks.1")


def test_a_model_trained_in_fp8_is_loaded_with_a_plain_warning(official, tmp_path, monkeypatch):
    """The shape of the 1B is too large for a test; a tiny one is entered as if it were it."""
    config = official.config()
    made = official.write(tmp_path / "m", config=config, weights=official.tensors(config))
    monkeypatch.setitem(RELEASED, "1b_base", {"hidden_size": 64, "num_layers": 7})
    with pytest.warns(
        UserWarning, match=r"tiny was trained with FP8 input projections.*DIFFER from the authors'"
    ):
        encoder = load_encoder(str(made))
    assert "without FP8" in encoder.identity["fp8_projections"]


def test_the_authors_package_where_it_cannot_run_is_one_sentence(official, tmp_path):
    config = official.config()
    made = official.write(tmp_path / "m", config=config, weights=official.tensors(config), name="evo2_7b")
    if importlib.util.find_spec("evo2") is None:
        told = r"E_BACKEND: the evo2 package cannot be imported here \(evo2 is missing\); it needs CUDA, flash-attn"
    elif not torch.cuda.is_available():
        told = "E_BACKEND"
    else:
        pytest.skip("the evo2 package can run here")
    with pytest.raises(InputError, match=told):
        load_encoder(str(made), backend="evo2")
    (made / "evo2_7b.pt").rename(made / "mine.pt")
    with pytest.raises(InputError, match="m has no released name"):
        load_encoder(ModelFiles(folder=made, name="m"), backend="evo2")


def test_a_model_without_sense_is_noticed(official, tmp_path):
    config = official.config()
    weights = official.tensors(config)
    for name, told in (("blocks.6.mlp.l3.weight", "equal"), ("blocks.2.filter.D", "NaN or infinite")):
        odd = torch.zeros_like(weights[name]) if told == "equal" else torch.full_like(weights[name], 3e38)
        made = official.write(tmp_path / name, config=config, weights=weights | {name: odd})
        with pytest.raises(InputError, match=f"gives {told} features at blocks.6.mlp.l3"):
            load_encoder(str(made))


@pytest.mark.parametrize(
    "device_map",
    [
        pytest.param("auto", marks=pytest.mark.slow),
        {"embedding_layer": "cpu", "blocks.0": "disk", "blocks.1": "cpu", "blocks.2": "disk", "blocks.3": "disk",
         "blocks.4": "cpu", "blocks.5": "cpu", "blocks.6": "disk", "norm": "disk"},
    ],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_blocks_that_do_not_fit_into_memory_come_from_the_disk(device_map, dtype, folder, tmp_path):
    whole = load_encoder(str(folder), dtype=dtype)
    limits = {"cpu": "500KB" if dtype == "fp32" else "300KB"}
    parts = load_encoder(
        str(folder), dtype=dtype, device_map=device_map, max_memory=limits, offload=tmp_path / "offload"
    )
    places = parts.model.hf_device_map
    assert "disk" in places.values() and places["embedding_layer"] == places["norm"] == "cpu"
    assert any(
        p.device.type == "meta" for p in parts.model.parameters()
    )  # only what lies in memory takes memory
    assert list((tmp_path / "offload").glob("blocks.6.*"))
    sequences = words([100, 90])
    np.testing.assert_array_equal(parts.encode(sequences), whole.encode(sequences))
    np.testing.assert_array_equal(parts.score(sequences), whole.score(sequences))


def test_wrong_device_maps_are_named(encoder, folder, tmp_path):
    def load(device_map, offload=None):
        load_on(open_weights(folder), encoder.config, device="cpu", dtype=torch.float32, device_map=device_map,
                offload=offload)  # fmt: skip

    with pytest.raises(InputError, match="does not cover the model"):
        load({"embedding_layer": "cpu", "blocks.0": "cpu", "norm": "cpu"})
    with pytest.raises(InputError, match="no folder was given"):
        load({"": "disk"})
    with pytest.raises(InputError, match="device_map is 'balanced'"):
        load("balanced")


def test_weights_spread_by_themselves_leave_memory_for_a_batch(encoder, folder):
    room = 2 * GROUP_BYTES["cuda"] + 4 * 16_384 * 64 * 4
    free = {0: room + 10**6, 1: room // 2, "cpu": 10**12}
    found = with_room(free, encoder.config, bases=16_384, dtype=torch.float32)
    assert found[0] == 10**6 and found[1] == 0 and 9 * 10**11 < found["cpu"] < 10**12
    alone = load_encoder(str(folder), device_map="auto", batch_bases=2_000)  # here: all of it on one device
    np.testing.assert_allclose(alone.encode(["ACGTTGCA"]), encoder.encode(["ACGTTGCA"]), atol=1e-5)


def test_a_model_spread_over_all_cards_is_refused_in_several_processes_of_a_machine(monkeypatch):
    def check(**options):
        check_cards(EmbedGenome(study=Path("s"), model="m", **options))

    spread = ({"device_map": "auto"}, {"backend": "evo2"})
    for options in spread:
        check(**options)
    monkeypatch.setenv("WORLD_SIZE", "4")
    check()
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")  # four machines with a process each
    for options in spread:
        check(**options)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    check()
    for options in spread:
        ((name, value),) = options.items()
        with pytest.raises(InputError, match=f"--{name}={value} spreads .*, and 2 processes on this machine"):
            check(**options)
    monkeypatch.delenv("LOCAL_WORLD_SIZE")
    monkeypatch.delenv("WORLD_SIZE")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(
        InputError, match="would use the GPUs of this machine, and --device=cpu asks for none"
    ):
        check(device_map="auto", device="cpu")


def test_a_map_is_not_for_the_authors_package(folder):
    with pytest.raises(InputError, match="spreads a model over the GPUs itself; leave out --device_map"):
        load_encoder(str(folder), backend="evo2", device_map="auto")


def test_weights_without_a_shape_say_what_to_do(folder, tmp_path):
    (tmp_path / "mine.pt").write_bytes((folder / "tiny.pt").read_bytes())
    with pytest.raises(InputError, match=r"holds mine.pt, .* put the YAML of the authors' package beside it"):
        load_encoder(str(tmp_path))


LOAD = """
import json, sys
from encoders.genetics.encoder_choice import load_encoder
encoder = load_encoder(sys.argv[1], revision=sys.argv[2])
print(json.dumps([encoder.encode(["ACGTTGCA"])[0].tolist(), encoder.identity["weights_sha256"]]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("parts", [0, 3])
def test_a_hub_repository_with_nothing_but_weights_and_a_readme(parts, official, encoder, tmp_path):
    config = official.config()
    repository = official.write(
        tmp_path / "repository", config=config, weights=official.tensors(config), parts=parts
    )
    (repository / "README.md").write_text("# not fetched")
    (repository / "code.py").write_text("raise SystemExit")
    with hub_server.serving(repository) as (served, endpoint):
        vector, digest = hub_server.run_against(
            endpoint, tmp_path / "cache", LOAD, hub_server.REPOSITORY, hub_server.COMMIT
        )
    np.testing.assert_allclose(vector, encoder.encode(["ACGTTGCA"])[0], atol=1e-6)
    assert len(digest) == 64
    weights = [f"tiny.pt.part{part}" for part in range(parts)] or ["tiny.pt"]
    assert sorted(set(served.fetched)) == sorted([*weights, "tiny.yml"])


PLANS = """
import json, sys
from encoders.genetics.encoder_choice import encoder_facts, load_encoder
from encoders.genetics.model_choice import model_at_hand
absent = []
for layer in ("blocks.1", "blocks.5"):
    absent.append(model_at_hand(sys.argv[1]) is None)
    absent.append(encoder_facts(sys.argv[1], layer=layer).dim == 64)
load_encoder(sys.argv[1])
print(json.dumps([*absent, model_at_hand(sys.argv[1]) is not None]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("config_json", [None, '{"model_type": "evo2"}'])
def test_a_model_whose_shape_alone_was_fetched_is_not_at_hand(config_json, official, tmp_path):
    """Plans fetch the YAML; the weights stay absent until a run fetches them."""
    config = official.config()
    repository = official.write(tmp_path / "repository", config=config, weights=official.tensors(config))
    if config_json:
        (repository / "config.json").write_text(config_json)
    with hub_server.serving(repository) as (_, endpoint):
        found = hub_server.run_against(endpoint, tmp_path / "cache", PLANS, hub_server.REPOSITORY)
    assert found == [True] * 5


@pytest.mark.parametrize("parts", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_from_genomes_to_vectors_of_people(parts, official, tmp_path, capsys):
    """The whole of scripts/embed_genome.py on a checkpoint in the released layout."""
    config = official.config()
    model = official.write(tmp_path / "model", config=config, weights=official.tensors(config), parts=parts)
    cohort = SyntheticCohort(people=8, windows=2, window_bp=150, variants_per_window=6, amplitude_latents=1,
                             coupling_latents=0, causal_per_latent=2)  # fmt: skip
    people = simulate_people(cohort, cohort.rng("people"))
    truth = simulate_genotypes(cohort, people, cohort.rng("genomes"))
    raw = tmp_path / "study" / "raw"
    write_reference(raw / "genetics" / "reference.fa", truth.reference)
    write_windows(raw / "genetics" / "windows.bed", truth.windows)
    write_variants(raw / "genetics" / "cohort.vcf.gz", truth, people.ids)
    (raw / "participants.tsv").write_text("\n".join(["participant_id", *people.ids]) + "\n")
    main = importlib.import_module("scripts.embed_genome").main
    options = [f"--study={raw.parent}", "--device=cpu", f"--model={model}"]
    assert main([*options, "--plan=true"]) == 0
    assert "operations" in capsys.readouterr().out
    assert main(options) == 0
    vectors = SubjectVectors.load(raw.parent / "vectors" / "genetics.safetensors")
    assert vectors.ids == people.ids and vectors.values.shape == (8, 2 * 64)
    assert np.isfinite(vectors.values).all() and vectors.values.std(axis=0).min() > 0
    assert vectors.provenance["encoder"] == "evo2" and vectors.provenance["layer"] == "blocks.6.mlp.l3"
    assert main([*options, "--layer=blocks.4.mlp.l3"]) == 2  # another space is another run
    assert "layer" in capsys.readouterr().err
    assert main([*options, "--layer=blocks.4.mlp.l3", "--dtype=bf16", "--tokens=last", "--redo=true"]) == 0
    other = SubjectVectors.load(raw.parent / "vectors" / "genetics.safetensors")
    assert other.provenance["layer"] == "blocks.4.mlp.l3" and other.provenance["dtype"] == "bfloat16"
    assert not np.allclose(other.values, vectors.values, atol=1e-2)
