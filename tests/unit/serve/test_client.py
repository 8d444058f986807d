"""The client against a real HTTP server of canned answers."""

import json
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import numpy as np
import pytest

from scoring.errors import (
    FieldpostError,
    InputError,
    OverloadedError,
    ScoringFailedError,
    TargetError,
    UnreachableError,
    WrongShapeError,
)
from serve.client import Client, score_url, scoring_url


@contextmanager
def server(*answers: tuple[int, bytes]) -> Iterator[tuple[str, list[Any]]]:
    """Gives the answers one after the other, the last one again and again; records the bodies."""
    seen: list[Any] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status, answer = answers[min(len(seen), len(answers) - 1)]
            seen.append((self.path, json.loads(body)))
            self.send_response(status)
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}", seen
        finally:
            listening.shutdown()
            thread.join()


def error(code: str) -> bytes:
    return json.dumps({"error": {"code": code, "message": "No.", "where": "data[0]"}}).encode()


def test_arrays_are_sent_as_lists_to_the_scoring_route() -> None:
    with server((200, b'{"predictions": [1]}')) as (url, seen), Client(url) as client:
        assert client.score({"data": np.eye(2)}) == {"predictions": [1]}
    assert seen == [("/score", {"data": [[1.0, 0.0], [0.0, 1.0]]})]


@pytest.mark.parametrize(
    ("status", "answer", "kind"),
    [
        (400, error("wrong_shape"), WrongShapeError),
        (400, error("something_new"), InputError),
        (404, b"not found", InputError),
        (500, error("scoring_failed"), ScoringFailedError),
        (500, b"<html>", ScoringFailedError),
        (503, error("overloaded"), OverloadedError),
    ],
)
def test_errors_keep_their_kind(status: int, answer: bytes, kind: type[FieldpostError]) -> None:
    with server((status, answer)) as (url, _), pytest.raises(FieldpostError) as caught:
        score_url(url, b"{}", retry_s=0)
    assert type(caught.value) is kind


def test_a_server_without_room_is_asked_again() -> None:
    with server((503, error("overloaded")), (200, b"[1]")) as (url, seen):
        assert score_url(url, b"{}", retry_s=10) == [1]
    assert len(seen) == 2


def test_nothing_there() -> None:
    with pytest.raises(UnreachableError, match="Nothing answers"):
        score_url("http://127.0.0.1:9", b"{}", retry_s=0)


@contextmanager
def dropping(*, unheard: int) -> Iterator[tuple[str, list[bytes]]]:
    """Closes connections: the first ones at once, later ones when they have asked something."""
    heard: list[bytes] = []
    met = iter(range(1_000))

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            if next(met) >= unheard and (data := self.request.recv(65_536)):
                heard.append(data)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as listening:
        listening.daemon_threads = True
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.server_address[1]}", heard
        finally:
            listening.shutdown()
            thread.join()


def test_a_proxy_in_front_of_nobody_is_asked_again() -> None:
    with dropping(unheard=1_000) as (url, _), pytest.raises(UnreachableError):
        score_url(url, b"{}", retry_s=0.2)


def test_a_request_that_ends_the_connection_is_sent_once() -> None:
    with dropping(unheard=0) as (url, heard), pytest.raises(TargetError) as caught:
        score_url(url, b"{}", retry_s=5)
    assert not isinstance(caught.value, UnreachableError)
    assert len(heard) == 1


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ("http://h:1", "http://h:1/score"),
        ("http://h:1/", "http://h:1/score"),
        ("http://h/v1/predict", "http://h/v1/predict"),
    ],
)
def test_scoring_url(given: str, asked: str) -> None:
    assert scoring_url(given) == asked
