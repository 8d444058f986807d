"""A blob on its way here: bounded, checked, taken up where it broke."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Protocol, TypeVar

from scoring import digest as digests
from scoring.errors import DigestMismatchError, RegistryError
from serve.distribution.documents import mismatch
from serve.distribution.faults import Passing

if TYPE_CHECKING:
    from serve.distribution.answers import Answer
    from serve.distribution.content import Descriptor

_Result = TypeVar("_Result")
_RANGE = re.compile(r"bytes (\d{1,18})-", re.ASCII | re.IGNORECASE)
_PARTIAL = 206


class Asking(Protocol):
    """What a download needs of a client."""

    @property
    def host(self) -> str:
        """The registry's name."""
        ...

    def ask(
        self,
        method: str,
        path: str,
        *,
        expected: tuple[int, ...],
        headers: dict[str, str],
        what: str,
        again: bool,
    ) -> Answer:
        """A request below the repository."""
        ...

    def persist(self, attempt: Callable[[], _Result]) -> _Result:
        """Tries something again that raises `Passing`."""
        ...


class Download:
    """One blob.

    Args:
        client: Where it comes from.
        descriptor: What it should be.
    """

    def __init__(self, client: Asking, descriptor: Descriptor) -> None:
        digests.parse(descriptor.digest)
        self._client = client
        self._descriptor = descriptor
        self._what = f"the blob {descriptor.digest}"
        self._sha256 = hashlib.sha256()
        self._received = 0

    def pieces(self) -> Generator[bytes, None, None]:
        """All of it, over as many answers as it takes; ends without an error only if it is right.

        Raises:
            DigestMismatchError: Its bytes, or their number, are others.
            NotFoundError, RegistryError, UnreachableError: See `RegistryClient.blob`.
        """
        while self._received < self._descriptor.size:
            answer, first, rest = self._client.persist(self._open)
            with answer:
                try:
                    yield self._take(first)
                    for piece in rest:
                        yield self._take(piece)
                except Passing:
                    continue  # with a new request, and all the patience for it
            if self._received < self._descriptor.size:
                raise self._wrong(f"{self._received} bytes")
        found = digests.from_hex(self._sha256.hexdigest())
        if found != self._descriptor.digest:
            raise mismatch(self._client.host, self._what, self._descriptor.digest, found)

    def _open(self) -> tuple[Answer, bytes, Iterator[bytes]]:
        """The answer from here on, once the first of it has come."""
        headers = {"Range": f"bytes={self._received}-"} if self._received else {}
        answer = self._client.ask(
            "GET",
            f"blobs/{self._descriptor.digest}",
            expected=(200, _PARTIAL),
            headers=headers,
            what=self._what,
            again=False,
        )
        try:
            skip = self._skip(answer)
            rest = _without(answer.pieces(), skip)
            return answer, next(rest, b""), rest
        except BaseException:
            answer.close()
            raise

    def _skip(self, answer: Answer) -> int:
        """How many bytes of the answer are here already."""
        start = 0
        if answer.status == _PARTIAL:
            match = _RANGE.match(answer.headers.get("Content-Range", ""))
            start = int(match.group(1)) if match else -1
            if start != self._received:
                raise RegistryError(
                    f"{self._client.host} sends another part of {self._what} than was asked for.",
                    hint="Run the command again; if it stays so, a proxy or cache is broken.",
                )
        if answer.length is not None and start + answer.length > self._descriptor.size:
            raise self._wrong(f"{start + answer.length} bytes")
        return self._received - start

    def _take(self, piece: bytes) -> bytes:
        self._received += len(piece)
        if self._received > self._descriptor.size:
            raise self._wrong("more")
        self._sha256.update(piece)
        return piece

    def _wrong(self, found: str) -> DigestMismatchError:
        return DigestMismatchError(
            f"{self._client.host} sends {found} for {self._what}, which has "
            f"{self._descriptor.size}.",
            hint="The registry's storage or a proxy is damaged; nothing was kept.",
        )


def _without(pieces: Iterator[bytes], skip: int) -> Iterator[bytes]:
    """The stream without its first bytes."""
    for piece in pieces:
        if skip >= len(piece):
            skip -= len(piece)
            continue
        yield piece[skip:]
        skip = 0
