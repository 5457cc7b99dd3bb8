"""A small Hub on this machine's loopback: the part of the protocol that the client library speaks with us, over real sockets."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "hf_" + "localtesttoken0123456789"
WEIGHTS = (".safetensors", ".bin", ".gguf", ".parquet")


@dataclass
class Repository:
    """One model or dataset of the local Hub."""

    files: dict[str, bytes]
    kind: str = "model"
    gated: bool = False
    private: bool = False
    """Told of to no one without the token."""
    about: dict[str, Any] = field(default_factory=dict)
    """More keys of its description."""
    parquet: dict[str, Any] | None = None
    cut_after: list[int] = field(default_factory=list)
    """The next downloads of a weight file each break off after so many bytes."""

    @property
    def commit(self) -> str:
        return hashlib.sha1(repr(sorted(self.files.items())).encode()).hexdigest()


class LocalHub:
    """Serves `repositories`; `asked` lists every request as `METHOD path`."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.asked: list[str] = []
        self.ranges: list[str] = []
        """The Range headers of weight requests."""
        self.tokens: set[str] = set()
        """Every token that came with a request."""
        hub = self

        class Handler(_Handler):
            here = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def weights_asked(self) -> list[str]:
        """The requests for weight files; those that list them are not meant."""
        return [request for request in self.asked if request.endswith(WEIGHTS)]


class _Handler(BaseHTTPRequestHandler):
    here: LocalHub
    protocol_version = "HTTP/1.1"
    timeout = 20

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        parts = urlsplit(self.path)
        path, query = unquote(parts.path), {key: values[-1] for key, values in parse_qs(parts.query).items()}
        self.here.asked.append(f"{self.command} {path}")
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token:
            self.here.tokens.add(token)
        known = token == TOKEN
        if path == "/api/whoami-v2":
            owner = {"name": "ann", "auth": {"accessToken": {"displayName": "test", "role": "read"}}}
            return self._json(owner if known else {"error": "no"}, 200 if known else 401, body)
        if path in ("/api/models", "/api/datasets"):
            found = [self._described(name, repository, False) for name, repository in self._listed(path[5:-1], query)]
            return self._json(found[: int(query.get("limit", 100))], 200, body)
        if match := re.fullmatch(r"/api/(model|dataset)s/(\w[\w.-]*/[\w.-]+)(?:/(revision|tree|parquet)(?:/([\w.-]+)(/.+)?)?)?", path):
            return self._api(match[2], match[3], match[4], known, body) if not match[5] else self._nothing_there(body)
        if match := re.fullmatch(r"/(?:datasets/)?(\w[\w.-]*/[\w.-]+)/resolve/([\w.-]+)/(.+)", path):
            return self._file(match[1], match[2], match[3], known, body)
        return self._json({}, 200 if path == "/" else 404, body)

    def _listed(self, kind: str, query: dict[str, str]) -> list[tuple[str, Repository]]:
        text, tag = query.get("search", "").lower(), query.get("pipeline_tag")
        fitting = [(name, repository) for name, repository in self.here.repositories.items() if repository.kind == kind and text in name.lower()]
        return [(name, repository) for name, repository in fitting if not tag or repository.about.get("pipeline_tag", tag) == tag]

    def _described(self, name: str, repository: Repository, whole: bool) -> dict[str, Any]:
        basic = {"id": name, "private": repository.private, "gated": "manual" if repository.gated else False, "downloads": 1234, "likes": 5}
        described = {**basic, "sha": repository.commit, "lastModified": "2025-03-04T05:06:07.000Z", "tags": [], **repository.about}
        if whole:
            described["siblings"] = [_sibling(file, data) for file, data in repository.files.items()]
        return described

    def _api(self, name: str, what: str | None, revision: str | None, known: bool, body: bool) -> None:
        repository = self.here.repositories.get(name)
        if repository is None or (repository.private and not known):
            return self._json({"error": "Repository not found"}, 401, body, {"X-Error-Code": "RepoNotFound"})
        if what in ("revision", "tree") and revision not in (repository.commit, "main"):
            return self._json({}, 404, body, {"X-Error-Code": "RevisionNotFound"})
        if what == "tree":
            return self._json([_entry(file, data) for file, data in repository.files.items()], 200, body)
        if what == "parquet":
            return self._json(repository.parquet or {}, 200 if repository.parquet else 404, body)
        return self._json(self._described(name, repository, True), 200, body)

    def _nothing_there(self, body: bool) -> None:
        """No repository here has folders that are asked for by their name."""
        self._json({}, 404, body, {"X-Error-Code": "EntryNotFound"})

    def _file(self, name: str, revision: str, file: str, known: bool, body: bool) -> None:
        repository = self.here.repositories.get(name)
        if repository is None or (repository.private and not known):
            return self._json({}, 401, body, {"X-Error-Code": "RepoNotFound"})
        if repository.gated and not known:
            return self._json({}, 401, body, {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access to this model is restricted."})
        data = repository.files.get(file)
        if data is None or revision not in (repository.commit, "main"):
            return self._json({}, 404, body, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": repository.commit})
        start = int(match[1]) if (match := re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")) else 0
        if file.endswith(WEIGHTS) and body:
            self.here.ranges.append(self.headers.get("Range") or "")
        self.send_response(206 if start else 200)
        for key, value in {
            "Content-Length": str(len(data) - start), "ETag": f'"{_etag(file, data)}"', "X-Repo-Commit": repository.commit, "Accept-Ranges": "bytes",
            **({"Content-Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}),
        }.items():  # fmt: skip
            self.send_header(key, value)
        self.end_headers()
        if body:
            self._send(data[start:], repository if file.endswith(WEIGHTS) else None)
        return None

    def _send(self, data: bytes, repository: Repository | None) -> None:
        cut = repository.cut_after.pop(0) if repository and repository.cut_after else None
        self.wfile.write(data if cut is None else data[:cut])
        if cut is not None:
            self.wfile.flush()
            self.connection.shutdown(socket.SHUT_RDWR)
            self.close_connection = True

    def _json(self, value: Any, status: int, body: bool, headers: dict[str, str] | None = None) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        for key, text in {"Content-Type": "application/json", "Content-Length": str(len(data)), **(headers or {})}.items():
            self.send_header(key, text)
        self.end_headers()
        if body:
            self.wfile.write(data)


def _etag(file: str, data: bytes) -> str:
    return hashlib.sha256(data).hexdigest() if file.endswith(WEIGHTS) else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _sibling(file: str, data: bytes) -> dict[str, Any]:
    large = {"lfs": {"sha256": _etag(file, data), "size": len(data), "pointerSize": 130}} if file.endswith(WEIGHTS) else {}
    return {"rfilename": file, "size": len(data), "blobId": hashlib.sha1(data).hexdigest(), **large}


def _entry(file: str, data: bytes) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
    if file.endswith(WEIGHTS):
        entry["lfs"] = {"oid": hashlib.sha256(data).hexdigest(), "size": len(data), "pointerSize": 130}
    return entry


@contextmanager
def black_hole() -> Iterator[str]:
    """The address of a server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


def closed_port() -> str:
    """An address at which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return f"http://127.0.0.1:{server.getsockname()[1]}"


def environment(monkeypatch: Any, address: str, home: Path) -> None:
    """What children started from here on take for the Hub; this process itself goes on without one."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_DATASETS_CACHE", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", address)
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")


def ask(question: str, code: int = 0, **asked: Any) -> Any:
    """One question to the real child."""
    done = subprocess.run(
        [sys.executable, "-m", "tui_ft.hub", question], input=json.dumps(asked), capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == code, done.stdout + done.stderr
    return json.loads(done.stdout.splitlines()[-1])
