"""Mutated requests against a live server: every answer is HTTP, none is a 5xx, nothing hangs."""

from __future__ import annotations

import json
import os
import random
import socket
from typing import TYPE_CHECKING

import pytest

from tests.support.server import ANSWER, BODY, Client, LiveServer, get, post, serve_model

if TYPE_CHECKING:
    from collections.abc import Iterator

ROUNDS = 100_000 if os.environ.get("FIELDPOST_TEST_LONG") else 1500
REFUSALS = {501, 505}  # of the 5xx, those that say that the request is not supported

SEEDS = [
    post(),
    post(b'{"inputs": {"x": [[1, 2, 3], [4, 5, 6]]}}', "/score", "Content-Type: application/json"),
    post(BODY, "/score?a=b", "Content-Encoding: gzip"),
    b"POST /score HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"9;x=y\r\n" + BODY[:9] + b"\r\n9\r\n" + BODY[9:] + b"\r\n0\r\nT: u\r\n\r\n",
    get("/health/live", "Connection: close"),
    get("/swagger.json?version=3", "Accept: */*"),
    get("/score", method="OPTIONS"),
    post(BODY, "/score", "Connection: Upgrade", "Upgrade: h2c"),
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
]
PIECES = [
    b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b"0", b"-1", b"%00",
    b"ffffffffffffffff",
    b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1", b"HTTP/9.9",
    b"Host: b\r\n", b"\r\n\r\n", b"Expect: 100-continue\r\n", b"Upgrade: x\r\n", b"\xff\xfe",
    b"Content-Encoding: deflate\r\n", b"Connection: close\r\n", b"[", b"}", b'"', b"\\ud800",
    b"NaN",
]  # fmt: skip


def mutate(request: bytes, chance: random.Random) -> bytes:
    """One to four small damages."""
    data = bytearray(request)
    for _ in range(chance.randint(1, 4)):
        start = chance.randint(0, len(data))
        kind = chance.randrange(4)
        if kind == 0:
            data[start:start] = chance.choice(PIECES)
        elif kind == 1:
            del data[start : start + chance.randint(1, 8)]
        elif kind == 2:
            data[start : start + 1] = chance.randbytes(1)
        else:
            data[start:start] = data[start : start + chance.randint(1, 30)]
    return bytes(data)


@pytest.fixture(scope="module", params=[True, False], ids=["inline", "on threads"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve_model(inline=request.param, max_body_bytes=10_000) as live:
        yield live


def test_no_request_breaks_the_server(server: LiveServer, caplog: pytest.LogCaptureFixture) -> None:
    seed = int(os.environ.get("FIELDPOST_TEST_SEED") or random.SystemRandom().randrange(1 << 30))
    chance = random.Random(seed)
    for number in range(ROUNDS):
        sent = b"".join(
            mutate(chance.choice(SEEDS), chance) for _ in range(chance.randint(1, 3))
        ) + chance.choice([b"", post()])
        judge(server, sent, chance.randint(1, len(sent)), f"seed {seed}, round {number}: {sent!r}")
    server.until(lambda: server.hub.connections == 0)
    with Client(server.port) as client:
        client.send(post())
        assert json.loads(client.read().body) == ANSWER
    assert not caplog.records, f"seed {seed}"


def judge(server: LiveServer, sent: bytes, cut: int, what: str) -> None:
    """Sends bytes in two parts, then nothing; all that comes back has to be whole answers."""
    with Client(server.port) as client:
        try:
            client.send(sent[:cut], sent[cut:])
            client.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # refused before its end
        try:
            while True:
                answer = client.read(head_only=False)
                assert answer.status < 500 or answer.status in REFUSALS, (what, answer)
        except EOFError:
            assert client._buffer == b"", what
        except ConnectionResetError:
            pass
        except TimeoutError:
            pytest.fail(f"no answer and no end; {what}")
