"""What a workspace keeps of bases: layers made of archives, and what was found inside.

    FOLDER/blobs/sha256/…      layers, manifests and configurations
    FOLDER/imports/KEY.json    which manifest was made of which archive
    FOLDER/facts/HEX.json      what is in the base of that manifest

All of it can be made again; removing the folder costs time.
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from scoring import digest as digests
from scoring import durable
from scoring.errors import FieldpostError, NotFoundError
from scoring.packages.documents import (
    CONFIG_TYPE,
    LAYER_TYPE,
    MANIFEST_TYPE,
    Descriptor,
    canonical_json,
)
from serve.packaging.images.bases import Base, read_base
from serve.packaging.images.facts import Facts
from serve.packaging.images.layout import FolderLayout, read_blob
from serve.packaging.images.streams import BUFFER_BYTES

if TYPE_CHECKING:
    from serve.packaging.layers import Layer
    from serve.registry.blobs import BlobStore

# Of what decides what is made of an archive: a change makes earlier imports old.
IMPORT_VERSION = 1
_Record = TypeVar("_Record")


class ImportRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The manifest that was made of an archive."""

    digest: str
    size: int


class BaseStore:
    """A folder of bases.

    Args:
        folder: Made at the first write.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.layout = FolderLayout(folder)

    @property
    def blobs(self) -> BlobStore:
        """The store of its blobs, made where it is missing."""
        from serve.registry.blobs import BlobStore  # noqa: PLC0415 - reading needs no store

        store = BlobStore(self.folder)
        store.create()
        return store

    def imported(self, kind: str, place: str, platform: str) -> Base:
        """The base in an archive without digests of its own, imported where it is new.

        Raises:
            NotFoundError: There is no such file.
            UnsafeArchiveError: It is damaged, or holds what a base must not.
            PackagingError: It is no image, or one for another platform.
        """
        from serve.packaging.images import imports  # noqa: PLC0415 - for archives only

        path, name = imports.split(kind, place)
        key = _key(kind, path, name, platform)
        record = self._read("imports", key, ImportRecord)
        base = self._kept(record, platform, f"{kind}:{place}") if record else None
        if base is None:
            record = self._import(kind, path, name, platform)
            self._write("imports", key, record)
            base = self._base(record, platform, f"{kind}:{place}")
        return self.with_facts(base)

    def find(self, digest: str, platform: str, label: str) -> Base | None:
        """The base of a manifest that is kept here; None for none."""
        if not self.layout.has(digest):
            return None
        record = ImportRecord(digest=digest, size=self.size(digest))
        return self.with_facts(self._base(record, platform, label))

    def adopt(self, base: Base) -> None:
        """Copies a base from elsewhere on this machine, whole, so that it is found by its digest.

        Raises:
            DigestMismatchError: A layer is damaged.
            StorageFullError: The disk is full.
        """
        blobs = self.blobs
        for descriptor in (*base.layers, *base.documents):
            if not self.layout.has(descriptor.digest):
                with base.open(descriptor) as source:
                    blobs.put_stream(iter(lambda: source.read(BUFFER_BYTES), b""))

    def size(self, digest: str) -> int:
        """Of a blob that is kept here."""
        return (self.folder / "blobs" / "sha256" / digests.parse(digest)).stat().st_size

    def read(self, digest: str) -> bytes:
        """A document that is kept here, checked."""
        descriptor = Descriptor(media_type="", digest=digest, size=self.size(digest))
        return read_blob(self.layout, descriptor, f"The document {digest}")

    def with_facts(self, base: Base) -> Base:
        """The base with what is inside of it, looked at once."""
        key = digests.of_bytes(b"facts " + base.digest.encode())
        facts = self._read("facts", key, Facts)
        if facts is None:
            from serve.packaging.images.scan import scan_layers  # noqa: PLC0415 - once a base

            facts = scan_layers(base)
            self._write("facts", key, facts)
        return replace(base, facts=facts)

    def remember(self, digest: str, facts: Facts) -> None:
        """Keeps what was seen while a base was imported."""
        self._write("facts", digests.of_bytes(b"facts " + digest.encode()), facts)

    def put_image(self, layers: list[Layer], config: dict[str, object]) -> ImportRecord:
        """Stores the manifest and configuration of layers that are in the store."""
        blobs = self.blobs
        stored = blobs.put_bytes(canonical_json(config))
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "config": {"mediaType": CONFIG_TYPE, "digest": stored.digest, "size": stored.size},
            "layers": [
                {"mediaType": LAYER_TYPE, "digest": layer.digest, "size": layer.size}
                for layer in layers
            ],
        }
        content = canonical_json(manifest)
        return ImportRecord(digest=blobs.put_bytes(content).digest, size=len(content))

    def _import(self, kind: str, path: Path, name: str, platform: str) -> ImportRecord:
        from serve.packaging.images import imports  # noqa: PLC0415 - as above

        if kind == "rootfs":
            made = imports.import_rootfs(path, platform, self.blobs)
        else:
            made = imports.import_docker_archive(path, name, platform, self.blobs)
        record = self.put_image(made.layers, made.config)
        if made.facts is not None:
            self.remember(record.digest, made.facts)
        return record

    def _base(self, record: ImportRecord, platform: str, label: str) -> Base:
        root = Descriptor(media_type=MANIFEST_TYPE, digest=record.digest, size=record.size)
        return read_base(root, self.layout, platform, label=label)

    def _kept(self, record: ImportRecord, platform: str, label: str) -> Base | None:
        """The base of an earlier import, while all of it is there."""
        try:
            base = self._base(record, platform, label)
        except FieldpostError:
            return None
        return base if all(self.layout.has(layer.digest) for layer in base.layers) else None

    def _read(self, what: str, key: str, kind: type[_Record]) -> _Record | None:
        with contextlib.suppress(OSError, msgspec.DecodeError, msgspec.ValidationError):
            return msgspec.json.decode(self._record(what, key).read_bytes(), type=kind)
        return None

    def _write(self, what: str, key: str, record: ImportRecord | Facts) -> None:
        path = self._record(what, key)
        with durable.storage_errors("the workspace's bases"):
            durable.make_folder(path.parent)
        durable.write_bytes(path, msgspec.json.encode(record, order="sorted"))

    def _record(self, what: str, key: str) -> Path:
        return self.folder / what / f"{digests.parse(key)}.json"


def _key(kind: str, path: Path, name: str, platform: str) -> str:
    """Names an archive by what changes when it is written: reading all of it would take longer."""
    try:
        status = path.stat()
    except OSError as error:
        raise NotFoundError(
            f"There is no archive {str(path)!r}.", hint="Check the path of the base."
        ) from error
    identity = (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )
    parts = (IMPORT_VERSION, kind, str(path.resolve()), name, platform, identity)
    return digests.of_bytes(msgspec.json.encode(parts))
