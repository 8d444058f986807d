"""A package onto the device: the blobs that are not there, deltas where they help."""

from __future__ import annotations

import logging
import platform
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec

from edge.agent import delta, space
from edge.agent.blobs import DeviceBlobs
from edge.agent.layers import open_raw
from edge.agent.transfer import Wishes, persist, transfer
from edge.agent.web import Answer, PassingError
from edge.protocol.messages import Source
from scoring import digest as digests
from scoring.errors import (
    DigestMismatchError,
    FieldpostError,
    NotFoundError,
    PackagingError,
    StorageFullError,
)
from scoring.packages.documents import LAYER_NAME, UNPACKED_SIZE

logger = logging.getLogger(__name__)


_MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"
)
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}
_SIZE: Final = re.compile(r"\d{1,15}", re.ASCII)
_OK: Final = 200
_NOT_FOUND: Final = 404
_MOST_RATIO: Final = 200
_LEAST_MOST: Final = 64 << 20

_Document = TypeVar("_Document", bound=msgspec.Struct)

Size = Annotated[int, msgspec.Meta(ge=0, le=1 << 40)]


class Platform(msgspec.Struct, frozen=True):
    """What a manifest of an index is for."""

    architecture: str = ""
    os: str = ""


class Descriptor(msgspec.Struct, frozen=True):
    """A blob as a manifest names it."""

    digest: str
    size: Size
    annotations: dict[str, str] = {}
    platform: Platform = Platform()

    def __post_init__(self) -> None:
        digests.parse(self.digest)


class Manifest(msgspec.Struct, frozen=True):
    """What fetching reads of a manifest, or of an index of several."""

    config: Descriptor | None = None
    layers: Annotated[tuple[Descriptor, ...], msgspec.Meta(max_length=128)] = ()
    manifests: Annotated[tuple[Descriptor, ...], msgspec.Meta(max_length=128)] = ()


class _RootFs(msgspec.Struct, frozen=True):
    diff_ids: tuple[str, ...] = ()


class _Config(msgspec.Struct, frozen=True):
    rootfs: _RootFs = _RootFs()


class Layer(msgspec.Struct, frozen=True):
    """A layer of a package.

    Attributes:
        blob: Compressed.
        diff_id: The digest of its content, under which what came as a delta is kept.
    """

    blob: Descriptor
    diff_id: str

    @property
    def name(self) -> str:
        """`model`, `env`, ...; empty for the base's."""
        return self.blob.annotations.get(LAYER_NAME, "")

    @property
    def unpacked_size(self) -> int:
        """As the manifest has it; 0 where it does not say."""
        text = self.blob.annotations.get(UNPACKED_SIZE, "")
        return int(text) if _SIZE.fullmatch(text) else 0


class Package(msgspec.Struct, frozen=True):
    """What a package consists of.

    Attributes:
        digest: As it is named.
        documents: The digests of its manifests and its configuration.
        layers: In order.
    """

    digest: str
    documents: tuple[str, ...]
    layers: tuple[Layer, ...]

    @property
    def manifest(self) -> str:
        """The digest of its own manifest, where it is named by an index of several."""
        return self.documents[-2]

    @property
    def digests(self) -> frozenset[str]:
        """Of every blob that may be kept for it."""
        layers = {d for layer in self.layers for d in (layer.blob.digest, layer.diff_id)}
        return frozenset(self.documents) | layers


class Fetched(msgspec.Struct):
    """What fetching a package took.

    Attributes:
        received: Bytes of bodies.
        wholes: Layers that came whole.
        deltas: Layers that came as a delta.
        spoiled: Deltas that did not give the right result.
    """

    received: int = 0
    wholes: int = 0
    deltas: int = 0
    spoiled: int = 0


def fetch(
    digest: str,
    blobs: DeviceBlobs,
    wishes: Wishes,
    *,
    bases: Collection[str] = (),
    unpacked: Callable[[str], bool] = lambda _: False,
    only: Collection[str] = (),
    keep_free: int = space.KEEP_FREE_BYTES,
) -> Fetched:
    """Gets whatever is missing of a package; what is there already is not asked for.

    Whatever goes wrong may be right the next time: it is gone on with from what has come.

    Args:
        digest: Of the package's manifest, or of an index of which this machine's is taken.
        blobs: Where to.
        wishes: From where, and how.
        bases: Digests of packages that are here, against which there may be deltas.
        unpacked: Whether a layer is there in its unpacked form, by its `diff_id`.
        only: The names of the layers that are needed, whatever machine the others are for; none:
            all.
        keep_free: Bytes that the device needs for itself.

    Raises:
        DigestMismatchError: Every source has another file than the one that was asked for.
        NotFoundError: No source has a blob of it.
        PackagingError: It is no package, or none for this machine.
        DeadlineExceededError: It took too long.
        StorageFullError: There is no room for it.
        WorkspaceError: The disk cannot be written.
        RegistryError, RegistryDeniedError: No source gives it.
        StoppedError: It is not wanted any more.
    """
    return _Fetch(blobs, wishes, bases, keep_free).run(digest, unpacked, only)


def read(digest: str, blobs: DeviceBlobs) -> Package:
    """What a package that is here consists of.

    Raises:
        NotFoundError: A document of it is not here.
        DigestMismatchError: One was damaged, and is removed.
        PackagingError: It is no package.
    """
    return _read(digest, blobs.read_bytes, any_machine=True)


def keepers(packages: Iterable[str], blobs: DeviceBlobs) -> set[str]:
    """The digests of all blobs of packages, for `DeviceBlobs.clean`."""
    found: set[str] = set()
    for digest in packages:
        found.add(digest)
        try:
            found |= read(digest, blobs).digests
        except FieldpostError as error:  # it is not all here yet, or not any more
            logger.debug("what %s consists of is not known: %s", digest, error)
    return found


class _Offer(NamedTuple):
    """A delta that a source has."""

    source: Source
    path: str
    base: Layer
    digest: str
    size: int


class _Fetch:
    def __init__(
        self, blobs: DeviceBlobs, wishes: Wishes, bases: Collection[str], keep_free: int
    ) -> None:
        self._blobs = blobs
        self._wishes = wishes._replace(told=self._tell)
        self._told = wishes.told
        self._bases = bases
        self._keep_free = keep_free
        self._result = Fetched()

    def run(self, digest: str, unpacked: Callable[[str], bool], only: Collection[str]) -> Fetched:
        package = _read(digest, self._document, any_machine=bool(only))
        missing = [
            layer
            for layer in package.layers
            if (not only or layer.name in only)
            and not self._has(layer)
            and not unpacked(layer.diff_id)
        ]
        self._require_room(missing)
        for layer in missing:
            with self._blobs.lock(layer.blob.digest):
                if not self._has(layer):
                    self._layer(layer)
        return self._result

    def _has(self, layer: Layer) -> bool:
        return self._blobs.has(layer.blob.digest) or self._blobs.has(layer.diff_id)

    def _tell(self, count: int) -> None:
        self._result.received += count
        self._told(count)

    def _require_room(self, missing: list[Layer]) -> None:
        needed = sum(layer.blob.size + layer.unpacked_size for layer in missing)
        there = sum(self._blobs.waiting(layer.blob.digest) for layer in missing)
        if needed:
            space.require(self._blobs.root, max(0, needed - there), keep_free=self._keep_free)

    # -- documents

    def _document(self, digest: str) -> bytes:
        try:
            return self._blobs.read_bytes(digest, self._wishes.web.limits.document_bytes)
        except (NotFoundError, DigestMismatchError):
            pass
        found: list[bytes] = []
        persist(
            self._wishes,
            lambda source: found.append(self._ask_document(source, digest)),
            f"the document {digest}",
        )
        self._blobs.put_bytes(found[-1])
        return found[-1]

    def _ask_document(self, source: Source, digest: str) -> bytes:
        answer = self._ask(source, f"blobs/{digest}")
        if answer.status == _NOT_FOUND and source.kind == "registry":
            answer.read_all(65536)
            answer.close()
            answer = self._ask(source, f"manifests/{digest}")
        with answer:
            if answer.status == _NOT_FOUND:
                raise NotFoundError(f"{source.url} does not have {digest}.")
            most = self._wishes.web.limits.document_bytes
            data = answer.read_all(most) if answer.status == _OK else None
        if data is None or digests.of_bytes(data) != digest:
            raise DigestMismatchError(
                f"{source.url} sends something else for the document {digest}.",
                hint="Its storage, or a proxy before it, is damaged; nothing was kept.",
            )
        self._tell(len(data))
        return data

    def _ask(self, source: Source, path: str, method: str = "GET") -> Answer:
        headers = {"Accept": _MANIFEST_TYPES} if path.startswith("manifests/") else {}
        return self._wishes.web.ask(
            source, path, stop=self._wishes.stop, method=method, headers=headers
        )

    # -- layers

    def _layer(self, layer: Layer) -> None:
        if self._by_delta(layer):
            self._result.deltas += 1
            return
        with self._blobs.incoming(layer.blob.digest, layer.blob.size) as incoming:
            transfer(incoming, self._wishes, lambda _: f"blobs/{layer.blob.digest}")
        self._result.wholes += 1

    def _by_delta(self, layer: Layer) -> bool:
        """Whether the layer came as a delta; whatever is wrong with one, there is the whole."""
        if not layer.name or self._blobs.waiting(layer.blob.digest) * 2 > layer.blob.size:
            return False
        offers = sorted(self._offers(layer), key=lambda offer: offer.size)
        best = next((offer for offer in offers if offer.size < layer.blob.size), None)
        if best is None:
            return False
        sources = [o.source for o in offers if (o.digest, o.base) == (best.digest, best.base)]
        try:
            self._apply(layer, best, self._wishes._replace(sources=sources))
        except StorageFullError:
            raise
        except DigestMismatchError as error:
            self._result.spoiled += 1
            logger.warning("a delta was of no use: %s", error)
        except FieldpostError as error:
            logger.info("no delta: %s", error)
        else:
            return True
        return False

    def _base_layers(self, name: str) -> list[Layer]:
        found: dict[str, Layer] = {}
        for base in self._bases:
            try:
                layers = read(base, self._blobs).layers
            except FieldpostError:
                continue
            found |= {x.diff_id: x for x in layers if x.name == name and self._has(x)}
        return list(found.values())

    def _offers(self, layer: Layer) -> Iterator[_Offer]:
        bases = self._base_layers(layer.name)
        for source in self._wishes.sources:
            if source.kind != "controller":
                continue
            for base in bases:
                try:
                    offer = self._offer(source, layer, base)
                except (FieldpostError, PassingError):
                    break  # whatever it is, it is no time for extras
                if offer is not None:
                    yield offer

    def _offer(self, source: Source, layer: Layer, base: Layer) -> _Offer | None:
        path = f"deltas/{base.blob.digest}/{layer.blob.digest}"
        with self._ask(source, path, "HEAD") as answer:
            tag, size = answer.header("ETag").strip('"'), answer.length
            answer.read_all(0)
            if answer.status != _OK or not digests.is_digest(tag) or not size:
                return None
            return _Offer(source, path, base, tag, size)

    def _apply(self, layer: Layer, offer: _Offer, wishes: Wishes) -> None:
        if not self._blobs.has(offer.digest):
            with self._blobs.incoming(offer.digest, offer.size) as incoming:
                transfer(incoming, wishes, lambda _: offer.path)
        base = offer.base
        try:
            with (
                self._blobs.open(offer.digest) as patch,
                open_raw(self._blobs, base.blob.digest, base.diff_id) as old,
            ):
                delta.apply(
                    patch,
                    old,
                    layer.diff_id,
                    self._blobs,
                    wishes.stop,
                    most_bytes=_most_unpacked(layer),
                )
        finally:
            self._blobs.delete(offer.digest)


def _most_unpacked(layer: Layer) -> int:
    """By the manifest; where that does not say, what an archive may unpack to."""
    return layer.unpacked_size or max(_LEAST_MOST, _MOST_RATIO * layer.blob.size)


def _read(digest: str, document: Callable[[str], bytes], *, any_machine: bool) -> Package:
    documents = [digest]
    manifest = _decode(document(digest), Manifest, digest)
    if manifest.manifests:
        own = _own_manifest(manifest, digest, any_machine=any_machine)
        documents.append(own.digest)
        manifest = _decode(document(own.digest), Manifest, own.digest)
    if manifest.config is None:
        raise PackagingError(f"{digest} is no manifest of a package.")
    documents.append(manifest.config.digest)
    config = _decode(document(manifest.config.digest), _Config, manifest.config.digest)
    diff_ids = config.rootfs.diff_ids
    if len(diff_ids) != len(manifest.layers) or not all(map(digests.is_digest, diff_ids)):
        raise PackagingError(f"{digest} does not say what its layers contain.")
    layers = map(Layer, manifest.layers, diff_ids)
    return Package(digest, tuple(documents), tuple(layers))


def _own_manifest(index: Manifest, digest: str, *, any_machine: bool) -> Descriptor:
    machine = platform.machine()
    own = ("linux", _MACHINES.get(machine, machine))
    for manifest in index.manifests:
        if (manifest.platform.os, manifest.platform.architecture) == own:
            return manifest
    if any_machine:  # a model is the same in all of them
        return index.manifests[0]
    raise PackagingError(
        f"{digest} has nothing for {'/'.join(own)}.",
        hint="Build the package for the platform of this device.",
    )


def _decode(data: bytes, kind: type[_Document], digest: str) -> _Document:
    try:
        return msgspec.json.decode(data, type=kind)
    except (msgspec.DecodeError, ValueError, RecursionError, FieldpostError) as error:
        raise PackagingError(f"{digest} is no document of a package: {error}.") from error
