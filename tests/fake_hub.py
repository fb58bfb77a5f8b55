"""A Hugging Face hub on this machine, for tests: repositories in memory behind http.server.

It answers what the hub's library asks for public repositories, with the headers that it reads
(commit, etag, error code), and keeps a record of every request and whether it carried a token. Who
sends the token `writes` may make, fill and delete repositories; weights go up as large files do.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass(frozen=True)
class Repo:
    """A model or data set: its files, and how the hub describes it. One commit, one branch."""

    files: Mapping[str, bytes]
    license: str = "mit"
    is_gated: bool = False

    @property
    def sha(self) -> str:
        named = sorted((name, hashlib.sha1(data).hexdigest()) for name, data in self.files.items())
        return hashlib.sha1(repr(named).encode()).hexdigest()

    def entry(self, name: str) -> dict[str, Any]:
        data = self.files[name]
        oid = hashlib.sha1(data).hexdigest()
        return {"type": "file", "path": name, "size": len(data), "oid": oid}

    def info(self, repo_id: str) -> dict[str, Any]:
        siblings = [
            {"rfilename": name, "size": len(data), "blobId": hashlib.sha1(data).hexdigest()}
            for name, data in self.files.items()
        ]
        gated = "manual" if self.is_gated else False
        shared = {"id": repo_id, "modelId": repo_id, "sha": self.sha, "private": False}
        card = {"license": self.license}
        return {**shared, "gated": gated, "siblings": siblings, "cardData": card, "tags": []}


@dataclass
class FakeHub:
    """Keys of `repos`: `owner/name` for models, `datasets/owner/name` for data sets."""

    repos: dict[str, Repo]
    endpoint: str = ""
    requests: list[tuple[str, str]] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)
    # Large files by their sum; private: the repositories that were made so; refuses: a word of a
    # path at which an upload fails.
    large: dict[str, bytes] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    refuses: tuple[str, ...] = ()

    def find(self, parts: list[str]) -> tuple[str, Repo | None, list[str]]:
        """(id, repository, the rest of the path) of a path split at its slashes."""
        n = 3 if parts[:1] == ["datasets"] else 2
        key = "/".join(parts[:n])
        return "/".join(parts[n - 2 : n]), self.repos.get(key), parts[n:]


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Silence."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_PUT(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def do_DELETE(self) -> None:
        self._answer(self.rfile.read(int(self.headers.get("Content-Length", 0))))

    def _answer(self, body: bytes = b"") -> None:
        path = unquote(urlsplit(self.path).path).strip("/")
        self.hub.requests.append((self.command, path))
        if self.headers.get("Authorization"):
            self.hub.tokens.append(self.headers["Authorization"])
        parts = path.split("/")
        if path == "api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif self.command != "HEAD" and self._writes(parts, body):
            pass
        elif parts[0] == "api":
            kind, parts = parts[1], parts[1:] if parts[1] == "datasets" else parts[2:]
            self._api(kind, parts, body)
        else:
            self._file(parts)

    def _writes(self, parts: list[str], body: bytes) -> bool:
        """Answers what changes a repository; False for everything else."""
        is_repo = parts[:2] == ["api", "repos"]
        is_upload = self.command == "PUT" or parts[-1] in ("batch", "verify")
        is_commit = parts[:2] == ["api", "models"] and parts[-2] in ("preupload", "commit")
        if not (is_repo or is_upload or is_commit):
            return False
        is_allowed = self.headers.get("Authorization") == "Bearer writes" or self.command == "PUT"
        if not is_allowed:
            self._fail(403, "Forbidden")
        elif any(word in "/".join([self.command, *parts]) for word in self.hub.refuses):
            self._fail(400, "Refused")
        elif is_repo:
            self._repository(json.loads(body))
        elif self.command == "PUT":
            self.hub.large[parts[-1]] = body
            self._json({})
        elif parts[-1] == "batch":
            href = f"{self.hub.endpoint}/large"
            objects = [
                {**o, "actions": {"upload": {"href": f"{href}/{o['oid']}"}}}
                for o in json.loads(body)["objects"]
            ]
            self._json({"transfer": "basic", "objects": objects})
        elif parts[-2] == "preupload":
            files = [
                {
                    "path": f["path"],
                    "uploadMode": "lfs" if f["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for f in json.loads(body)["files"]
            ]
            self._json({"files": files})
        else:
            self._commit("/".join(parts[2:4]), body)
        return True

    def _repository(self, asked: dict[str, Any]) -> None:
        name = f"{asked.get('organization') or 'ada'}/{asked['name']}"
        if self.command == "DELETE":
            self.hub.repos.pop(name, None)
            self._json({})
        elif name in self.hub.repos:
            self._fail(409, "Conflict")
        else:
            self.hub.repos[name] = Repo({})
            if asked.get("visibility") == "private" or asked.get("private"):
                self.hub.private.add(name)
            self._json({"url": f"{self.hub.endpoint}/{name}", "name": name})

    def _commit(self, name: str, body: bytes) -> None:
        files = dict(self.hub.repos[name].files)
        for line in body.splitlines():
            entry = json.loads(line)
            value = entry["value"]
            if entry["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif entry["key"] == "lfsFile":
                files[value["path"]] = self.hub.large[value["oid"]]
        self.hub.repos[name] = Repo(files)
        sha = self.hub.repos[name].sha
        self._json({"commitOid": sha, "commitUrl": f"{self.hub.endpoint}/{name}/commit/{sha}"})

    def _api(self, kind: str, parts: list[str], body: bytes) -> None:
        repo_id, repo, rest = self.hub.find(parts)
        revision = rest[1] if len(rest) > 1 else "main"
        if kind not in ("models", "datasets") or repo is None:
            self._fail(401, "RepoNotFound")
        elif revision not in ("main", repo.sha):
            self._fail(404, "RevisionNotFound")
        elif rest[:1] == ["tree"]:
            folder = "/".join(rest[2:])
            names = [name for name in repo.files if name.startswith(folder)]
            self._json([repo.entry(name) for name in names])
        elif rest[:1] == ["paths-info"]:
            wanted = json.loads(body)["paths"] if body.startswith(b"{") else []
            self._json([repo.entry(name) for name in wanted if name in repo.files])
        else:
            self._json(repo.info(repo_id))

    def _file(self, parts: list[str]) -> None:
        _, repo, rest = self.hub.find(parts)
        if repo is None:
            self._fail(401, "RepoNotFound")
        elif repo.is_gated:
            self._fail(401, "GatedRepo")
        elif len(rest) < 3 or rest[0] != "resolve" or rest[1] not in ("main", repo.sha):
            self._fail(404, "RevisionNotFound")
        elif "/".join(rest[2:]) not in repo.files:
            self._fail(404, "EntryNotFound")
        else:
            self._send(repo, repo.files["/".join(rest[2:])])

    def _send(self, repo: Repo, data: bytes) -> None:
        headers = {"ETag": f'"{hashlib.sha1(data).hexdigest()}"', "X-Repo-Commit": repo.sha}
        span = self.headers.get("Range", "")
        if span.startswith("bytes="):
            first, _, last = span.removeprefix("bytes=").partition("-")
            begin, end = int(first), int(last) + 1 if last else len(data)
            headers["Content-Range"] = f"bytes {begin}-{end - 1}/{len(data)}"
            self._reply(206, data[begin:end], headers)
        else:
            self._reply(200, data, {**headers, "Accept-Ranges": "bytes"})

    def _json(self, value: Any) -> None:
        self._reply(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _fail(self, status: int, code: str) -> None:
        self._reply(status, b"{}", {"X-Error-Code": code, "X-Error-Message": code})

    def _reply(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        # A kept connection would outlive the server, and the hub would look reachable after it.
        closing = {"Connection": "close", "Content-Length": str(len(data))}
        for name, value in {**headers, **closing}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)


@contextmanager
def fake_hub(repos: Mapping[str, Repo]) -> Iterator[FakeHub]:
    """A running hub on 127.0.0.1; its address is `endpoint`. It stops at the end of the `with`."""
    hub = FakeHub(dict(repos))
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
