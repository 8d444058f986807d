"""Where a server's models come from: the root of one package, or a folder of several models."""

from __future__ import annotations

import logging
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from scoring import bundle as bundles
from scoring.errors import CorruptModelError, UnknownModelError
from scoring.runtimes.base import load
from serve.server.models.folder import Entry, ModelFolder
from serve.server.models.repository import LonelySource
from serve.server.models.served import ServedModel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from serve.server.jobs import Jobs
    from serve.server.models.repository import Source, Versions
    from serve.server.settings import ServerSettings

logger = logging.getLogger(__name__)

_INLINE_RUNTIMES = frozenset({"onnx"})
_SETTLE_S = 60.0
_LOOK_S = 0.02


class Opener:
    """Loads the model of a root and warms it up; may be used on any thread.

    Args:
        jobs: The threads of the server.
        settings: The server's.
        soon: Runs a callable in the loop's next turn.
    """

    def __init__(self, jobs: Jobs, settings: ServerSettings, soon: Callable[..., object]) -> None:
        self._jobs = jobs
        self._settings = settings
        self._soon = soon

    def __call__(self, root: Path) -> ServedModel:
        """The model of a root.

        Raises:
            ModelFileError: It does not load; the error says why.
        """
        bundle = bundles.read(root)
        predictor = load(root, bundle)
        inline = bundle.runtime in _INLINE_RUNTIMES
        model = ServedModel(
            predictor, bundle, self._jobs, self._settings, self._soon, inline=inline
        )
        model.warm_up()
        return model


class RootSource(LonelySource):
    """The one model of a package's root.

    Args:
        root: Of an unpacked package.
        opener: Loads it.
    """

    def __init__(self, root: Path, opener: Opener) -> None:
        self._root = root
        self._opener = opener

    def names(self) -> list[str]:
        """See `serve.server.models.repository.Source`."""
        return [bundles.read(self._root).name]

    def loaded(self) -> list[str]:
        """See `Source`."""
        return self.names()

    def open(self, _name: str, _present: Versions) -> list[ServedModel]:
        """See `Source`; loads it anew."""
        return [self._opener(self._root)]

    def follow(self, name: str, present: Versions) -> list[ServedModel]:
        """See `Source`."""
        return self.open(name, present)


class FolderSource:
    """The models of a `ModelFolder`, which other workers share.

    Args:
        folder: The server's.
        opener: Loads them.
    """

    def __init__(self, folder: ModelFolder, opener: Opener) -> None:
        self._folder = folder
        self._opener = opener
        self._manifest = folder.manifest()
        self._stamp = folder.stamp()
        self._generation = folder.state().generation
        self.default = self._manifest.default

    def names(self) -> list[str]:
        """See `Source`."""
        return self._folder.names()

    def loaded(self) -> list[str]:
        """See `Source`."""
        return [name for name, entry in self._folder.state().models.items() if entry.loaded]

    def open(self, name: str, present: Versions) -> list[ServedModel]:
        """See `Source`: prepares what is there now, and loads what is new of it."""
        if name not in self.names():
            raise UnknownModelError(f"failed to load {name!r}, no such model in the repository")
        command = [*self._manifest.prepare, str(self._folder.root), name]
        done = subprocess.run(command, capture_output=True, check=False)  # noqa: S603 - ours
        if done.returncode:
            raise _failure(name, done.stdout, done.stderr)
        return self.follow(name, present)

    def follow(self, name: str, present: Versions) -> list[ServedModel]:
        """See `Source`: the versions of the state, as another worker has prepared them."""
        entry = self._folder.state().models.get(name, Entry())
        kept = {model.origin: model for model in present.values()}
        models = []
        for version, path in entry.versions.items():
            root = self._folder.root / path
            model = kept.get(str(root))
            if model is None:
                model = self._opener(root)
                model.name, model.version, model.origin = name, version, str(root)
            models.append(model)
        return models

    def dropped(self, name: str) -> None:
        """See `Source`."""
        with self._folder.locked():
            entry = self._folder.state().models.get(name, Entry())
            if entry.loaded:
                self._folder.change(name, msgspec.structs.replace(entry, loaded=False))

    def settle(self) -> None:
        """See `Source`."""
        generation = self._folder.state().generation
        self._folder.acknowledge(generation)
        deadline = time.monotonic() + _SETTLE_S
        while lagging := self._folder.lagging(generation):
            if time.monotonic() > deadline:
                logger.warning("Workers %s have not followed a change of the models", lagging)
                return
            time.sleep(_LOOK_S)

    def news(self) -> Mapping[str, bool]:
        """See `Source`."""
        stamp = self._folder.stamp()
        if stamp == self._stamp:
            return {}
        self._stamp = stamp
        return {name: entry.loaded for name, entry in self._folder.state().models.items()}

    def reached(self) -> None:
        """See `Source`."""
        self._folder.acknowledge(self._folder.state().generation)


def _failure(name: str, said: bytes, log: bytes) -> CorruptModelError:
    """What a command that prepares models says of its failure, as one line of JSON."""
    try:
        told = msgspec.json.decode(said.splitlines()[-1], type=dict[str, str])
    except (IndexError, msgspec.MsgspecError):
        text = log.decode("utf-8", "replace")
        logger.error("Preparing %s failed: %s", name, text)  # noqa: TRY400 - the child's is the one
        told = {"message": f"{name!r} could not be prepared; the log of the server says why."}
    return CorruptModelError(
        told["message"], hint=told.get("hint", ""), where=told.get("where", "")
    )


def source_of(
    root: Path, jobs: Jobs, settings: ServerSettings, soon: Callable[..., object]
) -> Source:
    """The source of a root, be it of one package or of several models.

    Args:
        root: Of the server.
        jobs: The threads of the server.
        settings: The server's.
        soon: Runs a callable in the loop's next turn.
    """
    opener = Opener(jobs, settings, soon)
    if ModelFolder.is_one(root):
        return FolderSource(ModelFolder(root), opener)
    return RootSource(root, opener)
