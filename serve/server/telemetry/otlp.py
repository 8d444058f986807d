"""OTLP's messages of traces, as bytes. Pure.

A span is written when it has ended, so that what waits for a collector is bytes whose size is
known. Numbers and kinds of the fields are those of opentelemetry-proto 1.x, with which the tests
compare every one of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from serve.server.telemetry.protowire import (
    FIXED32,
    FIXED64,
    LENGTH,
    VARINT,
    WireError,
    chunk,
    double,
    encoded,
    fields,
    fixed32,
    fixed64,
    integer,
    key,
    text,
    varint,
)

Attributes = Mapping[str, object]
"""Name to bool, int, float, str, bytes, None, or sequences and mappings of these."""

Packed = tuple[bytes, bytes]
"""The scope of a span (see `scope`) and the span (see `Span.encode`)."""

INTERNAL, SERVER = 1, 2
"""Kinds of spans; those of OpenTelemetry's API are one less."""
UNSET, ERROR = 0, 2
"""States of a span."""

_SAMPLED, _REMOTENESS_KNOWN, _REMOTE = 0x1, 0x100, 0x200
_MOST_INT = (1 << 63) - 1
_DEEPEST = 16

# AnyValue, ArrayValue and KeyValueList, KeyValue
_STRING, _BOOL, _INT, _DOUBLE = key(1, LENGTH), key(2, VARINT), key(3, VARINT), key(4, FIXED64)
_ARRAY, _MAP, _BYTES = key(5, LENGTH), key(6, LENGTH), key(7, LENGTH)
_ELEMENT = key(1, LENGTH)
_KEY, _VALUE = key(1, LENGTH), key(2, LENGTH)
# Resource, InstrumentationScope
_RESOURCE_ATTRIBUTE = key(1, LENGTH)
_SCOPE_NAME, _SCOPE_VERSION, _SCOPE_ATTRIBUTE = key(1, LENGTH), key(2, LENGTH), key(3, LENGTH)
_SCOPE_DROPPED = key(4, VARINT)
# ExportTraceServiceRequest, ResourceSpans, ScopeSpans
_RESOURCE_SPANS, _RESOURCE, _SCOPE_SPANS = key(1, LENGTH), key(1, LENGTH), key(2, LENGTH)
_SCOPE, _SPAN, _SCHEMA = key(1, LENGTH), key(2, LENGTH), key(3, LENGTH)
# Span
_TRACE_ID, _SPAN_ID, _STATE, _PARENT = (key(number, LENGTH) for number in range(1, 5))
_NAME, _KIND, _START, _END = key(5, LENGTH), key(6, VARINT), key(7, FIXED64), key(8, FIXED64)
_ATTRIBUTE, _DROPPED = key(9, LENGTH), key(10, VARINT)
_EVENT, _DROPPED_EVENTS = key(11, LENGTH), key(12, VARINT)
_LINK, _DROPPED_LINKS = key(13, LENGTH), key(14, VARINT)
_STATUS, _FLAGS = key(15, LENGTH), key(16, FIXED32)
_STATUS_MESSAGE, _STATUS_CODE = key(2, LENGTH), key(3, VARINT)
# Event, Link
_EVENT_TIME, _EVENT_NAME = key(1, FIXED64), key(2, LENGTH)
_EVENT_ATTRIBUTE, _EVENT_DROPPED = key(3, LENGTH), key(4, VARINT)
_LINK_ATTRIBUTE, _LINK_DROPPED, _LINK_FLAGS = key(4, LENGTH), key(5, VARINT), key(6, FIXED32)
# ExportTraceServiceResponse, ExportTracePartialSuccess
_PARTIAL_SUCCESS, _REJECTED, _REJECTED_WHY = 1, 1, 2


class Event(msgspec.Struct, frozen=True):
    """Something that happened in a span.

    Attributes:
        name: What it was.
        time_ns: Since the epoch.
        attributes: More of it.
        dropped: How many attributes it lost before.
    """

    name: str
    time_ns: int
    attributes: Attributes = {}
    dropped: int = 0

    def encode(self) -> bytes:
        """As the message `Span.Event`."""
        pairs, lost = _attributes(_EVENT_ATTRIBUTE, self.attributes)
        return (
            fixed64(_EVENT_TIME, self.time_ns)
            + text(_EVENT_NAME, self.name)
            + pairs
            + integer(_EVENT_DROPPED, self.dropped + lost)
        )


class Link(msgspec.Struct, frozen=True):
    """Another span that a span has to do with.

    Attributes:
        trace_id: 128 bits.
        span_id: 64 bits.
        flags: See `flags`.
        state: In W3C's format.
        attributes: More of it.
        dropped: How many attributes it lost before.
    """

    trace_id: int
    span_id: int
    flags: int = 0
    state: str = ""
    attributes: Attributes = {}
    dropped: int = 0

    def encode(self) -> bytes:
        """As the message `Span.Link`."""
        pairs, lost = _attributes(_LINK_ATTRIBUTE, self.attributes)
        return (
            chunk(_TRACE_ID, self.trace_id.to_bytes(16))
            + chunk(_SPAN_ID, self.span_id.to_bytes(8))
            + text(_STATE, self.state)
            + pairs
            + integer(_LINK_DROPPED, self.dropped + lost)
            + fixed32(_LINK_FLAGS, self.flags)
        )


class Span(msgspec.Struct, frozen=True):
    """A span that has ended.

    Attributes:
        name: Of low cardinality.
        trace_id: 128 bits.
        span_id: 64 bits.
        start_ns: Since the epoch.
        end_ns: Since the epoch.
        parent_id: 0 for none.
        flags: See `flags`.
        state: Of the trace, in W3C's format.
        kind: `INTERNAL`, `SERVER`, ...
        status: `UNSET`, 1 for one that is expressly well, or `ERROR`.
        message: Of the status.
        attributes: What is known of it.
        events: What happened in it.
        links: Others that it has to do with.
        dropped: How many attributes, events and links it lost before.
    """

    name: str
    trace_id: int
    span_id: int
    start_ns: int
    end_ns: int
    parent_id: int = 0
    flags: int = 0
    state: str = ""
    kind: int = INTERNAL
    status: int = UNSET
    message: str = ""
    attributes: Attributes = {}
    events: Sequence[Event] = ()
    links: Sequence[Link] = ()
    dropped: tuple[int, int, int] = (0, 0, 0)

    def encode(self) -> bytes:
        """As the message `Span`."""
        pairs, lost = _attributes(_ATTRIBUTE, self.attributes)
        attributes, events, links = self.dropped
        return b"".join(
            (
                chunk(_TRACE_ID, self.trace_id.to_bytes(16)),
                chunk(_SPAN_ID, self.span_id.to_bytes(8)),
                text(_STATE, self.state),
                chunk(_PARENT, self.parent_id.to_bytes(8)) if self.parent_id else b"",
                text(_NAME, self.name),
                integer(_KIND, self.kind),
                fixed64(_START, self.start_ns),
                fixed64(_END, self.end_ns),
                pairs,
                integer(_DROPPED, attributes + lost),
                *(chunk(_EVENT, event.encode()) for event in self.events),
                integer(_DROPPED_EVENTS, events),
                *(chunk(_LINK, link.encode()) for link in self.links),
                integer(_DROPPED_LINKS, links),
                chunk(_STATUS, self._status()),
                fixed32(_FLAGS, self.flags),
            )
        )

    def _status(self) -> bytes:
        return text(_STATUS_MESSAGE, self.message) + integer(_STATUS_CODE, self.status)


def flags(*, sampled: bool, remote: bool) -> int:
    """Those of a span or link.

    Args:
        sampled: The trace is recorded.
        remote: The span's parent, or the link's span, is of another process.
    """
    return _REMOTENESS_KNOWN | (_SAMPLED if sampled else 0) | (_REMOTE if remote else 0)


def resource(attributes: Attributes) -> bytes:
    """The message `Resource`: who made the spans."""
    return _attributes(_RESOURCE_ATTRIBUTE, attributes)[0]


def scope(
    name: str, version: str = "", attributes: Attributes | None = None, schema_url: str = ""
) -> bytes:
    """The part of `ScopeSpans` that says what code made the spans: all of it but the spans."""
    pairs, lost = _attributes(_SCOPE_ATTRIBUTE, attributes or {})
    known = text(_SCOPE_NAME, name) + text(_SCOPE_VERSION, version) + pairs
    return chunk(_SCOPE, known + integer(_SCOPE_DROPPED, lost)) + text(_SCHEMA, schema_url)


def export_request(resource: bytes, spans: Iterable[Packed]) -> bytes:
    """The message `ExportTraceServiceRequest` of spans of one resource.

    Args:
        resource: See `resource`.
        spans: Of any scopes.
    """
    scopes: dict[bytes, list[bytes]] = {}
    for scope, span in spans:
        scopes.setdefault(scope, [scope]).append(chunk(_SPAN, span))
    parts = [chunk(_SCOPE_SPANS, b"".join(pieces)) for pieces in scopes.values()]
    return chunk(_RESOURCE_SPANS, chunk(_RESOURCE, resource) + b"".join(parts))


def rejected(answer: bytes) -> tuple[int, str]:
    """How many spans a collector has not taken, and why: from an `ExportTraceServiceResponse`.

    Raises:
        WireError: It is no such message.
    """
    count, why = 0, b""
    for number, message in fields(answer):
        if number != _PARTIAL_SUCCESS or not isinstance(message, bytes):
            continue
        for part, value in fields(message):
            if part == _REJECTED and isinstance(value, int):
                count = value if value <= _MOST_INT else 0
            elif part == _REJECTED_WHY and isinstance(value, bytes):
                why = value
    return count, why.decode("utf-8", "replace")


def _attributes(key: bytes, pairs: Attributes) -> tuple[bytes, int]:
    """Fields of `KeyValue`, and how many had to be left out."""
    parts = []
    lost = 0
    for name, value in pairs.items():
        try:
            parts.append(chunk(key, _pair(name, value, _DEEPEST)))
        except WireError:
            lost += 1
    return b"".join(parts), lost


def _pair(name: str, value: object, depth: int) -> bytes:
    return text(_KEY, str(name)) + chunk(_VALUE, _any(value, depth))


def _any(value: object, depth: int) -> bytes:
    """A value as the message `AnyValue`."""
    if isinstance(value, str):
        return chunk(_STRING, encoded(value))
    if isinstance(value, bool):
        return _BOOL + varint(value)
    if isinstance(value, int):
        if not -_MOST_INT - 1 <= value <= _MOST_INT:
            raise WireError("an integer of more than 64 bits")
        return _INT + varint(value)
    if isinstance(value, float):
        return double(_DOUBLE, value)
    if value is None:
        return b""
    return _compound(value, depth - 1)


def _compound(value: object, depth: int) -> bytes:
    if isinstance(value, bytes | bytearray):
        return chunk(_BYTES, bytes(value))
    if depth and isinstance(value, Mapping):
        pairs = (chunk(_ELEMENT, _pair(name, each, depth)) for name, each in value.items())
        return chunk(_MAP, b"".join(pairs))
    if depth and isinstance(value, Sequence):
        elements = (chunk(_ELEMENT, _any(each, depth)) for each in value)
        return chunk(_ARRAY, b"".join(elements))
    raise WireError("a value that is of no type of OTLP, or too deep")
