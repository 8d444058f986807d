"""Damaged HTTP/2 against a live server: no crash, no hang, and others are served meanwhile."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hpack import Encoder

from serve.server.grpc import frames as f
from tests.support.http2 import BODY, INFER, LIVE, Http2Client, grpc_head
from tests.support.server import LiveServer, Sums, serve_models

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scoring.runtimes.base import Arrays

ROUNDS = 20_000 if os.environ.get("FIELDPOST_TEST_LONG") else 600


def call(encoder: Encoder, stream_id: int, path: str = INFER) -> bytes:
    block = encoder.encode(grpc_head(path))
    return f.headers(stream_id, block, 0) + f.frame(f.DATA, f.END_STREAM, stream_id, BODY)


def seeds() -> list[bytes]:
    encoder = Encoder()
    start = f.PREFACE + f.settings({})
    plain = [(":method", "GET"), (":scheme", "http"), (":path", "/health/live")]
    block = Encoder().encode(grpc_head())
    return [
        start + b"".join(call(encoder, number) for number in (1, 3, 5)),
        start + f.headers(1, Encoder().encode(plain), f.END_STREAM) + f.reset(1, 8),
        start
        + f.frame(f.HEADERS, 0x28, 1, b"\x02\0\0\0\0\x10" + block[:9] + b"\0\0")
        + f.frame(f.CONTINUATION, f.END_HEADERS, 1, block[9:])
        + f.frame(f.DATA, f.PADDED, 1, b"\x02" + BODY[:9] + b"\0\0")
        + f.frame(f.DATA, f.END_STREAM, 1, BODY[9:]),
        start + f.frame(f.PING, 0, 0, b"12345678") + f.window_update(0, 9) + f.go_away(0, 0),
        start + f.settings({1: 0, 3: 9, 4: 5, 5: 70_000}) + call(Encoder(), 1, LIVE),
    ]


def mutate(data: bytes, chance: random.Random) -> bytes:
    """One to four small damages behind the preface."""
    damaged = bytearray(data)
    first = len(f.PREFACE)
    for _ in range(chance.randint(1, 4)):
        at = chance.randint(first, len(damaged))
        kind = chance.randrange(5)
        if kind == 0:
            damaged[at : at + 1] = chance.randbytes(1)
        elif kind == 1:
            del damaged[at : at + chance.randint(1, 12)]
        elif kind == 2:
            damaged[at:at] = chance.randbytes(chance.randint(1, 12))
        elif kind == 3:
            noise = chance.randbytes(chance.randint(0, 40))
            number = chance.choice([0, 1, 2, 3, 2**31 - 1])
            damaged[at:at] = f.frame(chance.randrange(12), chance.randrange(256), number, noise)
        else:
            damaged[at : at + 1] = bytes([damaged[at % len(damaged)] ^ 1 << chance.randrange(8)])
    return bytes(damaged)


class AnySums(Sums):
    """Adds up what is beyond its range, too."""

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        with np.errstate(all="ignore"):
            return super().predict(inputs)


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    with serve_models({"sums": AnySums()}, header_timeout_s=2, body_timeout_s=2) as live:
        yield live


def test_damaged_streams_harm_nobody(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(20261121)
    samples = seeds()
    with Http2Client(server.port) as other:
        other.send(f.window_update(0, 1 << 30))
        for number in range(ROUNDS):
            with Http2Client(server.port, greet=False) as client:
                client.send(mutate(chance.choice(samples), chance))
                if number % 10 == 0:
                    client.socket.shutdown(1)
                    client.end()
            if number % 50 == 0:
                assert other.is_alive(2 * number + 1)
        server.until(lambda: server.hub.connections == 1)
    assert [record for record in caplog.records if record.exc_info] == []


def test_damaged_messages_are_refused(server: LiveServer) -> None:
    """Bytes of a message that are wrong are the sender's fault, whatever they are."""
    chance = random.Random(7)
    with Http2Client(server.port) as client:
        client.send(f.window_update(0, 1 << 30))
        for number in range(ROUNDS * 2):
            body = bytearray(BODY[5:])
            for _ in range(chance.randint(1, 3)):
                at = chance.randrange(len(body))
                body[at : at + chance.randint(0, 2)] = chance.randbytes(chance.randint(0, 3))
            stream_id = 2 * number + 1
            client.call(stream_id, b"\0" + len(body).to_bytes(4, "big") + bytes(body))
            assert client.status(stream_id) in {0, 3, 5}, bytes(body)
