"""The checks on a request's head beyond its grammar, whatever server reads it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from scoring.errors import PayloadTooLargeError
from scoring.httperrors import (
    BadRequestError,
    ExpectationFailedError,
    HttpVersionError,
    MethodNotAllowedError,
    TransferCodingError,
)

Headers = Sequence[tuple[bytes, bytes]]


class Limits(Protocol):
    """The settings of a server."""

    @property
    def max_body_bytes(self) -> int:
        """The longest body."""
        ...


def check_head(headers: Headers, version: str, method: bytes, limits: Limits) -> bool:
    """Refuses what is ambiguous or unsupported; whether the client waits for `100 Continue`.

    The parser has refused already: two framings or lengths, broken chunks and transfer codings that
    do not end in `chunked`, folded lines, bare line feeds, control characters.

    Raises:
        HttpVersionError: Neither HTTP/1.0 nor 1.1.
        BadRequestError: No host, several, or a body framing that HTTP/1.0 does not have.
        TransferCodingError: A transfer coding other than `chunked`.
        PayloadTooLargeError: The announced body is over the limit.
        ExpectationFailedError: An unknown expectation.
        MethodNotAllowedError: `CONNECT`.
    """
    if version not in {"1.0", "1.1"}:
        raise HttpVersionError(f"HTTP/{version} is not spoken here.", hint="Use HTTP/1.1.")
    if method == b"CONNECT":
        raise MethodNotAllowedError("This is no proxy.", allow=("GET", "POST"))
    hosts = 0
    expects = False
    for name, value in headers:
        if name == b"host":
            hosts += 1
        elif name == b"content-length":
            # The parser has seen that these are digits.
            if int(value) > limits.max_body_bytes:
                raise too_large(limits.max_body_bytes)
        elif name == b"transfer-encoding":
            _check_transfer(value, version)
        elif name == b"expect":
            expects = _check_expectation(value)
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise BadRequestError("The request has to have one Host header.", where="host")
    return expects


def body_length(headers: Headers) -> int:
    """The `content-length` of a head that the parser has taken; 0 for none, or for chunks."""
    for name, value in headers:
        if name == b"content-length":
            return int(value)
    return 0


def _check_transfer(value: bytes, version: str) -> None:
    if version == "1.0":  # a proxy of that age would take the chunks for the body
        raise BadRequestError("HTTP/1.0 has no Transfer-Encoding.", where="transfer-encoding")
    if value.strip().lower() != b"chunked":
        raise TransferCodingError(
            "The only transfer coding that is supported is chunked.", where="transfer-encoding"
        )


def _check_expectation(value: bytes) -> bool:
    if value.strip().lower() != b"100-continue":
        raise ExpectationFailedError(
            "The only expectation that is supported is 100-continue.", where="expect"
        )
    return True


def too_large(max_bytes: int) -> PayloadTooLargeError:
    """The error for a body over the limit."""
    return PayloadTooLargeError(
        f"The body is over the limit of {max_bytes} bytes.",
        hint="Send fewer rows at once, or raise max_body_bytes.",
    )
