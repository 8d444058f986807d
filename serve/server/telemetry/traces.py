"""Traces with OpenTelemetry: spans are made when a request is answered, from the times it kept.

Only with the setting `traces`; importing this module costs 10 MiB. The ids of a request's span are
drawn when it begins, if anyone wants to see them before its end: a script's code then finds the
context where OpenTelemetry's API looks for it, and its own spans go the same way.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from math import inf, log, log1p
from time import perf_counter
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from scoring import __version__
from scoring.errors import MissingDependencyError, UsageError
from serve.server.telemetry import context
from serve.server.telemetry.accesslog import blanked
from serve.server.telemetry.context import Headers, Parent, Trace
from serve.server.telemetry.export import Outbox
from serve.server.telemetry.statuses import GRPC, code_of, is_failure

try:
    from opentelemetry import trace as api
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
    from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope
    from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode
    from opentelemetry.trace.span import TraceFlags, TraceState
except ImportError as failure:
    raise MissingDependencyError(
        f"Traces need a package that is not installed: {failure.name}.",
        hint="Install fieldpost[telemetry], or leave traces off.",
        where="traces",
    ) from failure

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from serve.server.telemetry.channel import Channel, Details

_SCOPE = InstrumentationScope("fieldpost", __version__)
_SIGNAL_PATH = "/v1/traces"
_TIMEOUT_S = 5.0
_MOST_AGENT = 256

T = TypeVar("T")


class Tracer:
    """Makes the spans of requests. `tell` and `begin` run on the event loop's thread.

    Args:
        outbox: Where spans go.
        ratio: The part of requests without a context that begin a trace.
        service: The name of the service, where `OTEL_SERVICE_NAME` does not say it.
        scheme: Of the server's own URLs.
    """

    def __init__(self, outbox: Outbox, ratio: float, service: str, scheme: str = "http") -> None:
        self._scheme = scheme
        self._outbox = outbox
        self._ratio = ratio
        self._random = random.Random(random.SystemRandom().getrandbits(64))  # noqa: S311 - samples
        # How many requests go by before the next one that is traced.
        self._skip = self._gap()
        resource = Resource.create()
        if str(resource.attributes.get("service.name", "")).startswith("unknown_service"):
            resource = resource.merge(Resource({"service.name": service}))
        self._resource = resource
        self.provider = TracerProvider(
            # What a script traces outside of a traced request is nobody's.
            sampler=ParentBased(ALWAYS_OFF),
            resource=resource,
            shutdown_on_exit=False,
        )
        self.provider.add_span_processor(_ToOutbox(outbox))

    @classmethod
    def open(cls, endpoint: str, ratio: float, service: str, scheme: str) -> Tracer:
        """A tracer that sends to a collector, and is the one that a script's code finds.

        Args:
            endpoint: Of OTLP over HTTP; without a path, `/v1/traces` is added.
            ratio: See above.
            service: See above.
            scheme: See above.

        Raises:
            UsageError: The endpoint is no URL.
        """
        url = _endpoint(endpoint)
        # Without the password that it may hold.
        shown = urlsplit(url)._replace(netloc=urlsplit(url).netloc.rpartition("@")[2]).geturl()
        outbox = Outbox(OTLPSpanExporter(endpoint=url, timeout=_TIMEOUT_S), shown)
        tracer = cls(outbox, ratio, service, scheme)
        api.set_tracer_provider(tracer.provider)
        return tracer

    @property
    def exported(self) -> int:
        """Spans that the collector has taken."""
        return self._outbox.exported

    @property
    def dropped(self) -> int:
        """Spans that are lost."""
        return self._outbox.dropped

    def begin(self, headers: Headers) -> Trace:
        """The place of a request in its caller's trace, or in one of its own."""
        parent = context.parse(headers)
        sampled = parent.sampled if parent else self._chosen()
        return Trace.begin(parent, sampled=sampled)

    def tell(
        self,
        channel: Channel,
        status: int,
        begun: float,
        ended: float,
        size_in: int,
        size_out: int,
        details: Details,
    ) -> None:
        """Makes the spans of a request that has been answered, if it is traced.

        One whose trace nobody has asked for yet goes on in its caller's, or may begin one.
        """
        trace = details.trace or self._late(details.headers)
        if trace is None or not trace.sampled:
            return
        clock = time.time_ns() - _nanoseconds(perf_counter())
        own = _span_context(trace)
        attributes = {
            **_attributes(channel, status, details, self._scheme),
            **_sizes(channel, size_in, size_out),
        }
        self._put(
            _name(channel, details),
            own,
            parent=_parent_context(trace.parent),
            kind=SpanKind.SERVER,
            attributes=attributes,
            status=Status(StatusCode.ERROR) if is_failure(channel.protocol, status) else Status(),
            times=(clock + _nanoseconds(begun), clock + _nanoseconds(ended)),
        )
        for name, begin, end in details.phases() if details.phases else ():
            child = Trace.begin(Parent(trace.trace_id, trace.span_id, sampled=True), sampled=True)
            times = clock + _nanoseconds(begin), clock + _nanoseconds(end)
            self._put(name, _span_context(child), parent=own, times=times)

    def close(self) -> None:
        """Sends what is left."""
        self._outbox.close()

    def _late(self, headers: Headers) -> Trace | None:
        """The place of a request for which nobody asked when it began; None if it is not traced."""
        for name, _ in headers:
            if name == b"traceparent":
                return self.begin(headers)
        return Trace.begin(None, sampled=True) if self._chosen() else None

    def _put(
        self,
        name: str,
        own: SpanContext,
        *,
        parent: SpanContext | None,
        times: tuple[int, int],
        kind: SpanKind = SpanKind.INTERNAL,
        attributes: dict[str, Any] | None = None,
        status: Status | None = None,
    ) -> None:
        self._outbox.put(
            ReadableSpan(
                name,
                context=own,
                parent=parent,
                resource=self._resource,
                attributes=attributes or {},
                kind=kind,
                status=status or Status(),
                start_time=times[0],
                end_time=times[1],
                instrumentation_scope=_SCOPE,
            )
        )

    def _chosen(self) -> bool:
        """Whether a request without a context begins a trace; a subtraction where it does not."""
        self._skip -= 1
        if self._skip >= 0:
            return False
        self._skip = self._gap()
        return True

    def _gap(self) -> float:
        """How many are passed over until the next one, as if a coin were tossed for each."""
        if self._ratio <= 0:
            return inf
        if self._ratio >= 1:
            return 0
        return int(log(1 - self._random.random()) / log1p(-self._ratio))


class _ToOutbox(SpanProcessor):
    """Takes the spans that a script's code makes."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox

    def on_end(self, span: ReadableSpan) -> None:
        self._outbox.put(span)


@contextmanager
def active(trace: Trace) -> Iterator[None]:
    """Lets code see the context of a request, as its own spans' parent; on any thread or task."""
    with api.use_span(api.NonRecordingSpan(_span_context(trace)), end_on_exit=False):
        yield


def within(trace: Trace, call: Callable[[], T]) -> T:
    """Calls something that sees the context of a request."""
    with active(trace):
        return call()


async def within_task(trace: Trace, start: Callable[..., Awaitable[T]], *arguments: Any) -> T:
    """Awaits something that sees the context of a request."""
    with active(trace):
        return await start(*arguments)


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _span_context(trace: Trace) -> SpanContext:
    state = _state(trace.parent.state) if trace.parent else None
    flags = TraceFlags(TraceFlags.SAMPLED if trace.sampled else TraceFlags.DEFAULT)
    return SpanContext(trace.trace_id, trace.span_id, False, flags, state)


def _parent_context(parent: Parent | None) -> SpanContext | None:
    if parent is None:
        return None
    flags = TraceFlags(TraceFlags.SAMPLED if parent.sampled else TraceFlags.DEFAULT)
    return SpanContext(parent.trace_id, parent.span_id, True, flags, _state(parent.state))


def _state(text: str) -> TraceState | None:
    return TraceState.from_header([text]) if text else None


def _name(channel: Channel, details: Details) -> str:
    """The name of a server's span: of low cardinality, as the conventions want it."""
    if channel.protocol == GRPC:
        return channel.route or GRPC
    method = details.method.decode("latin-1")
    return f"{method} {channel.route}" if channel.route else method


def _attributes(channel: Channel, status: int, details: Details, scheme: str) -> dict[str, Any]:
    target = blanked(details.target).decode("utf-8", "replace")
    path, _, query = target.partition("?")
    headers = dict(details.headers)
    known: dict[str, Any] = {
        "client.address": _address(details.client),
        "user_agent.original": headers.get(b"user-agent", b"").decode("utf-8", "replace")[
            :_MOST_AGENT
        ],
        "fieldpost.protocol": channel.protocol,
        "fieldpost.model": channel.model,
        "fieldpost.model.version": channel.version,
        "enduser.id": details.principal,
        "error.type": details.error or _error_type(channel.protocol, status),
    }
    if channel.protocol == GRPC:
        service, _, method = channel.route.rpartition("/")
        known |= {"rpc.system": GRPC, "rpc.service": service, "rpc.method": method}
        known["rpc.grpc.status_code"] = status
    else:
        known |= {"http.request.method": details.method.decode("latin-1"), "url.path": path}
        known |= {"url.query": query, "url.scheme": scheme, "http.route": channel.route}
        known["http.response.status_code"] = status
    return {name: value for name, value in known.items() if value != ""}


def _sizes(channel: Channel, size_in: int, size_out: int) -> dict[str, int]:
    if channel.protocol == GRPC:
        return {"rpc.message.received_size": size_in, "rpc.message.sent_size": size_out}
    return {"http.request.body.size": size_in, "http.response.body.size": size_out}


def _address(client: bytes) -> str:
    """The host of a client, which is quoted and may have a port."""
    text = client.decode("utf-8", "replace").strip('"')
    host, _, port = text.rpartition(":")
    return (host if port.isdecimal() and host else text).strip("[]")


def _error_type(protocol: str, status: int) -> str:
    return code_of(protocol, status) if is_failure(protocol, status) else ""


def _endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(
            f"The endpoint of traces {url!r} is no URL.",
            hint="Give one of OTLP over HTTP, such as http://collector:4318.",
            where="traces",
        )
    return parts._replace(path=_SIGNAL_PATH).geturl() if parts.path in {"", "/"} else url
