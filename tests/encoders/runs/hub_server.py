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
import urllib.parse

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OLDER = "fedcba9876543210fedcba9876543210fedcba98"
REPOSITORY = "somebody/some-model_tiny"


def etag(name, content):
    """The digest that the hub gives a file: git's of small text files, sha256 of large ones."""
    if name.endswith((".json", ".txt", ".py", ".md")):
        return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    return hashlib.sha256(content).hexdigest()


class Hub(http.server.BaseHTTPRequestHandler):
    """Answers for the one repository there is.

    `revisions` says which commit a branch or a tag has, `commits` which files a commit has (`files`: those of
    COMMIT), `fetched` names the files whose content was sent; those in `damaged` are sent with one bit flipped,
    of those in `cut` only the first half is sent.
    """

    files: dict[str, bytes]
    commits: dict[str, dict[str, bytes]]
    revisions: dict[str, str]
    fetched: list[str]
    damaged: set[str]
    cut: set[str]

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(send_body=False)

    def do_GET(self):
        self.answer(send_body=True)

    def answer(self, *, send_body):
        parts = [urllib.parse.unquote(part) for part in self.path.partition("?")[0].strip("/").split("/")]
        api = parts[:4] == ["api", "models", *REPOSITORY.split("/")] and parts[4]
        commit = None
        if len(parts) > 5 and api in ("tree", "revision"):
            commit = self.revisions.get(parts[5], parts[5])
        elif "/".join(parts[:2]) == REPOSITORY and parts[2] == "resolve":
            commit = self.revisions.get(parts[3], parts[3])
        files = self.commits.get(commit)
        if api == "tree" and files is not None:
            tree = [
                {"type": "file", "path": name, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for name, content in files.items()
            ]
            self.reply(200, json.dumps(tree).encode(), {"Content-Type": "application/json"}, send_body)
        elif api == "revision" and files is not None:
            siblings = [{"rfilename": name} for name in files]
            body = json.dumps({"id": REPOSITORY, "sha": commit, "siblings": siblings}).encode()
            self.reply(200, body, {"Content-Type": "application/json"}, send_body)
        elif files is not None and parts[4] in files:
            name = parts[4]
            body = files[name]
            headers = {"ETag": f'"{etag(name, body)}"', "X-Repo-Commit": commit}
            if name in self.damaged:
                body = bytes([body[0] ^ 1]) + body[1:]
            if send_body:
                self.fetched.append(name)
            self.reply(200, body, headers, send_body, cut=name in self.cut)
        else:
            missing = {"X-Error-Code": "RevisionNotFound" if REPOSITORY in self.path else "RepoNotFound"}
            self.reply(404, b"{}", missing, send_body)

    def reply(self, status, body, headers, send_body, *, cut=False):
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(name, value)
        self.end_headers()
        if send_body:
            self.wfile.write(body[: len(body) // 2] if cut else body)


@contextlib.contextmanager
def serving(folder):
    """(handler class, endpoint) of a server that publishes the files of a folder as REPOSITORY at COMMIT."""
    files = {p.name: p.read_bytes() for p in folder.iterdir()}
    state = {"files": files, "commits": {COMMIT: files}, "revisions": {"main": COMMIT}}
    state |= {"fetched": [], "damaged": set(), "cut": set()}
    served = type("Served", (Hub,), state)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), served)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield served, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def run_against(endpoint, cache, code, *arguments, **environment):
    """What a program prints as JSON when ``endpoint`` is its hub.

    In a process of its own, because huggingface_hub reads its settings when it is imported.
    """
    hidden = ("HF_HUB_OFFLINE", "HF_HUB_CACHE", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY")
    settings = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    settings |= {"NO_PROXY": "127.0.0.1"} | environment
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={k: v for k, v in os.environ.items() if k not in hidden} | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout)
