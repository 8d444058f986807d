"""Traces of requests: spans are made when one is answered, from the times that it kept.

They are OpenTelemetry's, without its packages. The ids of a request's span are drawn when it
begins, if anyone wants to see them before its end: a script's code then finds the context where
OpenTelemetry's API looks for it (see `scripts`).
"""

from __future__ import annotations

import os
import random
import re
import time
import uuid
from math import inf, log, log1p
from time import perf_counter
from typing import TYPE_CHECKING, Any

from scoring import __version__
from serve.server.telemetry import context, otlp
from serve.server.telemetry.accesslog import blanked
from serve.server.telemetry.context import Headers, Trace
from serve.server.telemetry.export import Exporter, Outbox
from serve.server.telemetry.otlpsettings import Target, resource_attributes
from serve.server.telemetry.statuses import GRPC, code_of, is_failure

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serve.server.telemetry.channel import Channel, Details

_SCOPE = otlp.scope("fieldpost", __version__)
_CHILD = otlp.flags(sampled=True, remote=False)
_REQUEST = otlp.flags(sampled=True, remote=True)
_MOST_AGENT = 256
# A list of W3C's Trace Context: what is none must not be handed on.
_MEMBER = (
    r"[ \t]*(?:[a-z0-9][a-z0-9_*/@-]{0,255}="
    r"[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])?[ \t]*"
)
_STATE = re.compile(rf"{_MEMBER}(?:,{_MEMBER}){{0,31}}\Z")


class Tracer:
    """Makes the spans of requests. `tell` and `begin` run on the event loop's thread.

    Args:
        outbox: Where spans go.
        ratio: The part of requests without a context that begin a trace.
        scheme: Of the server's own URLs.
        resource: Who makes the spans.

    Attributes:
        outbox: See above.
        resource: See above.
    """

    def __init__(
        self,
        outbox: Outbox,
        ratio: float,
        scheme: str = "http",
        resource: Mapping[str, str] | None = None,
    ) -> None:
        self.outbox = outbox
        self.resource = resource or {}
        self._scheme = scheme
        self._ratio = ratio
        self._random = random.Random(random.SystemRandom().getrandbits(64))  # noqa: S311 - samples
        # How many requests go by before the next one that is traced.
        self._skip = self._gap()

    @classmethod
    def open(
        cls,
        endpoint: str,
        ratio: float,
        service: str,
        scheme: str,
        environment: Mapping[str, str] | None = None,
    ) -> Tracer:
        """A tracer that sends to a collector.

        Args:
            endpoint: Of OTLP over HTTP; without a path, `/v1/traces` is added.
            ratio: See above.
            service: The name of the service, where `OTEL_SERVICE_NAME` does not say it.
            scheme: See above.
            environment: With OpenTelemetry's variables; the process's own if None.

        Raises:
            UsageError: The endpoint is no URL, or a certificate's file cannot be used.
        """
        environment = os.environ if environment is None else environment
        target = Target.make(endpoint, environment)
        # Several processes are one service.
        instance = {"service.instance.id": str(uuid.uuid4())}
        resource = {**instance, **resource_attributes(environment, service)}
        outbox = Outbox(Exporter(target, otlp.resource(resource)), target.shown)
        return cls(outbox, ratio, scheme, resource)

    @property
    def exported(self) -> int:
        """Spans that the collector has taken."""
        return self.outbox.exported

    @property
    def dropped(self) -> int:
        """Spans that are lost."""
        return self.outbox.dropped

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
        parent = trace.parent
        state = _valid_state(parent.state) if parent else ""
        self._put(
            otlp.Span(
                _name(channel, details),
                trace.trace_id,
                trace.span_id,
                clock + _nanoseconds(begun),
                clock + _nanoseconds(ended),
                parent_id=parent.span_id if parent else 0,
                flags=_REQUEST if parent else _CHILD,
                state=state,
                kind=otlp.SERVER,
                status=otlp.ERROR if is_failure(channel.protocol, status) else otlp.UNSET,
                attributes={
                    **_attributes(channel, status, details, self._scheme),
                    **_sizes(channel, size_in, size_out),
                },
            )
        )
        for name, begin, end in details.phases() if details.phases else ():
            self._put(
                otlp.Span(
                    name,
                    trace.trace_id,
                    context.new_span_id(),
                    clock + _nanoseconds(begin),
                    clock + _nanoseconds(end),
                    parent_id=trace.span_id,
                    flags=_CHILD,
                    state=state,
                )
            )

    def close(self) -> None:
        """Sends what is left."""
        self.outbox.close()

    def _late(self, headers: Headers) -> Trace | None:
        """The place of a request for which nobody asked when it began; None if it is not traced."""
        for name, _ in headers:
            if name == b"traceparent":
                return self.begin(headers)
        return Trace.begin(None, sampled=True) if self._chosen() else None

    def _put(self, span: otlp.Span) -> None:
        self.outbox.put((_SCOPE, span.encode()))

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


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)


def _valid_state(text: str) -> str:
    return text if _STATE.match(text) else ""


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
