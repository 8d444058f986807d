"""The open loop: a stall counts for everyone who was due meanwhile."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from benchmarks.load import LoadError
from benchmarks.payloads import score_ask
from benchmarks.rate import at_rate, http_request, percentile, whole_size

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


@contextmanager
def answering(answer: Callable[[int], bytes]) -> Iterator[str]:
    """A server that answers the n-th request of each connection with what it is told."""
    listening = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=converse, args=(connection,), daemon=True).start()

    def converse(connection: socket.socket) -> None:
        with connection, suppress(ConnectionError):  # clients leave as they like
            number = 0
            while connection.recv(1 << 16):
                connection.sendall(answer(number))
                number += 1

    thread = threading.Thread(target=accept, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join(5)


def test_percentiles_are_values_that_were_measured() -> None:
    values = list(range(1, 101))
    assert percentile(values, 50) == 50
    assert percentile(values, 99) == 99
    assert percentile([7.0], 99) == 7.0


def test_a_response_is_whole_with_its_length() -> None:
    assert whole_size(ANSWER[:20]) is None
    assert whole_size(ANSWER) == len(ANSWER)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n", "503"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "without a length"),
    ],
    ids=["status", "length"],
)
def test_other_answers_are_errors(answer: bytes, told: str) -> None:
    with pytest.raises(LoadError, match=told):
        whole_size(answer)


def test_the_request_says_its_length() -> None:
    ask = score_ask()
    head, _, body = http_request(ask, "h:1").partition(b"\r\n\r\n")
    assert head.startswith(b"POST /score HTTP/1.1\r\nHost: h:1\r\n")
    assert f"Content-Length: {len(body)}".encode() in head


def test_requests_go_out_at_their_rate() -> None:
    with answering(lambda _number: ANSWER) as url:
        tail = at_rate(url, score_ask(), rate=200, seconds=0.5)
    assert 0 < tail.p50 <= tail.p99
    assert tail.rate == pytest.approx(200, rel=0.2)


def test_a_stall_is_not_hidden() -> None:
    """Each connection stalls at its third request, and what was due meanwhile is counted late."""

    def stall_once(number: int) -> bytes:
        if number == 2:
            time.sleep(0.2)
        return ANSWER

    with answering(stall_once) as url:
        tail = at_rate(url, score_ask(), rate=200, seconds=0.4)
    assert tail.p99 > 0.1


def test_a_refusal_later_on_is_an_error() -> None:
    refusal = ANSWER.replace(b"200 OK", b"500 OK")
    with (
        answering(lambda number: ANSWER if number == 0 else refusal) as url,
        pytest.raises(LoadError, match="500"),
    ):
        at_rate(url, score_ask(), rate=200, seconds=0.5)
