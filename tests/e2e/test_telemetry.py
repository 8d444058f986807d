"""What real servers count, log and trace, seen by those who read it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from tests.support.collector import Collector, attributes
from tests.support.scripts import serving
from tests.support.server import until
from tests.support.telemetry import Scrape

if TYPE_CHECKING:
    from collections.abc import Iterator

FIELDPOST = str(Path(sys.executable).parent / "fieldpost")
BODY = {"data": [[2.0]]}
PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Server:
    """`fieldpost serve` of a small model, in processes of its own."""

    def __init__(self, folder: Path, workers: int, **settings: str) -> None:
        self.log = folder / "log"
        self.access = folder / "access"
        ready = folder / "ready"
        _write_model(folder / "twice.onnx")
        given = {"access_log": str(self.access), "drain_idle_s": "0.1", **settings}
        env = {f"FIELDPOST_SERVER_{name.upper()}": value for name, value in given.items()}
        command = [FIELDPOST, "serve", str(folder / "twice.onnx"), "--port", "0"]
        command += ["--workers", str(workers), "--ready-file", str(ready)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, stderr=log, env={**os.environ, **env})
        until(lambda: ready.exists() or self.process.poll() is not None, 60)
        assert ready.exists(), self.log.read_text()
        self.url = ready.read_text().strip()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def score(self, many: int, **headers: str) -> None:
        """Each on a connection of its own, so that all workers get some."""
        for _ in range(many):
            assert self.post(BODY, **headers).status_code == 200

    def post(self, body: Any, path: str = "/score", **headers: str) -> httpx.Response:
        return httpx.post(self.url + path, json=body, headers=headers, timeout=30)

    def scrape(self) -> Scrape:
        return Scrape(httpx.get(f"{self.url}/metrics", timeout=30).text)

    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.access.read_bytes().splitlines()]


def _write_model(path: Path) -> None:
    from onnx import TensorProto, helper, numpy_helper, save

    graph = helper.make_graph(
        [helper.make_node("Mul", ["x", "two"], ["y"])],
        "twice",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1])],
        [numpy_helper.from_array(np.array([2.0], np.float32), "two")],
    )
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    live = Server(tmp_path, 3)
    yield live
    live.process.kill()
    live.process.wait()


def test_any_worker_answers_for_all_at_once(server: Server) -> None:
    total = 0
    for many in (1, 5, 30):
        server.score(many)
        total += many
        page = server.scrape()
        assert page("fieldpost_requests_total", protocol="score", code="200") == total
        assert page("fieldpost_request_duration_seconds_count", protocol="score") == total
        assert page("fieldpost_batch_rows_sum") == total
    assert page("fieldpost_workers") == 3
    assert page("fieldpost_model_loaded", model="twice") == 3
    assert {labels["worker"] for labels in page.labels("process_resident_memory_bytes")} == {
        "0",
        "1",
        "2",
    }
    assert page("fieldpost_connections") >= 1
    assert page("fieldpost_in_flight") >= 1  # the scrape itself


def test_counters_outlive_a_worker_that_is_killed(server: Server) -> None:
    server.score(30)
    pids = _workers(server)
    os.kill(pids[0], signal.SIGKILL)
    until(lambda: len(_workers(server)) == 3 and pids[0] not in _workers(server), 30)
    until(lambda: server.scrape()("fieldpost_workers") == 3, 30)
    page = server.scrape()
    assert page("fieldpost_requests_total", protocol="score", code="200") == 30
    assert page("fieldpost_worker_starts_total") == 4
    server.score(10)
    assert server.scrape()("fieldpost_requests_total", protocol="score", code="200") == 40


def _workers(server: Server) -> list[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
    return [int(pid) for pid in children.read_text().split()]


def test_errors_are_counted_and_logged_by_their_code(server: Server) -> None:
    server.post({"data": [["x"]]})
    server.post({"inputs": []}, "/v2/models/twice/infer")
    server.post({}, "/v2/models/none/infer")
    httpx.get(f"{server.url}/nothing/here")
    page = server.scrape()
    kinds = {labels["kind"] for labels in page.labels("fieldpost_errors_total")}
    assert {"wrong_type", "unknown_model", "route_not_found"} <= kinds
    assert page("fieldpost_requests_total", protocol="score", code="400") == 1
    # Nothing that a client made up is a label.
    assert {labels["model"] for labels in page.labels("fieldpost_requests_total")} <= {"", "twice"}
    assert server.stop() == 0
    logged = {(line["path"], line["status"], line.get("error")) for line in server.lines()}
    assert ("/score", 400, "wrong_type") in logged
    assert ("/v2/models/none/infer", 404, "unknown_model") in logged
    assert ("/nothing/here", 404, "route_not_found") in logged


def test_every_request_has_its_line_though_the_server_ends(server: Server) -> None:
    threads = [threading.Thread(target=server.score, args=(25,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.post(
        BODY, "/score?api_key=hunter2", authorization="Bearer hunter2", **{"x-request-id": "r1"}
    )
    assert server.stop() == 0
    assert b"hunter2" not in server.access.read_bytes()
    lines = [line for line in server.lines() if line["protocol"] == "score"]
    assert Counter(line["status"] for line in lines) == {200: 101}
    assert all(line["model"] == "twice" and line["duration_ms"] >= 0 for line in lines)
    (asked,) = [line for line in lines if line.get("request_id") == "r1"]
    assert asked["path"] == "/score?api_key=***"
    assert "hunter2" not in server.log.read_text()


def test_traces_reach_the_collector_before_the_server_ends(tmp_path: Path) -> None:
    with Collector() as collector:
        live = Server(tmp_path, 1, traces=collector.url, trace_ratio="1")
        live.score(3)
        live.score(1, traceparent=PARENT)
        live.post({"data": [["x"]]})
        assert live.stop() == 0
    servers = [span for span in collector.spans if span.name == "POST /score"]
    assert len(servers) == 5
    (mine,) = [span for span in servers if span.parent_span_id.hex() == "00f067aa0ba902b7"]
    assert mine.trace_id.hex() in PARENT
    children = [span for span in collector.spans if span.parent_span_id == mine.span_id]
    assert [child.name for child in children] == ["queue", "batch", "infer", "encode"]
    assert all(child.start_time_unix_nano <= child.end_time_unix_nano for child in children)
    assert children[0].start_time_unix_nano >= mine.start_time_unix_nano
    assert attributes(mine)["fieldpost.model"] == "twice"
    assert {attributes(span).get("error.type") for span in servers} == {None, "wrong_type"}
    assert [line["trace_id"] for line in live.lines() if "trace_id" in line].count(
        PARENT[3:35]
    ) == 1


def test_a_collector_that_is_down_costs_nothing_but_spans(tmp_path: Path) -> None:
    live = Server(tmp_path, 1, traces="http://127.0.0.1:9", trace_ratio="1")
    live.score(20)
    until(lambda: live.scrape()("fieldpost_spans_total", outcome="dropped") > 0, 30)
    assert live.stop() == 0
    assert live.log.read_text().count("Spans cannot be sent") == 1


SCRIPT = """
from opentelemetry import trace
def init():
    pass
{kind}def run(data):
    with trace.get_tracer("score").start_as_current_span("lookup"):
        return trace.format_trace_id(trace.get_current_span().get_span_context().trace_id)
"""


@pytest.mark.parametrize("kind", ["", "async "], ids=["run", "async run"])
def test_a_script_finds_the_context_of_its_request(tmp_path: Path, kind: str) -> None:
    with Collector() as collector:
        env = {"FIELDPOST_SERVER_TRACES": collector.url}
        with serving(tmp_path, SCRIPT.format(kind=kind), **env) as worker:
            answer = httpx.post(f"{worker.url}/score", json={}, headers={"traceparent": PARENT})
            assert answer.json() == PARENT[3:35]
            untraced = httpx.post(f"{worker.url}/score", json={})
            assert untraced.status_code == 200
            assert worker.leave() == 0
    lookup, server = sorted(collector.spans, key=lambda span: span.name != "lookup")
    assert lookup.parent_span_id == server.span_id
    assert server.parent_span_id.hex() == "00f067aa0ba902b7"
    assert attributes(server)["http.response.status_code"] == 200


LONELY = """
import sys
for name in ("opentelemetry", "requests", "google"):
    sys.modules[name] = None
def init():
    pass
def run(data):
    return 7
"""


def test_a_script_without_opentelemetry_is_traced(tmp_path: Path) -> None:
    with Collector() as collector:
        env = {"FIELDPOST_SERVER_TRACES": collector.url}
        with serving(tmp_path, LONELY, **env) as worker:
            for _ in range(3):
                answer = httpx.post(f"{worker.url}/score", json={}, headers={"traceparent": PARENT})
                assert answer.json() == 7
            assert worker.leave() == 0
    assert [span.name for span in collector.spans] == ["POST"] * 3
    assert {span.parent_span_id.hex() for span in collector.spans} == {"00f067aa0ba902b7"}


WHOLE = """
from opentelemetry import trace
def init():
    pass
def run(data):
    tracer = trace.get_tracer("score", "2")
    with tracer.start_as_current_span("lookup", attributes={"rows": [1, 2]}) as span:
        span.add_event("seen", {"rows": 3})
        span.add_link(trace.SpanContext(1, 2, False, trace.TraceFlags(1)))
        raise ValueError("broken")
"""


def test_spans_of_a_script_are_whole_also_where_it_fails(tmp_path: Path) -> None:
    with Collector() as collector:
        env = {"FIELDPOST_SERVER_TRACES": collector.url}
        with serving(tmp_path, WHOLE, **env) as worker:
            answer = httpx.post(f"{worker.url}/score", json={}, headers={"traceparent": PARENT})
            assert answer.status_code == 500
            assert worker.leave() == 0
    (lookup,) = [span for span in collector.spans if span.name == "lookup"]
    assert [event.name for event in lookup.events] == ["seen", "exception"]
    assert lookup.links[0].trace_id == (1).to_bytes(16)
    assert [each.int_value for each in lookup.attributes[0].value.array_value.values] == [1, 2]
    assert lookup.status.message == "ValueError: broken"
    assert {(scope.name, scope.version) for scope in collector.scopes} >= {("score", "2")}
