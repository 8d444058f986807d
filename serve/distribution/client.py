"""One repository of a registry: manifests, blobs, tags."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Generator, Iterator
from typing import TYPE_CHECKING, Self, TypeVar
from urllib.parse import quote

import msgspec

from scoring import digest as digests
from scoring.errors import NotFoundError, RegistryError
from serve.distribution import faults
from serve.distribution.content import Descriptor
from serve.distribution.documents import (
    ACCEPT,
    Document,
    parse_document,
    require_digest,
)
from serve.distribution.downloads import Download
from serve.distribution.hosts import Hosts, Place
from serve.distribution.limits import DEFAULT, Limits
from serve.distribution.retries import persist
from serve.distribution.transport import Transport, following

if TYPE_CHECKING:
    from types import TracebackType

    from serve.distribution.answers import Answer
    from serve.distribution.credentials import Logins
    from serve.distribution.reference import Reference

PULL = "pull"
PUSH = "pull,push"
DELETE = "pull,push,delete"
_MAX_PAGES = 1000
_NEXT = re.compile(r"<([^<>]{1,2000})>\s*;[^,<]*\brel=\"?next\b")

_Result = TypeVar("_Result")
_Page = TypeVar("_Page")


class RegistryClient:
    """A repository of a registry; any number of threads may use it.

    Args:
        place: The repository: a reference, or a place with what is known of it.
        actions: What for: `PULL`, `PUSH` or `DELETE`; a token service is asked for no more.
        hosts: How registries are reached from this machine.
        logins: The user's logins.
        limits: Times, sizes and numbers.
    """

    def __init__(
        self,
        place: Place | Reference,
        *,
        actions: str = PULL,
        hosts: Hosts | None = None,
        logins: Logins | None = None,
        limits: Limits = DEFAULT,
    ) -> None:
        hosts = hosts or Hosts()
        if not isinstance(place, Place):
            place = hosts.place(place)
        self.reference = place.reference
        self.limits = limits
        self.transport = Transport(place, hosts=hosts, logins=logins, limits=limits)
        self.scopes = frozenset({f"repository:{self.reference.repository}:{actions}"})
        self.lists_referrers: bool | None = None
        """Whether the registry answers what is attached to what; None before it was asked."""
        self._root = f"v2/{self.reference.repository}"

    @property
    def host(self) -> str:
        """The registry's name."""
        return self.transport.host

    def find_manifest(self, target: str, kind: str = "") -> Descriptor | None:
        """What a tag or digest names now; None for nothing.

        Args:
            target: The tag or digest.
            kind: The only media type that is looked for; any by default.

        Raises:
            RegistryError: The registry's answer is no answer, or it refuses.
            UnreachableError: Nothing answers.
        """
        path = f"manifests/{quote(target, safe=':')}"
        answer = self.ask("HEAD", path, expected=(200, 404), accept=kind or ACCEPT)
        with answer:
            digest = answer.headers.get("Docker-Content-Digest", "")
            if answer.status == 404:  # noqa: PLR2004
                return None
            if digests.is_digest(digest) and answer.length is not None:
                return Descriptor(answer.content_type, digest, answer.length)
        with contextlib.suppress(NotFoundError):  # a registry that says less in its head
            return self.manifest(target).descriptor
        return None

    def manifest(self, target: str, wanted: str = "") -> Document:
        """Downloads a manifest or index by tag or digest, checked.

        Args:
            target: The tag or digest.
            wanted: The only media type that is asked for; any by default.

        Raises:
            NotFoundError: There is none.
            DigestMismatchError: It is not the one that was asked for, or that its head names.
            RegistryError: It is no manifest, or too large.
        """
        what = f"the manifest {self.reference.repository}:{target}"
        if digests.is_digest(target):
            what = f"the manifest {self.reference.repository}@{target}"

        def fetch() -> Document:
            answer = self.ask(
                "GET",
                f"manifests/{quote(target, safe=':')}",
                accept=wanted or ACCEPT,
                what=what,
                again=False,
            )
            kind = answer.content_type
            claimed = answer.headers.get("Docker-Content-Digest", "")
            data = answer.read(self.limits.document_bytes, what)
            for digest in (target, claimed):
                if digests.is_digest(digest):
                    require_digest(data, digest, self.host, what)
            if not data.lstrip().startswith(b"{"):
                raise faults.no_document(self.host, what, data, kind)
            return parse_document(data, kind, what)

        return self.persist(fetch)

    def put_manifest(self, data: bytes, media_type: str, target: str) -> str:
        """Uploads a manifest under a tag or its digest; returns its digest.

        Raises:
            RegistryError: The registry refuses it, or stores something else.
        """
        self._put(data, media_type, target)
        return digests.of_bytes(data)

    def put_referrer(self, data: bytes, media_type: str) -> bool:
        """Uploads a manifest that has a subject, under its digest.

        Returns:
            Whether the registry lists it among its subject's referrers by itself; where not, its
            tag does (`serve.distribution.referrers`).

        Raises:
            RegistryError: The registry refuses it, or stores something else.
        """
        return bool(self._put(data, media_type, digests.of_bytes(data)))

    def _put(self, data: bytes, media_type: str, target: str) -> str:
        """Returns the subject that the registry has understood; empty for none."""
        found, path = digests.of_bytes(data), f"manifests/{quote(target, safe=':')}"
        headers = {"Content-Type": media_type}
        with self.ask("PUT", path, headers=headers, body=data, expected=(201, 200)) as answer:
            said = answer.headers.get("Docker-Content-Digest", "")
            subject = answer.headers.get("OCI-Subject", "")
        if said and said != found:
            raise RegistryError(
                f"{self.host} stores {faults.printable(said)} where {found} was sent.",
                hint="The registry changes manifests, which no digest survives.",
            )
        return subject

    def delete_manifest(self, target: str) -> None:
        """Deletes a manifest by digest, or a tag where the registry lets tags be deleted.

        Raises:
            NotFoundError: There is none.
            RegistryError: Deleting is not allowed there.
        """
        self.ask("DELETE", f"manifests/{quote(target, safe=':')}", expected=(200, 202, 204)).close()

    def delete_blob(self, digest: str) -> None:
        """Deletes a blob from the repository; raises like `delete_manifest`."""
        self.ask("DELETE", f"blobs/{digest}", expected=(200, 202, 204)).close()

    def has_blob(self, descriptor: Descriptor) -> bool:
        """Whether the repository has a blob, with the size that it should have."""
        path = f"blobs/{descriptor.digest}"
        with self.ask("HEAD", path, expected=(200, 404)) as answer:
            fits = answer.length in {None, descriptor.size}
            return answer.status == 200 and fits  # noqa: PLR2004

    def blob(self, descriptor: Descriptor) -> Generator[bytes, None, None]:
        """Downloads a blob, checked: the last piece comes only where all of it is right.

        A download that breaks is taken up where it broke.

        Raises:
            NotFoundError: There is none.
            DigestMismatchError: Its bytes, or their number, are others.
            RegistryBusyError, UnreachableError: It breaks again and again.
        """
        return Download(self, descriptor).pieces()

    def read_blob(self, descriptor: Descriptor) -> bytes:
        """A small blob, checked; raises like `blob`.

        Raises:
            RegistryError: It is too large for a document.
        """
        if descriptor.size > self.limits.document_bytes:
            raise RegistryError(
                f"{descriptor.digest} has {descriptor.size} bytes, which is too much for a "
                "document.",
                hint="The image is damaged, or is none.",
            )
        return b"".join(self.blob(descriptor))

    def tags(self) -> list[str]:
        """All tags of the repository, page by page.

        Raises:
            NotFoundError: There is no such repository.
            RegistryError: The answer is no list.
        """
        what = f"the tags of {self.reference.repository}"
        found: list[str] = []
        for page in self.pages("tags/list", _Tags, what):
            found += page.tags or ()
        return found

    def pages(self, path: str, kind: type[_Page], what: str, accept: str = "") -> Iterator[_Page]:
        """The pages of a list, each as a document of a kind.

        Raises:
            NotFoundError: There is no such list.
            RegistryError: A page is none.
        """
        for _ in range(_MAX_PAGES):
            answer = self.ask("GET", path, what=what, accept=accept)
            link, url, content_type = (
                answer.listed("Link"),
                answer.url,
                answer.content_type,
            )
            data = answer.read(self.limits.document_bytes, what)
            try:
                yield msgspec.json.decode(data, type=kind)
            except (msgspec.DecodeError, msgspec.ValidationError, RecursionError) as error:
                raise faults.no_document(self.host, what, data, content_type) from error
            match = _NEXT.search(link)
            if match is None:
                return
            path = following(url, match.group(1), self.host)

    def ask(
        self,
        method: str,
        path: str,
        *,
        expected: tuple[int, ...] = (200,),
        accept: str = "",
        headers: dict[str, str] | None = None,
        body: bytes | None = None,
        what: str = "",
        again: bool = True,
    ) -> Answer:
        """A request below the repository; see `Transport.send`."""
        sent = dict(headers or {})
        if accept:
            sent["Accept"] = accept
        return self.transport.send(
            method,
            path if "://" in path else f"{self._root}/{path}",
            scopes=self.scopes,
            headers=sent,
            body=body,
            expected=expected,
            what=what or f"{self.reference.repository}/{path}",
            again=again,
        )

    def persist(self, attempt: Callable[[], _Result]) -> _Result:
        """Tries something again that raises `Passing`."""
        return persist(attempt, self.limits, known=lambda: self.transport.known)

    def close(self) -> None:
        """Ends all connections."""
        self.transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        self.close()


class _Tags(msgspec.Struct):
    tags: list[str] | None = None
