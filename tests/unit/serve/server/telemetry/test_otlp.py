"""OTLP's messages, byte for byte those of the official library."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

import pytest
from opentelemetry.exporter.otlp.proto.common._internal import _encode_attributes
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTracePartialSuccess,
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import InstrumentationScope
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1 import trace_pb2 as official

from serve.server.telemetry import otlp
from serve.server.telemetry.otlp import Event, Link, Span

TRACE, SPAN, PARENT = 0x4BF92F3577B34DA6A3CE929D0E0E4736, 0x00F067AA0BA902B7, 0xB7AD6B7169203331
START, END = 1_795_259_599_356_095_600, 1_795_259_599_981_214_200


class Color(IntEnum):
    RED = 1


ATTRIBUTES: dict[str, Any] = {
    "text": "für",
    "empty": "",
    "yes": True,
    "no": False,
    "zero": 0,
    "negative": -1,
    "least": -(2**63),
    "most": 2**63 - 1,
    "half": 0.5,
    "none": None,
    "bytes": b"\0\xff",
    "color": Color.RED,
    "list": ("a", 1, True, 0.5, None, [], [1]),
    "map": {"a": {"b": [1, {"c": ""}]}, "": 0},
    "": "no name",
}


def test_a_span_with_all_that_one_can_have() -> None:
    ours = Span(
        "lookup",
        TRACE,
        SPAN,
        START,
        END,
        parent_id=PARENT,
        flags=otlp.flags(sampled=True, remote=True),
        state="a=1,b=2",
        kind=otlp.SERVER,
        status=otlp.ERROR,
        message="it broke",
        attributes=ATTRIBUTES,
        events=[Event("seen", START + 1, ATTRIBUTES, 3), Event("", 0)],
        links=[
            Link(TRACE - 1, SPAN - 1, otlp.flags(sampled=False, remote=False), "c=3", {"x": 1}, 4)
        ],
        dropped=(5, 6, 7),
    )
    theirs = official.Span(
        name="lookup",
        trace_id=TRACE.to_bytes(16),
        span_id=SPAN.to_bytes(8),
        start_time_unix_nano=START,
        end_time_unix_nano=END,
        parent_span_id=PARENT.to_bytes(8),
        flags=0x301,
        trace_state="a=1,b=2",
        kind=official.Span.SPAN_KIND_SERVER,
        status=official.Status(code=official.Status.STATUS_CODE_ERROR, message="it broke"),
        attributes=_encode_attributes(ATTRIBUTES),
        events=[
            official.Span.Event(
                name="seen",
                time_unix_nano=START + 1,
                attributes=_encode_attributes(ATTRIBUTES),
                dropped_attributes_count=3,
            ),
            official.Span.Event(),
        ],
        links=[
            official.Span.Link(
                trace_id=(TRACE - 1).to_bytes(16),
                span_id=(SPAN - 1).to_bytes(8),
                trace_state="c=3",
                attributes=_encode_attributes({"x": 1}),
                dropped_attributes_count=4,
                flags=0x100,
            )
        ],
        dropped_attributes_count=5,
        dropped_events_count=6,
        dropped_links_count=7,
    )
    assert ours.encode() == theirs.SerializeToString(deterministic=True)


def test_a_span_with_the_least_that_one_can_have() -> None:
    theirs = official.Span(
        name="s",
        trace_id=(1).to_bytes(16),
        span_id=(2).to_bytes(8),
        start_time_unix_nano=3,
        end_time_unix_nano=4,
        kind=official.Span.SPAN_KIND_INTERNAL,
        status=official.Status(),
    )
    assert Span("s", 1, 2, 3, 4).encode() == theirs.SerializeToString()


def test_the_kinds_and_states_are_the_official_ones() -> None:
    kinds = official.Span.SpanKind
    assert (otlp.INTERNAL, otlp.SERVER) == (kinds.SPAN_KIND_INTERNAL, kinds.SPAN_KIND_SERVER)
    states = official.Status.StatusCode
    assert (otlp.UNSET, otlp.ERROR) == (states.STATUS_CODE_UNSET, states.STATUS_CODE_ERROR)
    known = official.SpanFlags.SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK
    remote = known | official.SpanFlags.SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK
    assert otlp.flags(sampled=False, remote=False) == known
    assert otlp.flags(sampled=True, remote=True) == remote | 1


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value",
    [2**63, -(2**63) - 1, 10**5000, object(), {1, 2}, deep(20), {"a": [2**70]}],
    ids=["large", "small", "huge", "object", "set", "deep", "large inside"],
)
def test_what_is_no_value_is_left_out_and_counted(value: Any) -> None:
    ours = Span("s", 1, 2, 3, 4, attributes={"a": 1, "b": value, "c": 2}, dropped=(1, 0, 0))
    read = official.Span.FromString(ours.encode())
    assert [pair.key for pair in read.attributes] == ["a", "c"]
    assert read.dropped_attributes_count == 2


def test_a_request_groups_spans_by_what_code_made_them() -> None:
    resource = otlp.resource({"service.name": "iris"})
    first = otlp.scope("first", "1", {"a": 1}, "https://schema")
    second = otlp.scope("second")
    spans = [Span(name, 1, number, 3, 4) for number, name in enumerate("abc", 1)]
    a, b, c = (span.encode() for span in spans)
    theirs = [official.Span.FromString(data) for data in (a, b, c)]
    expected = ExportTraceServiceRequest(
        resource_spans=[
            official.ResourceSpans(
                resource=Resource(attributes=_encode_attributes({"service.name": "iris"})),
                scope_spans=[
                    official.ScopeSpans(
                        scope=InstrumentationScope(
                            name="first", version="1", attributes=_encode_attributes({"a": 1})
                        ),
                        spans=[theirs[0], theirs[2]],
                        schema_url="https://schema",
                    ),
                    official.ScopeSpans(
                        scope=InstrumentationScope(name="second"), spans=[theirs[1]]
                    ),
                ],
            )
        ]
    )
    ours = otlp.export_request(resource, [(first, a), (second, b), (first, c)])
    assert ExportTraceServiceRequest.FromString(ours) == expected
    nobody = otlp.export_request(otlp.resource({}), [(otlp.scope(""), a)])
    (only,) = ExportTraceServiceRequest.FromString(nobody).resource_spans
    assert only.HasField("resource")
    assert only.scope_spans[0].HasField("scope")


@pytest.mark.parametrize(
    ("count", "why"), [(0, ""), (3, "no room"), (0, "a word"), (-1, ""), (2**40, "für")]
)
def test_an_answer_is_read(count: int, why: str) -> None:
    part = ExportTracePartialSuccess(rejected_spans=count, error_message=why)
    answer = ExportTraceServiceResponse(partial_success=part)
    assert otlp.rejected(answer.SerializeToString()) == (max(count, 0), why)


def test_an_answer_may_hold_what_nobody_knows_yet() -> None:
    part = ExportTracePartialSuccess(rejected_spans=2).SerializeToString()
    unknown = b"\x98\x06\x01\x92\x06\x01x"  # fields 99 and 98
    answer = unknown + b"\x0a" + bytes([len(part + unknown)]) + part + unknown
    assert otlp.rejected(answer) == (2, "")
    # A message may be sent in pieces; the last word counts.
    again = ExportTracePartialSuccess(error_message="late").SerializeToString()
    assert otlp.rejected(answer + b"\x0a" + bytes([len(again)]) + again) == (2, "late")
