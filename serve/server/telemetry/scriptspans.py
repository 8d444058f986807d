"""The spans that a script's own code makes, on their way to the server's collector.

OpenTelemetry's SDK makes them; they are written as the server's own are, whole: with events, links,
attributes of any kind, and the counts of what the SDK's limits took away. Imported for scripts
alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import trace as api
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased

from serve.server.telemetry import otlp

if TYPE_CHECKING:
    from opentelemetry.trace import SpanContext

    from serve.server.telemetry.export import Outbox
    from serve.server.telemetry.traces import Tracer

logger = logging.getLogger(__name__)


def provide(tracer: Tracer) -> None:
    """Makes the provider that a script's code finds, unless the script has made its own."""
    if not isinstance(api.get_tracer_provider(), api.ProxyTracerProvider):
        logger.info("The script has a provider of traces of its own; its spans go there")
        return
    api.set_tracer_provider(provider(tracer))


def provider(tracer: Tracer) -> TracerProvider:
    """A provider whose spans go where the server's go."""
    made = TracerProvider(
        # What a script traces outside of a traced request is nobody's.
        sampler=ParentBased(ALWAYS_OFF),
        resource=Resource(dict(tracer.resource)),
        shutdown_on_exit=False,
    )
    made.add_span_processor(_ToOutbox(tracer.outbox))
    return made


class _ToOutbox(SpanProcessor):
    """Takes the spans that have ended."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def on_end(self, span: ReadableSpan) -> None:
        try:
            packed = pack(span)
        except Exception:  # the script's code is in the middle of something
            logger.exception("A span of the script cannot be written")
            self._outbox.refuse()
        else:
            self._outbox.put(packed)


def pack(span: ReadableSpan) -> otlp.Packed:
    """A span of the SDK as OTLP has it."""
    own, parent = span.get_span_context(), span.parent
    if own is None:
        raise ValueError("a span without a context")
    whole = otlp.Span(
        span.name,
        own.trace_id,
        own.span_id,
        span.start_time or 0,
        span.end_time or 0,
        parent_id=parent.span_id if parent else 0,
        flags=otlp.flags(sampled=own.trace_flags.sampled, remote=bool(parent and parent.is_remote)),
        state=_state(own),
        kind=span.kind.value + 1,
        status=span.status.status_code.value,
        message=span.status.description or "",
        attributes=_known(span.attributes),
        events=[
            otlp.Event(each.name, each.timestamp, _known(each.attributes), _lost(each))
            for each in span.events
        ],
        links=[_link(each) for each in span.links],
        dropped=(span.dropped_attributes, span.dropped_events, span.dropped_links),
    )
    return _scope(span), whole.encode()


def _scope(span: ReadableSpan) -> bytes:
    known = span.instrumentation_scope
    if known is None:
        return otlp.scope("")
    attributes = getattr(known, "attributes", None)  # not in every version of the SDK
    return otlp.scope(known.name, known.version or "", attributes, known.schema_url or "")


def _link(link: api.Link) -> otlp.Link:
    known = link.context
    return otlp.Link(
        known.trace_id,
        known.span_id,
        otlp.flags(sampled=known.trace_flags.sampled, remote=known.is_remote),
        _state(known),
        _known(link.attributes),
        _lost(link),
    )


def _known(attributes: Mapping[str, Any] | None) -> Mapping[str, Any]:
    return attributes or {}


def _lost(part: object) -> int:
    """How many attributes of an event or a link the SDK's limits took away."""
    return getattr(part, "dropped_attributes", 0)


def _state(context: SpanContext) -> str:
    return context.trace_state.to_header() if context.trace_state else ""
