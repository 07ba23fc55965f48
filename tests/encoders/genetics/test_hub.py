"""Model files from a folder, and from a local server that speaks the hub's protocol."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from encoders.genetics.caduceus_checkpoint import write_random_checkpoint
from encoders.genetics.hub import resolve_model
from encoders.runs.errors import InputError

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "kuleshov-group/caduceus-ph_tiny"


class Hub(http.server.BaseHTTPRequestHandler):
    """GET /api/models/ID/revision/REV and tree/REV, HEAD and GET /ID/resolve/REV/FILE."""

    files: dict[str, bytes]
    fetched: list[str]

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(send_body=False)

    def do_GET(self):
        self.answer(send_body=True)

    def answer(self, *, send_body):
        parts = self.path.partition("?")[0].strip("/").split("/")
        if parts[:5] == ["api", "models", *REPOSITORY.split("/"), "tree"] and parts[5] == COMMIT:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in self.files.items()
            ]
            self.reply(200, json.dumps(tree).encode(), {"Content-Type": "application/json"}, send_body)
        elif parts[:5] == ["api", "models", *REPOSITORY.split("/"), "revision"] and parts[5] in (
            "main",
            COMMIT,
        ):
            siblings = [{"rfilename": name} for name in self.files]
            body = json.dumps({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings}).encode()
            self.reply(200, body, {"Content-Type": "application/json"}, send_body)
        elif "/".join(parts[:2]) == REPOSITORY and parts[2] == "resolve" and parts[4] in self.files:
            body = self.files[parts[4]]
            etag = {"ETag": f'"{hashlib.sha256(body).hexdigest()}"', "X-Repo-Commit": COMMIT}
            if send_body:
                self.fetched.append(parts[4])
            self.reply(200, body, etag, send_body)
        else:
            missing = {"X-Error-Code": "RevisionNotFound" if REPOSITORY in self.path else "RepoNotFound"}
            self.reply(404, b"{}", missing, send_body)

    def reply(self, status, body, headers, send_body):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if send_body:
            self.wfile.write(body)


@pytest.fixture
def hub(tmp_path):
    folder = tmp_path / "published"
    write_random_checkpoint(folder, d_model=8, n_layer=1)
    (folder / "modeling_caduceus.py").write_text("raise SystemExit('remote code must not be fetched')")
    served = type(
        "Served", (Hub,), {"files": {p.name: p.read_bytes() for p in folder.iterdir()}, "fetched": []}
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield served, f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


RESOLVE = """
import json, sys
from encoders.genetics.hub import resolve_model
from encoders.runs.errors import InputError
try:
    files = resolve_model(sys.argv[1], revision=sys.argv[2] or None)
    print(json.dumps([str(files.folder), files.name, files.revision, sorted(p.name for p in files.folder.iterdir())]))
except InputError as error:
    print(json.dumps(str(error)))
"""


def resolve(endpoint, cache, model, revision=""):
    # a process of its own: huggingface_hub reads its settings when it is imported
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    for name in ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        os.environ.pop(name, None)
    run = subprocess.run(
        [sys.executable, "-c", RESOLVE, model, revision],
        env=os.environ | settings | {"NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)


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
