"""What the parser leaves open: the checks on a request's head beyond its grammar. Pure."""

from __future__ import annotations

from scoring.httphead import Headers, body_length, check_head, too_large

__all__ = [
    "LONG_WAY",
    "ONE_CODING",
    "WATCHED",
    "Headers",
    "body_length",
    "check_head",
    "too_large",
    "without_upgrade",
]

WATCHED = frozenset(
    {
        *(b"host", b"content-type", b"content-length", b"transfer-encoding"),
        *(b"content-encoding", b"expect", b"upgrade", b"authorization", b"x-api-key"),
        *(b"inference-header-content-length", b"timeout-ms", b"prefer", b"traceparent"),
        b"accept-encoding",
    }
)
"""The headers that `check_head` and the protocol look at."""

ONE_CODING = frozenset({b"gzip", b"deflate"})

LONG_WAY = frozenset(
    {
        *(b"content-encoding", b"timeout-ms", b"prefer", b"traceparent"),
    }
)
"""Requests with one of these need more than the fast path knows."""


def without_upgrade(method: bytes, target: bytes, headers: Headers, *, old: bool) -> bytes:
    """A request's head without the offer to change the protocol.

    Its parts come from the parser, so they hold nothing that could break out of their lines.
    """
    lines = [b"%b %b HTTP/%b" % (method, target, b"1.0" if old else b"1.1")]
    for name, value in headers:
        if name == b"connection":
            tokens = [token.strip().lower() for token in value.split(b",")]
            kept = [token for token in tokens if token in {b"close", b"keep-alive"}]
            if kept:
                lines.append(b"connection: " + b", ".join(kept))
        elif name != b"upgrade":
            lines.append(b"%b: %b" % (name, value))
    return b"\r\n".join([*lines, b"", b""])
