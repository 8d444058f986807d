"""HTTP on one connection: framing, order, limits, timeouts, and what clients do wrong."""

from __future__ import annotations

import gc
import json
import re
import socket
import struct
import threading
from typing import TYPE_CHECKING, Any

import pytest

from serve.server.errors import BadRequestError
from serve.server.protocol import Connection
from tests.support.server import (
    ANSWER,
    BODY,
    Client,
    LiveServer,
    Sums,
    get,
    post,
    serve_model,
    until,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with serve_model(max_body_bytes=4096, max_header_bytes=2048, max_headers=20) as live:
        yield live


@pytest.fixture
def client(server: LiveServer) -> Iterator[Client]:
    with Client(server.port) as connection:
        yield connection


def error_code(body: bytes) -> str:
    return str(json.loads(body)["error"]["code"])


# Framing and order


def test_keeps_the_connection_for_many_requests(client: Client) -> None:
    for _ in range(50):
        client.send(post())
        answer = client.read()
        assert (answer.status, json.loads(answer.body)) == (200, ANSWER)
        assert "connection" not in answer.headers


def test_answers_have_a_date_and_a_server_and_a_type(client: Client) -> None:
    client.send(post())
    headers = client.read().headers
    assert re.fullmatch(r"\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d GMT", headers["date"])
    assert headers["server"] == "fieldpost"
    assert headers["content-type"] == "application/json"


def test_takes_a_request_byte_by_byte(client: Client) -> None:
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in post(BODY, "/score", "X-Long: " + "v" * 50):
        client.send(bytes([byte]))
    assert json.loads(client.read().body) == ANSWER


def test_takes_a_chunked_body_with_extensions_and_trailers(client: Client) -> None:
    client.send(
        b"POST /score HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"4;name=value\r\n" + BODY[:4] + b"\r\n",
        b"%x\r\n" % (len(BODY) - 4) + BODY[4:] + b"\r\n0\r\nX-Trailer: yes\r\nHost: other\r\n\r\n",
    )
    assert json.loads(client.read().body) == ANSWER
    client.send(post())
    assert client.read().status == 200


def test_pipelined_answers_come_in_order(client: Client) -> None:
    requests = []
    for number in range(200):
        kind = number % 4
        requests.append(
            (post(b'{"data":[[%d,0,0]]}' % number), f"{number}.0")
            if kind < 2
            else (get("/health/live"), "live")
            if kind == 2
            else (get(f"/nothing{number}"), f"nothing{number}")
        )
    client.send(b"".join(request for request, _ in requests))
    for _, wanted in requests:
        assert wanted in client.read().body.decode()


def test_pipelined_answers_come_in_order_when_the_model_is_slow() -> None:
    model = Sums()
    with serve_model(model, inline=False, threads=3) as live, Client(live.port) as client:
        model.go.clear()
        client.send(
            post(b'{"data":[[1,0,0]]}') + get("/health/live") + post(b'{"data":[[2,0,0]]}'),
        )
        assert model.entered.acquire(timeout=10)
        model.go.set()
        bodies = [json.loads(client.read().body) for _ in range(3)]
    assert [body.get("predictions") for body in bodies] == [[1.0], None, [2.0]]


def test_a_slow_model_does_not_hold_up_other_connections() -> None:
    model = Sums()
    with serve_model(model, inline=False) as live, Client(live.port) as slow:
        model.go.clear()
        slow.send(post())
        assert model.entered.acquire(timeout=10)
        with Client(live.port, timeout_s=2) as other:
            other.send(get("/health/live"))
            assert other.read().status == 200
        model.go.set()
        assert json.loads(slow.read().body) == ANSWER


def test_head_has_the_length_of_get_and_no_body(client: Client) -> None:
    client.send(get("/health/live") + get("/health/live", method="HEAD") + get("/"))
    whole, head = client.read(), client.read(head_only=True)
    assert head.headers["content-length"] == whole.headers["content-length"] != "0"
    assert client.read().body == b"Healthy"


def test_connection_close_is_obeyed(client: Client) -> None:
    client.send(post(BODY, "/score", "Connection: close"))
    assert client.read().headers["connection"] == "close"
    assert client.closed()


def test_http_1_0_closes_unless_asked_to_keep(client: Client) -> None:
    client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
    assert client.read().headers["connection"] == "keep-alive"
    client.send(b"POST /score HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY)
    assert client.read().headers["connection"] == "close"
    assert client.closed()


@pytest.mark.parametrize(
    "target",
    ["/score?x=1", "/sc%6fre", "http://test/score", "/score#part"],
)
def test_the_target_may_be_written_in_other_ways(client: Client, target: str) -> None:
    client.send(post(BODY, target))
    assert json.loads(client.read().body) == ANSWER


def test_expect_100_continue_is_answered_before_the_body(client: Client) -> None:
    request = post(BODY, "/score", "Expect: 100-continue")
    client.send(request[: -len(BODY)])
    assert client.read().status == 100
    client.send(BODY)
    assert json.loads(client.read().body) == ANSWER


def test_100_continue_waits_for_earlier_answers() -> None:
    model = Sums()
    with serve_model(model, inline=False) as live, Client(live.port) as client:
        model.go.clear()
        request = post(BODY, "/score", "Expect: 100-continue")
        client.send(post() + request[: -len(BODY)])
        assert model.entered.acquire(timeout=10)
        model.go.set()
        assert [client.read().status, client.read().status] == [200, 100]
        client.send(BODY)
        assert client.read().status == 200


def test_other_expectations_fail(client: Client) -> None:
    client.send(get("/", "Expect: miracles"))
    answer = client.read()
    assert (answer.status, error_code(answer.body)) == (417, "expectation_failed")


def test_a_request_over_the_limit_gets_no_100_continue(client: Client) -> None:
    client.send(
        b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 5000\r\nExpect: 100-continue\r\n\r\n"
    )
    assert client.read().status == 413


@pytest.mark.parametrize("offer", ["h2c", "websocket"])
def test_an_offer_to_upgrade_is_ignored_and_hides_no_request(client: Client, offer: str) -> None:
    """What follows such a head is its body, and never a request of its own."""
    smuggled = get("/smuggled")
    body = b'{"data":[[1,2,3]]}' + b" " * 4
    client.send(
        post(body, "/score", "Connection: Upgrade, HTTP2-Settings", f"Upgrade: {offer}"),
        get("/after"),
    )
    assert json.loads(client.read().body) == ANSWER
    assert b"/after" in client.read().body
    client.send(post(smuggled, "/score", "Connection: upgrade", f"Upgrade: {offer}"))
    assert client.read().status == 400
    client.send(get("/health/live"))
    assert client.read().body == b'{"live":true}'


def test_a_malformed_request_behind_an_offer_to_upgrade_is_refused(client: Client) -> None:
    client.send(post(BODY, "/score", "Connection: Upgrade", "Upgrade: h2c") + b"nonsense\r\n\r\n")
    assert [client.read().status, client.read().status] == [200, 400]
    assert client.closed()


# Malformed and ambiguous requests

_HOST = b"Host: test\r\n"
_CHUNKED = b"POST /score HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"


def _with(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join([b"POST /score HTTP/1.1", b"Host: test", *lines, b"", b""]) + body


MALFORMED = {
    "length and chunks": _with(
        b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"
    ),
    "chunks and length": _with(
        b"Transfer-Encoding: chunked", b"Content-Length: 3", body=b"0\r\n\r\n"
    ),
    "two lengths": _with(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"),
    "the same length twice": _with(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
    "a list of lengths": _with(b"Content-Length: 3, 3", body=b"abc"),
    "a signed length": _with(b"Content-Length: +3", body=b"abc"),
    "a negative length": _with(b"Content-Length: -3", body=b"abc"),
    "a hexadecimal length": _with(b"Content-Length: 0x3", body=b"abc"),
    "an empty length": _with(b"Content-Length: ", body=b"abc"),
    "an endless length": _with(b"Content-Length: " + b"9" * 40, body=b"abc"),
    "gzip as transfer coding": _with(b"Transfer-Encoding: gzip", body=b"abc"),
    "gzip and chunks": _with(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"),
    "chunks not last": _with(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"),
    "chunks twice": _with(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"),
    "two transfer codings": _with(
        b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", body=b"0\r\n\r\n"
    ),
    "identity": _with(b"Transfer-Encoding: identity"),
    "almost chunked": _with(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"),
    "a vertical tab before chunked": _with(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"),
    "a space before the colon": _with(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"),
    "chunks in HTTP/1.0": b"POST /score HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size with 0x": _CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a negative chunk": _CHUNKED + b"-1\r\nabc\r\n0\r\n\r\n",
    "an endless chunk size": _CHUNKED + b"f" * 17 + b"\r\nabc\r\n0\r\n\r\n",
    "a chunk with no end": _CHUNKED + b"3\r\nabc0\r\n\r\n",
    "a chunk size with a bare line feed": _CHUNKED + b"3\nabc\r\n0\r\n\r\n",
    "an extension with a bare line feed": _CHUNKED + b"3;a\nxx\r\nabc\r\n0\r\n\r\n",
    "a length in the trailer": _CHUNKED + b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: test\r\nX: a\r\n b\r\n\r\n",
    "a space before the first header": b"GET / HTTP/1.1\r\n Host: test\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: test\n\n",
    "a bare line feed after a header": b"GET / HTTP/1.1\r\nHost: test\nX: b\r\n\r\n",
    "a bare carriage return": b"GET / HTTP/1.1\r\nHost: test\rX: b\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\nHost: te\x00st\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\nHo\x00st: test\r\n\r\n",
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\n" + _HOST + b"\r\n",
    "a control character": b"GET / HTTP/1.1\r\nHost: test\r\nX: a\x01b\r\n\r\n",
    "a space in a name": b"GET / HTTP/1.1\r\nHo st: test\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\n: a\r\n" + _HOST + b"\r\n",
    "no colon": b"GET / HTTP/1.1\r\nabc\r\n" + _HOST + b"\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\n" + _HOST * 2 + b"\r\n",
    "a space in the target": b"GET /a b HTTP/1.1\r\n" + _HOST + b"\r\n",
    "bytes in the target": b"GET /\xc3\xa9 HTTP/1.1\r\n" + _HOST + b"\r\n",
    "an unknown version": b"GET / HTTP/1.2\r\n" + _HOST + b"\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n" + _HOST + b"\r\n",
    "HTTP/0.9": b"GET / HTTP/0.9\r\n" + _HOST + b"\r\n",
    "an unknown method": b"FETCH / HTTP/1.1\r\n" + _HOST + b"\r\n",
    "a method in lower case": b"get / HTTP/1.1\r\n" + _HOST + b"\r\n",
    "a proxy's method": b"CONNECT test:80 HTTP/1.1\r\n" + _HOST + b"\r\nrest",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\x00" * 40,
    "a space after the version": b"GET / HTTP/1.1 \r\n" + _HOST + b"\r\n",
}


@pytest.mark.parametrize("name", MALFORMED)
@pytest.mark.parametrize("pace", ["at once", "in pieces"])
def test_malformed_requests_are_refused_and_the_connection_ends(
    client: Client, name: str, pace: str
) -> None:
    """Behind each stands a request that must never be seen as one."""
    sent = MALFORMED[name] + get("/smuggled")
    step = len(sent) if pace == "at once" else 7
    try:
        for start in range(0, len(sent), step):
            client.send(sent[start : start + step])
    except (BrokenPipeError, ConnectionResetError):
        pass  # refused before its end
    answer = client.read()
    assert 400 <= answer.status <= 505
    assert answer.status not in {404, 500, 502, 503, 504}
    assert answer.headers["connection"] == "close"
    assert error_code(answer.body)
    assert client.closed()


def test_a_malformed_request_does_not_overtake_the_answers_before_it() -> None:
    model = Sums()
    with serve_model(model, inline=False) as live, Client(live.port) as client:
        model.go.clear()
        client.send(post() + MALFORMED["length and chunks"])
        assert model.entered.acquire(timeout=10)
        model.go.set()
        assert [client.read().status, client.read().status] == [200, 400]
        assert client.closed()


def test_an_error_inside_a_callback_ends_only_that_connection(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    with monkeypatch.context() as patched:
        patched.setattr(Connection, "on_body", fail)
        with Client(server.port) as client:
            client.send(post())
            assert client.closed()
    with Client(server.port) as other:
        other.send(post())
        assert other.read().status == 200


# Limits


def test_a_body_over_the_limit_is_refused_before_it_is_read(client: Client) -> None:
    client.send(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 4097\r\n\r\n")
    answer = client.read()
    assert (answer.status, error_code(answer.body)) == (413, "payload_too_large")
    assert client.closed()


FORMS = {
    "/v2/models/sums/infer": {"error": str},
    "/v1/models/sums:predict": {"error": str},
    "/invocations": {"error_code": str, "message": str},
    "/score": {"error": dict},
}


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize(
    ("rest", "status"),
    [
        (b"Host: a\r\nContent-Length: 4097\r\n\r\n", 413),
        (b"Host: a\r\nTransfer-Encoding: chunked\r\n\r\n2000\r\n" + b" " * 8192, 413),
        (b"Host: a\r\nX: " + b"x" * 70_000 + b"\r\n\r\n", 431),
        (b"Host: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
    ],
    ids=["length", "chunks", "head", "framing"],
)
def test_a_request_that_is_not_read_is_refused_in_the_form_of_its_protocol(
    client: Client, path: str, rest: bytes, status: int
) -> None:
    client.send(b"POST %b HTTP/1.1\r\n" % path.encode() + rest)
    answer = client.read()
    assert answer.status == status
    assert {name: type(value) for name, value in json.loads(answer.body).items()} == FORMS[path]


def test_a_body_at_the_limit_is_taken(client: Client) -> None:
    client.send(post(BODY + b" " * (4096 - len(BODY))))
    assert client.read().status == 200


def test_the_answer_reaches_a_client_that_goes_on_sending(client: Client) -> None:
    client.send(b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
    done = threading.Event()

    def send() -> None:
        try:
            for _ in range(1000):
                client.send(b"x" * 9000)
        except OSError:
            pass
        done.set()

    threading.Thread(target=send, daemon=True).start()
    assert client.read().status == 413
    client.socket.close()
    assert done.wait(10)


def test_chunks_over_the_limit_are_refused(client: Client) -> None:
    client.send(_CHUNKED)
    chunk = b"400\r\n" + b" " * 1024 + b"\r\n"
    client.send(chunk * 5)
    assert client.read().status == 413
    assert client.closed()


@pytest.mark.parametrize("pace", [1 << 20, 500])
def test_a_long_target_is_refused(pace: int) -> None:
    with serve_model(max_target_bytes=1000) as live, Client(live.port) as client:
        request = get("/" + "a" * 1000)
        for start in range(0, len(request), pace):
            client.send(request[start : start + pace])
        assert client.read().status == 414


@pytest.mark.parametrize(
    "headers",
    [[f"X-{n}: v" for n in range(21)], ["X: " + "v" * 3000], ["X" * 3000 + ": v"]],
    ids=["many", "a long value", "a long name"],
)
@pytest.mark.parametrize("pace", [1 << 20, 100])
def test_a_large_head_is_refused(client: Client, headers: list[str], pace: int) -> None:
    request = get("/", *headers)
    try:
        for start in range(0, len(request), pace):
            client.send(request[start : start + pace])
    except (BrokenPipeError, ConnectionResetError):
        pass
    assert client.read().status == 431


def test_a_head_without_end_is_refused(client: Client) -> None:
    client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
    try:
        for _ in range(200):
            client.send(b"v" * 1000)
    except OSError:
        pass
    assert client.read().status == 431


def test_a_large_pipelined_burst_is_no_large_head(client: Client) -> None:
    burst = post() * 100 + b"POST /score HT"
    client.send(burst, post()[len(b"POST /score HT") :])
    assert [client.read().status for _ in range(101)] == [200] * 101


def test_connections_over_the_limit_are_told_to_come_back() -> None:
    with serve_model(max_connections=2) as live, Client(live.port) as one, Client(live.port) as two:
        for client in (one, two):
            client.send(post())
            assert client.read().status == 200
        with Client(live.port) as third:
            answer = third.read()
        assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        one.socket.close()
        live.until(lambda: live.hub.connections < 2)
        with Client(live.port) as fourth:
            fourth.send(post())
            assert fourth.read().status == 200


def test_requests_over_the_limit_of_the_queue_are_told_to_come_back() -> None:
    model = Sums()
    with serve_model(model, inline=False, max_pending=1) as live:
        model.go.clear()
        with Client(live.port) as first, Client(live.port) as second:
            first.send(post())
            assert model.entered.acquire(timeout=10)
            second.send(post())
            answer = second.read()
            assert (answer.status, error_code(answer.body)) == (503, "overloaded")
            assert json.loads(answer.body)["error"]["retryable"] is True
            model.go.set()
            assert first.read().status == 200


# Timeouts


def test_a_slow_head_is_timed_out() -> None:
    with serve_model(header_timeout_s=0.1) as live, Client(live.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n")
        answer = client.read()
        assert (answer.status, error_code(answer.body)) == (408, "request_timeout")
        assert client.closed()


def test_dribbled_headers_do_not_put_the_timeout_off() -> None:
    with serve_model(header_timeout_s=0.2) as live, Client(live.port) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")
        stop = threading.Event()

        def dribble() -> None:
            try:
                while not stop.wait(0.02):
                    client.send(b"v")
            except OSError:
                pass

        thread = threading.Thread(target=dribble)
        thread.start()
        assert client.read().status == 408
        stop.set()
        thread.join()


def test_a_slow_body_is_timed_out() -> None:
    with serve_model(body_timeout_s=0.1) as live, Client(live.port) as client:
        client.send(post()[:-5])
        assert client.read().status == 408


def test_idle_connections_are_closed() -> None:
    with serve_model(keep_alive_timeout_s=0.1) as live, Client(live.port) as client:
        client.send(post())
        assert client.read().status == 200
        assert client.closed()


def test_a_connection_that_asks_nothing_is_closed() -> None:
    with serve_model(header_timeout_s=0.1) as live, Client(live.port) as client:
        assert client.closed()


def test_a_slow_model_is_no_timeout() -> None:
    model = Sums()
    short: dict[str, Any] = {
        "header_timeout_s": 0.05,
        "body_timeout_s": 0.05,
        "keep_alive_timeout_s": 0.2,
    }
    with serve_model(model, inline=False, **short) as live, Client(live.port) as client:
        ticks: list[int] = []
        live.call(lambda: live.loop.call_later(0.4, ticks.append, 1))
        model.go.clear()
        client.send(post())
        assert model.entered.acquire(timeout=10)
        until(lambda: bool(ticks))
        model.go.set()
        assert client.read().status == 200


def test_a_client_that_takes_nothing_is_given_up() -> None:
    with (
        serve_model(write_timeout_s=0.3, max_target_bytes=60_000, max_header_bytes=60_000) as live,
        Client(live.port, timeout_s=0.2) as client,
    ):
        client.send_until_stuck(get("/" + "a" * 50_000))
        live.until(lambda: live.hub.connections == 0)


def test_a_client_that_takes_nothing_stops_being_answered_and_read() -> None:
    """Its answers do not pile up: everything sent later waits in the sockets."""
    model = Sums()
    rows = b"[" + b",".join([b"[1,2,3]"] * 2000) + b"]"
    with (
        serve_model(model, write_timeout_s=20, max_batch_rows=1) as live,
        Client(live.port, 0.3) as client,
    ):
        before = model.calls
        assert client.send_until_stuck(post(b'{"data":' + rows + b"}")) < 5000
        answered = model.calls
        client.socket.settimeout(10)
        for _ in range(answered - before):
            assert client.read().status == 200
        live.until(lambda: model.calls > answered)


# Clients that go


def test_a_body_that_is_cut_off_is_told_so(client: Client) -> None:
    client.send(post()[:-5])
    client.socket.shutdown(socket.SHUT_WR)
    answer = client.read()
    assert (answer.status, error_code(answer.body)) == (400, "malformed_payload")
    assert "13 bytes" in json.loads(answer.body)["error"]["message"]
    assert client.closed()


def test_a_half_closed_client_gets_all_its_answers() -> None:
    model = Sums()
    with serve_model(model, inline=False) as live, Client(live.port) as client:
        model.go.clear()
        client.send(post() + get("/health/live"))
        client.socket.shutdown(socket.SHUT_WR)
        assert model.entered.acquire(timeout=10)
        model.go.set()
        assert [client.read().status, client.read().status] == [200, 200]
        assert client.closed()
        live.until(lambda: live.hub.connections == 0)


@pytest.mark.parametrize("part", [0, 1, 20, 60, len(post()) - 1, len(post())])
def test_a_reset_at_any_moment_leaves_nothing_behind(server: LiveServer, part: int) -> None:
    with Client(server.port) as client:
        client.send(post()[:part])
        linger = struct.pack("ii", 1, 0)
        client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    server.until(lambda: server.hub.connections == 0)


def test_what_a_lost_client_asked_is_not_computed() -> None:
    model = Sums()
    with serve_model(model, inline=False) as live:
        model.go.clear()
        with Client(live.port) as first, Client(live.port) as second:
            first.send(post())
            assert model.entered.acquire(timeout=10)
            second.send(post())
            live.until(lambda: live.jobs.pending == 2)
            calls = model.calls
            second.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            second.socket.close()
            live.until(lambda: live.hub.connections == 1)
            model.go.set()
            assert first.read().status == 200
            live.until(lambda: live.jobs.pending == 0)
        assert model.calls == calls


def test_connections_leave_no_garbage(server: LiveServer) -> None:
    """Closed connections are freed at once, without the collector."""
    server.until(lambda: server.hub.connections == 0)
    gc.disable()
    try:
        for request in (post(), MALFORMED["two lengths"], get("/nothing"), post()[:-3]):
            with Client(server.port) as client:
                client.send(request)
                server.until(lambda: server.hub.connections == 1)
                known = server.call(lambda: {id(one) for one in server.hub._connections})
                assert living() & known
                client.socket.shutdown(socket.SHUT_WR)
                client.rest()
            server.until(lambda: server.hub.connections == 0)
            until(lambda known=known: not living() & known)  # type: ignore[misc]
    finally:
        gc.enable()


def living() -> set[int]:
    # By type: asking some of other libraries' objects for their class has side effects.
    return {id(thing) for thing in gc.get_objects() if issubclass(type(thing), Connection)}


def test_errors_of_the_parser_say_what_was_wrong(client: Client) -> None:
    client.send(MALFORMED["bare line feeds"])
    error = json.loads(client.read().body)["error"]
    assert error["code"] == BadRequestError.code
    assert "CRLF" in error["message"]


# The end


def test_a_drain_answers_and_closes(client: Client) -> None:
    with serve_model() as live, Client(live.port) as kept:
        kept.send(post())
        assert "connection" not in kept.read().headers
        live.call(lambda: setattr(live.hub, "draining", True))
        kept.send(post())
        answer = kept.read()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert kept.closed()


def test_a_drain_closes_idle_connections_only() -> None:
    model = Sums()
    model.go.clear()
    with (
        serve_model(model, inline=False, warm=False) as live,
        Client(live.port) as idle,
        Client(live.port) as busy,
    ):
        busy.send(post())
        assert model.entered.acquire(timeout=10)
        live.until(lambda: live.hub.connections == 2)
        live.call(live.hub.end_idle)
        assert idle.closed()
        model.go.set()
        assert busy.read().status == 200
