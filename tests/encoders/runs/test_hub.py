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
import contextlib, io, json, sys
from encoders.runs.hub import resolve_model
from encoders.runs.errors import InputError
found = []
for revision in sys.argv[2:]:
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            files = resolve_model(sys.argv[1], revision=revision or None)
        names = sorted(p.name for p in files.folder.iterdir())
        found.append([str(files.folder), files.name, files.revision, names, said.getvalue()])
    except InputError as error:
        found.append(str(error))
print(json.dumps(found))
"""


def resolve(endpoint, cache, model, *revisions, **environment):
    """What one process finds, revision after revision: [folder, name, commit, files, stderr], or what it is told."""
    return hub_server.run_against(endpoint, cache, RESOLVE, model, *(revisions or ("",)), **environment)


def test_download_records_the_commit_and_takes_no_code(hub, tmp_path):
    served, endpoint = hub
    first, again, pinned = resolve(endpoint, tmp_path / "cache", REPOSITORY, "", "", COMMIT)
    folder, name, revision, names, said = first
    assert (name, revision) == (REPOSITORY, COMMIT)
    assert (
        names == ["config.json", "model.safetensors"] == sorted(served.fetched)
    )  # once, then from the cache
    assert Path(folder, "model.safetensors").read_bytes() == served.files["model.safetensors"]
    assert said.count("\n") == 1 and f"'main' may move on the hub; this run takes commit {COMMIT}" in said
    assert again == pinned == [*first[:4], ""]  # said once; nothing to say of a commit


def test_a_branch_or_tag_is_resolved_to_its_commit(hub, tmp_path):
    served, endpoint = hub
    older = served.files | {"config.json": served.files["config.json"] + b" "}
    served.commits[hub_server.OLDER] = older
    served.revisions |= {"v1.0": hub_server.OLDER, "refs/pr/3": hub_server.OLDER}
    cache, revisions = tmp_path / "cache", ("v1.0", "refs/pr/3", hub_server.OLDER)
    for revision, found in zip(revisions, resolve(endpoint, cache, REPOSITORY, *revisions), strict=True):
        folder, _, commit, _, said = found
        assert commit == hub_server.OLDER
        assert Path(folder, "config.json").read_bytes() == older["config.json"]
        assert said.startswith(f"{REPOSITORY}: {revision!r} may move") == (revision != commit)
    served.revisions["v1.0"] = COMMIT  # it moved
    assert resolve(endpoint, cache, REPOSITORY, "v1.0")[0][2] == COMMIT
    assert len(served.fetched) == 3  # the weights are the same file in both commits


def test_without_a_network_what_was_downloaded_still_works(hub, tmp_path):
    _, endpoint = hub
    (online,) = resolve(endpoint, tmp_path / "cache", REPOSITORY)
    nowhere = "http://127.0.0.1:9"
    for found in resolve(nowhere, tmp_path / "cache", REPOSITORY, "", COMMIT):
        assert found[:4] == online[:4]
    offline = {"HF_HUB_OFFLINE": "1"}
    for found in resolve(nowhere, tmp_path / "cache", REPOSITORY, "", COMMIT, **offline):
        assert found[:4] == online[:4]
    (message,) = resolve(nowhere, tmp_path / "empty", REPOSITORY, **offline)
    assert "could not be downloaded" in message


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_download_is_refused_and_the_next_one_is_whole(hub, tmp_path, name):
    served, endpoint = hub
    served.damaged.add(name)
    message, again = resolve(endpoint, tmp_path / "cache", REPOSITORY, "", "")
    assert message.startswith(f"E_HASH: {name} of {REPOSITORY} is damaged")
    assert message == again  # not taken from the cache either
    Path(message.partition("delete ")[2].partition(" and run")[0]).unlink()
    served.damaged.clear()
    (found,) = resolve(endpoint, tmp_path / "cache", REPOSITORY)
    assert Path(found[0], name).read_bytes() == served.files[name]


def test_a_download_that_breaks_off_is_one_sentence_and_leaves_nothing_that_looks_whole(hub, tmp_path):
    served, endpoint = hub
    served.cut.add("model.safetensors")
    (message,) = resolve(endpoint, tmp_path / "cache", REPOSITORY)
    assert message.startswith(f"{REPOSITORY} (revision main) could not be downloaded")
    served.cut.clear()
    (found,) = resolve(endpoint, tmp_path / "cache", REPOSITORY)
    assert Path(found[0], "model.safetensors").read_bytes() == served.files["model.safetensors"]


def test_what_is_not_on_the_hub(hub, tmp_path):
    served, endpoint = hub
    (message,) = resolve(endpoint, tmp_path / "a", "nobody/nothing")
    assert message.startswith("nobody/nothing (revision main) could not be downloaded")
    message, _ = resolve(endpoint, tmp_path / "b", REPOSITORY, "no-such-tag", "0" * 40)
    assert "(revision no-such-tag) could not be downloaded" in message
    del served.files["model.safetensors"]
    (message,) = resolve(endpoint, tmp_path / "c", REPOSITORY)
    assert "has no model.safetensors" in message
    (message,) = resolve("http://127.0.0.1:9", tmp_path / "d", REPOSITORY)
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
    with pytest.raises(InputError, match="is a folder, which has no revision 'main'"):
        resolve_model(str(tmp_path), revision="main")
