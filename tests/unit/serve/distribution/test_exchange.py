"""Connections that are kept, and those that cannot be."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from serve.distribution.exchange import CutOffError, Exchange, NotConnectedError
from serve.distribution.limits import Limits

LIMITS = Limits(connect_s=2, read_s=2)
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Talk = Callable[[socket.socket], None]


@contextmanager
def server(*talks: Talk) -> Iterator[str]:
    """Takes one connection after another, one for each talk; gives its address."""
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        for talk in talks:
            connection, _ = listener.accept()
            with connection:
                talk(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        thread.join(5)
        listener.close()


def request(connection: socket.socket) -> bytes:
    """The head of the next request."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = connection.recv(1)
        if not piece:
            return head
        head += piece
    return head


def answering(*answers: bytes) -> Talk:
    def talk(connection: socket.socket) -> None:
        for answer in answers:
            request(connection)
            connection.sendall(answer)

    return talk


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    def no_tls(_host: str) -> ssl.SSLContext:
        raise AssertionError("nobody asked for TLS")

    with closing(Exchange(LIMITS, no_tls)) as made:
        yield made


def read(exchange: Exchange, url: str, method: str = "GET") -> bytes:
    with closing(exchange.ask(method, url, {}, None)) as answer:
        found = b""
        while piece := answer.read(1 << 16):
            found += piece
        return found


def test_one_connection_serves_one_request_after_another(exchange: Exchange) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n"
    chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    empty = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
    with server(answering(OK, head, chunks, empty, OK)) as url:
        assert read(exchange, url) == b"ok"
        assert read(exchange, url, "HEAD") == b""
        assert read(exchange, url) == b"ok"
        exchange.ask("PUT", url, {}, b"").close()  # nothing is read, since there is nothing
        assert read(exchange, url) == b"ok"
        exchange.close()


def test_a_little_that_nobody_reads_is_read_away(exchange: Exchange) -> None:
    with server(answering(OK, OK)) as url:
        exchange.ask("GET", url, {}, None).close()
        assert read(exchange, url) == b"ok"
        exchange.close()


def test_much_that_nobody_reads_ends_the_connection(exchange: Exchange) -> None:
    large = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbeginning"
    with server(answering(large), answering(OK)) as url:
        exchange.ask("GET", url, {}, None).close()
        assert read(exchange, url) == b"ok"
        exchange.close()


def test_a_connection_that_was_ended_meanwhile_is_not_used(exchange: Exchange) -> None:
    ended = threading.Event()

    def end(connection: socket.socket) -> None:
        answering(OK)(connection)
        connection.shutdown(socket.SHUT_RDWR)
        ended.set()

    with server(end, answering(OK)) as url:
        assert read(exchange, url) == b"ok"
        assert ended.wait(5)
        assert read(exchange, url) == b"ok"
        exchange.close()


def test_a_server_that_says_so_is_left(exchange: Exchange) -> None:
    last = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    with server(answering(last), answering(OK)) as url:
        assert read(exchange, url) == b"ok"
        assert read(exchange, url) == b"ok"
        exchange.close()


def test_what_breaks_off_is_told(exchange: Exchange) -> None:
    short = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nbegin"
    with server(answering(short)) as url, closing(exchange.ask("GET", url, {}, None)) as answer:
        while answer.read(100):
            pass
        assert answer.left == 4
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\nbegin"
    with server(answering(chunked)) as url, pytest.raises(CutOffError):
        read(exchange, url)
    with server(answering(b"")) as url, pytest.raises((CutOffError, OSError)):
        read(exchange, url)
    with server(answering(b"SSH-2.0 hello\r\n\r\n")) as url, pytest.raises(CutOffError):
        read(exchange, url)


def test_an_answer_before_the_end_of_the_request_counts(exchange: Exchange) -> None:
    def refuse(connection: socket.socket) -> None:
        request(connection)
        connection.sendall(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(1 << 16):
            pass

    with server(refuse) as url:
        pieces = iter([b"x" * 100] * 3)
        answer = exchange.ask("PUT", url, {"Content-Length": "300"}, pieces)
        with closing(answer):
            assert answer.status == 413


def test_who_does_not_listen_is_told(exchange: Exchange) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(NotConnectedError):
        exchange.ask("GET", f"http://127.0.0.1:{port}/", {}, None)
    with pytest.raises(NotConnectedError):
        exchange.ask("GET", "http://no-such-host.invalid/", {}, None)


def test_what_cannot_be_sent_is_told(exchange: Exchange) -> None:
    with pytest.raises(ValueError, match="no host"):
        exchange.ask("GET", "http:///nowhere", {}, None)
    with server(lambda connection: None) as url, pytest.raises(ValueError, match="header"):
        exchange.ask("GET", url, {"X": "two\r\nlines"}, None)


def test_a_url_is_sent_in_the_form_that_http_has(exchange: Exchange) -> None:
    heads = []

    def talk(connection: socket.socket) -> None:
        heads.append(request(connection))
        connection.sendall(OK)

    with server(talk) as url:
        read(exchange, f"{url}/a b/ü?x=%2F&y=[1]#part")
    assert heads[0].startswith(b"GET /a%20b/%C3%BC?x=%2F&y=[1] HTTP/1.1\r\n")
