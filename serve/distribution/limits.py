"""How long, how often and how much: nothing that a registry does goes on for ever."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of an exchange with a registry.

    Attributes:
        connect_s: The longest wait for a connection, and for a server that takes no more bytes.
        read_s: The longest wait for the next bytes of an answer.
        attempts: How often a request is tried that fails for a while.
        patience_s: How long it is tried in all; also the longest wait that a registry may ask for.
        first_patience_s: The same while nothing has answered yet.
        slow_bytes: Fewer than so many bytes in `slow_s` are no transfer.
        slow_s: See `slow_bytes`.
        redirects: How often an answer may name another address.
        document_bytes: The largest manifest, index or token.
        manifests: The most manifests that one transfer follows.
        depth: How far indexes may name indexes.
        threads: Transfers side by side.
        chunk_bytes: What is sent between two words of the registry on what has arrived.
    """

    connect_s: float = 15.0
    read_s: float = 60.0
    attempts: int = 8
    patience_s: float = 60.0
    first_patience_s: float = 2.0
    slow_bytes: int = 16 << 10
    slow_s: float = 60.0
    redirects: int = 5
    document_bytes: int = 4 << 20
    manifests: int = 200
    depth: int = 3
    threads: int = 4
    chunk_bytes: int = 16 << 20


DEFAULT = Limits()
