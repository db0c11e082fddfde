"""A Hugging Face hub of one process: the endpoints that huggingface_hub calls to make, fill and read repositories."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "hf_token_of_these_tests"


@dataclass
class Repository:
    """`files`: what the last commit holds."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    commits: int = 0

    @property
    def sha(self) -> str:
        return f"{self.commits:040x}"


@dataclass
class Hub:
    """`failing`: parts of paths at which the disk is full. `requests`: what was asked, in order.

    Owners called "others" and "strangers" refuse: the first do not let us write, the second do not know us."""

    address: str = ""
    repositories: dict[str, Repository] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    failing: tuple[str, ...] = ()
    requests: list[str] = field(default_factory=list)


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub on a free port of this machine, gone when the block ends."""
    hub = Hub()

    class Handler(_Handler):
        state = hub

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    state: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def do_PUT(self) -> None:
        self._answer()

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = self.path.partition("?")[0]
        self.state.requests.append(f"{self.command} {path}")
        if any(part in path for part in self.state.failing):
            return self._send(507, {"error": "the disk of the hub is full"})
        known = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if match := re.fullmatch(r"/objects/(\w+)", path):
            self.state.objects[match[1]] = body
            return self._send(200, {})
        if path == "/api/validate-yaml":
            return self._send(200, {"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body)) if known else self._send(401, {"error": "no token"})
        match = re.match(r"(?:/api/models)?/([\w.-]+/[\w-]+)(?:\.git)?(/.*|)$", path)
        repository = self.state.repositories.get(match[1]) if match else None
        if match is None or repository is None or (repository.private and not known):
            return self._send(404, {"error": "no such repository"}, {"X-Error-Code": "RepoNotFound"})
        return self._inside(match[1], repository, match[2], body)

    def _create(self, wanted: dict[str, Any]) -> None:
        owner = wanted.get("organization") or "me"
        name = f"{owner}/{wanted['name']}"
        if owner in ("others", "strangers"):
            return self._send(403 if owner == "others" else 401, {"error": "you may not write there"})
        if name in self.state.repositories:
            return self._send(409, {"url": f"{self.state.address}/{name}"})
        self.state.repositories[name] = Repository(
            private=wanted.get("private") or wanted.get("visibility") == "private"
        )
        return self._send(200, {"url": f"{self.state.address}/{name}", "name": name})

    def _inside(self, name: str, repository: Repository, rest: str, body: bytes) -> None:
        if rest in ("", "/revision/main"):
            siblings = [{"rfilename": file} for file in repository.files]
            return self._send(200, {"id": name, "sha": repository.sha, "private": repository.private,
                                    "siblings": siblings, "tags": []})  # fmt: skip
        if rest.startswith("/preupload/"):
            files = [
                {"path": file["path"], "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                 "shouldIgnore": False, "oid": None}
                for file in json.loads(body)["files"]
            ]  # fmt: skip
            return self._send(200, {"files": files})
        if rest == "/info/lfs/objects/batch":
            wanted = json.loads(body)["objects"]
            actions = [{"upload": {"href": f"{self.state.address}/objects/{each['oid']}"}} for each in wanted]
            objects = [each | {"actions": action} for each, action in zip(wanted, actions, strict=True)]
            return self._send(200, {"transfer": "basic", "objects": objects})
        if rest.startswith("/commit/"):
            return self._commit(name, repository, body)
        if match := re.fullmatch(r"/resolve/(\w+)/(.+)", rest):
            return self._resolve(repository, match[2])
        if match := re.fullmatch(r"/tree/(\w+)", rest):
            entries = [
                {"type": "file", "path": file, "size": len(content), "oid": hashlib.sha1(content).hexdigest()}
                for file, content in repository.files.items()
            ]
            return self._send(200, entries)
        return self._send(404, {"error": f"this hub has no {rest}"})

    def _commit(self, name: str, repository: Repository, body: bytes) -> None:
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.state.objects[value["oid"]]
        repository.files |= files
        repository.commits += 1
        address = f"{self.state.address}/{name}/commit/{repository.sha}"
        self._send(200, {"success": True, "commitUrl": address, "commitOid": repository.sha, "hookOutput": ""})

    def _resolve(self, repository: Repository, file: str) -> None:
        content = repository.files.get(file)
        headers = {"X-Repo-Commit": repository.sha}
        if content is None:
            return self._send(404, {"error": "no such file"}, headers | {"X-Error-Code": "EntryNotFound"})
        headers["ETag"] = f'"{hashlib.sha256(content).hexdigest()}"'
        return self._send(200, content, headers)

    def _send(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
