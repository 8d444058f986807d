"""The context of a trace, as W3C's Trace Context carries it between processes. Pure."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterable
from dataclasses import dataclass

Headers = Iterable[tuple[bytes, bytes]]

_TRACEPARENT = re.compile(
    rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?\Z", re.DOTALL
)
_SAMPLED = 1
_LONGEST_STATE = 512
_INVALID_VERSION = b"ff"
# Not the module's own generator: a script may seed that one. Nobody has to be kept from guessing.
_random = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_random.seed)


@dataclass(frozen=True, slots=True)
class Parent:
    """Where a request's trace comes from.

    Attributes:
        trace_id: 128 bits.
        span_id: 64 bits: the caller's span.
        sampled: The caller records it.
        state: The value of `tracestate`, as it came; empty for none.
    """

    trace_id: int
    span_id: int
    sampled: bool
    state: str = ""


@dataclass(frozen=True, slots=True)
class Trace:
    """A request's own place in its trace.

    Attributes:
        trace_id: 128 bits.
        span_id: 64 bits: of the server's span.
        sampled: Spans are recorded.
        parent: None where the trace begins here.
    """

    trace_id: int
    span_id: int
    sampled: bool
    parent: Parent | None = None

    @property
    def traceparent(self) -> str:
        """For requests that are sent on behalf of this one."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{int(self.sampled):02x}"

    @classmethod
    def begin(cls, parent: Parent | None, *, sampled: bool) -> Trace:
        """A new span in the parent's trace, or in one of its own."""
        trace_id = parent.trace_id if parent else _identity(128)
        return cls(trace_id, _identity(64), sampled, parent)


def parse(headers: Headers) -> Parent | None:
    """The context that a request came with; None for none, or for a broken one."""
    parents: list[bytes] = []
    states: list[bytes] = []
    for name, value in headers:
        if name == b"traceparent":
            parents.append(value)
        elif name == b"tracestate":
            states.append(value)
    return _parent(parents[0], states) if len(parents) == 1 else None


def trace_id(traceparent: bytes) -> str:
    """The id in a `traceparent`, for a log; empty where it is broken."""
    parent = _parent(traceparent, [])
    return f"{parent.trace_id:032x}" if parent else ""


def _parent(traceparent: bytes, states: list[bytes]) -> Parent | None:
    match = _TRACEPARENT.match(traceparent.strip(b" \t"))
    if match is None:
        return None
    version, trace, span, flags, more = match.groups()
    if version == _INVALID_VERSION or (version == b"00" and more):
        return None
    identities = int(trace, 16), int(span, 16)
    if not all(identities):
        return None
    state = b",".join(states).decode("latin-1") if states else ""
    if len(state) > _LONGEST_STATE or not state.isascii():
        state = ""
    return Parent(*identities, bool(int(flags, 16) & _SAMPLED), state)


def new_span_id() -> int:
    """For a span of a trace that is known."""
    return _identity(64)


def _identity(bits: int) -> int:
    """A random number other than zero."""
    return _random.getrandbits(bits) or 1
