"""A Hub on this machine, so that tests speak to it through the real huggingface_hub client and no network.

It keeps repositories in memory and answers what the client asks: create, delete, preupload, Git LFS upload, commit,
branch, tag, resolve (ranges, commit and entity headers), revisions, file tree, whoami. Whoever writes must show the
token; to those who show none, a private repository does not exist, and `read_token` reads only. `broken` names routes
that fail. Xet is not spoken: `environment` turns it off.
"""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
LARGE = (".parquet", ".safetensors", ".bin")  # files that travel by Git LFS, as on the Hub
API = r"/api/(?P<kind>model|dataset)s/(?P<name>[^/]+/[^/]+)"
PAGE = r"/(?:(?P<kind>dataset)s/)?(?P<name>[^/]+/[^/]+)"
FIXED = {
    "/api/whoami-v2": {
        "type": "user",
        "name": "me",
        "orgs": [{"name": "org", "roleInOrg": "write"}, {"name": "readers", "roleInOrg": "read"}],
    },
    "/api/validate-yaml": {"errors": [], "warnings": []},
}
ROUTES = (  # methods, path, who answers
    ("POST", "/api/repos/create", "create"),
    ("DELETE", "/api/repos/delete", "delete"),
    ("POST", API + "/preupload/(?P<revision>[^/]+)", "preupload"),
    ("POST", PAGE + r"\.git/info/lfs/objects/batch", "lfs_batch"),
    ("PUT", "/lfs/(?P<oid>[0-9a-f]{64})", "lfs_upload"),
    ("POST", API + "/commit/(?P<revision>[^/]+)", "commit"),
    ("POST", API + "/tag/(?P<revision>[^/]+)", "tag"),
    ("POST", API + "/branch/(?P<branch>[^/]+)", "branch"),
    ("GET", API + "(?:/revision/(?P<revision>[^/]+))?", "info"),
    ("GET", API + "/tree/(?P<revision>[^/]+)(?:/(?P<folder>.+))?", "tree"),
    ("GET HEAD", PAGE + "/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
)


@dataclass
class Repository:
    """Commits in order, each the whole tree `{path: bytes}`, and names for some of them."""

    name: str
    private: bool = False
    hidden: bool = False  # somebody else's private one: it is there, and the token may not see it
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes], ref: str = "main") -> str:
        sha = hashlib.sha1(f"{self.name}/{len(self.commits)}".encode()).hexdigest()
        self.commits[sha], self.refs[ref] = files, sha
        return sha

    @property
    def files(self) -> dict[str, bytes]:
        return self.commits[self.refs["main"]]


class LoopbackHub:
    """Serve repositories on a free loopback port while the `with` block lasts."""

    def __init__(self, token: str = "hf_secretOfTheLoopbackHub"):
        self.token, self.read_token, self.lock = token, f"{token}ForReadersAlone", threading.Lock()
        self.broken: set[str] = set()
        self.complaint = (500, "Internal Error")  # of a broken route
        self.repositories: dict[tuple[str, str], Repository] = {}  # by kind and name
        self.uploads: dict[str, bytes] = {}  # by SHA-256; empty until they come
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> "LoopbackHub":
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Variables that turn a new process into a client of this Hub; huggingface_hub reads them at import."""
        switches = {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_OFFLINE": "0"}
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), **switches} | ({"HF_TOKEN": token} if token else {})


def run_client(
    hub: LoopbackHub, file: str, folder: Path, *steps: str, token: str | None = None, bare: Path | None = None
) -> str:
    """Run `python FILE FOLDER STEP ...` as a client of this Hub with a cache of its own; give what it printed.

    Args:
        hub: what it speaks to; it must succeed, and print no token.
        file: a Python file that is its own client.
        folder: where it works.
        steps: what it does there.
        token: what it shows; None: it is a stranger.
        bare: the one folder in which it finds libraries; None: all that are here, and this project.
    """
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    env |= hub.environment(folder / f"home of {steps[0]}", token)
    env |= {"PYTHONPATH": str(bare or ROOT), "OMP_NUM_THREADS": "1", "NO_PROXY": "127.0.0.1"}
    env |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    command = [sys.executable, *(["-S", "-P"] if bare else []), file, str(folder), *steps]
    done = subprocess.run(
        command, env=env, cwd=folder, capture_output=True, text=True, timeout=900, stdin=subprocess.DEVNULL
    )
    printed = done.stdout + done.stderr
    assert done.returncode == 0, printed[-6000:]
    assert hub.token not in printed
    return printed


class _Refused(Exception):
    """Stops a request: status, the Hub's error code, its message, headers beside them."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: LoopbackHub

    def log_message(self, *_: object) -> None:
        """Stay quiet."""

    def serve(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        self.body = self.rfile.read(length)
        if len(self.body) < length:  # the client is gone; half a request is none
            self.close_connection = True
            return
        with self.hub.lock:
            try:
                answer: Any = self.route(unquote(urlsplit(self.path).path))
                answer, status, headers = answer if isinstance(answer, tuple) else (answer, 200, {})
            except _Refused as refused:
                status, code, message, *more = refused.args
                answer, headers = {"error": message}, {"X-Error-Code": code, "X-Error-Message": message, **dict(*more)}
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = serve

    def route(self, path: str) -> Any:
        shown = self.headers.get("Authorization")
        writes = self.command in ("POST", "DELETE") and path not in FIXED  # a PUT goes to an address given to a member
        if shown and shown not in (f"Bearer {self.hub.token}", f"Bearer {self.hub.read_token}"):
            raise _Refused(401, "", "Invalid credentials in Authorization header")
        if not shown and (writes or path in FIXED):
            raise _Refused(401, "", "Invalid username or password.")
        if writes and shown == f"Bearer {self.hub.read_token}":
            raise _Refused(403, "", "Forbidden: you must use a write token to upload to a repository.")
        if path in FIXED:
            return FIXED[path]
        routes = ((re.fullmatch(pattern, path), name) for methods, pattern, name in ROUTES if self.command in methods)
        found, name = next(((found, name) for found, name in routes if found), (None, ""))
        if found is None:
            raise _Refused(404, "", "not on the loopback Hub")
        if name in self.hub.broken:
            status, message = self.hub.complaint
            raise _Refused(status, "", message)
        self.parts = found.groupdict()
        if "name" in self.parts:
            repository = self.hub.repositories.get((self.parts["kind"] or "model", self.parts["name"]))
            if repository is None or repository.hidden or (repository.private and not shown):
                raise _Refused(404 if shown else 401, "RepoNotFound", "Repository not found")
            revision = self.parts.get("revision") or "main"
            self.repository, self.sha = repository, repository.refs.get(revision, revision)
            if self.sha not in repository.commits:
                raise _Refused(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            self.files = repository.commits[self.sha]
        return getattr(self, name)()

    def create(self) -> Any:
        asked = json.loads(self.body)
        kind, name = asked.get("type") or "model", f"{asked.get('organization') or 'me'}/{asked['name']}"
        is_new = (kind, name) not in self.hub.repositories
        if is_new:
            made = Repository(name, bool(asked.get("private")) or asked.get("visibility") == "private")
            made.commit({".gitattributes": b""})
            self.hub.repositories[kind, name] = made
        return {"url": f"{self.hub.url}/{'' if kind == 'model' else 'datasets/'}{name}"}, 200 if is_new else 409, {}

    def delete(self) -> Any:
        asked = json.loads(self.body)
        del self.hub.repositories[asked.get("type") or "model", f"{asked.get('organization') or 'me'}/{asked['name']}"]
        return {}

    def preupload(self) -> Any:
        files = json.loads(self.body)["files"]
        for file in files:
            file |= {"uploadMode": "lfs" if file["path"].endswith(LARGE) else "regular", "shouldIgnore": False}
        return {"files": files}

    def lfs_batch(self) -> Any:
        objects = json.loads(self.body)["objects"]
        for entry in objects:
            if not self.hub.uploads.setdefault(entry["oid"], b""):
                entry["actions"] = {"upload": {"href": f"{self.hub.url}/lfs/{entry['oid']}"}}
        return {"transfer": "basic", "objects": objects}

    def lfs_upload(self) -> Any:
        if hashlib.sha256(self.body).hexdigest() != self.parts["oid"] or self.parts["oid"] not in self.hub.uploads:
            raise _Refused(400, "", "these bytes were not announced")
        self.hub.uploads[self.parts["oid"]] = self.body
        return {}

    def commit(self) -> Any:
        files = dict(self.files)
        for operation in map(json.loads, self.body.splitlines()):
            match operation["key"], operation["value"]:
                case "header", value if value.get("parentCommit") not in (None, self.sha):
                    raise _Refused(412, "", "A commit has happened since.")
                case "file", value:
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile", value:
                    files[value["path"]] = self.hub.uploads[value["oid"]]
                case "deletedFile", value:
                    del files[value["path"]]
        sha = self.repository.commit(files, self.parts["revision"])
        return {"commitOid": sha, "commitUrl": f"{self.hub.url}/{self.repository.name}/commit/{sha}"}

    def tag(self) -> Any:
        self.repository.refs[json.loads(self.body)["tag"]] = self.sha
        return {}

    def branch(self) -> Any:
        if self.parts["branch"] in self.repository.refs:
            raise _Refused(409, "", "Reference already exists")
        self.repository.refs[self.parts["branch"]] = self.sha
        return {}

    def info(self) -> Any:
        files = [{"rfilename": path} for path in self.files]
        told = {"id": self.parts["name"], "sha": self.sha, "private": self.repository.private, "siblings": files}
        config = json.loads(self.files.get("config.json", b"{}"))
        return told | {"config": {name: config[name] for name in ("architectures", "model_type") if name in config}}

    def tree(self) -> Any:
        folder, entries = f"{self.parts['folder']}/" if self.parts["folder"] else "", {}
        for path, data in self.files.items():
            if path.startswith(folder):
                first, *rest = path.removeprefix(folder).split("/")
                is_file = not rest or "recursive=true" in self.path.lower()
                kind, name = ("file", path) if is_file else ("directory", folder + first)
                entries[name] = {"type": kind, "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
        if not entries:
            raise _Refused(404, "EntryNotFound", "no such folder")
        return list(entries.values())

    def resolve(self) -> Any:
        data, headers = self.files.get(self.parts["path"]), {"X-Repo-Commit": self.sha}
        if data is None:
            raise _Refused(404, "EntryNotFound", "no such file", headers)
        headers["ETag"] = f'"{hashlib.sha256(data).hexdigest()}"'
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None:
            return data, 200, headers
        start, stop = int(asked[1]), min(int(asked[2] or len(data)) + 1, len(data))
        return data[start:stop], 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
