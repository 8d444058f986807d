"""Environment layers that a team shares: found in a registry by what they are built from.

Each is a small artifact under the tag `env-HEX` of its key: a configuration that says what the
layer is, and the layer. A registry that is down, or refuses, costs the time to build and a warning.
"""

from __future__ import annotations

import gzip
import hashlib
import logging
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import msgspec

from scoring import digest as digests
from scoring.errors import DigestMismatchError, FieldpostError, NotFoundError, WorkspaceError
from scoring.packages.documents import (
    LAYER_NAME,
    LAYER_TYPE,
    MANIFEST_TYPE,
    UNPACKED_SIZE,
    Descriptor,
    canonical_json,
)
from serve.distribution.content import StoredContent
from serve.distribution.reference import Reference, parse_reference
from serve.packaging.layers import Layer

if TYPE_CHECKING:
    from serve.distribution.options import Options
    from serve.registry.blobs import BlobStore

ARTIFACT_TYPE = "application/vnd.dev.fieldpost.environment.v1"
CONFIG_TYPE = "application/vnd.dev.fieldpost.environment.config.v1+json"

_PIECE_BYTES = 1 << 20
_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


class _Entry(msgspec.Struct, frozen=True):
    """The configuration of an artifact."""

    key: str
    diff_id: str
    unpacked_size: int


class SharedCache:
    """The environment layers in one repository.

    Args:
        repository: `REGISTRY/NAME`.
        blobs: Where layers are, and go.
        options: How the registry is reached; one that is slow or down is not waited for long.

    Raises:
        InvalidNameError: The repository's name has not its form.
    """

    def __init__(self, repository: str, blobs: BlobStore, options: Options) -> None:
        self._repository = parse_reference(repository)
        self._blobs = blobs
        self._options = options
        self._failed = False

    def find(self, key: str) -> Layer | None:
        """The layer of a key, fetched into the store and checked; None where there is none.

        Raises:
            StorageFullError: No space is left for it.
        """
        return self._try(lambda: self._fetch(key))

    def offer(self, key: str, layer: Layer) -> None:
        """Brings a layer that is in the store to the registry, unless it is known to be there."""
        memory = self._options.memory
        place = f"cache {self._repository.name}"
        if not memory.holders(place, key):
            self._try(lambda: self._push(key, layer))
            if not self._failed:
                memory.holds(place, layer.digest, key)

    def _try(self, action: Callable[[], _Result]) -> _Result | None:
        """Does something with the registry; after its first failure it is left alone."""
        if self._failed:
            return None
        try:
            return action()
        except NotFoundError:
            return None
        except WorkspaceError:
            raise
        except FieldpostError as error:
            self._failed = True
            _log.warning("The shared cache %s is not used: %s", self._repository, error.message)
            return None

    def _reference(self, key: str) -> Reference:
        return self._repository.tagged(f"env-{digests.parse(key)}")

    def _fetch(self, key: str) -> Layer:
        from serve.distribution.client import RegistryClient  # noqa: PLC0415 - heavy

        options = self._options
        with RegistryClient(
            self._repository, hosts=options.hosts, logins=options.logins, limits=options.limits
        ) as client:
            document = client.manifest(self._reference(key).target)
            if len(document.layers) != 1:
                raise DigestMismatchError(f"What is under the tag of {key} is no such layer.")
            entry = _entry(client.read_blob(document.blobs[0]), key)
            layer = document.layers[0]
            if not self._blobs.has(layer.digest):
                self._blobs.put_stream(client.blob(layer))
        found = Layer(layer.digest, layer.size, entry.diff_id, entry.unpacked_size)
        self._require_content(found)
        return found

    def _require_content(self, layer: Layer) -> None:
        """Whether the layer unpacks to what its entry says: the image's configuration names it."""
        sha256, size = hashlib.sha256(), 0
        try:
            with gzip.open(self._blobs.path(layer.digest), "rb") as file:
                while (piece := file.read(_PIECE_BYTES)) and size <= layer.unpacked_size:
                    sha256.update(piece)
                    size += len(piece)
        except (OSError, EOFError, zlib.error) as error:
            raise DigestMismatchError(f"{layer.digest} is no compressed layer.") from error
        if digests.from_hex(sha256.hexdigest()) != layer.diff_id or size != layer.unpacked_size:
            raise DigestMismatchError(f"{layer.digest} does not unpack to what its entry says.")

    def _push(self, key: str, layer: Layer) -> None:
        from serve.distribution.pushing import push  # noqa: PLC0415 - heavy

        config = canonical_json(_Entry(key, layer.diff_id, layer.unpacked_size))
        manifest = _manifest(config, layer)
        root = Descriptor(MANIFEST_TYPE, digests.of_bytes(manifest), len(manifest))
        documents = {root.digest: manifest, digests.of_bytes(config): config}
        content = StoredContent(self._blobs, documents)
        push(root, content, self._reference(key), options=self._options)


def open_cache(repository: str, blobs: BlobStore, *, plain_http: bool = False) -> SharedCache:
    """The cache in a repository, reached as this machine's files say, and not waited for long.

    Raises:
        InvalidNameError: The repository's name has not its form.
    """
    from serve.distribution.hosts import Hosts  # noqa: PLC0415 - not for listing
    from serve.distribution.limits import Limits  # noqa: PLC0415
    from serve.distribution.memory import Memory  # noqa: PLC0415
    from serve.distribution.options import Options  # noqa: PLC0415

    options = Options(
        hosts=Hosts(plain_http=plain_http),
        limits=Limits(connect_s=5, read_s=20, patience_s=10, first_patience_s=1, slow_s=20),
        memory=Memory(blobs.root / "cache" / "registries"),
    )
    return SharedCache(repository, blobs, options)


def _entry(data: bytes, key: str) -> _Entry:
    try:
        entry = msgspec.json.decode(data, type=_Entry)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise DigestMismatchError(f"The entry of {key} is none.") from error
    if entry.key != key or not digests.is_digest(entry.diff_id):
        raise DigestMismatchError(f"The entry under the tag of {key} is that of another layer.")
    return entry


def _manifest(config: bytes, layer: Layer) -> bytes:
    return canonical_json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST_TYPE,
            "artifactType": ARTIFACT_TYPE,
            "config": Descriptor(CONFIG_TYPE, digests.of_bytes(config), len(config)),
            "layers": [
                Descriptor(
                    LAYER_TYPE,
                    layer.digest,
                    layer.size,
                    annotations={LAYER_NAME: "env", UNPACKED_SIZE: str(layer.unpacked_size)},
                )
            ],
        }
    )
