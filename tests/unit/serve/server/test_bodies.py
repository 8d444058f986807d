"""Large bodies over real sockets: whole, in pieces, cut off, too slow, one behind the other."""

from __future__ import annotations

import json
import socket

import pytest

from serve.server.bodies import pays
from tests.support.server import ANSWER, BODY, Client, post, serve_model

ROWS = 20_000
LARGE = b'{"data":[' + b",".join([b"[1,2,3]"] * ROWS) + b"]}"


@pytest.mark.parametrize(
    ("arrived", "length", "expected"),
    [
        (0, 1 << 20, False),
        (1 << 16, 1 << 20, True),
        ((1 << 16) - 1, 1 << 20, False),
        (1 << 19, 1 << 20, True),
        ((1 << 20) - 100, 1 << 20, False),
        (100, 0, False),
    ],
)
def test_the_reader_changes_only_where_enough_is_there_and_enough_to_come(
    arrived: int, length: int, expected: bool
) -> None:
    assert pays(arrived, length) is expected


def totals(body: bytes) -> list[float]:
    found: list[float] = json.loads(body)["predictions"]
    return found


@pytest.mark.parametrize("size", [1 << 14, 1 << 17, len(LARGE)], ids=["16k", "128k", "whole"])
def test_large_bodies_arrive_whole_and_the_connection_goes_on(size: int) -> None:
    request = post(LARGE)
    with serve_model() as live, Client(live.port) as client:
        for _ in range(3):
            for begin in range(0, len(request), size):
                client.send(request[begin : begin + size])
            answer = client.read()
            assert answer.status == 200
            assert totals(answer.body) == [6.0] * ROWS
        client.send(post(BODY))
        assert json.loads(client.read().body) == ANSWER


def test_what_follows_a_large_body_is_a_request_of_its_own() -> None:
    with serve_model() as live, Client(live.port) as client:
        client.send(post(LARGE) + post(BODY) + post(LARGE) + post(BODY))
        assert [len(totals(client.read().body)) for _ in range(4)] == [ROWS, 1, ROWS, 1]


def test_a_large_body_that_is_cut_off_is_told_so() -> None:
    with serve_model() as live, Client(live.port) as client:
        client.send(post(LARGE)[:-1000])
        client.socket.shutdown(socket.SHUT_WR)
        answer = client.read()
        assert answer.status == 400
        assert f"ended after {len(LARGE) - 1000} bytes" in answer.body.decode()
    with serve_model() as live:
        live.until(lambda: live.hub.connections == 0)


def test_a_large_body_that_stops_is_given_up() -> None:
    with (
        serve_model(body_timeout_s=0.3, header_timeout_s=0.3) as live,
        Client(live.port) as client,
    ):
        client.send(post(LARGE)[:-1000])
        assert client.read().status == 408
        live.until(lambda: live.hub.connections == 0)


def test_a_client_that_goes_in_the_middle_of_a_large_body_leaves_nothing() -> None:
    with serve_model() as live:
        with Client(live.port) as client:
            client.send(post(LARGE)[:-1000])
            live.until(lambda: live.hub.connections == 1)
        live.until(lambda: live.hub.connections == 0)


def test_a_body_that_announces_more_than_allowed_is_refused() -> None:
    with serve_model(max_body_bytes=100_000) as live, Client(live.port) as client:
        client.send(post(LARGE))
        assert client.read().status == 413
