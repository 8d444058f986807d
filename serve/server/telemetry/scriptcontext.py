"""The context of a request, where OpenTelemetry's API looks for it. Imported for scripts alone."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from opentelemetry import trace as api
from opentelemetry.trace.span import SpanContext, TraceFlags, TraceState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve.server.telemetry.context import Trace


@contextmanager
def active(trace: Trace) -> Iterator[None]:
    """Lets code see the context of a request, as its own spans' parent; on any thread or task."""
    with api.use_span(api.NonRecordingSpan(_span_context(trace)), end_on_exit=False):
        yield


def _span_context(trace: Trace) -> SpanContext:
    text = trace.parent.state if trace.parent else ""
    state = TraceState.from_header([text]) if text else None
    flags = TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT)
    return SpanContext(trace.trace_id, trace.span_id, False, flags, state)
