"""Mutated requests and answers through a front: every answer is HTTP, nothing is left behind."""

from __future__ import annotations

import contextlib
import os
import random

from serve.endpoints.traffic import Traffic
from tests.fuzz.test_http import SEEDS, mutate
from tests.support.fronts import Conversation, Far, LiveFront
from tests.support.server import Client, get, post, until

ROUNDS = 20_000 if os.environ.get("FIELDPOST_TEST_LONG") else 400
ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 500 No\r\nConnection: close\r\n\r\nends",
]


def seed_() -> int:
    return int(os.environ.get("FIELDPOST_TEST_SEED") or random.SystemRandom().randrange(1 << 30))


def judge(front: LiveFront, sent: bytes, text: str) -> None:
    """Sends, says that it is all, and reads what comes: whole answers, and then the end."""
    with Client(front.port, timeout_s=4) as client:
        with contextlib.suppress(OSError):
            client.send(sent + get("/last", "Connection: close"))
        ended = False
        while True:
            try:
                answer = client.read()
            except (EOFError, ConnectionError):
                return
            except TimeoutError:
                # What was sent first may have taken the last request for a part of itself.
                assert not ended, text
                client.end()
                ended = True
                continue
            assert 100 <= answer.status < 600, text


def test_no_request_breaks_the_front() -> None:
    seed = seed_()
    chance = random.Random(seed)
    with Far("blue") as far, LiveFront(
        Traffic(weights={"blue": 1}), {"blue": far.url}, idle_timeout_s=0.5
    ) as front:  # fmt: skip
        for number in range(ROUNDS):
            sent = mutate(chance.choice(SEEDS), chance)
            judge(front, sent, f"seed {seed}, round {number}: {sent!r}")
        until(lambda: front.report().connections == 0)
        until(lambda: front.counts("blue").in_flight == 0)
        with Client(front.port) as client:
            client.send(post())
            assert client.read().body == b"blue"


def test_no_answer_breaks_the_front() -> None:
    seed = seed_()
    chance = random.Random(seed)
    said = b""

    async def answer(talk: Conversation) -> None:
        await talk.send(said)
        talk.writer.close()

    with Far("blue", answer) as far, LiveFront(
        Traffic(weights={"blue": 1}), {"blue": far.url}, idle_timeout_s=0.5, response_timeout_s=0.5
    ) as front:  # fmt: skip
        for number in range(ROUNDS):
            said = mutate(chance.choice(ANSWERS), chance)
            judge(front, post(), f"seed {seed}, round {number}: {said!r}")
        until(lambda: front.counts("blue").in_flight == 0)
        assert front.report().refused.keys() <= {400, 502, 503, 504}
