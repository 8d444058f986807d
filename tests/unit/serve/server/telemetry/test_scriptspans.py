"""What a script's code sees of traces; its spans beside those of OpenTelemetry's exporter."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from time import perf_counter

import pytest
from opentelemetry import trace as api
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.propagate import inject
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanContext, SpanKind, TraceFlags, TraceState

from serve.server.telemetry import otlp
from serve.server.telemetry.channel import Channel, Details
from serve.server.telemetry.context import Trace, parse
from serve.server.telemetry.counters import Cells
from serve.server.telemetry.scriptcontext import active
from serve.server.telemetry.scriptspans import pack, provider
from serve.server.telemetry.traces import Tracer
from tests.support.collector import Collector, attributes

ID = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SAMPLED = f"00-{ID}-{CALLER}-01".encode()
HEADERS = ((b"traceparent", SAMPLED), (b"tracestate", b"a=1"))


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector


def opened(collector: Collector) -> Tracer:
    return Tracer.open(collector.url, 0, "iris-server", "http", {})


def tell(tracer: Tracer, trace: Trace) -> None:
    channel = Channel(Cells.in_memory(), (), protocol="http", route="/score")
    details = Details(b'"::1"', b"POST", b"/score", HEADERS, trace=trace)
    now = perf_counter()
    tracer.tell(channel, 200, now - 0.25, now, 1, 1, details)


def test_code_of_a_request_sees_its_context(collector: Collector) -> None:
    mine = opened(collector)
    given = provider(mine)
    trace = mine.begin(HEADERS)
    seen: list[SpanContext] = []

    def run() -> None:
        with active(trace):
            seen.append(api.get_current_span().get_span_context())
            with given.get_tracer("script", "2").start_as_current_span("lookup"):
                pass
        seen.append(api.get_current_span().get_span_context())

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    tell(mine, trace)
    mine.close()
    assert (seen[0].trace_id, seen[0].span_id) == (trace.trace_id, trace.span_id)
    assert not seen[1].is_valid
    spans = dict(zip((scope.name for scope in collector.scopes), collector.spans, strict=True))
    lookup, server = spans["script"], spans["fieldpost"]
    assert lookup.name == "lookup"
    assert lookup.parent_span_id == server.span_id
    assert lookup.trace_state == server.trace_state == "a=1"
    assert server.parent_span_id.hex() == CALLER
    assert lookup.flags == 0x101
    assert collector.services == {"iris-server"}
    assert given.resource.attributes["service.name"] == "iris-server"
    assert (mine.exported, mine.dropped) == (2, 0)


def test_code_of_an_untraced_request_makes_no_spans(collector: Collector) -> None:
    mine = opened(collector)
    given = provider(mine)
    trace = mine.begin([])
    assert not trace.sampled
    with active(trace), given.get_tracer("script").start_as_current_span("lookup"):
        pass
    with given.get_tracer("script").start_as_current_span("at start"):
        pass
    mine.close()
    assert collector.spans == []


def test_what_is_sent_on_carries_the_context(collector: Collector) -> None:
    mine = opened(collector)
    trace = mine.begin(HEADERS)
    carrier: dict[str, str] = {}
    with active(trace):
        inject(carrier)
    mine.close()
    assert carrier["traceparent"] == trace.traceparent
    assert carrier["tracestate"] == "a=1"
    parent = parse([(b"traceparent", carrier["traceparent"].encode())])
    assert parent is not None
    assert parent.span_id == trace.span_id


def finished(limits: SpanLimits | None = None) -> ReadableSpan:
    """A span with all that one can have, as the SDK gives it."""
    memory = InMemorySpanExporter()
    given = TracerProvider(span_limits=limits, shutdown_on_exit=False)
    given.add_span_processor(SimpleSpanProcessor(memory))
    tracer = given.get_tracer("script", "2", "https://schema", {"team": "a"})
    elsewhere = SpanContext(1, 2, True, TraceFlags(1), TraceState([("c", "3")]))
    parent = api.set_span_in_context(api.NonRecordingSpan(elsewhere))
    with tracer.start_as_current_span(
        "lookup",
        parent,
        SpanKind.CLIENT,
        {"text": "für", "yes": True, "many": [1, 2], "half": 0.5, "none": ["a", None]},
        links=[api.Link(elsewhere, {"why": "batch", "more": 1})],
    ) as span:
        span.add_event("seen", {"rows": 3, "more": 1})
        span.add_event("again", timestamp=5)
        span.record_exception(KeyError("gone"))
        span.set_status(api.StatusCode.ERROR, "it broke")
    (known,) = memory.get_finished_spans()
    return known


@pytest.mark.parametrize(
    "limits",
    [
        None,
        SpanLimits(
            max_span_attributes=2,
            max_events=2,
            max_links=0,
            max_event_attributes=1,
            max_attribute_length=2,
        ),
    ],
    ids=["whole", "cut"],
)
def test_a_span_arrives_as_opentelemetrys_own_exporter_would_send_it(
    limits: SpanLimits | None,
) -> None:
    known = finished(limits)
    scope, span = pack(known)
    ours = Span.FromString(span)
    theirs = encode_spans([known]).resource_spans[0].scope_spans[0]
    expected = theirs.spans[0]
    # Which leaves these out.
    expected.flags |= 1
    for link in expected.links:
        link.flags |= 1
        link.trace_state = "c=3"
    assert ours == expected
    request = otlp.export_request(b"", [(scope, span)])
    theirs_request = encode_spans([known])
    theirs_request.resource_spans[0].scope_spans[0].spans[0].CopyFrom(expected)
    theirs_request.resource_spans[0].resource.Clear()
    theirs_request.resource_spans[0].resource.SetInParent()
    assert type(theirs_request).FromString(request) == theirs_request
    if limits is not None:
        assert ours.dropped_attributes_count
        assert ours.dropped_events_count
        assert ours.dropped_links_count


@pytest.mark.parametrize("kind", list(SpanKind))
@pytest.mark.parametrize("code", list(api.StatusCode))
def test_kinds_and_states(collector: Collector, kind: SpanKind, code: api.StatusCode) -> None:
    mine = opened(collector)
    with active(mine.begin(HEADERS)):
        span = provider(mine).get_tracer("script").start_span("s", kind=kind)
        span.set_status(code)
        span.end()
    mine.close()
    assert Span.SpanKind.Name(collector.spans[0].kind) == f"SPAN_KIND_{kind.name}"
    assert Status.StatusCode.Name(collector.spans[0].status.code) == f"STATUS_CODE_{code.name}"


def test_a_span_that_cannot_be_written_is_no_error_of_the_script(
    collector: Collector, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = opened(collector)
    monkeypatch.setattr(otlp.Span, "encode", lambda _: 1 / 0)
    with active(mine.begin(HEADERS)), provider(mine).get_tracer("t").start_as_current_span("s"):
        pass
    mine.close()
    assert (mine.exported, mine.dropped) == (0, 1)
    assert "cannot be written" in caplog.text


def test_attributes_of_the_scope_are_kept(collector: Collector) -> None:
    mine = opened(collector)
    given = provider(mine)
    with active(mine.begin(HEADERS)):
        tracer = given.get_tracer("script", "2", "https://schema", {"team": "a"})
        tracer.start_span("s", attributes={"n": 1}).end()
    mine.close()
    (scope,) = collector.scopes
    assert (scope.name, scope.version, scope.attributes[0].key) == ("script", "2", "team")
    assert attributes(collector.spans[0]) == {"n": 1}
