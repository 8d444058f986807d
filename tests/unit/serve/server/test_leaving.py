"""Clients of a model that leave, or whose deadline passes, before it is their turn."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.support.server import BODY, Client, Sums, post, serve_model

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.server import LiveServer

KIND = "Content-Type: application/json"
V2 = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
).encode()
ROUTES = pytest.mark.parametrize(
    ("path", "body"), [("/score", BODY), ("/v2/models/sums/infer", V2)], ids=["azure", "v2"]
)


@pytest.fixture
def model() -> Sums:
    return Sums()


@pytest.fixture
def live(model: Sums) -> Iterator[LiveServer]:
    with serve_model(model, inline=False, warm=False, max_batch_rows=1) as live:
        yield live
        model.go.set()


@ROUTES
def test_a_client_that_has_left_is_not_computed(
    live: LiveServer, model: Sums, path: str, body: bytes
) -> None:
    model.go.clear()
    with Client(live.port) as first:
        first.send(post(body, path, KIND))
        assert model.entered.acquire(timeout=10)
        for _ in range(3):
            with Client(live.port) as gone:
                gone.send(post(body, path, KIND))
        live.until(lambda: live.hub.connections == 1)
        model.go.set()
        assert first.read().status == 200
        first.send(post(body, path, KIND))
        assert first.read().status == 200
    assert model.calls == 2


@ROUTES
def test_a_deadline_passes_in_the_queue(
    live: LiveServer, model: Sums, path: str, body: bytes
) -> None:
    model.go.clear()
    with Client(live.port) as first, Client(live.port) as late:
        first.send(post(body, path, KIND))
        assert model.entered.acquire(timeout=10)
        late.send(post(body, path, KIND, "timeout-ms: 50"))
        answer = late.read()  # though the model goes on with the first
        assert answer.status == 504, answer.body
        model.go.set()
        assert first.read().status == 200
        late.send(post(body, path, KIND, "timeout-ms: 5000"))
        assert late.read().status == 200
    assert model.calls == 2


def test_blanks_behind_a_header_are_no_part_of_it(live: LiveServer) -> None:
    with Client(live.port) as client:
        client.send(post(BODY, "/score", KIND, "timeout-ms: 60000 \t"))
        assert client.read().status == 200


@pytest.mark.parametrize("value", ["x", "-1", "1.5", "", "99999999999"])
def test_deadlines_that_are_none(live: LiveServer, value: str) -> None:
    with Client(live.port) as client:
        client.send(post(BODY, "/score", KIND, f"timeout-ms: {value}"))
        assert client.read().status == (400 if value else 200)
