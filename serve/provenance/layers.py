"""Reads what is in a package's layers, for those that were not built here."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import tarfile
import zlib
from typing import TYPE_CHECKING

import msgspec

from scoring import digest as digests
from scoring.bundle import BUNDLE_FILE, IMAGE_ROOT, Bundle
from scoring.errors import DigestMismatchError, PackagingError
from serve.packaging.contents import LOCK_FILE, SITE_PACKAGES
from serve.provenance.facts import EnvironmentFacts, ModelFacts, ModelFile
from serve.provenance.licences import read_metadata
from serve.provenance.names import DECODE_ERRORS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scoring.packages.reading import PackageLayer
    from scoring.packages.storage import Blobs

MAX_DOCUMENT_BYTES = 4 << 20
_PIECE_BYTES = 1 << 20
_SITE = f"{IMAGE_ROOT}/{SITE_PACKAGES}/"
_LOCK = f"{IMAGE_ROOT}/{LOCK_FILE}"
_BUNDLE = f"{IMAGE_ROOT}/{BUNDLE_FILE}"
_MODEL = f"{IMAGE_ROOT}/model/"


def read_environment(layer: PackageLayer, blobs: Blobs) -> EnvironmentFacts:
    """The lock in an environment layer, and what is installed there.

    Raises:
        DigestMismatchError: The stored layer is damaged.
        PackagingError: It is no such layer.
    """
    lock, distributions = "", []
    with _reading(layer):
        for member, archive in _files(layer, blobs):
            if member.name == _LOCK:
                lock = _content(archive, member).decode("utf-8", "replace")
            elif _is_metadata(member.name):
                distributions.append(read_metadata(_content(archive, member)))
    return EnvironmentFacts(lock, tuple(sorted(distributions)))


def _is_metadata(name: str) -> bool:
    folder, _, file = name.removeprefix(_SITE).partition("/")
    return name.startswith(_SITE) and folder.endswith(".dist-info") and file == "METADATA"


def read_model(layer: PackageLayer, blobs: Blobs) -> ModelFacts:
    """The description in a model layer, and its files.

    Raises:
        DigestMismatchError: The stored layer is damaged.
        PackagingError: It is no such layer.
    """
    bundle: Bundle | None = None
    files = []
    with _reading(layer):
        for member, archive in _files(layer, blobs):
            if member.name == _BUNDLE:
                bundle = _decode_bundle(_content(archive, member), layer)
            elif member.name.startswith(_MODEL):
                found = _digest(archive, member)
                files.append(ModelFile(member.name.removeprefix(_MODEL), found, member.size))
    if bundle is None:
        raise PackagingError(f"The layer {layer.digest} has no {BUNDLE_FILE}.")
    return ModelFacts(bundle, tuple(sorted(files)))


def _decode_bundle(content: bytes, layer: PackageLayer) -> Bundle:
    try:
        return msgspec.json.decode(content, type=Bundle)
    except DECODE_ERRORS as error:
        raise PackagingError(f"{BUNDLE_FILE} of the layer {layer.digest}: {error}.") from error


def _files(layer: PackageLayer, blobs: Blobs) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """The regular files of a layer, in one pass over bytes that are checked first."""
    path = blobs.path(layer.digest)
    with path.open("rb") as raw:
        if f"sha256:{hashlib.file_digest(raw, 'sha256').hexdigest()}" != layer.digest:
            raise DigestMismatchError(
                f"The stored blob {layer.digest} is damaged.",
                hint="Build the package again, or pull it from where it came from.",
            )
    with gzip.open(path) as stream, tarfile.open(fileobj=stream, mode="r|") as archive:
        for member in archive:
            if member.isfile():
                yield member, archive


@contextlib.contextmanager
def _reading(layer: PackageLayer) -> Iterator[None]:
    try:
        yield
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise PackagingError(f"The layer {layer.digest} cannot be read: {error}.") from error


def _content(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    if member.size > MAX_DOCUMENT_BYTES:
        raise PackagingError(f"{member.name} is too large for what it should be.")
    file = archive.extractfile(member)
    return file.read() if file else b""


def _digest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    file = archive.extractfile(member)
    assert file is not None
    return digests.of_chunks(iter(lambda: file.read(_PIECE_BYTES), b""))
