"""Bases in registries: their documents are kept, their layers fetched where somebody reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

from scoring import digest as digests
from serve.distribution.content import Descriptor
from serve.distribution.reference import parse_reference
from serve.packaging.images.bases import Base, read_base
from serve.packaging.images.documents import INDEX_TYPES, Index, choose, decode, media_type

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeVar

    from serve.distribution.client import RegistryClient
    from serve.distribution.hosts import Place
    from serve.distribution.reference import Reference
    from serve.packaging.images.basestore import BaseStore

    _Result = TypeVar("_Result")

_NESTED = 3


class RegistrySource:
    """A repository, behind what is kept of it.

    Args:
        reference: The repository.
        store: Keeps what is fetched.
    """

    def __init__(self, reference: Reference, store: BaseStore) -> None:
        self._reference = reference
        self._store = store

    def open(self, digest: str, size: int) -> BinaryIO:
        """A blob, fetched and checked where it is not kept yet.

        Raises:
            NotFoundError: The registry has none.
            DigestMismatchError: It sends something else.
            UnreachableError: Nothing answers.
        """
        if not self._store.layout.has(digest):
            wanted = Descriptor(media_type="", digest=digest, size=size)
            self._ask(lambda client: self._store.blobs.put_stream(client.blob(wanted)))
        return self._store.layout.open(digest, size)

    def origins(self, digest: str) -> Sequence[object]:  # noqa: ARG002 - all of them
        """The repository, to mount from."""
        return (self._reference,)

    def manifest(self, target: str) -> Descriptor:
        """Keeps the manifest or index of a tag or digest, and says what it is."""
        found = self._ask(lambda client: client.manifest(target))
        self._store.blobs.put_bytes(found.data)
        return found.descriptor

    def _ask(self, question: Callable[[RegistryClient], _Result]) -> _Result:
        """Asks the mirrors of this machine's configuration, then the registry itself."""
        from serve.distribution.client import RegistryClient  # noqa: PLC0415 - heavy
        from serve.distribution.hosts import Hosts  # noqa: PLC0415
        from serve.distribution.mirrors import ask_first  # noqa: PLC0415

        hosts = Hosts()

        def ask(place: Place) -> _Result:
            with RegistryClient(place, hosts=hosts) as client:
                return question(client)

        return ask_first(self._reference, hosts, ask)


def open_registry(text: str, platform: str, store: BaseStore) -> Base:
    """Opens a base in a registry; nothing is asked for where its documents are kept.

    Args:
        text: `registry/name[:tag][@digest]`.
        platform: Of the package.
        store: Keeps documents and layers.

    Raises:
        InvalidNameError: The text is no reference.
        NotFoundError: The registry has no such image.
        PackagingError: It has none for the platform.
        UnreachableError: Nothing answers, and the base is not kept.
    """
    reference = parse_reference(text)
    source = RegistrySource(reference, store)
    root = _kept(reference.digest, store) or source.manifest(reference.target)
    tag = f":{reference.tag or 'latest'}" if reference.tag or not reference.digest else ""
    name = f"{reference.name}{tag}"
    _keep_documents(root, source, store, platform, name)
    return read_base(root, source, platform, name=name)


def _kept(digest: str, store: BaseStore) -> Descriptor | None:
    if not digest or not store.layout.has(digest):
        return None
    return Descriptor(media_type="", digest=digest, size=store.size(digest))


def _keep_documents(
    root: Descriptor, source: RegistrySource, store: BaseStore, platform: str, name: str
) -> None:
    """Registries give manifests another way than blobs: those below an index come here first."""
    for _ in range(_NESTED):
        content, what = store.read(root.digest), f"The manifest of {name}"
        if media_type(content, root.media_type, what) not in INDEX_TYPES:
            return
        index = decode(content, Index, what)
        root = choose(index.manifests, platform, f"The base {name}")
        digests.parse(root.digest)
        if not store.layout.has(root.digest):
            source.manifest(root.digest)
