"""Header blocks: hpack decodes them, RFC 9113 says which of them are requests. Pure.

A gRPC client sends the same few bytes for each call once its fields stand in the compression's
table. What a block has meant is kept until the table changes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hpack import Decoder, Encoder, HPACKError, NeverIndexedHeaderTuple, OversizedHeaderListError

from serve.server.grpc.frames import (
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    PROTOCOL_ERROR,
    ConnectionFault,
    StreamFault,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

Field = tuple[bytes, bytes]

_KEPT_BLOCKS = 64
_KEPT_BYTES = 2048
_SIZE_UPDATE = range(0x20, 0x40)
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+\Z")
_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})
_NEEDED = _PSEUDO - {b":authority"}
_FORBIDDEN = frozenset(
    {b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade"}
)
_BAD_VALUE = re.compile(rb"[\x00\r\n]|^[ \t]|[ \t]\Z")
_GRPC = b"application/grpc"
_GRPC_NEXT = (b"", b"+", b";")
_TIMEOUT = re.compile(rb"([0-9]{1,8})([HMSmun])\Z")
_UNITS_S = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}
_COMPRESSIONS = frozenset({"gzip", "deflate"})
_DIGITS = re.compile(rb"[0-9]{1,18}\Z")


class Head:
    """The head of one request; several requests may share it.

    Args:
        fields: As they came, in order.

    Raises:
        ValueError: They are not a request; the message says why.

    Attributes:
        method: Such as `POST`.
        path: The target, with its query.
        authority: The host, if it was given.
        fields: All but the pseudo fields, names in lower case.
        is_grpc: By its content type.
        length: Of the body, where the client says it; else -1.
        timeout_s: Of `grpc-timeout`; None for none.
        encoding: Of compressed gRPC messages.
        answers_in: How messages of the answer may be compressed: as the request's, where the client
            takes that; empty for not at all.
        credential: What the guard wants to see.
    """

    __slots__ = (
        "answers_in", "authority", "credential", "encoding", "fields", "is_grpc", "length",
        "method", "path", "timeout_s",
    )  # fmt: skip

    def __init__(self, fields: Iterable[Field]) -> None:
        pseudo, self.fields = _split(fields)
        if not pseudo.keys() >= _NEEDED:
            raise ValueError("a pseudo field is missing")
        self.method = pseudo[b":method"]
        self.path = pseudo[b":path"]
        self.authority = pseudo.get(b":authority", b"")
        if not self.path.startswith((b"/", b"*")):
            raise ValueError("the path is not absolute")
        kind = self.field(b"content-type").lower()
        # What follows is a format (+proto) or parameters; application/grpc-web is another protocol.
        self.is_grpc = kind.startswith(_GRPC) and kind[len(_GRPC) :][:1] in _GRPC_NEXT
        self.length = self._length()
        self.timeout_s = self._timeout() if self.is_grpc else None
        self.encoding = self.field(b"grpc-encoding").decode("latin-1") or "identity"
        accepted = self.field(b"grpc-accept-encoding").decode("latin-1").split(",")
        takes = self.encoding in {name.strip() for name in accepted}
        self.answers_in = self.encoding if takes and self.encoding in _COMPRESSIONS else ""
        key = self.field(b"x-api-key")
        self.credential = self.field(b"authorization") or (b"key " + key if key else b"")

    def field(self, name: bytes) -> bytes:
        """The values of a field, joined; empty for none."""
        return b", ".join(value for key, value in self.fields if key == name)

    def _length(self) -> int:
        text = self.field(b"content-length")
        if text and not _DIGITS.match(text):
            raise ValueError("content-length is no number")
        return int(text) if text else -1

    def _timeout(self) -> float | None:
        text = self.field(b"grpc-timeout")
        if not text:
            return None
        match = _TIMEOUT.match(text)
        if match is None:
            raise ValueError("grpc-timeout is no time")
        return int(match[1]) * _UNITS_S[match[2]]


def _split(fields: Iterable[Field]) -> tuple[dict[bytes, bytes], list[Field]]:
    """Pseudo fields and the others, checked as RFC 9113 (8.2 and 8.3) wants."""
    pseudo: dict[bytes, bytes] = {}
    others: list[Field] = []
    for name, value in fields:
        if _BAD_VALUE.search(value):
            raise ValueError("a value with a character that is not allowed")
        if name[:1] != b":":
            _check_field(name, value)
            others.append((name, value))
        elif others or name in pseudo or name not in _PSEUDO:
            raise ValueError("a pseudo field that is unknown, late or double")
        else:
            pseudo[name] = value
    return pseudo, others


def is_field(name: bytes, value: bytes) -> bool:
    """Whether HTTP allows such a field in an answer."""
    return bool(_NAME.match(name)) and not _BAD_VALUE.search(value)


def _check_field(name: bytes, value: bytes) -> None:
    if not _NAME.match(name) or name in _FORBIDDEN or (name == b"te" and value != b"trailers"):
        raise ValueError("a field that HTTP/2 does not allow")


class Heads:
    """The header blocks of one connection, in their order.

    Args:
        max_bytes: Of one list of fields, uncompressed, each counted with 32 bytes more.
        max_fields: Of one list.
    """

    def __init__(self, max_bytes: int, max_fields: int) -> None:
        self._max_fields = max_fields
        self._decoder = Decoder(max_header_list_size=max_bytes)
        self._table = self._decoder.header_table
        self._kept: dict[bytes, Head] = {}

    def read(self, block: bytes, stream_id: int) -> Head:
        """The head of a request.

        Raises:
            ConnectionFault: The compression is broken, or hides too much.
            StreamFault: The fields are no request.
        """
        head = self._kept.get(block)
        return head if head is not None else self._read_anew(block, stream_id)

    def skip(self, block: bytes, stream_id: int) -> None:
        """Reads trailers, which say nothing to us, for what they do to the table.

        Raises:
            ConnectionFault: As `read`.
            StreamFault: They hold what trailers may not.
        """
        fields, changed = self._decode(block)
        if changed:
            self._kept.clear()
        if any(name[:1] == b":" for name, _ in fields):
            raise StreamFault(stream_id, PROTOCOL_ERROR)

    def _read_anew(self, block: bytes, stream_id: int) -> Head:
        fields, changed = self._decode(block)
        if changed or len(self._kept) >= _KEPT_BLOCKS:
            self._kept.clear()
        if len(fields) > self._max_fields:
            raise StreamFault(stream_id, ENHANCE_YOUR_CALM)
        try:
            head = Head(fields)
        except ValueError:
            raise StreamFault(stream_id, PROTOCOL_ERROR) from None
        if not changed and len(block) <= _KEPT_BYTES and block[0] not in _SIZE_UPDATE:
            self._kept[block] = head
        return head

    def _decode(self, block: bytes) -> tuple[list[Field], bool]:
        """The fields, and whether the table is another one now."""
        entries = self._table.dynamic_entries
        # Held on to, so that no new entry can take its place in memory.
        first = entries[0] if entries else None
        count, size = len(entries), self._table.maxsize
        try:
            fields: list[Field] = list(self._decoder.decode(block, raw=True))
        except OversizedHeaderListError as error:
            raise ConnectionFault(ENHANCE_YOUR_CALM, str(error)) from None
        except (HPACKError, IndexError, ValueError) as error:
            raise ConnectionFault(COMPRESSION_ERROR, str(error)) from None
        same = (entries[0] if entries else None) is first
        changed = not same or len(entries) != count or self._table.maxsize != size
        return fields, changed


def encode(fields: Iterable[Field]) -> bytes:
    """A header block that uses no table, and so is the same at any time on any connection."""
    sensitive = [NeverIndexedHeaderTuple(name, value) for name, value in fields]
    return Encoder().encode(sensitive, huffman=False)
