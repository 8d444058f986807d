"""Request bodies with a content encoding, decoded under a limit. Pure."""

from __future__ import annotations

import zlib

from scoring.errors import MalformedPayloadError, PayloadTooLargeError, UnsupportedMediaTypeError

_ENCODINGS = {"gzip": 31, "x-gzip": 31, "deflate": 15}
_MAX_LAYERS = 2
_MAX_MEMBERS = 16
_RAW_DEFLATE = -15


def decode(body: bytes | bytearray, encoding: str, max_bytes: int) -> bytes:
    """Undoes the codings of a `Content-Encoding` header, the last one first.

    Raises:
        UnsupportedMediaTypeError: A coding that the server does not know, or too many of them.
        PayloadTooLargeError: The decoded body is over `max_bytes`.
        MalformedPayloadError: The body is corrupt or cut off.
    """
    names = [name for part in encoding.split(",") if (name := part.strip().lower())]
    codings = [name for name in names if name != "identity"]
    if len(codings) > _MAX_LAYERS or any(name not in _ENCODINGS for name in codings):
        raise UnsupportedMediaTypeError(
            f"The content encoding {encoding!r} is not supported.",
            hint="Send the body as it is, or with gzip or deflate.",
            where="content-encoding",
        )
    for name in reversed(codings):
        body = _inflate(body, name, max_bytes)
    return bytes(body)


def _inflate(body: bytes | bytearray, name: str, max_bytes: int) -> bytes:
    bits = _ENCODINGS[name]
    # Some clients send raw deflate streams under the name of the zlib format.
    if name == "deflate" and not _has_zlib_header(body):
        bits = _RAW_DEFLATE
    parts: list[bytes] = []
    room = max_bytes
    rest: bytes | bytearray = body
    # Each member copies what is behind it: a body of millions of empty ones would take hours.
    for _ in range(_MAX_MEMBERS if bits == _ENCODINGS["gzip"] else 1):
        part, rest = _member(rest, bits, room, name)
        parts.append(part)
        room -= len(part)
        if not rest:
            return b"".join(parts)
    raise MalformedPayloadError(
        f"There is something behind the end of the {name} body.",
        hint="Compress the whole body once.",
    )


def _member(body: bytes | bytearray, bits: int, max_bytes: int, name: str) -> tuple[bytes, bytes]:
    """One gzip member or deflate stream, and the bytes behind it."""
    inflater = zlib.decompressobj(bits)
    try:
        # One byte more than allowed tells a body at the limit from one over it.
        data = inflater.decompress(body, max_bytes + 1)
    except zlib.error as error:
        raise MalformedPayloadError(
            f"The body is not valid {name} data ({error}).",
            hint="Compress the whole body once, or leave out the content-encoding header.",
        ) from None
    if len(data) > max_bytes:
        raise PayloadTooLargeError(
            "The decompressed body is over the limit of the server.",
            hint="Send fewer rows at once, or raise max_body_bytes.",
        )
    if not inflater.eof:
        raise MalformedPayloadError(
            f"The {name} body is cut off after {len(body)} bytes.",
            hint="Send the compressed body to its end.",
        )
    return data, inflater.unused_data


def _has_zlib_header(body: bytes | bytearray) -> bool:
    deflate_method = 8
    return len(body) > 1 and body[0] & 0x0F == deflate_method and (body[0] << 8 | body[1]) % 31 == 0
