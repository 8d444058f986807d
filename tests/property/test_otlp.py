"""Spans of any content: the official library reads out of ours what was put in."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1 import trace_pb2 as official

from serve.server.telemetry import otlp
from serve.server.telemetry.protowire import WireError

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
PLAIN = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    TEXT,
    st.binary(max_size=200),
)
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)
ATTRIBUTES = st.dictionaries(TEXT, VALUES, max_size=6)
TIMES = st.integers(0, 2**64 - 1)


def plain(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind is None:
        return None
    if kind == "array_value":
        return [plain(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {pair.key: plain(pair.value) for pair in value.kvlist_value.values}
    return getattr(value, kind)


@given(
    name=TEXT,
    trace_id=st.integers(0, 2**128 - 1),
    span_id=st.integers(0, 2**64 - 1),
    parent_id=st.integers(0, 2**64 - 1),
    times=st.tuples(TIMES, TIMES),
    attributes=ATTRIBUTES,
    events=st.lists(st.tuples(TEXT, TIMES, ATTRIBUTES), max_size=3),
    dropped=st.tuples(*[st.integers(0, 2**32 - 1)] * 3),
)
def test_a_span_is_read_as_it_was(
    *,
    name: str,
    trace_id: int,
    span_id: int,
    parent_id: int,
    times: tuple[int, int],
    attributes: dict[str, Any],
    events: list[tuple[str, int, dict[str, Any]]],
    dropped: tuple[int, int, int],
) -> None:
    ours = otlp.Span(
        name,
        trace_id,
        span_id,
        *times,
        parent_id=parent_id,
        attributes=attributes,
        events=[otlp.Event(*event) for event in events],
        dropped=dropped,
    )
    read = official.Span.FromString(ours.encode())
    assert (read.name, read.start_time_unix_nano, read.end_time_unix_nano) == (name, *times)
    assert int.from_bytes(read.trace_id) == trace_id
    assert int.from_bytes(read.span_id) == span_id
    assert int.from_bytes(read.parent_span_id) == parent_id
    assert {pair.key: plain(pair.value) for pair in read.attributes} == attributes
    assert [
        (e.name, e.time_unix_nano, {pair.key: plain(pair.value) for pair in e.attributes})
        for e in read.events
    ] == events
    lost = read.dropped_attributes_count, read.dropped_events_count, read.dropped_links_count
    assert lost == dropped


@given(st.binary(max_size=60))
def test_an_answer_of_any_bytes_is_read_or_refused(answer: bytes) -> None:
    try:
        count, why = otlp.rejected(answer)
    except WireError:
        return
    assert count >= 0
    assert isinstance(why, str)
