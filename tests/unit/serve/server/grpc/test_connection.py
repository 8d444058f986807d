"""HTTP/2 on one connection: framing, windows, limits, and what clients do wrong."""

from __future__ import annotations

import gc
import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from hpack import Encoder

from scoring.errors import UnauthorizedError
from serve.server.grpc import frames as f
from serve.server.grpc.connection import FRAME_SIZE, MAX_STREAMS, STREAM_WINDOW, GrpcConnection
from tests.support.echo import Echo
from tests.support.http2 import (
    BODY,
    INFER,
    LIVE,
    Http2Client,
    ResetError,
    grpc_head,
    infer_body,
)
from tests.support.server import Client, LiveServer, Sums, post, serve_models, until

if TYPE_CHECKING:
    from collections.abc import Iterator

EMPTY = b"\0\0\0\0\0"


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    models = {"sums": Sums(), "echo": Echo("uint8")}
    with serve_models(
        models, max_header_bytes=4096, max_headers=40, max_body_bytes=4 << 20
    ) as live:
        yield live


@pytest.fixture
def client(server: LiveServer) -> Iterator[Http2Client]:
    with Http2Client(server.port) as connection:
        yield connection


# Framing


def test_greets_with_its_settings(client: Http2Client) -> None:
    settings = client.until(f.SETTINGS).settings
    assert settings[f.MAX_CONCURRENT_STREAMS] == MAX_STREAMS
    assert settings[f.INITIAL_WINDOW_SIZE] == STREAM_WINDOW
    assert settings[f.MAX_HEADER_LIST_SIZE] == 4096
    assert client.until(f.SETTINGS, ack=True)


def test_answers_byte_by_byte(server: LiveServer) -> None:
    with Http2Client(server.port, greet=False) as client:
        client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b"".join(
            [
                f.PREFACE,
                f.settings({}),
                client.head(1, grpc_head()),
                f.frame(f.DATA, f.END_STREAM, 1, BODY),
            ]
        )
        client.send(data[:10])
        for byte in data[10:]:
            client.send(bytes([byte]))
        assert client.status(1) == 0


def test_the_same_block_is_understood_again_and_again(client: Http2Client) -> None:
    for stream_id in range(1, 41, 2):
        client.call(stream_id)
        assert client.status(stream_id) == 0
    # Another field moves all places of the table.
    client.send(client.head(41, grpc_head(LIVE, ("x-new", "1"))))
    client.send(f.frame(f.DATA, f.END_STREAM, 41, EMPTY))
    assert client.answer(41)[1] == b"\0\0\0\0\x02\x08\x01"
    assert client.is_alive(43)


def test_takes_padding_priority_and_continuations(client: Http2Client) -> None:
    block = client.encoder.encode(grpc_head())
    padded = bytes([4]) + b"\0\0\0\0\x10" + block[:9] + b"\0" * 4
    client.send(
        f.frame(f.HEADERS, f.PADDED | 0x20, 1, padded),
        f.frame(f.CONTINUATION, 0, 1, block[9:12]),
        f.frame(f.CONTINUATION, f.END_HEADERS, 1, block[12:]),
        f.frame(f.DATA, f.PADDED, 1, bytes([3]) + BODY[:7] + b"\0" * 3),
        f.frame(f.PRIORITY, 0, 1, b"\0\0\0\0\x10"),
        f.frame(0xFA, 0xFF, 1, b"of another kind"),
        f.frame(f.DATA, f.END_STREAM, 1, BODY[7:]),
    )
    assert client.status(1) == 0


def test_a_message_in_many_frames_and_its_end_in_trailers(client: Http2Client) -> None:
    client.send(client.head(1, grpc_head()))
    for byte in BODY:
        client.send(f.frame(f.DATA, 0, 1, bytes([byte])))
    client.send(client.head(1, [("x-trailer", "yes")], end=True))
    assert client.status(1) == 0
    assert client.is_alive(3)


def test_answers_pings_at_once(client: Http2Client) -> None:
    client.send(f.frame(f.PING, 0, 0, b"12345678"))
    assert client.until(f.PING, ack=True).opaque_data == b"12345678"


def test_http_1_goes_on_beside_it(server: LiveServer, client: Http2Client) -> None:
    with Client(server.port) as plain:
        plain.send(post())
        assert plain.read().status in {200, 404}
    assert client.is_alive(1)


# Windows


def test_keeps_to_small_windows(server: LiveServer) -> None:
    settings = {f.INITIAL_WINDOW_SIZE: 10}
    with Http2Client(server.port, settings) as client:
        client.call(1, path=LIVE, body=EMPTY)
        assert client.status(1) == 0
        client.call(3)
        head = client.until(f.HEADERS)
        assert "END_STREAM" not in head.flags
        data = client.until(f.DATA)
        assert len(data.data) == 10
        client.send(f.window_update(3, 5))
        assert len(client.until(f.DATA).data) == 5
        client.send(f.settings({f.INITIAL_WINDOW_SIZE: 100_000}))
        assert client.until(f.DATA).data
        assert client.until(f.HEADERS).stream_id == 3
        assert client.is_alive(5)


def test_new_windows_are_used_behind_the_word_that_they_are_known(server: LiveServer) -> None:
    """Until they are acknowledged the client holds us to the old ones, as gRPC's own does."""
    with Http2Client(server.port, {f.INITIAL_WINDOW_SIZE: 10}) as client:
        client.call(1)
        assert len(client.until(f.DATA).data) == 10
        client.send(f.settings({f.INITIAL_WINDOW_SIZE: 100_000}))
        frame = client.read()
        assert (frame.type, "ACK" in frame.flags) == (f.SETTINGS, True)
        assert client.until(f.DATA).data


def test_keeps_to_the_window_of_the_connection(server: LiveServer) -> None:
    size = 50_000
    settings = {f.INITIAL_WINDOW_SIZE: 1 << 20}
    body = _echo_body(size)
    with Http2Client(server.port, settings) as client:
        client.call(1, body)
        client.call(3, body)
        got: dict[int, int] = {1: 0, 3: 0}
        while sum(got.values()) < f.DEFAULT_WINDOW:
            frame = client.until(f.DATA)
            assert len(frame.data) <= f.DEFAULT_FRAME_SIZE
            got[frame.stream_id] += len(frame.data)
        assert sum(got.values()) == f.DEFAULT_WINDOW
        client.send(f.frame(f.PING, 0, 0, b"nothing!"))
        assert client.read().type == f.PING  # and no data before it
        client.send(f.window_update(0, 1 << 20))
        while min(got.values()) < size:
            frame = client.until(f.DATA)
            got[frame.stream_id] += len(frame.data)


def _echo_body(size: int) -> bytes:
    from serve.server.grpc.messages import ModelInferRequest
    from serve.server.grpc.reading import framed

    made = ModelInferRequest(model_name="echo")
    made.inputs.add(name="given", datatype="UINT8", shape=[1, size])
    made.raw_input_contents.append(b"\x07" * size)
    return framed(made.SerializeToString())


def test_a_window_may_become_negative(server: LiveServer) -> None:
    with Http2Client(server.port, {f.INITIAL_WINDOW_SIZE: 50_000}) as client:
        client.call(1, _echo_body(60_000))
        got = 0
        while got < 50_000:
            got += len(client.until(f.DATA).data)
        client.send(f.settings({f.INITIAL_WINDOW_SIZE: 10}), f.window_update(1, 49_990))
        client.send(f.frame(f.PING, 0, 0, b"nothing!"))
        assert client.until(f.PING, ack=True)
        client.send(f.window_update(1, 7))
        assert len(client.until(f.DATA).data) == 7


def test_lets_large_bodies_in(client: Http2Client) -> None:
    body = _echo_body(3 << 20)
    client.send(client.head(1, grpc_head()))
    window, sent = STREAM_WINDOW, 0
    while sent < len(body):
        size = min(FRAME_SIZE, window, len(body) - sent)
        if size == 0:
            while (frame := client.until(f.WINDOW_UPDATE)).stream_id != 1:
                pass
            window += frame.window_increment
            continue
        end = f.END_STREAM if sent + size == len(body) else 0
        client.send(f.frame(f.DATA, end, 1, body[sent : sent + size]))
        sent += size
        window -= size
    client.send(f.window_update(0, 8 << 20), f.window_update(1, 8 << 20))
    assert len(client.answer(1)[1]) > 3 << 20


def test_a_smaller_table_is_acknowledged_in_the_next_head(server: LiveServer) -> None:
    with Http2Client(server.port, {f.HEADER_TABLE_SIZE: 0}) as client:
        client.call(1)
        assert client.until(f.HEADERS).data[:1] == b"\x20"
        assert client.is_alive(3)


# Faults


def goings() -> list[Any]:
    """What ends a connection, and with which code."""
    protocol, size, flow = f.PROTOCOL_ERROR, f.FRAME_SIZE_ERROR, f.FLOW_CONTROL_ERROR
    ping = b"12345678"
    cases: dict[str, tuple[bytes, int]] = {
        "data on no stream": (f.frame(f.DATA, 0, 0, b"x"), protocol),
        "data on an idle stream": (f.frame(f.DATA, 0, 5, b"x"), protocol),
        "headers on no stream": (f.frame(f.HEADERS, f.END_HEADERS, 0, b"\x82"), protocol),
        "an even stream": (f.frame(f.HEADERS, f.END_HEADERS, 2, b"\x82"), protocol),
        "reset of an idle stream": (f.reset(9, 0), protocol),
        "reset of no stream": (f.frame(f.RST_STREAM, 0, 0, b"\0" * 4), protocol),
        "reset of another size": (f.frame(f.RST_STREAM, 0, 1, b"\0" * 3), size),
        "ping on a stream": (f.frame(f.PING, 0, 1, ping), protocol),
        "ping of another size": (f.frame(f.PING, 0, 0, ping + b"9"), size),
        "settings on a stream": (f.frame(f.SETTINGS, 0, 1), protocol),
        "settings of another size": (f.frame(f.SETTINGS, 0, 0, b"\0" * 5), size),
        "settings with an answer": (f.frame(f.SETTINGS, f.ACK, 0, b"\0" * 6), protocol),
        "a frame size too small": (f.settings({f.MAX_FRAME_SIZE: 100}), protocol),
        "a frame size too large": (f.settings({f.MAX_FRAME_SIZE: 2**24}), protocol),
        "a window too large": (f.settings({f.INITIAL_WINDOW_SIZE: 2**31}), flow),
        "push neither on nor off": (f.settings({f.ENABLE_PUSH: 2}), protocol),
        "push": (f.frame(f.PUSH_PROMISE, f.END_HEADERS, 1, b"\0\0\0\x02\x82"), protocol),
        "window update of 0": (f.window_update(0, 0), protocol),
        "window update over all": (f.window_update(0, 2**31 - 1), flow),
        "window update of another size": (f.frame(f.WINDOW_UPDATE, 0, 0, b"\0" * 5), size),
        "window update of an idle stream": (f.window_update(7, 1), protocol),
        "a frame too large": (f.frame(f.DATA, 0, 1, b"x" * (FRAME_SIZE + 1)), size),
        "a continuation of nothing": (f.frame(f.CONTINUATION, f.END_HEADERS, 1, b""), protocol),
        "ping within a head": (
            f.frame(f.HEADERS, 0, 1, b"\x82") + f.frame(f.PING, 0, 0, ping),
            protocol,
        ),
        "a head on another stream within a head": (
            f.frame(f.HEADERS, 0, 1, b"\x82") + f.frame(f.CONTINUATION, f.END_HEADERS, 3, b"\x82"),
            protocol,
        ),
        "too much padding": (f.frame(f.DATA, f.PADDED, 1, b"\x09abc"), protocol),
        "a head of nothing but padding": (f.frame(f.HEADERS, 0xC, 1, b"\x09"), protocol),
        "a stream that depends on itself": (
            f.frame(f.HEADERS, f.END_HEADERS | 0x20, 1, b"\0\0\0\x01\x10\x82"),
            protocol,
        ),
        "compression that is none": (
            f.frame(f.HEADERS, f.END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff"),
            f.COMPRESSION_ERROR,
        ),
        "an entry that is not there": (
            f.frame(f.HEADERS, f.END_HEADERS, 1, b"\xfe"),
            f.COMPRESSION_ERROR,
        ),
        "a table that is too large": (
            f.frame(f.HEADERS, f.END_HEADERS, 1, b"\x3f\xff\xff\x03"),
            f.COMPRESSION_ERROR,
        ),
        "a head that is too long": (
            f.frame(f.HEADERS, 0, 1, b"\0" * 3000) + f.frame(f.CONTINUATION, 0, 1, b"\0" * 3000),
            f.ENHANCE_YOUR_CALM,
        ),
        "a head without an end": (
            f.frame(f.HEADERS, 0, 1, b"") + f.frame(f.CONTINUATION, 0, 1, b"") * 100,
            f.ENHANCE_YOUR_CALM,
        ),
    }
    return [pytest.param(*case, id=name) for name, case in cases.items()]


@pytest.mark.parametrize(("sent", "code"), goings())
def test_breaches_end_the_connection(client: Http2Client, sent: bytes, code: int) -> None:
    client.send(sent)
    got = client.end()
    # Wrong padding is a matter of size to the parser, and of the protocol to the RFC.
    assert got == code or (got == f.FRAME_SIZE_ERROR and sent[4] & f.PADDED)


def test_a_bomb_of_compressed_fields_ends_the_connection(client: Http2Client) -> None:
    encoder = Encoder()
    block = encoder.encode([("x", "v" * 3000)]) + b"\xbe" * 500
    client.send(f.frame(f.HEADERS, f.END_HEADERS, 1, block))
    assert client.end() == f.ENHANCE_YOUR_CALM


@pytest.mark.parametrize(
    "first",
    [b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", b"PRI /x HTTP/1.1\r\nHost: a\r\n\r\n"],
    ids=["another preface", "another target"],
)
def test_another_preface_is_none(server: LiveServer, first: bytes) -> None:
    with Http2Client(server.port, greet=False) as client:
        client.send(first)
        assert client.end() == f.PROTOCOL_ERROR


def test_settings_come_first(server: LiveServer) -> None:
    for sent in (f.frame(f.PING, 0, 0, b"12345678"), f.frame(f.SETTINGS, f.ACK, 0)):
        with Http2Client(server.port, greet=False) as client:
            client.send(f.PREFACE, sent)
            assert client.end() == f.PROTOCOL_ERROR


def bad_heads() -> list[Any]:
    good = grpc_head()
    cases = {
        "no path": [field for field in good if field[0] != ":path"],
        "no method": [field for field in good if field[0] != ":method"],
        "an empty path": [(":path", "") if field[0] == ":path" else field for field in good],
        "a path twice": [(":path", "/"), *good],
        "an unknown pseudo field": [(":status", "200"), *good],
        "a late pseudo field": [*good, (":authority", "x")],
        "upper case": [*good, ("X-Upper", "x")],
        "connection": [*good, ("connection", "close")],
        "te of another kind": [*good, ("te", "gzip")],
        "a line break": [*good, ("x", "a\nb")],
        "a space in a name": [*good, ("x y", "a")],
        "a length that is none": [*good, ("content-length", "x")],
        "a timeout that is none": [*good, ("grpc-timeout", "1h")],
        "too many fields": [*good, *[("x", "")] * 50],
    }
    return [pytest.param(case, id=name) for name, case in cases.items()]


@pytest.mark.parametrize("fields", bad_heads())
def test_heads_that_are_no_request_end_their_stream(
    client: Http2Client, fields: list[tuple[str, str]]
) -> None:
    client.send(client.head(1, fields), f.frame(f.DATA, f.END_STREAM, 1, BODY))
    with pytest.raises(ResetError):
        client.answer(1)
    assert client.is_alive(3)


def test_a_length_has_to_be_right(client: Http2Client) -> None:
    right = [("content-length", str(len(BODY)))]
    wrong = [("content-length", str(len(BODY) + 1))]
    client.send(client.head(1, grpc_head() + right), f.frame(f.DATA, f.END_STREAM, 1, BODY))
    assert client.status(1) == 0
    client.send(client.head(3, grpc_head() + wrong), f.frame(f.DATA, f.END_STREAM, 3, BODY))
    with pytest.raises(ResetError):
        client.answer(3)
    assert client.is_alive(5)


def test_closed_streams_stay_closed(client: Http2Client) -> None:
    assert client.is_alive(1)
    client.send(f.frame(f.DATA, 0, 1, b"x"))
    assert client.end() == f.STREAM_CLOSED


def test_frames_that_crossed_a_reset_are_passed_over(client: Http2Client) -> None:
    client.send(client.head(1, grpc_head("/no.Such/Method")), f.frame(f.DATA, 0, 1, b"x" * 100))
    assert client.answer(1)[2]["grpc-status"] == "12"
    assert client.until(f.RST_STREAM).error_code == f.NO_ERROR
    client.send(f.frame(f.DATA, 0, 1, b"x" * 100), f.window_update(1, 5))
    client.send(client.head(1, [("x", "y")], end=True))
    assert client.is_alive(3)


@pytest.mark.parametrize("late", ["data", "trailers"])
def test_what_follows_a_clients_own_reset_hurts_its_stream_alone(
    client: Http2Client, late: str
) -> None:
    client.send(client.head(1, grpc_head()), f.frame(f.DATA, 0, 1, BODY[:9]), f.reset(1, f.CANCEL))
    client.send(
        f.frame(f.DATA, 0, 1, BODY[9:])
        if late == "data"
        else client.head(1, [("x", "y")], end=True)
    )
    reset = client.until(f.RST_STREAM)
    assert (reset.stream_id, reset.error_code) == (1, f.STREAM_CLOSED)
    client.send(f.frame(f.DATA, f.END_STREAM, 1, b"more"))  # it is told once
    client.call(3)
    assert client.status(3) == 0


def test_streams_beyond_the_limit_are_refused() -> None:
    model = Sums()
    with (
        serve_models({"sums": model}, inline=False, max_pending=2000) as live,
        Http2Client(live.port) as client,
    ):
        model.go.clear()
        for number in range(MAX_STREAMS + 1):
            client.call(2 * number + 1)
        assert client.until(f.RST_STREAM).error_code == f.REFUSED_STREAM
        model.go.set()
        assert client.status(1) == 0


# Attacks


def test_many_resets_end_the_connection(client: Http2Client) -> None:
    head = client.encoder.encode(grpc_head())
    client.send(f.headers(1, head, 0))
    block = client.encoder.encode(grpc_head())
    ids = range(3, 6001, 2)
    data = b"".join(f.headers(each, block, 0) + f.reset(each, f.CANCEL) for each in ids)
    assert client.flood(data, 1) == f.ENHANCE_YOUR_CALM


def floods() -> list[Any]:
    head = f.headers(1, Encoder().encode(grpc_head()), 0)
    cases = {
        "pings": (b"", f.frame(f.PING, 0, 0, b"12345678")),
        "settings": (b"", f.settings({f.INITIAL_WINDOW_SIZE: 70_000})),
        "empty data": (head, f.frame(f.DATA, 0, 1)),
        "priorities": (b"", f.frame(f.PRIORITY, 0, 3, b"\0\0\0\0\x10")),
        "window updates": (head, f.window_update(1, 1)),
        "unknown frames": (b"", f.frame(0xEE, 0, 0)),
        "padding": (head, f.frame(f.DATA, f.PADDED, 1, b"\x07" + b"\0" * 7)),
    }
    return [pytest.param(*case, id=name) for name, case in cases.items()]


@pytest.mark.parametrize(("first", "again"), floods())
def test_floods_end_the_connection(client: Http2Client, first: bytes, again: bytes) -> None:
    client.send(first)
    assert client.flood(again, 100_000) == f.ENHANCE_YOUR_CALM


def test_one_who_reads_nothing_is_not_read() -> None:
    """Answers that nobody takes do not pile up here."""
    with (
        serve_models({"echo": Echo("uint8")}, write_timeout_s=1) as live,
        Http2Client(live.port, {f.INITIAL_WINDOW_SIZE: 2**31 - 1}, timeout_s=3) as client,
    ):
        client.send(f.window_update(0, 2**31 - 1 - f.DEFAULT_WINDOW))
        body = _echo_body(60_000)
        client.socket.settimeout(2)
        assert _send_until_stuck(client, body) < 5_000
        live.until(lambda: live.hub.connections == 0)


def _send_until_stuck(client: Http2Client, body: bytes) -> int:
    for number in range(20_000):
        try:
            client.call(2 * number + 1, body)
        except OSError:
            return number
    raise AssertionError("the server took everything")


def test_a_window_that_stays_shut_ends_its_stream() -> None:
    with (
        serve_models({"sums": Sums()}, write_timeout_s=0.5) as live,
        Http2Client(live.port, {f.INITIAL_WINDOW_SIZE: 0}) as client,
    ):
        client.call(1)
        with pytest.raises((ResetError, EOFError, ConnectionError)):
            client.answer(1)


def test_what_is_not_whole_is_bounded_for_a_connection() -> None:
    most = 2 << 20
    with (
        serve_models({"echo": Echo("uint8")}, max_body_bytes=most) as live,
        Http2Client(live.port) as client,
    ):
        part = FRAME_SIZE
        body = b"\0" + most.to_bytes(4, "big") + b"\0" * (900 * 1024)
        for number in range(12):
            client.send(client.head(2 * number + 1, grpc_head()))
            for begin in range(0, len(body), part):
                client.send(f.frame(f.DATA, 0, 2 * number + 1, body[begin : begin + part]))
        assert client.until(f.RST_STREAM).error_code == f.ENHANCE_YOUR_CALM
        client.call(101, _echo_body(10))
        assert client.status(101) == 0


# Who asks


class SlowGate:
    """A gate that has to think about everyone."""

    def __init__(self) -> None:
        self.waiting: list[Any] = []

    def admit(self, credential: bytes, target: bytes, address: str = "") -> None:
        assert (credential, target, address) == (b"Bearer me", INFER.encode(), "127.0.0.1")

    def decide(self, credential: bytes, target: bytes, done: Any) -> None:
        self.waiting.append(done)

    def tick(self) -> None:
        pass


@pytest.mark.parametrize("whole", [True, False], ids=["whole", "in parts"])
def test_calls_wait_until_it_is_known_who_asks(whole: bool) -> None:
    from serve.server.access.principal import ANONYMOUS

    gate = SlowGate()
    with serve_models({"sums": Sums()}) as live:
        live.call(lambda: setattr(live.hub, "guard", gate))
        with Http2Client(live.port) as client:
            for stream_id in (1, 3, 5):
                cut = len(BODY) if whole else 20
                head = client.head(stream_id, grpc_head(INFER, ("authorization", "Bearer me")))
                client.send(head, f.frame(f.DATA, 0, stream_id, BODY[:cut]))
                client.send(f.frame(f.DATA, f.END_STREAM, stream_id, BODY[cut:]))
            client.send(f.reset(5, f.CANCEL))
            live.until(lambda: len(gate.waiting) == 3)
            live.call(lambda: gate.waiting[0](ANONYMOUS, None))
            live.call(lambda: gate.waiting[1](None, UnauthorizedError("Not you.")))
            live.call(lambda: gate.waiting[2](ANONYMOUS, None))
            assert client.status(1) == 0
            assert client.status(3) == 16


def test_calls_are_counted(server: LiveServer, client: Http2Client) -> None:
    assert client.is_alive(1)
    client.call(3, infer_body([1, 2, 3], name="nothing"))
    assert client.status(3) == 5
    client.send(client.head(5, rest("GET", "/metrics"), end=True))
    head, page, _ = client.answer(5)
    assert head[":status"] == "200"
    lines = [line for line in page.decode().splitlines() if 'protocol="grpc"' in line]
    assert any('model="sums"' in line and 'code="OK"' in line for line in lines), lines[:20]
    assert any('code="NOT_FOUND"' in line for line in lines)


# Times


def test_a_connection_that_does_not_begin_ends() -> None:
    with serve_models({"sums": Sums()}, header_timeout_s=0.3) as live:
        for first in (f.PREFACE[:10], f.PREFACE, f.PREFACE + f.settings({})[:5]):
            with Http2Client(live.port, greet=False) as client:
                client.send(first)
                assert client.end() == f.NO_ERROR


def test_a_head_that_does_not_end_ends_the_connection() -> None:
    with serve_models({"sums": Sums()}, header_timeout_s=0.3) as live, Http2Client(live.port) as c:
        c.send(f.frame(f.HEADERS, 0, 1, b"\x82"))
        assert c.end() == f.NO_ERROR


def test_a_body_that_does_not_come_is_told_so() -> None:
    with serve_models({"sums": Sums()}, body_timeout_s=0.3) as live, Http2Client(live.port) as c:
        c.send(c.head(1, grpc_head()), f.frame(f.DATA, 0, 1, BODY[:4]))
        assert c.status(1) == 4
        c.send(c.head(3, [(":method", "POST"), (":scheme", "http"), (":path", "/score")]))
        assert c.answer(3)[0][":status"] == "408"
        assert c.is_alive(5)


def test_an_idle_connection_is_ended_in_two_steps() -> None:
    with (
        serve_models({"sums": Sums()}, keep_alive_timeout_s=0.3) as live,
        Http2Client(live.port) as c,
    ):
        assert c.is_alive(1)
        first = c.until(f.GOAWAY)
        assert (first.last_stream_id, first.error_code) == (2**31 - 1, f.NO_ERROR)
        ping = c.until(f.PING)
        c.call(3)  # on its way when the server made up its mind
        assert c.status(3) == 0
        c.send(f.frame(f.PING, f.ACK, 0, ping.opaque_data))
        last = c.until(f.GOAWAY)
        assert (last.last_stream_id, last.error_code) == (3, f.NO_ERROR)
        with pytest.raises(EOFError):
            c.read()


def test_a_silent_client_that_waits_is_asked_whether_it_is_there() -> None:
    model = Sums()
    with (
        serve_models(
            {"sums": model}, inline=False, keep_alive_timeout_s=0.2, write_timeout_s=0.3
        ) as live,
        Http2Client(live.port) as client,
    ):
        model.go.clear()
        client.call(1)
        for _ in range(3):
            ping = client.until(f.PING)
            client.send(f.frame(f.PING, f.ACK, 0, ping.opaque_data))
        client.until(f.PING)  # and now no answer: this one is gone
        with pytest.raises((EOFError, ConnectionError)):
            client.status(1)
        live.until(lambda: live.hub.connections == 0)
        model.go.set()


def test_too_many_connections_are_told_so() -> None:
    with serve_models({"sums": Sums()}, max_connections=1) as live, Http2Client(live.port) as first:
        assert first.is_alive(1)
        with Http2Client(live.port) as second:
            assert b"overloaded" in second.socket.recv(65_536)
        assert first.is_alive(3)


def test_a_half_closed_client_gets_its_answers() -> None:
    model = Sums()
    with serve_models({"sums": model}, inline=False) as live, Http2Client(live.port) as client:
        model.go.clear()
        client.call(1)
        client.send(client.head(3, grpc_head()))
        client.socket.shutdown(socket.SHUT_WR)
        assert model.entered.acquire(timeout=10)
        model.go.set()
        assert client.status(1) == 0
        assert client.end() == -1


def test_ended_connections_leave_nothing_behind(server: LiveServer) -> None:
    server.until(lambda: server.hub.connections == 0)
    for _ in range(5):
        with Http2Client(server.port) as client:
            assert client.is_alive(1)
            client.send(client.head(3, grpc_head()))
    server.until(lambda: server.hub.connections == 0)

    def left() -> int:
        gc.collect()
        return sum(type(each) is GrpcConnection for each in gc.get_objects())

    until(lambda: left() == 0)


# Plain requests


def rest(method: str, path: str, *more: tuple[str, str]) -> list[tuple[str, str]]:
    return [
        (":method", method), (":scheme", "http"), (":path", path), (":authority", "test"), *more,
    ]  # fmt: skip


def test_answers_plain_requests(client: Http2Client) -> None:
    client.send(client.head(1, rest("GET", "/health/live"), end=True))
    head, body, _ = client.answer(1)
    assert (head[":status"], body) == ("200", b'{"live":true}')
    assert head["content-type"] == "application/json"
    assert head["content-length"] == str(len(body))
    client.send(client.head(3, rest("HEAD", "/health/live"), end=True))
    head, body, _ = client.answer(3)
    assert (head[":status"], head["content-length"], body) == ("200", "13", b"")
    client.send(client.head(5, rest("GET", "/nothing?x=1"), end=True))
    assert client.answer(5)[0][":status"] == "404"


def test_plain_inference_in_pieces(client: Http2Client) -> None:
    fields = rest("POST", "/v2/models/sums/infer", ("content-type", "application/json"))
    body = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,3],"data":[1,2,3]}]}'
    client.send(client.head(1, fields))
    for begin in range(0, len(body), 10):
        client.send(f.frame(f.DATA, 0, 1, body[begin : begin + 10]))
    client.send(f.frame(f.DATA, f.END_STREAM, 1))
    head, answer, _ = client.answer(1)
    assert head[":status"] == "200"
    assert b'"data":[6.0]' in answer


def test_plain_limits(client: Http2Client) -> None:
    client.send(client.head(1, rest("POST", "/score", ("content-length", "999999999"))))
    assert client.answer(1)[0][":status"] == "413"
    client.send(client.head(7, rest("POST", "/v2/x", ("content-length", "999999999"))))
    assert isinstance(json.loads(client.answer(7)[1])["error"], str), "as the protocol has it"
    client.send(client.head(9, rest("POST", "/score")))
    for _ in range(65):
        client.send(f.frame(f.DATA, 0, 9, b" " * FRAME_SIZE))
    assert client.answer(9)[0][":status"] == "413"
    assert client.is_alive(11)


@pytest.mark.parametrize("kind", ["application/grpc", "application/grpc+proto"])
def test_kinds_of_grpc(client: Http2Client, kind: str) -> None:
    fields = [(name, kind if name == "content-type" else value) for name, value in grpc_head()]
    client.send(client.head(1, fields), f.frame(f.DATA, f.END_STREAM, 1, BODY))
    assert client.status(1) == 0


def test_grpc_web_is_a_plain_request(client: Http2Client) -> None:
    fields = rest("POST", INFER, ("content-type", "application/grpc-web+proto"))
    client.send(client.head(1, fields), f.frame(f.DATA, f.END_STREAM, 1, BODY))
    assert client.answer(1)[0][":status"] == "404"


def test_messages_that_are_none(client: Http2Client) -> None:
    for number, (body, status) in enumerate(
        [
            (b"\x02" + BODY[1:], 3),  # a flag that does not exist
            (b"\x01" + BODY[1:], 3),  # compressed with nothing
            (BODY[:-1], 3),  # cut off
            (BODY[:3], 3),
            (b"", 12),
            (BODY + BODY, 12),
            (BODY + b"\0", 12),
            (b"\0\xff\xff\xff\xff", 8),
        ]
    ):
        client.call(2 * number + 1, body)
        assert client.status(2 * number + 1) == status, body[:6]


def test_infers_for_several_rows(client: Http2Client) -> None:
    client.call(1, infer_body([1, 2, 3], [4, 5, 6]))
    assert client.status(1) == 0


def test_answers_quickly_after_a_pause(client: Http2Client) -> None:
    assert client.is_alive(1)
    begun = time.monotonic()
    assert client.is_alive(3)
    assert time.monotonic() - begun < 2
