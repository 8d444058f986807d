"""Requests leave nothing for the collector: bodies go when their answers are out, not later."""

from __future__ import annotations

import contextlib
import gc
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.http2 import Http2Client, infer_body
from tests.support.scripts import serving
from tests.support.server import Client, LiveServer, get, post, serve_model, until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

REQUESTS = 20
TRACED = {"traces": "http://127.0.0.1:9/", "trace_ratio": 1.0}
V2 = b'{"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1, 2, 3]}]}'
GOOD, BAD = b'{"data": [[1, 2, 3]]}', b'{"data": [[1, 2]]}'


@contextlib.contextmanager
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


def left_behind(server: LiveServer) -> Counter[str]:
    """The server's own objects that only the collector frees; by their type."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    server.call(gc.collect)
    ours = [type(each) for each in gc.garbage if type(each).__module__.startswith("serve.")]
    gc.set_debug(0)
    gc.garbage.clear()
    return Counter(each.__name__ for each in ours)


def http1(server: LiveServer, *requests: bytes) -> None:
    with Client(server.port) as client:
        for request in requests * REQUESTS:
            client.send(request)
            client.read()


def http2(server: LiveServer, method: str, path: str, body: bytes) -> None:
    fields = [
        (":method", method), (":scheme", "http"), (":path", path), (":authority", "test"),
        ("content-type", "application/json"),
    ]  # fmt: skip
    with Http2Client(server.port) as client:
        for stream_id in range(1, 2 * REQUESTS, 2):
            client.send(client.head(stream_id, fields), client.data(stream_id, body))
            client.answer(stream_id)


def grpc(server: LiveServer, body: bytes) -> None:
    with Http2Client(server.port) as client:
        for stream_id in range(1, 2 * REQUESTS, 2):
            client.call(stream_id, body)
            client.status(stream_id)


CASES: dict[str, Callable[[LiveServer], None]] = {
    "http1": lambda server: http1(server, post(GOOD), post(BAD), get("/health/live")),
    "http1 with a deadline": lambda server: http1(
        server,
        post(V2, "/v2/models/sums/infer", "Timeout-Ms: 9000"),
        post(BAD, "/score", "Timeout-Ms: 9000"),
    ),
    "http2": lambda server: http2(server, "POST", "/score", GOOD),
    "http2 bad": lambda server: http2(server, "POST", "/score", BAD),
    "http2 v2": lambda server: http2(server, "POST", "/v2/models/sums/infer", V2),
    "http2 unknown": lambda server: http2(server, "POST", "/nothing", V2),
    "grpc": lambda server: grpc(server, infer_body([1, 2, 3])),
    "grpc bad": lambda server: grpc(server, infer_body([1, 2, 3], name="none")),
}


@pytest.mark.parametrize(
    ("given", "inline"), [({}, True), (TRACED, False)], ids=["on the loop", "traced, on threads"]
)
def test_requests_leave_no_objects_of_the_server(given: dict[str, Any], inline: bool) -> None:
    with serve_model(inline=inline, **given) as server:
        for name, ask in CASES.items():
            ask(server)  # what is made once is made here
            server.until(lambda: not server.hub.connections)
            with no_collector():
                ask(server)
                server.until(lambda: not server.hub.connections)
                assert not left_behind(server), name


def test_asynchronous_jobs_leave_nothing(tmp_path: Path) -> None:
    code = """
        import gc, json

        def init():
            gc.disable()

        def run(data):
            asked = json.loads(data)
            if asked == "parts":
                return iter(["1", "2"])
            return gc.collect() if asked == "collect" else asked
    """
    env = {"FIELDPOST_SERVER_JOBS_DIR": str(tmp_path / "jobs")}
    with serving(tmp_path, code, **env) as worker, httpx.Client(base_url=worker.url) as client:

        def job(asked: str, prefer: str) -> None:
            answer = client.post("/score", json=asked, headers={"prefer": prefer})
            if answer.status_code == 202:
                place = answer.headers["location"]
                until(lambda: client.get(place).json()["status"] == "succeeded")
                assert client.get(f"{place}/result").status_code == 200

        def jobs() -> None:
            for _ in range(5):
                for asked in ("whole", "parts"):
                    job(asked, "respond-async")
                    job(asked, "respond-async, wait=5")

        jobs()
        client.post("/score", json="collect")
        jobs()
        assert json.loads(client.post("/score", json="collect").content) < 20
