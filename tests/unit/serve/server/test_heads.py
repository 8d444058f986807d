"""Heads that come again: recognized only where the parser would have said the same."""

from __future__ import annotations

import json
import random
from typing import TYPE_CHECKING

import pytest

from serve.server.heads import Heads
from tests.support.server import Client, post, serve_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.server import LiveServer

BODY = b'{"data":[[1,2,3]]}'
OTHER = b'{"data":[[4,5,6]]}'
LENGTH = (b"content-length", b"%d" % len(BODY))


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with serve_model() as made:
        yield made


def kept(data: bytes, body: bytes = BODY, *headers: tuple[bytes, bytes]) -> bool:
    heads = Heads()
    heads.keep(data, body, b"/score", list(headers) or [LENGTH], b"")
    return heads.find(len(data)) is not None


def test_a_request_alone_is_kept_and_nothing_else() -> None:
    assert kept(post(BODY))
    assert not kept(post(BODY) + post(BODY))
    assert not kept(post(BODY) + b"\r\n")
    assert not kept(post(BODY)[:-1])
    assert not kept(post(BODY), BODY, (b"content-length", b"017"))
    assert not kept(post(BODY), BODY, LENGTH, LENGTH)
    assert not kept(post(BODY), BODY, (b"transfer-encoding", b"chunked"))
    assert not kept(post(BODY, "/score", "x: " + "a" * 3000))


def test_the_number_of_heads_is_bounded() -> None:
    heads = Heads()
    for number in range(1000):
        body = b"x" * number
        head = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % number
        heads.keep(head + body, body, b"/", [(b"content-length", b"%d" % number)], b"")
    assert sum(heads.find(size) is not None for size in range(3000)) <= 64


def total(client: Client) -> float:
    answer = client.read()
    assert answer.status == 200, answer.body
    found: float = json.loads(answer.body)["predictions"][0]
    return found


def test_bodies_differ_under_one_head(live: LiveServer) -> None:
    with Client(live.port) as client:
        for body, expected in ((BODY, 6), (OTHER, 15), (BODY, 6), (OTHER, 15)):
            client.send(post(body))
            assert total(client) == expected


def test_what_comes_behind_a_known_request_is_a_request(live: LiveServer) -> None:
    with Client(live.port) as client:
        client.send(post(BODY))
        assert total(client) == 6
        client.send(post(OTHER) + post(BODY))
        assert [total(client), total(client)] == [15, 6]
        client.send(post(OTHER))
        assert total(client) == 15


@pytest.mark.parametrize("piece", [1, 7, 40, 75, 90])
def test_known_requests_in_pieces(live: LiveServer, piece: int) -> None:
    request = post(OTHER)
    with Client(live.port) as client:
        client.send(post(BODY))
        assert total(client) == 6
        client.send(request[:piece])
        live.until(lambda: True)
        client.send(request[piece:])
        assert total(client) == 15


def test_the_same_bytes_inside_a_body_are_a_body(live: LiveServer) -> None:
    """A whole request as the body of another one, arriving as a piece of its own."""
    inner = post(BODY)
    with Client(live.port) as client:
        client.send(inner)
        assert total(client) == 6
        client.send(
            b"POST /score HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(inner)
        )
        live.until(lambda: True)
        client.send(inner)
        answer = client.read()
        assert answer.status == 400
        client.send(inner)
        assert total(client) == 6


@pytest.mark.parametrize(
    "changed",
    [
        "Connection: close",
        "Content-Encoding: gzip",
        "Expect: nothing",
        "timeout-ms: x",
        "Host: two",
    ],
)
def test_another_head_of_one_length_is_not_mistaken(live: LiveServer, changed: str) -> None:
    with Client(live.port) as client:
        client.send(post(BODY, "/score", "x-other: " + "a" * (len(changed) - 9)))
        assert total(client) == 6
        client.send(post(BODY, "/score", changed))
        answer = client.read()
        if changed.startswith("Connection"):
            assert answer.headers["connection"] == "close"
        else:
            assert answer.status >= 400


def test_random_sequences_are_answered_alike_with_and_without_memory(live: LiveServer) -> None:
    generator = random.Random(1)
    for _ in range(30):
        bodies = [b'{"data":[[%d,2,3]]}' % generator.choice([1, 2, 10, 33, 100]) for _ in range(12)]
        data = b"".join(post(body) for body in bodies)
        with Client(live.port) as client:
            place = 0
            while place < len(data):
                step = generator.choice([len(post(BODY)), 1, 50, 200, 500])
                client.send(data[place : place + step])
                place += step
            for body in bodies:
                assert total(client) == sum(json.loads(body)["data"][0])
