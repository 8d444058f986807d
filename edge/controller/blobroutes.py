"""Blobs for devices: those of the fleet's packages and no others, whole or in part, or as deltas.

GET|HEAD PREFIX/blobs/DIGEST
GET|HEAD PREFIX/deltas/DIGEST/DIGEST    from one layer to another, as zstd patches
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final, Protocol

import msgspec

from edge.controller.records import Fleet
from edge.controller.webserver import Answer, FilePart, Request
from edge.security import letters
from edge.security.endpoint import Reply
from edge.workspace import Blobs
from scoring import digest as digests
from scoring.errors import FieldpostError

logger = logging.getLogger(__name__)

PREFIX: Final = "/v2/fleet"
"""What a `Source` of kind `controller` has after the server's address."""

LOOK_S: Final = 1.0
REVOKED_S: Final = 10.0
"""For so long is believed that a certificate was not revoked."""

_BLOB = re.compile(rf"{PREFIX}/blobs/(sha256:[0-9a-f]{{64}})", re.ASCII)
_DELTA = re.compile(rf"{PREFIX}/deltas/(sha256:[0-9a-f]{{64}})/(sha256:[0-9a-f]{{64}})", re.ASCII)
_RANGE = re.compile(r"bytes=(?P<first>\d{0,18})-(?P<last>\d{0,18})", re.ASCII)
_MOST_DOCUMENT: Final = 4 * 1024 * 1024


class Deltas(Protocol):
    """Makes and keeps deltas."""

    def path(self, old: str, new: str) -> Path | None:
        """The file of a delta; None where there is none (yet), or it is of no use."""
        ...


class _Descriptor(msgspec.Struct, frozen=True):
    digest: str


class _Document(msgspec.Struct, frozen=True):
    config: _Descriptor | None = None
    layers: tuple[_Descriptor, ...] = ()
    manifests: tuple[_Descriptor, ...] = ()


class Catalogue:
    """The blobs of all packages that deployments of the fleet name; read anew when they change.

    Args:
        fleet: Whose deployments.
        blobs: Of the workspace.
        ticks: A clock that goes forward only, in seconds.
    """

    def __init__(
        self, fleet: Fleet, blobs: Blobs, *, ticks: Callable[[], float] = time.monotonic
    ) -> None:
        self._fleet = fleet
        self._blobs = blobs
        self._ticks = ticks
        self._lock = threading.Lock()
        self._looked_at = -LOOK_S
        self._changes = -1
        self._known: frozenset[str] = frozenset()
        self._read: dict[str, frozenset[str]] = {}

    def has(self, digest: str) -> bool:
        """Whether a blob belongs to the fleet, and is there."""
        return digest in self._all() and self._blobs.has(digest)

    def path(self, digest: str) -> Path:
        """Its file; raises NotFoundError."""
        return self._blobs.path(digest)

    def _all(self) -> frozenset[str]:
        with self._lock:
            if self._ticks() - self._looked_at >= LOOK_S:
                self._looked_at = self._ticks()
                changes = self._fleet.changes()
                if changes != self._changes:
                    packages = self._fleet.packages()
                    self._known = frozenset().union(*(self._parts(one) for one in packages))
                    self._changes = changes
            return self._known

    def _parts(self, package: str) -> frozenset[str]:
        """A package's manifest, and all that it names; what cannot be read is left out."""
        found = self._read.get(package)
        if found is None:
            try:
                found = self._read[package] = self._parse(package)
            except (FieldpostError, msgspec.DecodeError, OSError) as error:
                logger.warning("package not served digest=%s reason=%s", package, error)
                return frozenset()
        return found

    def _parse(self, digest: str) -> frozenset[str]:
        if self._blobs.path(digest).stat().st_size > _MOST_DOCUMENT:
            return frozenset({digest})
        document = msgspec.json.decode(self._blobs.read_bytes(digest), type=_Document)
        named = {one.digest for one in document.layers} | {digest}
        if document.config is not None:
            named.add(document.config.digest)
        for one in document.manifests:
            named |= self._parse(one.digest)
        return frozenset(filter(digests.is_digest, named))


class BlobRoutes:
    """Answers what devices fetch.

    Args:
        catalogue: What there is.
        deltas: Between layers; None for none.
        is_revoked: Tells it of a certificate's serial number; None: nobody has to be a device, for
            servers that only this machine reaches.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        deltas: Deltas | None = None,
        is_revoked: Callable[[int], bool] | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._deltas = deltas
        self._is_revoked = is_revoked
        self._good: dict[int, float] = {}

    def __call__(self, request: Request) -> Answer | None:
        """The answer; None for other paths."""
        if not request.path.startswith(f"{PREFIX}/"):
            return None
        if not self._may_ask(request):
            return Answer(HTTPStatus.FORBIDDEN)
        if request.method not in {"GET", "HEAD"}:
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, headers=(("allow", "GET, HEAD"),))
        blob = _BLOB.fullmatch(request.path)
        if blob and self._catalogue.has(blob[1]):
            return whole_or_part(request, self._catalogue.path(blob[1]), blob[1])
        delta = _DELTA.fullmatch(request.path)
        path = self._delta(delta[1], delta[2]) if delta else None
        if path is not None:
            return whole_or_part(request, path, path.stem)
        return Answer(HTTPStatus.NOT_FOUND)

    def _delta(self, old: str, new: str) -> Path | None:
        known = self._catalogue.has(old) and self._catalogue.has(new)
        return self._deltas.path(old, new) if self._deltas is not None and known else None

    def _may_ask(self, request: Request) -> bool:
        if self._is_revoked is None:
            return True
        if request.peer is None or request.serial is None:
            return False
        now = time.monotonic()
        if now < self._good.get(request.serial, 0.0):
            return True
        if self._is_revoked(request.serial):
            return False
        if len(self._good) > _MOST_KNOWN:
            self._good.clear()
        self._good[request.serial] = now + REVOKED_S
        return True


_MOST_KNOWN: Final = 20_000


def whole_or_part(request: Request, path: Path, digest: str) -> Answer:
    """A file, or the part of it that `Range` asks for.

    Args:
        request: With its headers.
        path: The file.
        digest: Of its content: it never changes under that name.
    """
    size = path.stat().st_size
    tag = f'"{digest}"'
    always = (
        ("etag", tag),
        ("accept-ranges", "bytes"),
        ("content-type", "application/octet-stream"),
    )
    if request.headers.get("if-none-match") == tag:
        return Answer(HTTPStatus.NOT_MODIFIED, headers=always)
    asked = _RANGE.fullmatch(request.headers.get("range", "").strip())
    if asked is None or request.headers.get("if-range", tag) != tag or not any(asked.groups()):
        return Answer(HTTPStatus.OK, FilePart(path, 0, size), always)
    begin, end = _bounds(asked["first"], asked["last"], size)
    if begin >= end:
        none = ("content-range", f"bytes */{size}")
        return Answer(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE, headers=(*always, none))
    which = ("content-range", f"bytes {begin}-{end - 1}/{size}")
    part = FilePart(path, begin, end - begin)
    return Answer(HTTPStatus.PARTIAL_CONTENT, part, (*always, which))


def _bounds(first: str, last: str, size: int) -> tuple[int, int]:
    if not first:
        return max(0, size - int(last)), size
    return int(first), min(size, int(last) + 1) if last else size


class EndpointRoute:
    """Answers what is asked before and beside MQTT: enrolment, renewal, time, signed metadata.

    Args:
        handle: `Endpoint.handle` of `edge.security`.
        enrolled: Is told the name and the site of each device that was let in.
    """

    def __init__(
        self,
        handle: Callable[[str, str, bytes], Reply | None],
        enrolled: Callable[[str, str], object],
    ) -> None:
        self._handle = handle
        self._enrolled = enrolled

    def __call__(self, request: Request) -> Answer | None:
        """The answer; None for other paths."""
        reply = self._handle(request.method, request.path, request.body)
        if reply is None:
            return None
        if request.path == letters.ENROL and reply.status == HTTPStatus.OK:
            answer = msgspec.json.decode(reply.body, type=letters.EnrolAnswer)
            self._enrolled(answer.device, answer.site)
        return Answer(reply.status, reply.body, (("content-type", reply.type),))
