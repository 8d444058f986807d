"""Spans of requests, sent to a real receiver."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from time import perf_counter, time_ns
from typing import Any

import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from scoring.errors import UsageError
from serve.server.settings import ServerSettings
from serve.server.telemetry import scripts
from serve.server.telemetry.channel import Channel, Details
from serve.server.telemetry.counters import Cells
from serve.server.telemetry.telemetry import Telemetry
from serve.server.telemetry.traces import Tracer, _valid_state
from tests.support.collector import Collector, attributes
from tests.support.telemetry import scrape

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SAMPLED = f"00-{ID}-{CALLER}-01".encode()
UNSAMPLED = f"00-{ID}-{CALLER}-00".encode()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


def tracer(collector: Collector, ratio: float = 0.0, **environment: str) -> Tracer:
    return Tracer.open(collector.url, ratio, "iris-server", "http", environment)


def channel(protocol: str = "v2", route: str = "/v2/models/{model}/infer") -> Channel:
    return Channel(Cells.in_memory(), (), protocol=protocol, model="iris", version="3", route=route)


def details(*headers: tuple[bytes, bytes], **more: Any) -> Details:
    return Details(b'"[::1]:5000"', b"POST", b"/v2/models/iris/infer?key=k&a=1", headers, **more)


def tell(tracer: Tracer, told: Details, status: int = 200, known: Channel | None = None) -> None:
    now = perf_counter()
    tracer.tell(known or channel(), status, now - 0.25, now, 100, 50, told)


def test_a_request_goes_on_in_its_callers_trace(collector: Collector) -> None:
    mine = tracer(collector)
    now = perf_counter()
    phases = [("queue", now - 0.24, now - 0.2), ("infer", now - 0.2, now - 0.1)]
    headers = ((b"traceparent", SAMPLED), (b"tracestate", b"a=1"), (b"user-agent", b"curl/8"))
    before = time_ns()
    tell(mine, details(*headers, principal="k1", phases=lambda: phases))
    mine.close()
    server, *children = collector.spans
    assert server.name == "POST /v2/models/{model}/infer"
    assert server.kind == Span.SPAN_KIND_SERVER
    assert server.trace_id.hex() == ID
    assert server.parent_span_id.hex() == CALLER
    assert server.trace_state == "a=1"
    assert abs(server.end_time_unix_nano - before) < 5e9
    assert server.end_time_unix_nano - server.start_time_unix_nano == pytest.approx(25e7, abs=1e6)
    assert server.status.code == Status.STATUS_CODE_UNSET
    assert attributes(server) == {
        "http.request.method": "POST",
        "http.route": "/v2/models/{model}/infer",
        "http.response.status_code": 200,
        "http.request.body.size": 100,
        "http.response.body.size": 50,
        "url.path": "/v2/models/iris/infer",
        "url.query": "key=***&a=1",
        "url.scheme": "http",
        "client.address": "::1",
        "user_agent.original": "curl/8",
        "enduser.id": "k1",
        "fieldpost.protocol": "v2",
        "fieldpost.model": "iris",
        "fieldpost.model.version": "3",
    }
    assert [child.name for child in children] == ["queue", "infer"]
    for child in children:
        assert child.trace_id == server.trace_id
        assert child.parent_span_id == server.span_id
        assert child.start_time_unix_nano >= server.start_time_unix_nano
        assert child.end_time_unix_nano <= server.end_time_unix_nano
    assert len({span.span_id for span in collector.spans}) == 3
    assert collector.services == {"iris-server"}
    assert (mine.exported, mine.dropped) == (3, 0)


def test_grpc_has_its_own_names(collector: Collector) -> None:
    mine = tracer(collector, 1)
    known = channel("grpc", "inference.GRPCInferenceService/ModelInfer")
    tell(mine, details(), 5, known)
    tell(mine, details(), 13, known)
    mine.close()
    missing, broken = collector.spans
    assert missing.name == "inference.GRPCInferenceService/ModelInfer"
    shown = attributes(missing)
    assert shown["rpc.system"] == "grpc"
    assert shown["rpc.service"] == "inference.GRPCInferenceService"
    assert shown["rpc.method"] == "ModelInfer"
    assert shown["rpc.grpc.status_code"] == 5
    assert missing.status.code == Status.STATUS_CODE_UNSET
    assert broken.status.code == Status.STATUS_CODE_ERROR
    assert attributes(broken)["error.type"] == "INTERNAL"


@pytest.mark.parametrize(
    ("status", "error", "kind", "failed"),
    [
        (400, "wrong_shape", "wrong_shape", False),
        (404, "", None, False),
        (500, "", "500", True),
        (503, "overloaded", "overloaded", True),
    ],
)
def test_a_failure_of_the_server_is_one_of_the_span(
    collector: Collector, status: int, error: str, kind: str | None, *, failed: bool
) -> None:
    mine = tracer(collector, 1)
    tell(mine, details(error=error), status)
    mine.close()
    (span,) = collector.spans
    assert attributes(span).get("error.type") == kind
    assert (span.status.code == Status.STATUS_CODE_ERROR) == failed


def test_the_callers_choice_counts_more_than_the_ratio(collector: Collector) -> None:
    mine = tracer(collector, 1)
    tell(mine, details((b"traceparent", UNSAMPLED)))
    tell(mine, details(trace=mine.begin([(b"traceparent", UNSAMPLED)])))
    mine.close()
    assert collector.spans == []


@pytest.mark.parametrize(("ratio", "least", "most"), [(0, 0, 0), (1, 500, 500), (0.3, 100, 200)])
def test_a_part_of_the_requests_begins_a_trace(
    collector: Collector, ratio: float, least: int, most: int
) -> None:
    mine = tracer(collector, ratio)
    for number in range(500):
        told = details(trace=mine.begin([])) if number % 2 else details()
        tell(mine, told)
    mine.close()
    assert least <= len(collector.spans) <= most
    assert len({span.trace_id for span in collector.spans}) == len(collector.spans)
    assert all(span.parent_span_id == b"" for span in collector.spans)


def test_a_tiny_ratio_is_no_error(collector: Collector) -> None:
    mine = tracer(collector, 1e-300)
    for _ in range(100):
        tell(mine, details())
    mine.close()
    assert collector.spans == []


def test_a_state_that_is_none_of_w3cs_is_no_error(collector: Collector) -> None:
    mine = tracer(collector)
    for state in (b"", b"=", b"a", b"a=1,a=2", b",,,", b"A B=c"):
        tell(mine, details((b"traceparent", SAMPLED), (b"tracestate", state)))
    mine.close()
    assert [span.trace_state for span in collector.spans] == ["", "", "", "a=1,a=2", ",,,", ""]


@pytest.mark.parametrize(
    ("state", "valid"),
    [
        ("a=1,b=2", True),
        ("rojo=00f067aa0ba902b7, congo=t61rcWkgMzE", True),
        ("1tenant@sys/tem=a b;c:d", True),
        ("a=1,", True),
        (f"a={'v' * 257}", False),
        ("a=1=2", False),
        ("a=1\n", False),
        ("=1", False),
        ("A=1", False),
        (",".join(f"k{n}=1" for n in range(33)), False),
        (f"{'a' * 255}={' ' * 255}" * 2, False),
    ],
)
def test_only_a_state_of_w3cs_is_handed_on(state: str, *, valid: bool) -> None:
    assert _valid_state(state) == (state if valid else "")


def test_a_collector_that_refuses_loses_spans_and_nothing_else(collector: Collector) -> None:
    collector.status = 400
    mine = tracer(collector, 1)
    tell(mine, details())
    mine.close()
    assert collector.paths == ["/v1/traces"]
    assert (mine.exported, mine.dropped) == (0, 1)


def test_who_makes_the_spans_is_said(collector: Collector) -> None:
    known = {"OTEL_RESOURCE_ATTRIBUTES": "service.version=2,host.name=a%20b"}
    instances = set()
    for _ in range(2):
        mine = tracer(collector, 1, OTEL_SERVICE_NAME="scores", **known)
        tell(mine, details())
        mine.close()
        assert collector.resource["service.name"] == "scores"
        assert collector.resource["service.version"] == "2"
        assert collector.resource["host.name"] == "a b"
        assert collector.resource["telemetry.sdk.name"] == "fieldpost"
        instances.add(collector.resource["service.instance.id"])
    assert len(instances) == 2
    assert {scope.name for scope in collector.scopes} == {"fieldpost"}


def test_the_parent_of_a_request_is_elsewhere_and_that_of_its_parts_is_not(
    collector: Collector,
) -> None:
    mine = tracer(collector)
    now = perf_counter()
    tell(mine, details((b"traceparent", SAMPLED), phases=lambda: [("infer", now - 1, now)]))
    mine.close()
    assert [span.flags for span in collector.spans] == [0x301, 0x101]


@pytest.mark.parametrize(
    "given", ["c:4318", "grpc://c:4317", "http://", "http://c:x", "http://[", "/v1"]
)
def test_an_endpoint_that_is_none_is_said(given: str) -> None:
    with pytest.raises(UsageError) as caught:
        Telemetry.from_settings(ServerSettings(traces=given), lambda *_: None, {})
    assert caught.value.where == "traces"


def test_traces_are_counted_and_switched_on_by_a_setting(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scripts._Process, "runs_script", False)  # other tests make such servers
    telemetry = Telemetry.from_settings(
        ServerSettings(traces=collector.url, trace_ratio=1.0), lambda *_: None, {}
    )
    assert telemetry.details
    trace = telemetry.trace([(b"traceparent", SAMPLED)])
    assert trace is not None
    known = telemetry.channel("score", "iris", "1", route="/score")
    known.answered(200, perf_counter(), 1, 1, details())
    telemetry.close()
    assert collector.paths == ["/v1/traces"]
    assert collector.services == {"fieldpost"}
    assert scrape(telemetry)("fieldpost_spans_total", outcome="exported") == 1


def test_without_traces_there_is_no_context_and_nothing_heavy_is_imported() -> None:
    code = (
        "import sys\n"
        "from serve.server.settings import ServerSettings\n"
        "from serve.server.telemetry.telemetry import Telemetry\n"
        "t = Telemetry.from_settings(ServerSettings(), print, {})\n"
        "assert t.trace([]) is None\n"
        "t.page('text/plain')\n"
        "heavy = {'opentelemetry', 'prometheus_client', 'requests', 'google', 'numpy', 'http'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


def test_traces_of_models_take_no_package_of_opentelemetrys() -> None:
    code = (
        "import sys\n"
        "from serve.server.settings import ServerSettings\n"
        "from serve.server.telemetry.telemetry import Telemetry\n"
        "t = Telemetry.from_settings(ServerSettings(traces='http://127.0.0.1:9'), print, {})\n"
        "assert t.trace([]) is not None\n"
        "heavy = {'opentelemetry', 'requests', 'google', 'numpy', 'urllib.request', 'tenacity'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
