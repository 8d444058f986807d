"""A small registry, after the OCI distribution specification, that can be made to misbehave.

Unlike Debian's it keeps what it has received of a chunk that was cut off, lists referrers, and asks
for tokens. What a test wants otherwise, it says with `on`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from types import TracebackType

Action = Callable[["Handler"], bool]
"""Answers a request in its own way and returns True, or returns False to have it answered."""


class Handler(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    server: Server

    def setup(self) -> None:
        super().setup()
        self.connection.settimeout(20)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
        """Says nothing."""

    def answer(self, status: int, body: bytes = b"", headers: dict[str, str] | None = None) -> None:
        """Sends a whole answer."""
        self.send_response(status)
        given = {name.lower(): value for name, value in (headers or {}).items()}
        if status != 204 and "content-length" not in given:
            given["content-length"] = str(len(body))
        for name, value in given.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def error(self, status: int, code: str) -> None:
        """Sends an error as the specification has it."""
        body = json.dumps({"errors": [{"code": code, "message": code.lower()}]}).encode()
        self.answer(status, body, {"content-type": "application/json"})

    def drop(self) -> None:
        """Ends the connection without a word."""
        self.close_connection = True
        self.connection.shutdown(2)

    def body(self, limit: int | None = None) -> bytes:
        """What was sent, or the beginning of it."""
        length = int(self.headers.get("content-length", "0"))
        return self.rfile.read(length if limit is None else min(length, limit))

    def handle_any(self) -> None:
        """Records the request and has it answered."""
        self.server.owner.requests.append((self.command, self.path, dict(self.headers.items())))
        try:
            if not self.server.owner.intercept(self):
                self.server.owner.handle(self)
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            self.close_connection = True

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815


class Server(ThreadingHTTPServer):
    """Quiet about connections that break, which is what the tests do."""

    daemon_threads = True
    owner: TinyRegistry

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing."""


class TinyRegistry:
    """The registry; a context manager.

    Args:
        referrers: Whether it lists referrers.
        users: Name to password: it asks for tokens, which it gives to them.
        realm: Its token service, where that is another than itself.
    """

    def __init__(
        self, *, referrers: bool = True, users: dict[str, str] | None = None, realm: str = ""
    ) -> None:
        self.blobs: dict[str, bytes] = {}
        self.repositories: dict[str, set[str]] = {}
        self.manifests: dict[tuple[str, str], tuple[bytes, str]] = {}
        self.uploads: dict[str, bytearray] = {}
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.tokens: dict[str, set[str]] = {}
        self.refresh_tokens: dict[str, str] = {}
        self.token_life_s = 300
        self.users = users
        self._referrers = referrers
        self._rules: list[list[Any]] = []
        self._lock = threading.Lock()
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.owner = self
        self._realm = realm or f"{self.url}/token"

    @property
    def host(self) -> str:
        """`127.0.0.1:PORT`."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://{self.host}"

    def on(self, method: str, path: str, action: Action, times: int = 1) -> None:
        """Has the next requests whose path has a match for a pattern answered by an action."""
        self._rules.append([method, re.compile(path), action, times])

    def asked(self, method: str, path: str = "") -> list[tuple[str, dict[str, str]]]:
        """Path and headers of the requests so far."""
        return [(p, h) for m, p, h in self.requests if m == method and re.search(path, p)]

    def intercept(self, request: Handler) -> bool:
        """Whether a test's own action has answered."""
        with self._lock:
            for rule in self._rules:
                method, pattern, _, times = rule
                if times and method == request.command and pattern.search(request.path):
                    rule[3] -= 1
                    action: Action = rule[2]
                    break
            else:
                return False
        return action(request)

    def handle(self, request: Handler) -> None:
        """Answers as the specification has it."""
        parts = urlsplit(request.path)
        if parts.path == "/token":
            self._token(request, parts.query)
            return
        if not self._may(request, parts.path):
            return
        if parts.path == "/v2/":
            request.answer(200, b"{}")
        elif match := re.fullmatch(r"/v2/(.+)/blobs/uploads/([\w-]*)", parts.path):
            self._upload(request, match.group(1), match.group(2), parse_qs(parts.query))
        elif match := re.fullmatch(r"/v2/(.+)/blobs/(sha256:\w+)", parts.path):
            self._blob(request, match.group(1), match.group(2))
        elif match := re.fullmatch(r"/v2/(.+)/manifests/(.+)", parts.path):
            self._manifest(request, match.group(1), match.group(2))
        elif match := re.fullmatch(r"/v2/(.+)/referrers/(.+)", parts.path):
            self._list_referrers(request, match.group(1), match.group(2))
        elif match := re.fullmatch(r"/v2/(.+)/tags/list", parts.path):
            tags = [tag for name, tag in self.manifests if name == match.group(1)]
            plain = sorted(tag for tag in tags if not tag.startswith("sha256:"))
            request.answer(200, json.dumps({"name": match.group(1), "tags": plain}).encode())
        else:
            request.error(404, "UNSUPPORTED")

    # -- who asks

    def _may(self, request: Handler, path: str) -> bool:
        if self.users is None:
            return True
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        match = re.match(r"/v2/(.+?)/(?:blobs|manifests|tags|referrers)/", path)
        action = "pull" if request.command in {"GET", "HEAD"} else "push"
        wanted = f"repository:{match.group(1)}:{action}" if match else ""
        if token in self.tokens and (not wanted or wanted in self.tokens[token]):
            return True
        request.body()
        scope = f',scope="{wanted}"' if wanted else ""
        asked = f'Bearer realm="{self._realm}",service="tiny"{scope}'
        body = b'{"errors":[{"code":"UNAUTHORIZED","message":"who are you"}]}'
        request.answer(401, body, {"www-authenticate": asked})
        return False

    def _token(self, request: Handler, query: str) -> None:
        fields = parse_qs(request.body().decode() if request.command == "POST" else query)
        given = request.headers.get("authorization", "")
        user, _, password = (
            base64.b64decode(given.removeprefix("Basic ")).decode().partition(":")
            if given
            else ("", "", "")
        )
        refresh = fields.get("refresh_token", [""])[0]
        known = (self.users or {}).get(user) == password and user
        if not known and refresh not in self.refresh_tokens:
            request.error(401, "UNAUTHORIZED")
            return
        granted = set()
        for scope in " ".join(fields.get("scope", [])).split():
            kind, _, actions = scope.rpartition(":")
            granted |= {f"{kind}:{action}" for action in actions.split(",")}
        token = uuid.uuid4().hex
        self.tokens[token] = granted
        answer = {"token": token, "expires_in": self.token_life_s}
        request.answer(200, json.dumps(answer).encode(), {"content-type": "application/json"})

    # -- blobs

    def _upload(
        self, request: Handler, name: str, session: str, query: dict[str, list[str]]
    ) -> None:
        if request.command == "POST":
            self._begin(request, name, query)
        elif session not in self.uploads:
            request.body()
            request.error(404, "BLOB_UPLOAD_UNKNOWN")
        elif request.command == "GET":
            request.answer(204, b"", self._where(name, session))
        else:
            self._receive(request, name, session, query)

    def _begin(self, request: Handler, name: str, query: dict[str, list[str]]) -> None:
        request.body()
        digest, origin = query.get("mount", [""])[0], query.get("from", [""])[0]
        if digest and digest in self.repositories.get(origin, ()):
            self._keep(name, digest, self.blobs[digest])
            request.answer(201, b"", {"location": f"/v2/{name}/blobs/{digest}"})
            return
        session = uuid.uuid4().hex
        self.uploads[session] = bytearray()
        request.answer(202, b"", self._where(name, session))

    def _receive(
        self, request: Handler, name: str, session: str, query: dict[str, list[str]]
    ) -> None:
        kept = self.uploads[session]
        start = request.headers.get("content-range", "").partition("-")[0]
        if start and int(start) != len(kept):
            request.body()
            request.error(416, "RANGE_INVALID")
            return
        left = int(request.headers.get("content-length", "0"))
        while left and (piece := request.rfile.read1(min(left, 65536))):
            kept += piece
            left -= len(piece)
        if left:
            request.close_connection = True
        elif request.command == "PATCH":
            request.answer(202, b"", self._where(name, session))
        else:
            self._complete(request, name, session, query["digest"][0])

    def _complete(self, request: Handler, name: str, session: str, digest: str) -> None:
        data = bytes(self.uploads.pop(session))
        if f"sha256:{hashlib.sha256(data).hexdigest()}" != digest:
            request.error(400, "DIGEST_INVALID")
            return
        self._keep(name, digest, data)
        request.answer(201, b"", {"docker-content-digest": digest})

    def _where(self, name: str, session: str) -> dict[str, str]:
        have = len(self.uploads[session])
        location = f"/v2/{name}/blobs/uploads/{session}?state={have}"
        return {"location": location, "range": f"0-{max(have - 1, 0)}"}

    def _keep(self, name: str, digest: str, data: bytes) -> None:
        self.blobs[digest] = data
        self.repositories.setdefault(name, set()).add(digest)

    def _blob(self, request: Handler, name: str, digest: str) -> None:
        if digest not in self.repositories.get(name, ()):
            request.error(404, "BLOB_UNKNOWN")
            return
        data, headers = self.blobs[digest], {"docker-content-digest": digest}
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if match is None:
            request.answer(200, data, headers)
            return
        start = int(match.group(1))
        headers["content-range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        request.answer(206, data[start:], headers)

    # -- manifests

    def _manifest(self, request: Handler, name: str, target: str) -> None:
        if request.command == "PUT":
            self._put_manifest(request, name, target)
            return
        found = self.manifests.get((name, target))
        if found is None:
            request.error(404, "MANIFEST_UNKNOWN")
        elif request.command == "DELETE":
            del self.manifests[name, target]
            request.answer(202)
        else:
            digest = f"sha256:{hashlib.sha256(found[0]).hexdigest()}"
            headers = {"content-type": found[1], "docker-content-digest": digest}
            headers["content-length"] = str(len(found[0]))
            request.answer(200, found[0], headers)

    def _put_manifest(self, request: Handler, name: str, target: str) -> None:
        data = request.body()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        document = json.loads(data)
        needed = [*document.get("layers", ()), *filter(None, [document.get("config")])]
        if any(each["digest"] not in self.repositories.get(name, ()) for each in needed):
            request.error(400, "MANIFEST_BLOB_UNKNOWN")
            return
        kind = request.headers.get("content-type", "")
        self.manifests[name, digest] = self.manifests[name, target] = (data, kind)
        headers = {"docker-content-digest": digest}
        if self._referrers and document.get("subject"):
            headers["oci-subject"] = document["subject"]["digest"]
        request.answer(201, b"", headers)

    def _list_referrers(self, request: Handler, name: str, digest: str) -> None:
        if not self._referrers:
            request.answer(404, b"404 page not found")
            return
        found = []
        for (owner, target), (data, kind) in self.manifests.items():
            document = json.loads(data)
            subject = (document.get("subject") or {}).get("digest")
            if owner == name and target.startswith("sha256:") and subject == digest:
                about = {"mediaType": kind, "digest": target, "size": len(data)}
                found.append(about | {"artifactType": document.get("artifactType", "")})
        body = json.dumps({"schemaVersion": 2, "manifests": found}).encode()
        request.answer(200, body, {"content-type": "application/vnd.oci.image.index.v1+json"})

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join(10)
        self._server.server_close()
