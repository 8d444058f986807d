"""A live server in a thread, and a client that speaks raw bytes: real sockets, a tiny model."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import uvloop

from scoring.bundle import Bundle
from scoring.schema import ModelSchema, TensorSpec
from serve.server.app import App
from serve.server.assembly import before, model_app
from serve.server.hub import Hub
from serve.server.jobs import Jobs
from serve.server.models.repository import LonelySource, Repository, Versions
from serve.server.models.served import ServedModel
from serve.server.protocol import Connection
from serve.server.settings import ServerSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from types import TracebackType

    from scoring.runtimes.base import Arrays

SCHEMA = ModelSchema(
    inputs=(TensorSpec("x", "float32", (None, 3)),),
    outputs=(TensorSpec("total", "float32", (None,)), TensorSpec("twice", "float32", (None, 3))),
    features=("a", "b", "c"),
    example={"data": [[1.0, 2.0, 3.0]]},
)
BODY = b'{"data":[[1,2,3]]}'
ANSWER = {"predictions": [6.0], "twice": [[2.0, 4.0, 6.0]]}


class Sums:
    """A model whose answers everyone can compute; it can be held to make it slow."""

    schema = SCHEMA
    thread_safe = True

    def __init__(self) -> None:
        self.calls = 0
        self.go = threading.Event()
        self.go.set()
        self.entered = threading.Semaphore(0)
        self.error: Exception | None = None

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        self.calls += 1
        if not self.go.is_set():
            self.entered.release()
            assert self.go.wait(20)
        if self.error is not None:
            raise self.error
        x = inputs["x"]
        return {"total": x.sum(axis=1, dtype=np.float32), "twice": x * 2}


class LiveServer:
    """A server on a free port, its event loop in a thread."""

    def __init__(
        self,
        make_app: Callable[[Jobs, ServerSettings, asyncio.AbstractEventLoop], App],
        threads: int = 1,
        **given: Any,
    ) -> None:
        self.settings = ServerSettings(port=0, **given)
        self.loop = uvloop.new_event_loop()
        self.jobs = Jobs(self.loop.call_soon_threadsafe, self.settings.max_pending)
        self.jobs.start_threads(threads)
        self.app = make_app(self.jobs, self.settings, self.loop)
        self._thread = threading.Thread(target=self._run)
        self._started = threading.Event()
        self._stop = asyncio.Event()
        self.hub: Hub
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(10)
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        assert not self._thread.is_alive()

    @property
    def repository(self) -> Repository:
        """The models."""
        assert self.app.repository is not None
        return self.app.repository

    def call(self, function: Callable[[], Any]) -> Any:
        """Runs something on the loop's thread."""

        async def wrapped() -> Any:
            return function()

        return asyncio.run_coroutine_threadsafe(wrapped(), self.loop).result(10)

    def until(self, condition: Callable[[], bool], timeout_s: float = 10) -> None:
        """Waits for something to be true of the server."""
        until(lambda: self.call(condition), timeout_s)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        self.loop.run_until_complete(self._serve())
        self.jobs.stop()
        self.loop.close()

    async def _serve(self) -> None:
        self.hub = Hub(self.settings, self.app, self.jobs)
        self.hub.start(self.loop)
        server = await self.loop.create_server(lambda: Connection(self.hub), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._started.set()
        await self._stop.wait()
        server.close()
        self.hub.stop()
        await server.wait_closed()


def until(condition: Callable[[], bool], timeout_s: float = 10) -> None:
    """Waits for a condition, looking often."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "the condition never became true"
        time.sleep(0.002)


class Models(LonelySource):
    """A source of models that the test has made."""

    def __init__(self, **makers: Callable[[], list[ServedModel]]) -> None:
        self.makers = makers

    def names(self) -> list[str]:
        return list(self.makers)

    def loaded(self) -> list[str]:
        return self.names()

    def open(self, name: str, _present: Versions) -> list[ServedModel]:
        return self.makers[name]()

    def follow(self, name: str, present: Versions) -> list[ServedModel]:
        return self.open(name, present)


def served(
    model: Any,
    jobs: Jobs,
    settings: ServerSettings,
    soon: Callable[..., object],
    *,
    name: str = "sums",
    version: int = 1,
    inline: bool = True,
    warm: bool = True,
) -> ServedModel:
    """A predictor as a server's model."""
    bundle = Bundle(name=name, model_version=version, runtime="onnx", format="onnx")
    made = ServedModel(model, bundle, jobs, settings, soon, inline=inline)
    if warm:
        made.warm_up()
    return made


def serve_model(
    model: Any = None, *, inline: bool = True, warm: bool = True, **given: Any
) -> LiveServer:
    """A server of one model; `inline`: its event loop answers itself."""
    return serve_models({"sums": model or Sums()}, inline=inline, warm=warm, **given)


def serve_models(
    models: Mapping[str, Any], *, inline: bool = True, warm: bool = True, **given: Any
) -> LiveServer:
    """A server of predictors by name, with every protocol."""

    def make(jobs: Jobs, settings: ServerSettings, loop: asyncio.AbstractEventLoop) -> App:
        soon, post = loop.call_soon, loop.call_soon_threadsafe

        def opener(name: str) -> Callable[[], list[ServedModel]]:
            return lambda: [
                served(models[name], jobs, settings, soon, name=name, inline=inline, warm=warm)
            ]

        source = Models(**{name: opener(name) for name in models})
        return model_app(source, jobs, settings, before(settings, post), post)

    return LiveServer(make, **{"inline_ms": 1e6, **given})


@dataclass
class Answer:
    """One response as it came."""

    status: int
    headers: dict[str, str]
    body: bytes
    raw_head: bytes = field(repr=False, default=b"")


class Client:
    """A connection that sends what it is told."""

    def __init__(self, port: int, timeout_s: float = 10) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self._buffer = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        for part in parts:
            self.socket.sendall(part)

    def end(self) -> None:
        """Says that nothing more will be sent."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_WR)

    def send_until_stuck(self, data: bytes, most: int = 100_000) -> int:
        """Sends again and again until the server takes no more, or ends it; how often."""
        for number in range(most):
            try:
                self.send(data)
            except OSError:
                return number
        raise AssertionError("the server took everything")

    def read(self, *, head_only: bool = False) -> Answer:
        """The next response; raises EOFError where the server closed instead."""
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        pairs = (line.split(": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in pairs}
        status = int(first.split(" ")[1])
        if head_only or status in {100, 204, 304}:
            return Answer(status, headers, b"", head)
        if headers.get("transfer-encoding") == "chunked":
            return Answer(status, headers, b"".join(self._chunks()), head)
        if "content-length" not in headers:
            return Answer(status, headers, self.rest(), head)
        return Answer(status, headers, self._exactly(int(headers["content-length"])), head)

    def rest(self) -> bytes:
        """All that comes until the server closes."""
        try:
            while True:
                self._more()
        except (EOFError, ConnectionResetError):
            pass
        rest, self._buffer = self._buffer, b""
        return rest

    def closed(self) -> bool:
        """Whether the server closes without another byte."""
        return self.rest() == b""

    def _chunks(self) -> Iterable[bytes]:
        while True:
            while b"\r\n" not in self._buffer:
                self._more()
            size, _, self._buffer = self._buffer.partition(b"\r\n")
            data = self._exactly(int(size, 16))
            assert self._exactly(2) == b"\r\n"
            if not data:
                return
            yield data

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._more()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _more(self) -> None:
        data = self.socket.recv(65_536)
        if not data:
            raise EOFError
        self._buffer += data


def post(body: bytes = BODY, path: str = "/score", *headers: str) -> bytes:
    """A scoring request as bytes."""
    lines = [
        f"POST {path} HTTP/1.1",
        "Host: test",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(path: str, *headers: str, method: str = "GET") -> bytes:
    """A request without a body, as bytes."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: test", *headers, "", ""]).encode()
