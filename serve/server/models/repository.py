"""The models of a server by name and version: which are loaded, and what requests get."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Literal, Protocol

from scoring.errors import FieldpostError, ModelNotReadyError, UnknownModelError

if TYPE_CHECKING:
    from serve.server.jobs import Jobs
    from serve.server.models.served import ServedModel
    from serve.server.telemetry.telemetry import Telemetry

logger = logging.getLogger(__name__)

State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
Done = Callable[[BaseException | None], None]


class Source(Protocol):
    """Where the models come from."""

    def names(self) -> list[str]:
        """The names that can be loaded."""
        ...

    def open(self, name: str) -> list[ServedModel]:
        """Loads the current versions of a model, warmed up; runs on a thread.

        Raises:
            UnknownModelError: There is no such name.
            ModelFileError: It does not load; the error says why.
        """
        ...


@dataclass(frozen=True, slots=True)
class IndexEntry:
    """One line of the repository's index.

    Attributes:
        name: Of the model.
        version: Empty for a model of which none is loaded.
        state: Of that version.
        reason: Why it is not ready; empty if it is.
    """

    name: str
    version: str
    state: State
    reason: str = ""


@dataclass(slots=True)
class _Entry:
    versions: dict[str, ServedModel] = field(default_factory=dict)
    state: State = "UNAVAILABLE"
    reason: str = ""
    busy: bool = False
    waiting: list[Callable[[], None]] = field(default_factory=list)


class Repository:
    """All models of one server; lives on the event loop's thread.

    Args:
        source: Where they come from.
        jobs: Threads on which they are loaded.
        default: The name that `/score` answers for; empty where requests have to name one.
        telemetry: Counts what the models do; None: nobody does.
    """

    def __init__(
        self, source: Source, jobs: Jobs, default: str = "", telemetry: Telemetry | None = None
    ) -> None:
        self._telemetry = telemetry
        self._source = source
        self._jobs = jobs
        self._default = default
        self._entries: dict[str, _Entry] = {name: _Entry() for name in source.names()}
        self._watchers: list[Callable[[], None]] = []

    @property
    def default(self) -> ServedModel | None:
        """What `/score` answers for: the named one, or the only one."""
        name = self._default or (next(iter(self._entries)) if len(self._entries) == 1 else "")
        entry = self._entries.get(name)
        return _latest(entry) if entry is not None else None

    def get(self, name: str, version: str = "") -> ServedModel:
        """A loaded model; without a version the newest one.

        Raises:
            UnknownModelError: The server has no such name or version.
            ModelNotReadyError: It is known and not loaded.
        """
        entry = self._entries.get(name)
        if entry is None:
            raise UnknownModelError(
                f"Request for unknown model: {name!r} is not found",
                hint="POST /v2/repository/index lists the models.",
                where=name,
            )
        found = entry.versions.get(version) if version else _latest(entry)
        if found is not None:
            return found
        if version and entry.versions:
            raise UnknownModelError(
                f"Request for unknown model: {name!r} version {version} is not found",
                hint=f"Its versions are {', '.join(entry.versions)}.",
                where=name,
            )
        raise ModelNotReadyError(
            f"The model {name!r} is not ready: {entry.reason or entry.state.lower()}.",
            hint=f"POST /v2/repository/models/{name}/load loads it.",
            where=name,
        )

    def models(self) -> list[ServedModel]:
        """Every loaded version."""
        return [model for entry in self._entries.values() for model in entry.versions.values()]

    def versions(self, name: str) -> list[str]:
        """The loaded versions of a model, the oldest first."""
        entry = self._entries.get(name)
        return list(entry.versions) if entry is not None else []

    def index(self) -> list[IndexEntry]:
        """All that is known, loaded or not."""
        for name in self._source.names():
            self._entries.setdefault(name, _Entry())
        found: list[IndexEntry] = []
        for name, entry in self._entries.items():
            if entry.versions:
                found += [IndexEntry(name, version, "READY") for version in entry.versions]
            else:
                found.append(IndexEntry(name, "", entry.state, entry.reason))
        return found

    def watch(self, changed: Callable[[], None]) -> None:
        """Registers a callback for after every change."""
        self._watchers.append(changed)

    def put(self, name: str, models: list[ServedModel], load_s: float = 0.0) -> None:
        """Takes the versions of a model as they are now; those it replaces end by themselves.

        Args:
            name: Of the model.
            models: Its versions, the oldest first.
            load_s: How long they took to load.
        """
        entry = self._entries.setdefault(name, _Entry())
        before = entry.versions
        entry.versions = {model.version: model for model in models}
        entry.state, entry.reason = "READY" if models else "UNAVAILABLE", ""
        self._changed()
        for model in before.values():
            model.close(_give_memory_back)
        if self._telemetry is not None:
            for model in models:
                model.count(self._telemetry, load_s)

    def load_all(self) -> None:
        """Loads every model on this thread, for the start of a server.

        Raises:
            ModelFileError: One does not load; the error says why.
        """
        for name in self._source.names():
            begun = perf_counter()
            models = self._source.open(name)
            self.put(name, models, perf_counter() - begun)

    def load(self, name: str, done: Done) -> None:
        """Loads a model, or its current versions in the place of those that are loaded.

        Those answer until the new ones are ready; what they have begun is finished.

        Args:
            name: Of the model.
            done: Gets None, or why it did not load; the old versions then stay.
        """
        if name not in self._entries and name in self._source.names():
            self._entries[name] = _Entry()
        entry = self._entries.get(name)
        if entry is None:
            reason = f"failed to load '{name}', no such model in the repository"
            done(UnknownModelError(reason, hint="POST /v2/repository/index lists them."))
            return
        if entry.busy:
            entry.waiting.append(lambda: self.load(name, done))
            return
        entry.busy = True
        if not entry.versions:
            entry.state = "LOADING"
        begun = perf_counter()

        def opened(models: list[ServedModel] | None, error: BaseException | None) -> None:
            if models is not None:
                load_s = perf_counter() - begun
                self.put(name, models, load_s)
                logger.info("Loaded %s in %.3f s", name, load_s)
            else:
                self._failed(name, entry, error)
            self._released(entry)
            done(error)

        self._jobs.submit(lambda: self._source.open(name), opened, unbounded=True)

    def unload(self, name: str, done: Done) -> None:
        """Ends every version of a model: what has begun is finished, then `done` is called."""
        entry = self._entries.get(name)
        if entry is None:
            done(UnknownModelError(f"failed to unload '{name}', no such model in the repository"))
            return
        if entry.busy:
            entry.waiting.append(lambda: self.unload(name, done))
            return
        entry.busy = True
        ending = list(entry.versions.values())
        entry.versions, entry.state, entry.reason = {}, "UNLOADING", ""
        self._changed()
        left = len(ending)

        def closed() -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                entry.state, entry.reason = "UNAVAILABLE", "unloaded"
                self._released(entry)
                ending.clear()
                _give_memory_back()
                done(None)

        for model in tuple(ending):
            model.close(closed)
        if not ending:
            closed()

    def _failed(self, name: str, entry: _Entry, error: BaseException | None) -> None:
        entry.reason = error.message if isinstance(error, FieldpostError) else str(error)
        if not entry.versions:
            entry.state = "UNAVAILABLE"
        logger.error("%s was not loaded: %s", name, entry.reason)
        self._changed()

    def _released(self, entry: _Entry) -> None:
        entry.busy = False
        if entry.waiting:
            entry.waiting.pop(0)()

    def _changed(self) -> None:
        for changed in self._watchers:
            changed()


def _latest(entry: _Entry) -> ServedModel | None:
    return next(reversed(entry.versions.values()), None)


def _give_memory_back() -> None:
    """Frees what an unloaded model held: its cycles, and the pages that malloc keeps."""
    import ctypes  # noqa: PLC0415 - few servers unload
    import gc  # noqa: PLC0415

    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
