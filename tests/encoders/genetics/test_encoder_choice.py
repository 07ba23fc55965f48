"""One door to every encoder: from a folder and from a local server that speaks the hub's protocol."""

import importlib.util
import json
from pathlib import Path

import pytest

from encoders.genetics.caduceus_checkpoint import write_random_checkpoint
from encoders.genetics.encoder_choice import encoder_facts, encoder_files, find_model, load_encoder
from encoders.runs.errors import InputError

HERE = Path(__file__).parent


def module(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


hub_server = module(HERE.parent / "runs" / "hub_server.py")
write_random_generator = module(HERE / "generator_files.py").write_random_generator
COMMIT, REPOSITORY = hub_server.COMMIT, hub_server.REPOSITORY

LOAD = """
import json, sys
from encoders.genetics.encoder_choice import encoder_facts, find_model, load_encoder
from encoders.genetics.model_choice import model_at_hand
from encoders.runs.errors import InputError
absent = [model_at_hand(sys.argv[1]) is None]
facts = encoder_facts(sys.argv[1])
absent.append(model_at_hand(sys.argv[1]) is None)
before = sorted(p.name for p in find_model.__globals__["resolve_model"](sys.argv[1], files=()).folder.iterdir())
try:
    files, kind = find_model(sys.argv[1])
    encoder = load_encoder(files)
except InputError as error:
    print(json.dumps(str(error)))
    sys.exit()
here = [model_at_hand(sys.argv[1], revision) == files for revision in (None, files.revision)]
print(json.dumps({
    "absent": absent, "here": here,
    "kind": kind.name, "commit": files.revision, "name": files.name, "identity": encoder.identity, "before": before,
    "files": sorted(p.name for p in files.folder.iterdir()), "facts": [facts.name, facts.dim, facts.operations(600)],
    "vector": encoder.encode(["ACGTTGCAAGGC" * 5])[0].tolist(), "operations": encoder.operations(600),
}))
"""


@pytest.mark.parametrize("kind", ["Caduceus", pytest.param("GENERator", marks=pytest.mark.slow)])
def test_from_the_hub_as_from_the_folder_and_no_code_is_fetched(tmp_path, kind):
    folder = tmp_path / "published"
    if kind == "Caduceus":
        write_random_checkpoint(folder, kind="ps", d_model=8, n_layer=1)
        (folder / "modeling_caduceus.py").write_text("raise SystemExit('remote code must not be fetched')")
    else:
        write_random_generator(folder, shards=3)
    with hub_server.serving(folder) as (served, endpoint):
        found = hub_server.run_against(endpoint, tmp_path / "cache", LOAD, REPOSITORY)
    assert (found["absent"], found["here"]) == ([True, True], [True, True])
    assert found["before"] == ["config.json"]  # a plan fetches no weights
    assert (found["kind"], found["commit"], found["name"]) == (kind, COMMIT, REPOSITORY)
    assert not [name for name in served.fetched if name.endswith(".py")]
    assert len(served.fetched) == len(set(served.fetched)) == len(found["files"])
    here = load_encoder(str(folder))
    assert found["identity"] == here.identity
    assert found["vector"] == pytest.approx(here.encode(["ACGTTGCAAGGC" * 5])[0].tolist(), abs=1e-6)
    assert found["facts"] == [here.name, here.dim, here.operations(600)]
    assert [path.name for path in encoder_files(folder)] == found["files"]


@pytest.mark.slow
def test_a_repository_that_lacks_a_file_is_named(tmp_path):
    write_random_generator(tmp_path / "published", shards=3)
    with hub_server.serving(tmp_path / "published") as (served, endpoint):
        del served.files["model-00002-of-00003.safetensors"]
        message = hub_server.run_against(endpoint, tmp_path / "a", LOAD, REPOSITORY)
        assert "lacks model-00002-of-00003.safetensors, 1 of the 3 files" in message


def test_what_is_no_genome_model_is_refused(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    for ask in (load_encoder, find_model, encoder_facts, encoder_files):
        with pytest.raises(
            InputError, match=r"none of the known genome models \(Caduceus, GENERator.*'bert'"
        ):
            ask(tmp_path if ask is encoder_files else str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(InputError, match="config.json is not readable"):
        load_encoder(str(tmp_path))
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(InputError, match="none of the known"):
        load_encoder(str(tmp_path))
    (tmp_path / "config.json").unlink()
    with pytest.raises(InputError, match=r"it has no config\.json; pass the folder or the hub id of one"):
        load_encoder(str(tmp_path))


def test_the_length_that_a_caduceus_was_trained_on_is_in_its_name(tmp_path):
    """config.json does not have it."""
    for name, context in {
        "caduceus-ph_seqlen-131k_d_model-256_n_layer-16": 131_072,
        "caduceus-ps_seqlen-1k_d_model-256_n_layer-4_lr-8e-3": 1_024,
        "genome_model": None,
    }.items():
        write_random_checkpoint(tmp_path / name, d_model=8, n_layer=1)
        encoder = load_encoder(str(tmp_path / name))
        assert encoder.context == encoder_facts(str(tmp_path / name)).context == context
        if context == 1_024:
            encoder.encode(["A" * 1_024])
            with pytest.raises(InputError, match=r"E_CONTEXT: .*1,025 bases .*caduceus-ph, 1,024 bases"):
                encoder.encode(["A" * 1_025])
