"""The heads of requests and answers as a proxy sends them on (RFC 9110, section 7.6). Pure."""

from __future__ import annotations

from collections.abc import Iterable

from serve.server.errors import BadRequestError

Fields = list[tuple[bytes, bytes]]

DEPLOYMENT = b"x-fieldpost-deployment"
"""Of an answer: the deployment that gave it."""

SHADOW = b"x-fieldpost-shadow"
"""Of a copied request: the endpoint whose shadow gets it."""

TURNED_AWAY = b"x-fieldpost-turned-away"
"""Of an answer 503: nobody has seen the request, for the deployment is being stopped."""

_HOP_BY_HOP = frozenset(
    {
        *(b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate"),
        *(b"proxy-authorization", b"te", b"trailer", b"transfer-encoding", b"upgrade"),
    }
)
# A client that lists one of these in Connection would have the proxy drop what the deployment, or
# its own record of who asked, depends on.
_KEPT = frozenset(
    {
        *(b"host", b"content-length", b"content-type", b"content-encoding", b"authorization"),
        *(b"x-api-key", b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host"),
        *(b"traceparent", b"tracestate", b"date", b"server", b"retry-after"),
    }
)
# Set anew, or answered by the front itself.
_REQUEST_OURS = frozenset({b"expect", b"x-forwarded-for", b"x-forwarded-proto", SHADOW})
IDEMPOTENT = frozenset({b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"})
"""Methods that may be sent twice (RFC 9110, section 9.2.2)."""


def dropped(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    """The names of the fields that end at the proxy."""
    named = {
        token.strip().lower()
        for name, value in headers
        if name == b"connection"
        for token in value.split(b",")
    }
    return _HOP_BY_HOP | (named - _KEPT) if named else _HOP_BY_HOP


def request(
    method: bytes, target: bytes, headers: Fields, *, address: str, tls: bool, length: int | None
) -> bytes:
    """A request's head for a deployment.

    Args:
        method: As it came.
        target: In origin form.
        headers: Names in lower case.
        address: Of the client.
        tls: Whether it came over TLS.
        length: Of the body; None for one in chunks.
    """
    gone = dropped(headers) | _REQUEST_OURS | {b"content-length"}
    before = b"".join(v + b", " for name, v in headers if name == b"x-forwarded-for" and v)
    lines = [b"%b %b HTTP/1.1" % (method, target)]
    lines += [b"%b: %b" % field for field in headers if field[0] not in gone]
    lines.append(b"x-forwarded-for: %b%b" % (before, address.encode("ascii", "replace")))
    lines.append(b"x-forwarded-proto: " + (b"https" if tls else b"http"))
    if length is None:
        lines.append(b"transfer-encoding: chunked")
    elif length or method not in IDEMPOTENT or any(n == b"content-length" for n, _ in headers):
        lines.append(b"content-length: %d" % length)
    return b"\r\n".join([*lines, b"", b""])


def response(
    status: int,
    reason: bytes,
    headers: Fields,
    *,
    deployment: bytes,
    chunked: bool,
    connection: bytes,
) -> bytes:
    """An answer's head for the client.

    Args:
        status: Of the answer.
        reason: Its phrase.
        headers: Names in lower case; `content-length` stays where it was.
        deployment: Who answered.
        chunked: Whether the body is sent on in chunks.
        connection: The value of `connection`; empty for none.
    """
    gone = dropped(headers)
    if chunked:
        gone |= {b"content-length"}
    lines = [b"HTTP/1.1 %d %b" % (status, reason)]
    lines += [b"%b: %b" % field for field in headers if field[0] not in gone]
    lines.append(b"%b: %b" % (DEPLOYMENT, deployment))
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    if connection:
        lines.append(b"connection: " + connection)
    return b"\r\n".join([*lines, b"", b""])


def origin_form(target: bytes) -> tuple[bytes, bytes]:
    """The target as a server expects it, and the host that it names; empty for none.

    Raises:
        BadRequestError: It is neither a path, nor `*`, nor a URL of HTTP.
    """
    if target.startswith(b"/") or target == b"*":
        return target, b""
    scheme, separator, rest = target.partition(b"://")
    host, slash, path = rest.partition(b"/")
    if not separator or not host or scheme.lower() not in (b"http", b"https"):
        raise BadRequestError("The request target is neither a path nor a URL.")
    return slash + path or b"/", host


def with_host(headers: Fields, host: bytes) -> Fields:
    """The fields with this host: of a URL as target its own host counts (RFC 9112, 3.2.2)."""
    return [(name, host if name == b"host" else value) for name, value in headers]


def length_of(headers: Iterable[tuple[bytes, bytes]]) -> int | None:
    """The length that a head announces; None for a body in chunks."""
    length = 0
    for name, value in headers:
        if name == b"transfer-encoding":
            return None
        if name == b"content-length":
            length = int(value)
    return length
