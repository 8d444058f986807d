"""Writes images where other tools take them: layouts and archives. A file is there whole or not."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from scoring import digest as digests
from scoring import durable
from scoring.errors import AlreadyExistsError, PackagingError, UsageError
from scoring.packages.documents import INDEX_TYPE, Descriptor, Index, canonical_json
from scoring.tarheaders import BLOCK
from serve.packaging.images.bases import split_place
from serve.packaging.images.dockerarchive import archived, docker_archive
from serve.packaging.images.layout import REF_NAME, TAG
from serve.packaging.images.streams import BUFFER_BYTES, checked
from serve.packaging.tarball import file_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from serve.packaging.images.compose import Image
    from serve.packaging.images.imageset import ImageSet

Format = Literal["oci", "oci-archive", "docker-archive", "docker-daemon", "podman"]
FORMATS: tuple[Format, ...] = get_args(Format)
ENGINES = ("docker-daemon", "podman")

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}\n'
_NAME = re.compile(
    r"(?:[a-zA-Z0-9.-]+(?::[0-9]+)?/)?[a-z0-9]+(?:[._/-]+[a-z0-9]+)*(?::[A-Za-z0-9_][\w.-]{0,127})?",
    re.ASCII,
)


@dataclass(frozen=True)
class Destination:
    """Where an image goes.

    Attributes:
        kind: Which format, or which engine.
        path: Of the folder or file; None for an engine.
        name: Tag of a layout; `NAME:TAG` for Docker's archives and engines; empty for none.
    """

    kind: Format
    path: Path | None
    name: str

    def __str__(self) -> str:
        place = ":".join(part for part in (str(self.path or ""), self.name) if part)
        return f"{self.kind}:{place}"


def parse_destination(text: str, kind: str | None = None) -> Destination:
    """Reads `oci:DIR[:TAG]`, `docker-archive:FILE[:NAME:TAG]`, `podman:NAME:TAG` and their like.

    Args:
        text: With the format in front, or the rest alone where `kind` says it.
        kind: One of `FORMATS`.

    Raises:
        UsageError: The format is unknown, or the rest has not its form.
    """
    if kind is None:
        kind, separator, text = text.partition(":")
        if not separator or kind not in FORMATS:
            raise UsageError(
                f"{kind!r} is no format to export to." if separator else "The format is missing.",
                hint=f"Write FORMAT:PLACE with one of {', '.join(FORMATS)}, or give --format.",
            )
    elif kind not in FORMATS:
        raise UsageError(f"{kind!r} is no format.", hint=f"Use one of {', '.join(FORMATS)}.")
    elif text.startswith(f"{kind}:"):
        text = text.removeprefix(f"{kind}:")
    if not text:
        raise UsageError(f"{kind}: names no place.", hint=f"Write {kind}:PLACE.")
    return _destination(kind, text)


def _destination(kind: Format, text: str) -> Destination:
    if kind in ENGINES:
        return Destination(kind, None, _image_name(text))
    if kind == "docker-archive":
        place, _, name = text.partition(":")
        return Destination(kind, Path(place), _image_name(name) if name else "")
    path, tag = split_place(text)
    return Destination(kind, path, tag)


def _image_name(text: str) -> str:
    if not _NAME.fullmatch(text):
        raise UsageError(
            f"{text[:200]!r} is no name of an image.",
            hint="Write NAME:TAG: lower-case letters, digits, '.', '_', '-' and '/'.",
        )
    return text if ":" in text.rpartition("/")[2] else f"{text}:latest"


def export(images: ImageSet, to: Destination) -> int:
    """Writes images to a layout or archive.

    Args:
        images: What to write; a Docker archive takes one platform.
        to: No engine.

    Returns:
        How many bytes were written.

    Raises:
        AlreadyExistsError: The place is taken by something else.
        StorageFullError: No space is left; what was there is as it was.
        DigestMismatchError: A blob is damaged.
        PackagingError: There are several platforms, and the format takes one.
    """
    assert to.path is not None
    with durable.storage_errors(str(to.path)):
        if to.kind == "oci":
            return _write_layout(images, to.path, to.name)
        if to.kind == "oci-archive":
            return _write_file(to.path, layout_archive(images, to.name))
        return _write_file(to.path, docker_archive([_only(images)], _names(to.name)))


def layout_archive(images: ImageSet, tag: str) -> Iterator[bytes]:
    """An OCI layout as an archive, in pieces of at most 1 MiB."""
    yield from _file("oci-layout", _LAYOUT)
    for descriptor in (*images.descriptors(), *images.companions()):
        yield from archived(_place(descriptor), descriptor, images)
    yield from _file("index.json", _index([], images.root, tag))
    yield bytes(2 * BLOCK)


def _only(images: ImageSet) -> Image:
    if len(images.images) != 1:
        raise PackagingError(
            f"A Docker archive takes one platform, and the package has "
            f"{', '.join(images.platforms)}.",
            hint="Choose one with --platform, or export to oci: or oci-archive:.",
        )
    return images.images[0]


def _names(name: str) -> list[str]:
    return [name] if name else []


def _file(name: str, content: bytes) -> Iterator[bytes]:
    yield file_header(name, len(content))
    yield content
    yield bytes(-len(content) % BLOCK)


def _place(descriptor: Descriptor) -> str:
    return f"blobs/sha256/{digests.parse(descriptor.digest)}"


def _index(before: Iterable[Descriptor], root: Descriptor, tag: str) -> bytes:
    """An index with an image in it: in the place of the one that had its tag."""
    named = msgspec.structs.replace(root, annotations={REF_NAME: tag} if tag else {})
    kept = [
        entry
        for entry in before
        if entry != named and (not tag or entry.annotations.get(REF_NAME) != tag)
    ]
    return canonical_json(
        {"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": [*kept, named]}
    )


def _write_file(path: Path, pieces: Iterable[bytes]) -> int:
    if path.is_dir():
        raise AlreadyExistsError(f"{path} is a folder.", hint="Name a file in it.")
    size = 0
    with durable.TemporaryFile(_folder(path)) as file:
        for piece in pieces:
            file.write(piece)
            size += len(piece)
        os.fchmod(file.fd, 0o644)
        file.sync()
        file.move(path)
        durable.sync_folder(path.parent)
    return size


def _folder(path: Path) -> Path:
    durable.make_folder(path.parent.absolute())
    durable.sweep(path.parent)
    return path.parent


def _write_layout(images: ImageSet, folder: Path, tag: str) -> int:
    if tag and not TAG.fullmatch(tag):
        raise UsageError(f"{tag!r} is no tag.", hint="Use letters, digits, '.', '_' and '-'.")
    if folder.exists() and not (folder / "oci-layout").is_file() and _is_occupied(folder):
        raise AlreadyExistsError(
            f"{folder} is there and is no OCI layout.", hint="Name an empty or a new folder."
        )
    if folder.exists():
        return _add_to_layout(images, folder, tag)
    with durable.TemporaryFolder(_folder(folder)) as work:
        size = _add_to_layout(images, work.path, tag)
        work.path.chmod(0o755)
        work.move(folder)
    return size


def _is_occupied(folder: Path) -> bool:
    return not folder.is_dir() or any(folder.iterdir())


def _add_to_layout(images: ImageSet, folder: Path, tag: str) -> int:
    """Blobs first, the index last, so that the layout is whole at any moment."""
    blobs = folder / "blobs" / "sha256"
    durable.make_folder(blobs)
    for place in (blobs, folder):  # what killed exports left
        durable.sweep(place)
    size = 0
    for descriptor in (*images.descriptors(), *images.companions()):
        size += _write_blob(images, descriptor, folder / _place(descriptor))
    durable.sync_folder(blobs)
    durable.write_bytes(folder / "oci-layout", _LAYOUT)
    path = folder / "index.json"
    before = msgspec.json.decode(path.read_bytes(), type=Index).manifests if path.exists() else ()
    durable.write_bytes(path, _index(before, images.root, tag))
    return size


def _write_blob(images: ImageSet, descriptor: Descriptor, path: Path) -> int:
    if path.is_file() and path.stat().st_size == descriptor.size:
        return 0
    what = f"The blob {descriptor.digest}"
    with (
        checked(images.open(descriptor), descriptor.digest, descriptor.size, what) as source,
        durable.TemporaryFile(path.parent) as file,
    ):
        while piece := source.read(BUFFER_BYTES):
            file.write(piece)
        os.fchmod(file.fd, 0o644)
        file.sync()
        file.move(path)
    return descriptor.size
