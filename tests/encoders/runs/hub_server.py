"""A local server that speaks the part of the Hugging Face hub's protocol that downloads need.

GET /api/models/ID/revision/REV and tree/REV, HEAD and GET /ID/resolve/REV/FILE.
"""

import contextlib
import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REPOSITORY = "somebody/some-model_tiny"


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers for the one repository there is; `fetched` names the files whose content was sent."""

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


@contextlib.contextmanager
def serving(folder):
    """(handler class, endpoint) of a server that publishes the files of a folder as REPOSITORY at COMMIT."""
    served = type(
        "Served", (Hub,), {"files": {p.name: p.read_bytes() for p in folder.iterdir()}, "fetched": []}
    )
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield served, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def run_against(endpoint, cache, code, *arguments):
    """What a program prints as JSON when ``endpoint`` is its hub.

    In a process of its own, because huggingface_hub reads its settings when it is imported.
    """
    hidden = ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={k: v for k, v in os.environ.items() if k not in hidden} | settings | {"NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)
