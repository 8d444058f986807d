"""Iterators as bodies: sent as they come, no faster than they are taken, closed in every case."""

from __future__ import annotations

import threading
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import pytest

from scoring.http import Response
from serve.server.app import App, Before
from tests.support.server import Client, LiveServer, get, until

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from serve.server.app import Handler, Shape, Table
    from serve.server.exchange import Exchange
    from serve.server.hub import Fast
    from serve.server.jobs import Jobs
    from serve.server.settings import ServerSettings


class Source:
    """An iterator that remembers what was asked of it."""

    def __init__(self, chunks: Iterator[object]) -> None:
        self.chunks = chunks
        self.pulled = 0
        self.closed = 0
        self.threads: set[str] = set()

    def __iter__(self) -> Source:
        return self

    def __next__(self) -> bytes:
        self.threads.add(threading.current_thread().name)
        self.pulled += 1
        return next(self.chunks)  # type: ignore[return-value]

    def close(self) -> None:
        self.threads.add(threading.current_thread().name)
        self.closed += 1


class StreamService:
    """Answers every path with the source it is given."""

    fast: Mapping[bytes, Fast] = MappingProxyType({})
    routes: Table = MappingProxyType({})

    def __init__(self, source: Source, status: int) -> None:
        self.source = source
        self.status = status
        self.prefixes: Mapping[str, Handler] = {"/": self.answer}
        self.shapes: Mapping[str, Shape] = {}

    def answer(self, exchange: Exchange) -> None:
        exchange.respond(Response(self.status, self.source, [("content-type", "text/plain")]))


def stream(chunks: Iterator[object], status: int = 200, **given: Any) -> LiveServer:
    source = Source(chunks)

    def make(jobs: Jobs, settings: ServerSettings, _soon: object) -> App:
        service = StreamService(source, status)
        app = App(jobs, settings, Before())
        app.add(service)
        return app

    live = LiveServer(make, **given)
    live.source = source  # type: ignore[attr-defined]
    return live


def source_of(live: LiveServer) -> Source:
    source = live.source  # type: ignore[attr-defined]
    assert isinstance(source, Source)
    return source


def test_chunks_arrive_one_by_one_and_the_connection_goes_on() -> None:
    go = threading.Semaphore(0)

    def chunks() -> Iterator[bytes]:
        for number in range(3):
            go.acquire()
            yield b"part%d" % number

    with stream(chunks()) as live, Client(live.port) as client:
        client.send(get("/"))
        for number in range(3):
            go.release()
            until(partial(received, client, b"part%d" % number))
        answer = client.read()
        assert answer.headers["transfer-encoding"] == "chunked"
        assert answer.body == b"part0part1part2"
        client.send(get("/health/live"))
        assert client.read().status == 200
        until(lambda: source_of(live).closed == 1)
        assert source_of(live).threads == {"model-0"}


def received(client: Client, part: bytes) -> bool:
    client._more()
    return part in client._buffer


def test_empty_chunks_do_not_end_the_body() -> None:
    with stream(iter([b"", b"a", b"", b"b"])) as live, Client(live.port) as client:
        client.send(get("/"))
        assert client.read().body == b"ab"


def test_answers_behind_a_stream_wait_for_its_end() -> None:
    with stream(iter([b"a", b"b"])) as live, Client(live.port) as client:
        client.send(get("/") + get("/health/live"))
        assert [client.read().body, client.read().body] == [b"ab", b'{"live":true}']


def test_http_1_0_gets_the_bytes_and_the_end_of_the_connection() -> None:
    with stream(iter([b"a", b"b"])) as live, Client(live.port) as client:
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        answer = client.read()
        assert answer.body == b"ab"
        assert answer.headers["connection"] == "close"
        assert "transfer-encoding" not in answer.headers


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204)])
def test_answers_without_a_body_pull_nothing_and_close(method: str, status: int) -> None:
    with stream(iter([b"a"]), status) as live, Client(live.port) as client:
        client.send(get("/", method=method))
        assert client.read(head_only=True).status == status
        live.until(lambda: source_of(live).closed == 1)
        assert source_of(live).pulled == 0
        client.send(get("/health/live"))
        assert client.read().status == 200


@pytest.mark.parametrize("bad", [ValueError("broken"), "text"], ids=["raises", "no bytes"])
def test_a_stream_that_fails_is_cut_off(bad: object, caplog: pytest.LogCaptureFixture) -> None:
    def chunks() -> Iterator[object]:
        yield b"a"
        if isinstance(bad, Exception):
            raise bad
        yield bad

    with stream(chunks()) as live, Client(live.port) as client:
        client.send(get("/"))
        with pytest.raises((EOFError, ConnectionResetError)):
            client.read()
        live.until(lambda: source_of(live).closed == 1)
        assert live.call(lambda: live.hub.connections) == 0
    assert "streamed answer" in caplog.text


def test_a_client_that_goes_ends_the_iterator() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 1000

    with stream(endless()) as live:
        with Client(live.port) as client:
            client.send(get("/"))
            client._more()
        live.until(lambda: source_of(live).closed == 1)
        live.until(lambda: live.hub.connections == 0 and live.jobs.pending == 0)


def test_a_client_that_goes_while_a_chunk_is_made_ends_the_iterator() -> None:
    making, go = threading.Event(), threading.Event()

    def chunks() -> Iterator[bytes]:
        making.set()
        assert go.wait(10)
        yield b"late"
        raise AssertionError("nobody wants more")

    with stream(chunks()) as live:
        with Client(live.port) as client:
            client.send(get("/"))
            assert making.wait(10)
        live.until(lambda: live.hub.connections == 0)
        assert source_of(live).closed == 0
        go.set()
        live.until(lambda: source_of(live).closed == 1)
        assert source_of(live).pulled == 1


def test_nothing_is_pulled_that_the_client_does_not_take() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 100_000

    def stuck(live: LiveServer) -> bool:
        before = source_of(live).pulled
        pause.wait(0.1)
        return before == source_of(live).pulled > 0

    pause = threading.Event()
    with stream(endless()) as live, Client(live.port) as client:
        client.send(get("/"))
        until(lambda: stuck(live))
        before = source_of(live).pulled
        taken = 0
        while taken < 20_000_000:
            taken += len(client.socket.recv(1 << 20))
        live.until(lambda: source_of(live).pulled > before)


def test_a_client_that_takes_nothing_of_a_stream_is_given_up() -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b"x" * 100_000

    with stream(endless(), write_timeout_s=0.2) as live, Client(live.port) as client:
        client.send(get("/"))
        live.until(lambda: source_of(live).closed == 1)
        live.until(lambda: live.hub.connections == 0)
        client.socket.close()
