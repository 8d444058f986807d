"""Images as `docker load` and `podman load` take them, in pieces and without a copy on disk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from scoring import digest as digests
from scoring.packages.documents import canonical_json
from scoring.tarheaders import BLOCK
from serve.packaging.images.streams import BUFFER_BYTES, checked
from serve.packaging.tarball import file_header

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from collections.abc import Set as AbstractSet
    from typing import BinaryIO

    from scoring.packages.documents import Descriptor
    from serve.packaging.images.compose import Image


class _Opens(Protocol):
    def open(self, descriptor: Descriptor) -> BinaryIO: ...


def docker_archive(
    images: Iterable[Image], names: Sequence[str], *, omit: AbstractSet[str] = frozenset()
) -> Iterator[bytes]:
    """The archive, in pieces of at most 1 MiB.

    Layers stay compressed, which both engines read.

    Args:
        images: Of one platform each.
        names: `NAME:TAG`s, which each of the images gets.
        omit: Digests of uncompressed layers (`diff_ids`) that the engine has: the archive names
            them and leaves their bytes out.

    Raises:
        DigestMismatchError: A layer is damaged.
    """
    written: set[str] = set()
    entries = []
    for image in images:
        config = image.config_descriptor.digest
        for layer, diff_id in zip(image.layers, image.diff_ids, strict=True):
            if diff_id not in omit and layer.digest not in written:
                written.add(layer.digest)
                yield from archived(_layer_name(layer), layer, image)
        yield from _document(f"{digests.parse(config)}.json", image.config)
        entries.append(
            {
                "Config": f"{digests.parse(config)}.json",
                "Layers": [_layer_name(layer) for layer in image.layers],
                "RepoTags": list(names),
            }
        )
    yield from _document("manifest.json", canonical_json(entries))
    yield bytes(2 * BLOCK)


def _layer_name(layer: Descriptor) -> str:
    return f"{digests.parse(layer.digest)}.tar.gz"


def archived(name: str, descriptor: Descriptor, content: _Opens) -> Iterator[bytes]:
    """A blob as a file of an archive; raises DigestMismatchError where it is damaged."""
    yield file_header(name, descriptor.size)
    what = f"The blob {descriptor.digest}"
    with checked(content.open(descriptor), descriptor.digest, descriptor.size, what) as source:
        while piece := source.read(BUFFER_BYTES):
            yield piece
    yield bytes(-descriptor.size % BLOCK)


def _document(name: str, content: bytes) -> Iterator[bytes]:
    yield file_header(name, len(content))
    yield content
    yield bytes(-len(content) % BLOCK)
