"""The service of a Bento that `fieldpost package export` wrote: `bentoml serve` runs it as it is.

The package's own server runs beside it, from the package's own layers, so that every answer is the
one that the package gives everywhere: `/score`, `/swagger.json` and `/v2/...` are handed on byte
for byte. BentoML adds what is its own: `/livez`, `/readyz`, `/metrics`, and `predict` for its
clients.

Nothing here is Fieldpost's but the package beside this file: it needs BentoML and httpx, which
BentoML brings along.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any

import bentoml
import httpx
from bentoml.exceptions import BentoMLException, InvalidArgument, ServiceUnavailable

ROOT = Path(__file__).resolve().parent / "package"
SETTINGS: dict[str, str] = json.loads((ROOT.parent / "fieldpost.json").read_bytes())

_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-authorization", b"te"),
        *(b"trailer", b"transfer-encoding", b"upgrade", b"date", b"expect"),
    }
)
_TIMEOUT = httpx.Timeout(None, connect=60.0)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class PackageServer:
    """The package's own server, on a socket of this process, which no port can be taken from.

    It ends with this process, whatever ends that: it holds the read end of a pipe.
    """

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        lifeline, self._lifeline = os.pipe()
        self._status, status = os.pipe()
        theirs = (self._listener.fileno(), lifeline, status)
        names = ("LISTEN_FD", "LIFELINE_FD", "STATUS_FD")
        contract = {f"FIELDPOST_{name}": str(fd) for name, fd in zip(names, theirs, strict=True)}
        boot = ROOT / "runtime" / "scoring" / "boot.py"
        self._process = subprocess.Popen(  # noqa: S603 - our own server, no shell
            [sys.executable, "-I", "-S", "-X", "utf8", str(boot), str(ROOT)],
            stdin=subprocess.DEVNULL,
            env={**os.environ, **contract},
            pass_fds=theirs,
            start_new_session=True,
        )
        os.close(lifeline)
        os.close(status)

    def until_ready(self) -> None:
        """Returns when the model is loaded; raises where it cannot be."""
        with os.fdopen(self._status, "rb") as stream:
            line = stream.readline()
        told = json.loads(line) if line else {}
        if told.get("state") != "ready":
            error = told.get("error") or {}
            message = error.get("message") or "it ended without a reason; its output says why"
            raise BentoMLException(f"The package did not start: {message}")

    @property
    def runs(self) -> bool:
        """Whether it is there."""
        return self._process.poll() is None

    def stop(self) -> None:
        """Lets it answer what it has begun, and ends it."""
        self._process.terminate()
        self._process.wait()
        os.close(self._lifeline)
        self._listener.close()


class Forward:
    """An ASGI application that hands requests to the package's server, and its answers back."""

    def __init__(self) -> None:
        self.url = ""
        self._client: httpx.AsyncClient | None = None

    @property
    def client(self) -> httpx.AsyncClient:
        """Made where the event loop runs."""
        if self._client is None:
            limits = httpx.Limits(max_connections=None, max_keepalive_connections=100)
            self._client = httpx.AsyncClient(
                base_url=self.url, timeout=_TIMEOUT, limits=limits, trust_env=False
            )
        return self._client

    async def close(self) -> None:
        """Closes the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            return
        target = scope["raw_path"] + (b"?" + scope["query_string"]) * bool(scope["query_string"])
        headers = [(name, value) for name, value in scope["headers"] if name not in _HOP_BY_HOP]
        has_body = any(
            name in {b"content-length", b"transfer-encoding"} for name, _ in scope["headers"]
        )
        request = self.client.build_request(
            scope["method"],
            httpx.URL(self.url, raw_path=target),
            headers=headers,
            content=_body(receive) if has_body else None,
        )
        try:
            response = await self.client.send(request, stream=True)
        except httpx.HTTPError as error:
            await _refuse(send, error)
            return
        try:
            await send(
                {
                    "type": "http.response.start",
                    "status": response.status_code,
                    "headers": [
                        (name.lower(), value)
                        for name, value in response.headers.raw
                        if name.lower() not in _HOP_BY_HOP
                    ],
                }
            )
            async for part in response.aiter_raw():
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body", "body": b""})
        finally:
            await response.aclose()


async def _body(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise httpx.WriteError("the client has gone")
        if message.get("body"):
            yield message["body"]
        if not message.get("more_body"):
            return


async def _refuse(send: Send, error: httpx.HTTPError) -> None:
    text = f"The package does not answer: {error}" if str(error) else "The package does not answer."
    body = json.dumps({"error": {"code": "unreachable", "message": text}}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": 502, "headers": headers})
    await send({"type": "http.response.body", "body": body})


forward = Forward()


@bentoml.service(name=SETTINGS["service"])
@bentoml.asgi_app(forward, path="/")
class Package:
    """A package of Fieldpost."""

    def __init__(self) -> None:
        self._server = PackageServer()
        self._server.until_ready()
        forward.url = self._server.url

    @bentoml.api  # type: ignore[untyped-decorator]
    async def predict(self, data: list[Any]) -> Any:
        """The same as `/score` with `{"data": data}`, for BentoML's clients."""
        response = await forward.client.post("/score", json={"data": data})
        if response.is_success:
            return response.json()
        try:
            message = response.json()["error"]["message"]
        except (ValueError, KeyError, TypeError):
            message = response.text[:500]
        raise (InvalidArgument if response.is_client_error else ServiceUnavailable)(message)

    async def __is_alive__(self) -> bool:
        return self._server.runs

    async def __is_ready__(self) -> bool:
        try:
            return (await forward.client.get("/v2/health/ready")).is_success
        except httpx.HTTPError:
            return False

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    async def end(self) -> None:
        """Ends the package's server."""
        await forward.close()
        self._server.stop()
