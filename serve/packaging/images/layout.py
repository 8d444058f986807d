"""OCI image layouts, as folders and archives: where bases and exports are read from."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, BinaryIO, Protocol

from scoring import digest as digests
from scoring.errors import NotFoundError, PackagingError
from scoring.packages.documents import Descriptor, Index
from serve.packaging.images.documents import INDEX_TYPES, MANIFEST_TYPES, decode
from serve.packaging.images.streams import DOCUMENT_BYTES, checked, read_document
from serve.packaging.images.tarindex import TarIndex

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

REF_NAME = "org.opencontainers.image.ref.name"
_SHOWN = 8
TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", re.ASCII)


class Source(Protocol):
    """Where the blobs of an image are."""

    def open(self, digest: str, size: int) -> BinaryIO:
        """A blob, compared with its digest while it is read."""
        ...

    def origins(self, digest: str) -> Sequence[object]:
        """The repositories of registries that hold it."""
        ...


class Layout(Protocol):
    """A source that says itself what is in it."""

    @property
    def name(self) -> str:
        """For messages."""
        ...

    def open(self, digest: str, size: int) -> BinaryIO:
        """As of `Source`."""
        ...

    def origins(self, digest: str) -> Sequence[object]:
        """As of `Source`."""
        ...

    def has(self, digest: str) -> bool:
        """Whether the blob is there."""
        ...

    def read(self, digest: str) -> bytes:
        """A document of unknown size, unchecked."""
        ...

    def index(self) -> Index:
        """What is in it."""
        ...


class FolderLayout:
    """A layout in a folder.

    Args:
        folder: The one with `oci-layout` and `index.json`.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = str(folder)

    def open(self, digest: str, size: int) -> BinaryIO:
        """A blob; raises NotFoundError for none."""
        try:
            file = self._path(digest).open("rb")
        except FileNotFoundError as error:
            raise _no_blob(self.name, digest) from error
        return checked(file, digest, size, f"The blob {digest} in {self.name}")

    def origins(self, digest: str) -> Sequence[object]:  # noqa: ARG002
        """None."""
        return ()

    def has(self, digest: str) -> bool:
        """Whether the blob is there."""
        return self._path(digest).is_file()

    def read(self, digest: str) -> bytes:
        """A document of unknown size, unchecked; raises NotFoundError for none."""
        try:
            return read_document(self._path(digest).open("rb"), f"{digest} in {self.name}")
        except FileNotFoundError as error:
            raise _no_blob(self.name, digest) from error

    def _path(self, digest: str) -> Path:
        return self.folder / "blobs" / "sha256" / digests.parse(digest)

    def index(self) -> Index:
        """What is in it; raises NotFoundError where it is no layout."""
        try:
            file = (self.folder / "index.json").open("rb")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _no_layout(self.name) from error
        return _read_index(file, self.name)


class ArchiveLayout:
    """A layout in an uncompressed archive.

    Args:
        path: The archive.
    """

    def __init__(self, path: Path) -> None:
        self._tar = TarIndex(path)
        self.name = str(path)

    def open(self, digest: str, size: int) -> BinaryIO:
        """A blob; raises NotFoundError for none."""
        name = f"blobs/sha256/{digests.parse(digest)}"
        if name not in self._tar.names:
            raise _no_blob(self.name, digest)
        what = f"The blob {digest} in {self.name}"
        return checked(self._tar.open(name), digest, size, what)

    def origins(self, digest: str) -> Sequence[object]:  # noqa: ARG002
        """None."""
        return ()

    def has(self, digest: str) -> bool:
        """Whether the blob is there."""
        return f"blobs/sha256/{digests.parse(digest)}" in self._tar.names

    def read(self, digest: str) -> bytes:
        """A document of unknown size, unchecked."""
        file = self._tar.open(f"blobs/sha256/{digests.parse(digest)}")
        return read_document(file, f"{digest} in {self.name}")

    def index(self) -> Index:
        """What is in it; raises NotFoundError where it is no layout."""
        if "index.json" not in self._tar.names:
            raise _no_layout(self.name)
        return _read_index(self._tar.open("index.json"), self.name)


def read_blob(source: Source, descriptor: Descriptor, what: str) -> bytes:
    """A manifest or configuration, checked; raises PackagingError where it is too large."""
    if descriptor.size > DOCUMENT_BYTES:
        raise PackagingError(f"{what} is too large for a manifest or configuration.")
    return read_document(source.open(descriptor.digest, descriptor.size), what)


def find(layout: Layout, wanted: str) -> Descriptor:
    """The image that a tag, a digest or nothing names in a layout.

    Raises:
        NotFoundError: There is none.
        PackagingError: Nothing was named, and there are several.
    """
    entries = [
        entry
        for entry in layout.index().manifests
        if entry.media_type in MANIFEST_TYPES | INDEX_TYPES
    ]
    found = [entry for entry in entries if not wanted or wanted in _names(entry)]
    if not found:
        raise NotFoundError(
            f"{layout.name} has no image {wanted!r}." if wanted else f"{layout.name} is empty.",
            hint=_offer(entries),
        )
    if len({entry.digest for entry in found}) > 1:
        raise PackagingError(f"{layout.name} has several images.", hint=_offer(entries))
    return found[0]


def _names(entry: Descriptor) -> set[str]:
    full = entry.annotations.get(REF_NAME, "")
    return {entry.digest, full, full.rpartition(":")[2]} - {""}


def _offer(entries: Sequence[Descriptor]) -> str:
    names = [entry.annotations.get(REF_NAME) or entry.digest for entry in entries]
    more = " …" if len(names) > _SHOWN else ""
    return f"There are: {', '.join(names[:_SHOWN])}{more}" if names else "Check the path."


def _read_index(file: BinaryIO, name: str) -> Index:
    what = f"The index of {name}"
    return decode(read_document(file, what), Index, what)


def _no_blob(name: str, digest: str) -> NotFoundError:
    return NotFoundError(
        f"{name} lacks the blob {digest}.", hint="Copy the image again, with all of its layers."
    )


def _no_layout(name: str) -> NotFoundError:
    return NotFoundError(
        f"{name} is no OCI image layout: there is no index.json.", hint="Check the path."
    )
