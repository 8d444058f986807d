"""Gives an engine an image: nothing where it has it, and else only the layers that it lacks."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from scoring.errors import TargetError, UnreachableError
from serve.packaging.images.dockerarchive import docker_archive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from serve.engines.engine import Engine
    from serve.packaging.images.compose import Image

REPOSITORY = "localhost/fieldpost"
"""Images that we give to engines are named `localhost/fieldpost:DIGEST`."""

_TAG_DIGITS = 16
_MOST_IMAGES = 400


class Loaded(NamedTuple):
    """How an image got into an engine.

    Attributes:
        id: The engine's name of it.
        sent: Bytes that were sent; 0 where it was there.
        layers: How many layers were sent.
    """

    id: str
    sent: int = 0
    layers: int = 0


def name_of(image: Image) -> str:
    """The name that an image has in engines: the same bytes, the same name."""
    return f"{REPOSITORY}:{image.digest.partition(':')[2][:_TAG_DIGITS]}"


def load_image(engine: Engine, image: Image, names: Sequence[str] = ()) -> Loaded:
    """Makes sure that an engine has an image, streaming what it lacks.

    Args:
        engine: Docker or Podman.
        image: A composed one; its layers are opened only where the engine lacks them.
        names: Further `NAME:TAG`s.

    Raises:
        TargetError: The engine does not take it, or has no room.
        PackagingError: The image is for another platform than the engine's machine.
    """
    wanted = [name_of(image), *names]
    found = _present(engine, image)
    if found is None:
        return _send(engine, image, wanted)
    for name in wanted:
        if _id(engine, name) != found:
            engine.tag(found, *_split(name))
    return Loaded(found)


def missing_layers(engine: Engine, diff_ids: Sequence[str]) -> Sequence[str]:
    """The uncompressed digests of those layers of an image that the engine lacks.

    Engines keep a layer together with all that is below it: what they have of an image is the
    longest beginning that it shares with another one.
    """
    most = 0
    for each in engine.images()[:_MOST_IMAGES]:
        there = _layers(engine, str(each.get("Id", "")))
        most = max(most, _shared(there, diff_ids))
        if most == len(diff_ids):
            break
    return diff_ids[most:]


def _shared(there: Sequence[str], wanted: Sequence[str]) -> int:
    """How many layers two images have in common, from the lowest up."""
    count = 0
    for one, other in zip(there, wanted, strict=False):
        if one != other:
            break
        count += 1
    return count


def _present(engine: Engine, image: Image) -> str | None:
    """The image's ID in the engine; None where it is not there whole."""
    for reference in (image.config_descriptor.digest, name_of(image)):
        found = engine.image(reference)
        if found and _root_layers(found) == image.diff_ids:
            return str(found["Id"])
    return None


def _send(engine: Engine, image: Image, names: Sequence[str]) -> Loaded:
    if engine.loads_incrementally:
        lacking = frozenset(missing_layers(engine, image.diff_ids))
        omit = frozenset(image.diff_ids) - lacking
        if omit:
            try:
                return _stream(engine, image, names, omit)
            except UnreachableError:
                raise
            except TargetError:
                """A layer has gone meanwhile, or its store is of another kind: all of it, then."""
    return _stream(engine, image, names, frozenset())


def _stream(engine: Engine, image: Image, names: Sequence[str], omit: frozenset[str]) -> Loaded:
    tally = _Tally()
    engine.load_archive(tally.count(docker_archive([image], names, omit=omit)))
    found = _present(engine, image)
    if found is None:
        raise TargetError(
            f"{engine.where} has taken the image {names[0]}, and does not have it.",
            hint="Look into the engine's log and its storage.",
        )
    return Loaded(found, tally.size, sum(each not in omit for each in image.diff_ids))


class _Tally:
    def __init__(self) -> None:
        self.size = 0

    def count(self, pieces: Iterable[bytes]) -> Iterator[bytes]:
        for piece in pieces:
            self.size += len(piece)
            yield piece


def _layers(engine: Engine, reference: str) -> tuple[str, ...]:
    found = engine.image(reference)
    return _root_layers(found) if found else ()


def _root_layers(document: dict[str, object]) -> tuple[str, ...]:
    root = document.get("RootFS")
    layers = root.get("Layers") if isinstance(root, dict) else None
    return tuple(str(each) for each in layers or ())


def _id(engine: Engine, name: str) -> str:
    found = engine.image(name)
    return str(found["Id"]) if found else ""


def _split(name: str) -> tuple[str, str]:
    repository, _, tag = name.rpartition(":")
    return (repository, tag) if repository and "/" not in tag else (name, "latest")
