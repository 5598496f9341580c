"""A hub on this machine: speaks what the real client asks of a hub, over HTTP, and keeps everything in memory.

It knows repositories with branches and commits, tokens that may read or write, gates, uploads to the large file
storage, and commits that name their parent.
"""

import base64
import hashlib
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

WRITER, READER = "hf_writer", "hf_reader"
"""Tokens that the hub knows."""


@dataclass
class Repo:
    """A repository: files by commit, commit by branch, and who may see it."""

    private: bool = False
    gated: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)

    def commit(self, files: Mapping[str, bytes], branch: str = "main") -> str:
        content = {**self.commits.get(self.branches.get(branch, ""), {}), **files}
        sha = hashlib.sha1(repr((len(self.commits), sorted(content.items()))).encode()).hexdigest()
        self.commits[sha] = content
        self.branches[branch] = sha
        return sha

    def find(self, revision: str) -> str | None:
        return self.branches.get(revision, revision if revision in self.commits else None)


@dataclass
class Hub:
    """What the hub holds, and what it was asked.

    Attributes:
        url: Where it answers.
        requests: Method and path of each request.
        before_commit: Called once before the next commit is looked at: somebody else is faster.
        status: Answer of every request, where it shall fail.
        owners: Organizations that the writer may write to.
    """

    url: str = ""
    repos: dict[str, Repo] = field(default_factory=dict)
    stored: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    before_commit: Any = None
    status: int | None = None
    owners: tuple[str, ...] = ("org",)

    def add(self, name: str, files: Mapping[str, bytes], private: bool = False, gated: bool = False) -> Repo:
        repo = self.repos[name] = Repo(private, gated)
        repo.commit({".gitattributes": b"", **files})
        return repo

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        repo = self.repos[name]
        return {key: data for key, data in repo.commits[repo.branches[branch]].items() if key != ".gitattributes"}

    def environment(self, cache: Path, token: str | None = None) -> dict[str, str]:
        """Environment of a process whose client knows this hub alone."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING"))}
        mine = {"HF_ENDPOINT": self.url, "HF_HOME": str(cache), "HF_HUB_DISABLE_XET": "1", "NO_PROXY": "127.0.0.1"}
        return {**kept, **mine, **({} if token is None else {"HF_TOKEN": token})}


class RefusalError(Exception):
    """An answer other than 200."""

    def __init__(self, status: int, code: str = "", message: str = "") -> None:
        super().__init__(status, code, message)
        self.status, self.code, self.message = status, code, message


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub that answers until the end of the block."""
    hub = Hub()

    class Handler(_Handler):
        pass

    Handler.hub = hub
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._answer()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815  names of the standard library

    def _answer(self) -> None:
        parts = urlsplit(self.path)
        self.hub.requests.append(f"{self.command} {parts.path}")
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            if self.hub.status is not None:
                raise RefusalError(self.hub.status)
            data, headers = self._route([unquote(word) for word in parts.path.strip("/").split("/")], parts.query)
            self._send(200, data, headers)
        except RefusalError as no:
            self._send(no.status, b"{}", {"X-Error-Code": no.code, "X-Error-Message": no.message})

    def _send(self, status: int, data: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if value:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _route(self, words: list[str], query: str) -> tuple[bytes, Mapping[str, str]]:  # noqa: PLR0911  one per address
        match words:
            case ["lfs", oid]:
                self.hub.stored[oid] = self.body
                return b"", {}
            case ["api", "validate-yaml"]:
                return _json({"errors": [], "warnings": []})
            case ["api", "repos", "create"]:
                return self._create(json.loads(self.body))
            case ["api", "models", owner, name]:
                return self._info(f"{owner}/{name}", "main")
            case ["api", "models", owner, name, "revision", revision]:
                return self._info(f"{owner}/{name}", revision)
            case ["api", "models", owner, name, "branch", branch]:
                repo = self._repo(f"{owner}/{name}", write=True)
                repo.branches[branch] = repo.branches["main"]
                return _json({})
            case ["api", "models", owner, name, "preupload", _]:
                self._repo(f"{owner}/{name}", write=True)
                return self._modes()
            case ["api", "models", owner, name, "commit", branch]:
                return self._commit(f"{owner}/{name}", branch, pull_request="create_pr=1" in query)
            case [owner, name, "info", "lfs", "objects", "batch"]:
                self._repo(f"{owner}/{name.removesuffix('.git')}", write=True)
                return self._batch()
            case [owner, name, "resolve", revision, file]:
                return self._file(f"{owner}/{name}", revision, file)
        raise RefusalError(404)

    def _token(self) -> str:
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if token not in {"", WRITER, READER}:
            raise RefusalError(401, message="Invalid credentials in Authorization header")
        return token

    def _repo(self, name: str, *, write: bool = False) -> Repo:
        token, repo = self._token(), self.hub.repos.get(name)
        if repo is None or (repo.private and not token):
            raise RefusalError(404 if token else 401, "RepoNotFound", "Repository not found")
        if write and (token != WRITER or name.split("/", maxsplit=1)[0] not in self.hub.owners):
            raise RefusalError(403, message="Forbidden: you need a write token")
        return repo

    def _revision(self, name: str, revision: str) -> tuple[Repo, str]:
        repo = self._repo(name)
        sha = repo.find(revision)
        if sha is None:
            raise RefusalError(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        return repo, sha

    def _create(self, asked: dict[str, Any]) -> tuple[bytes, Mapping[str, str]]:
        name = f"{asked['organization']}/{asked['name']}"
        if self._token() != WRITER or asked["organization"] not in self.hub.owners:
            raise RefusalError(403, message="You don't have the rights to create a model under this namespace")
        if name in self.hub.repos:
            raise RefusalError(409, message="You already created this model repo")
        self.hub.add(name, {}, private=asked.get("visibility") == "private" or bool(asked.get("private")))
        return _json({"url": f"{self.hub.url}/{name}"})

    def _info(self, name: str, revision: str) -> tuple[bytes, Mapping[str, str]]:
        repo, sha = self._revision(name, revision)
        names = [{"rfilename": file} for file in sorted(repo.commits[sha])]
        return _json({"id": name, "sha": sha, "private": repo.private, "gated": repo.gated, "siblings": names})

    def _modes(self) -> tuple[bytes, Mapping[str, str]]:
        files = json.loads(self.body)["files"]
        modes = {True: "lfs", False: "regular"}
        return _json(
            {
                "files": [
                    {"path": f["path"], "uploadMode": modes[f["path"].endswith(".stv")], "shouldIgnore": False}
                    for f in files
                ]
            }
        )

    def _batch(self) -> tuple[bytes, Mapping[str, str]]:
        wanted = json.loads(self.body)["objects"]
        actions = [
            {**one, "actions": {"upload": {"href": f"{self.hub.url}/lfs/{one['oid']}", "header": {}}}} for one in wanted
        ]
        return _json({"transfer": "basic", "objects": actions})

    def _commit(self, name: str, branch: str, *, pull_request: bool) -> tuple[bytes, Mapping[str, str]]:
        repo = self._repo(name, write=True)
        if self.hub.before_commit is not None:
            first, self.hub.before_commit = self.hub.before_commit, None
            first()
        lines = [json.loads(line) for line in self.body.splitlines()]
        header = lines[0]["value"]
        if header.get("parentCommit") not in {None, repo.branches[branch]}:
            raise RefusalError(412, message="A commit has happened since. Please refresh and try again.")
        files = {line["value"]["path"]: self._content(line) for line in lines[1:]}
        self.hub.messages.append(header["summary"])
        sha = repo.commit(files, "refs/pr/1" if pull_request else branch)
        url = f"{self.hub.url}/{name}/discussions/1" if pull_request else None
        return _json(
            {
                "commitUrl": f"{self.hub.url}/{name}/commit/{sha}",
                "commitOid": sha,
                "pullRequestUrl": url,
                "success": True,
            }
        )

    def _content(self, line: dict[str, Any]) -> bytes:
        if line["key"] == "file":
            return base64.b64decode(line["value"]["content"])
        data = self.hub.stored[line["value"]["oid"]]
        if hashlib.sha256(data).hexdigest() != line["value"]["oid"]:
            raise RefusalError(400)
        return data

    def _file(self, name: str, revision: str, file: str) -> tuple[bytes, Mapping[str, str]]:
        repo, sha = self._revision(name, revision)
        if repo.gated and not self._token():
            raise RefusalError(401, "GatedRepo", "Access to this model is restricted")
        if file not in repo.commits[sha]:
            raise RefusalError(404, "EntryNotFound", "Entry not found")
        data = repo.commits[sha][file]
        return data, {"X-Repo-Commit": sha, "ETag": f'"{hashlib.sha256(data).hexdigest()}"'}


def _json(value: Any) -> tuple[bytes, Mapping[str, str]]:
    return json.dumps(value).encode(), {"Content-Type": "application/json"}
