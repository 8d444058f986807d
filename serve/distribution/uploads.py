"""Blobs on their way to a registry: mounted, or sent in chunks and taken up where they broke.

A chunk that was acknowledged is not sent again, in this process or in the next. After a break the
registry is asked how much it has; where it has given the upload up (as `distribution` does with a
chunk that was cut off) the blob is begun anew. A registry that takes no chunks gets it in one
piece.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

import msgspec

from scoring.errors import FieldpostError, NotFoundError, RegistryError
from serve.distribution import faults
from serve.distribution.faults import Passing
from serve.distribution.sources import Source
from serve.distribution.transport import following

if TYPE_CHECKING:
    from serve.distribution.answers import Answer
    from serve.distribution.client import RegistryClient
    from serve.distribution.connections import Body
    from serve.distribution.content import Content, Descriptor
    from serve.distribution.memory import Memory
    from serve.distribution.progress import Progress
    from serve.distribution.reference import Reference

MAX_RESTARTS = 5

_RANGE = re.compile(r"(?:bytes[= ])?0-(\d{1,18})", re.ASCII)
_LOST = (400, 404, 416)
_NO_CHUNKS = (405, 501)
_MOUNTED = 201
_BEGUN = 202


class _At(msgspec.Struct, frozen=True):
    """Where an upload is: the address for what comes next, and how much is there."""

    location: str
    offset: int


class _LostError(Exception):
    """The registry has given an upload up."""

    def __init__(self, error: FieldpostError, *, chunks: bool = True) -> None:
        super().__init__(error.message)
        self.error = error
        self.chunks = chunks


class Upload:
    """One blob.

    Args:
        client: The repository; its scopes include `push`.
        descriptor: What is sent.
        content: Gives the bytes.
        memory: Of uploads that were begun.
        progress: Counts what is sent.
    """

    def __init__(
        self,
        client: RegistryClient,
        descriptor: Descriptor,
        content: Content,
        memory: Memory,
        progress: Progress,
    ) -> None:
        self._client = client
        self._descriptor = descriptor
        self._source = Source(content, descriptor)
        self._memory = memory
        self._progress = progress
        self._what = f"the blob {descriptor.digest}"
        self._key = (client.reference.name, descriptor.digest)
        self._chunk = client.limits.chunk_bytes

    def run(self, origins: Sequence[Reference] = ()) -> bool:
        """Brings the blob there; returns whether it was mounted rather than sent.

        Args:
            origins: Repositories of the same registry that may have it.

        Raises:
            DigestMismatchError: The content is not what its descriptor says.
            RegistryError: The registry refuses it.
            UnreachableError, RegistryBusyError: It fails again and again.
        """
        begun = self._memory.begun(*self._key)
        at = None
        if begun is None:
            at = self._mount_or_begin(origins)
            if at is None:
                return True
        with self._source:
            self._send(at, begun.location if begun else "")
        self._memory.end(*self._key)
        return False

    def _mount_or_begin(self, origins: Sequence[Reference]) -> _At | None:
        """None where it was mounted."""
        for origin in origins:
            answer = self._try_mount(origin)
            if answer is None:
                continue
            with answer:
                return None if answer.status == _MOUNTED else self._first(answer)
        return self._begin()

    def _try_mount(self, origin: Reference) -> Answer | None:
        """Mounted, or an upload that has begun instead; None where that is refused."""
        query = urlencode({"mount": self._descriptor.digest, "from": origin.repository}, safe=":/")
        reading = frozenset({f"repository:{origin.repository}:pull"})
        try:
            return self._ask("POST", self._uploads(f"?{query}"), (_MOUNTED, _BEGUN), more=reading)
        except (RegistryError, NotFoundError):
            return None  # no right to read there, or a registry without mounts: it is sent

    def _begin(self) -> _At:
        with self._ask("POST", self._uploads(), (_BEGUN,)) as answer:
            return self._first(answer)

    def _first(self, answer: Answer) -> _At:
        least = answer.headers.get("OCI-Chunk-Min-Length", "")
        if least.isascii() and least.isdigit():
            self._chunk = max(self._chunk, int(least))
        return _At(self._next(answer), 0)

    def _send(self, at: _At | None, remembered: str) -> None:
        """Sends what is missing; begins anew where the registry has given the upload up."""
        for restart in range(MAX_RESTARTS + 1):
            try:
                self._continue(at or self._client.persist(partial(self._status, remembered)))
            except _LostError as lost:
                self._memory.end(*self._key)
                if self._client.has_blob(self._descriptor):
                    return  # what seemed to break had come to its end
                if restart == MAX_RESTARTS:
                    raise lost.error from lost
                if restart or not lost.chunks:  # it was given up twice: perhaps for the chunks
                    self._chunk = self._descriptor.size
                at = self._begin()
            else:
                return

    def _continue(self, at: _At) -> None:
        """From a known offset to the end, over breaks, as long as more arrives between them."""
        breaks = 0
        while True:
            try:
                self._finish(self._chunks(at))
            except _BrokenError as broken:
                breaks += 1
                if breaks >= self._client.limits.attempts:
                    raise broken.passing.error from broken
                found = self._client.persist(partial(self._status, broken.at.location))
                breaks = 0 if found.offset > at.offset else breaks
                at = found
            else:
                return

    def _chunks(self, at: _At) -> _At:
        """Sends chunks while more than one is left, or some have gone before."""
        size = self._descriptor.size
        while at.offset < size and not (at.offset == 0 and size <= self._chunk):
            at = self._patch(at, min(at.offset + self._chunk, size))
            self._memory.begin(*self._key, at.location, at.offset)
        return at

    def _patch(self, at: _At, end: int) -> _At:
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(end - at.offset),
            "Content-Range": f"{at.offset}-{end - 1}",
        }
        with self._step(at, "PATCH", at.location, (202, 204, 201), end, headers) as answer:
            said = answer.headers.get("Range", "")
            offset = _offset(said) if said else end
            if not at.offset < offset <= end:
                raise _LostError(self._nonsense())
            return _At(self._next(answer, at.location), offset)

    def _finish(self, at: _At) -> None:
        """The digest, with the whole of a small blob or after the last chunk of a large one."""
        joint = "&" if "?" in at.location else "?"
        url = f"{at.location}{joint}digest={quote(self._descriptor.digest, safe='')}"
        headers = {
            "Content-Type": "application/octet-stream",
            "Content-Length": str(self._descriptor.size - at.offset),
        }
        with self._step(at, "PUT", url, (201, 204, 202), self._descriptor.size, headers) as answer:
            said = answer.headers.get("Docker-Content-Digest", "")
        if said and said != self._descriptor.digest:
            raise RegistryError(
                f"{self._client.host} stores {faults.printable(said)} where {self._what} was sent.",
                hint="Run the command again; if it stays so, its storage is damaged.",
            )

    def _step(
        self,
        at: _At,
        method: str,
        url: str,
        expected: tuple[int, ...],
        end: int,
        headers: dict[str, str],
    ) -> Answer:
        """One request with a part of the blob, which is not simply repeated when it breaks."""

        def body() -> Iterator[bytes]:
            for piece in self._source.pieces(at.offset, end):
                self._progress.add(len(piece))
                yield piece

        try:
            whole: Body = body if end > at.offset else b""
            return self._alive(method, url, expected, whole, headers)
        except Passing as passing:
            raise _BrokenError(at, passing) from passing

    def _status(self, location: str) -> _At:
        """How much the registry has."""
        with self._alive("GET", location, (204, 200, 202), None, {}) as answer:
            offset = _offset(answer.headers.get("Range", ""))
            if offset > self._descriptor.size:
                raise _LostError(self._nonsense())
            return _At(self._next(answer, location), offset)

    def _alive(
        self,
        method: str,
        url: str,
        expected: tuple[int, ...],
        body: Body | None,
        headers: dict[str, str],
    ) -> Answer:
        """A request to an upload; raises `_LostError` where there is none any more."""
        without = _NO_CHUNKS if method == "PATCH" else ()
        expecting = (*expected, *_LOST, *without)
        answer = self._ask(method, url, expecting, body=body, headers=headers, again=False)
        if answer.status in expected:
            return answer
        status, kind = answer.status, answer.content_type
        error = faults.refusal(self._client.host, self._what, status, answer.begin(), kind)
        raise _LostError(error, chunks=status not in without)

    def _ask(
        self,
        method: str,
        path: str,
        expected: tuple[int, ...],
        *,
        body: Body | None = None,
        headers: dict[str, str] | None = None,
        more: frozenset[str] = frozenset(),
        again: bool = True,
    ) -> Answer:
        return self._client.transport.send(
            method,
            path,
            scopes=self._client.scopes | more,
            headers=headers or {},
            body=body if body is not None or method == "GET" else b"",
            expected=expected,
            what=self._what,
            again=again,
        )

    def _uploads(self, query: str = "") -> str:
        return f"v2/{self._client.reference.repository}/blobs/uploads/{query}"

    def _next(self, answer: Answer, otherwise: str = "") -> str:
        location = answer.headers.get("Location", "") or otherwise
        return following(answer.url, location, self._client.host)

    def _nonsense(self) -> RegistryError:
        return RegistryError(
            f"{self._client.host} says that it has more of {self._what} than was sent.",
            hint="Run the command again; if it stays so, a proxy or the registry is broken.",
        )


class _BrokenError(Exception):
    """A request with a part of the blob broke: how much arrived is not known."""

    def __init__(self, at: _At, passing: Passing) -> None:
        super().__init__(str(passing))
        self.at = at
        self.passing = passing


def _offset(text: str) -> int:
    """How many bytes `0-N` are; registries say `0-0` for none."""
    match = _RANGE.fullmatch(text.strip())
    last = int(match.group(1)) if match else 0
    return last + 1 if last else 0
