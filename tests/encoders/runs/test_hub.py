"""Model files from a folder, and from a local server that speaks the hub's protocol."""

import importlib.util
from pathlib import Path

import pytest

from encoders.genetics.caduceus_checkpoint import write_random_checkpoint
from encoders.runs.errors import InputError
from encoders.runs.hub import resolve_model

spec = importlib.util.spec_from_file_location("hub_server", Path(__file__).with_name("hub_server.py"))
hub_server = importlib.util.module_from_spec(spec)
spec.loader.exec_module(hub_server)
COMMIT, REPOSITORY = hub_server.COMMIT, hub_server.REPOSITORY


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "published"
    write_random_checkpoint(folder, d_model=8, n_layer=1)
    (folder / "modeling_caduceus.py").write_text("raise SystemExit('remote code must not be fetched')")
    with hub_server.serving(folder) as served_at:
        yield served_at


RESOLVE = """
import json, sys
from encoders.runs.hub import resolve_model
from encoders.runs.errors import InputError
try:
    files = resolve_model(sys.argv[1], revision=sys.argv[2] or None)
    print(json.dumps([str(files.folder), files.name, files.revision, sorted(p.name for p in files.folder.iterdir())]))
except InputError as error:
    print(json.dumps(str(error)))
"""


def resolve(endpoint, cache, model, revision=""):
    return hub_server.run_against(endpoint, cache, RESOLVE, model, revision)


def test_download_records_the_commit_and_takes_no_code(hub, tmp_path):
    served, endpoint = hub
    folder, name, revision, names = resolve(endpoint, tmp_path / "cache", REPOSITORY)
    assert (name, revision) == (REPOSITORY, COMMIT)
    assert names == ["config.json", "model.safetensors"] == sorted(served.fetched)
    assert Path(folder, "model.safetensors").read_bytes() == served.files["model.safetensors"]
    again = resolve(endpoint, tmp_path / "cache", REPOSITORY, COMMIT)
    assert again[:3] == [folder, REPOSITORY, COMMIT]
    assert len(served.fetched) == 2  # from the cache


def test_what_is_not_on_the_hub(hub, tmp_path):
    served, endpoint = hub
    message = resolve(endpoint, tmp_path / "a", "nobody/nothing")
    assert message.startswith("nobody/nothing (revision main) could not be downloaded")
    message = resolve(endpoint, tmp_path / "b", REPOSITORY, "no-such-tag")
    assert "(revision no-such-tag) could not be downloaded" in message
    del served.files["model.safetensors"]
    message = resolve(endpoint, tmp_path / "c", REPOSITORY)
    assert "has no model.safetensors" in message
    message = resolve("http://127.0.0.1:9", tmp_path / "d", REPOSITORY)
    assert "could not be downloaded" in message and "pass the folder to --model" in message


def test_folders(tmp_path):
    write_random_checkpoint(tmp_path / "model", d_model=8, n_layer=1)
    files = resolve_model(str(tmp_path / "model"))
    assert (files.folder, files.name, files.revision) == ((tmp_path / "model").resolve(), "model", None)
    (tmp_path / "model" / "model.safetensors").unlink()
    with pytest.raises(
        InputError, match=r"lacks model\.safetensors; a model folder in the Hugging Face layout"
    ):
        resolve_model(str(tmp_path / "model"))
    for neither in ("nowhere", "./a/b", "/no/such"):
        with pytest.raises(InputError, match="neither a folder nor a hub id"):
            resolve_model(neither)
