"""The models of a server by name and version: which are loaded, and what requests get."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from scoring.errors import FieldpostError, ModelNotReadyError, UnknownModelError

if TYPE_CHECKING:
    from serve.server.models.served import ServedModel
    from serve.server.telemetry.telemetry import Telemetry

logger = logging.getLogger(__name__)

T = TypeVar("T")
State = Literal["READY", "LOADING", "UNLOADING", "UNAVAILABLE"]
Done = Callable[[BaseException | None], None]
Versions = Mapping[str, "ServedModel"]


class Source(Protocol):
    """Where the models come from.

    `open`, `follow`, `dropped` and `settle` may take long, and run on a thread of their own.

    Attributes:
        default: The name that `/score` answers for; empty for the only one.
    """

    default: str

    def names(self) -> list[str]:
        """The names that can be loaded."""
        ...

    def loaded(self) -> list[str]:
        """The names that are to be loaded when a worker starts."""
        ...

    def open(self, name: str, present: Versions) -> list[ServedModel]:
        """Loads the versions of a model that are there now, warmed up.

        Args:
            name: Of the model.
            present: What is loaded of it; versions that stay are taken over.

        Raises:
            UnknownModelError: There is no such name.
            ModelFileError: It does not load; the error says why.
        """
        ...

    def follow(self, name: str, present: Versions) -> list[ServedModel]:
        """As `open`, where another worker has prepared the versions."""
        ...

    def dropped(self, name: str) -> None:
        """Tells the other workers that a model is unloaded."""
        ...

    def settle(self) -> None:
        """Waits until the other workers have done what this one has."""
        ...

    def news(self) -> Mapping[str, bool]:
        """What other workers have changed: whether each model is to be loaded. Quick."""
        ...

    def reached(self) -> None:
        """Says that this worker has done what others have."""
        ...


class LonelySource:
    """The part of `Source` that is for several workers, for those that are alone."""

    default = ""

    def dropped(self, name: str) -> None:
        """See `Source`."""

    def settle(self) -> None:
        """See `Source`."""

    def news(self) -> Mapping[str, bool]:
        """See `Source`."""
        return {}

    def reached(self) -> None:
        """See `Source`."""


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
    reason: str = "unloaded"
    busy: bool = False
    waiting: list[Callable[[], None]] = field(default_factory=list)


class Repository:
    """All models of one server; lives on the event loop's thread.

    Args:
        source: Where they come from.
        post: Runs a callable on the event loop's thread (`loop.call_soon_threadsafe`).
        telemetry: Counts what the models do; None: nobody does.

    Attributes:
        default: What `/score` answers for: the named model, or the only one.
    """

    def __init__(
        self, source: Source, post: Callable[..., object], telemetry: Telemetry | None = None
    ) -> None:
        self._source = source
        self._post = post
        self._telemetry = telemetry
        self.default: ServedModel | None = None
        self._default = source.default
        self._entries: dict[str, _Entry] = {}
        self._watchers: list[Callable[[], None]] = []
        self._following = 0

    # What requests ask

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

    # What changes it

    def load_all(self) -> None:
        """Loads on this thread what a worker is to have at its start.

        Raises:
            ModelFileError: One does not load; the error says why.
        """
        for name in self._source.names():
            self._entries[name] = _Entry()
        for name in self._source.loaded():
            begun = perf_counter()
            self.put(name, self._source.follow(name, {}), perf_counter() - begun)
        self._source.reached()

    def put(self, name: str, models: list[ServedModel], load_s: float = 0.0) -> None:
        """Takes the versions of a model as they are now; those that they replace end.

        Args:
            name: Of the model.
            models: Its versions, the oldest first.
            load_s: How long they took to load.
        """
        entry = self._entries.setdefault(name, _Entry())
        before = entry.versions
        entry.versions = {model.version: model for model in models}
        entry.state = "READY" if models else "UNAVAILABLE"
        entry.reason = "" if models else "it has no version"
        # A version that stays is counted on; one of the same number that replaces another, anew.
        for model in before.values():
            if model not in models:
                model.close(give_memory_back)
        if self._telemetry is not None:
            for model in models:
                if model not in before.values():
                    model.count(self._telemetry, load_s)
        self._changed()

    def load(self, name: str, done: Done) -> None:
        """Loads a model, or its current versions in the place of those that are loaded.

        Those answer until the new ones are ready; what they have begun is finished.

        Args:
            name: Of the model.
            done: Gets None once every worker has it, or why it did not load; the old versions then
                stay.
        """
        entry = self._entries.get(name)
        if entry is None and name in self._source.names():
            entry = self._entries[name] = _Entry()
        if entry is None:
            done(
                UnknownModelError(
                    f"failed to load {name!r}, no such model in the repository",
                    hint="POST /v2/repository/index lists them.",
                    where=name,
                )
            )
        elif self._taken(entry, lambda: self.load(name, done)):
            self._load(name, entry, self._source.open, lambda error: self._settle(done, error))

    def unload(self, name: str, done: Done) -> None:
        """Ends every version of a model: what has begun is finished, then `done` is called."""
        entry = self._entries.get(name)
        if entry is None:
            done(
                UnknownModelError(
                    f"failed to unload {name!r}, no such model in the repository",
                    hint="POST /v2/repository/index lists them.",
                    where=name,
                )
            )
        elif self._taken(entry, lambda: self.unload(name, done)):

            def told(_result: None, error: BaseException | None) -> None:
                self._end(entry, lambda: self._settle(done, error))

            self._apart(lambda: self._source.dropped(name), told)

    def tick(self) -> None:
        """Follows what other workers have done; call it twice a second."""
        if self._following:
            return
        for name, wanted in self._source.news().items():
            entry = self._entries.setdefault(name, _Entry())
            if not wanted and not entry.versions:
                continue
            self._following += 1
            if wanted:
                self._follow(name, entry)
            else:
                self._drop(entry)

    def _follow(self, name: str, entry: _Entry) -> None:
        if self._taken(entry, lambda: self._follow(name, entry)):
            self._load(name, entry, self._source.follow, lambda _error: self._followed())

    def _drop(self, entry: _Entry) -> None:
        if self._taken(entry, lambda: self._drop(entry)):
            self._end(entry, self._followed)

    def _followed(self) -> None:
        self._following -= 1
        if not self._following:
            self._source.reached()

    def _load(
        self,
        name: str,
        entry: _Entry,
        load: Callable[[str, Versions], list[ServedModel]],
        done: Done,
    ) -> None:
        if not entry.versions:
            entry.state, entry.reason = "LOADING", ""
        present = dict(entry.versions)
        begun = perf_counter()

        def opened(models: list[ServedModel] | None, error: BaseException | None) -> None:
            if models is None:
                self._failed(name, entry, error)
            else:
                load_s = perf_counter() - begun
                self.put(name, models, load_s)
                logger.info("Loaded %s in %.3f s", name, load_s)
            self._released(entry)
            done(error)

        self._apart(lambda: load(name, present), opened)

    def _end(self, entry: _Entry, done: Callable[[], None]) -> None:
        ending = list(entry.versions.values())
        entry.versions, entry.state, entry.reason = {}, "UNLOADING", ""
        self._changed()
        left = len(ending)

        def closed() -> None:
            nonlocal left
            left -= 1
            if left <= 0:
                entry.state, entry.reason = "UNAVAILABLE", "unloaded"
                ending.clear()
                give_memory_back()
                self._released(entry)
                done()

        for model in tuple(ending):
            model.close(closed)
        if not ending:
            closed()

    def _settle(self, done: Done, error: BaseException | None) -> None:
        if error is not None:
            done(error)
        else:
            self._apart(self._source.settle, lambda _result, failure: done(failure))

    def _failed(self, name: str, entry: _Entry, error: BaseException | None) -> None:
        reason = error.message if isinstance(error, FieldpostError) else str(error)
        if self._telemetry is not None:
            self._telemetry.model(name, "").load_failed()
        if not entry.versions:
            entry.state, entry.reason = "UNAVAILABLE", reason
        logger.error("%s was not loaded: %s", name, reason)
        self._changed()

    def _taken(self, entry: _Entry, again: Callable[[], None]) -> bool:
        """Whether an entry is free for a change, and now taken for it; else it waits its turn."""
        if entry.busy:
            entry.waiting.append(again)
            return False
        entry.busy = True
        return True

    def _released(self, entry: _Entry) -> None:
        entry.busy = False
        if entry.waiting:
            entry.waiting.pop(0)()

    def _changed(self) -> None:
        name = self._default or (next(iter(self._entries)) if len(self._entries) == 1 else "")
        entry = self._entries.get(name)
        self.default = _latest(entry) if entry is not None else None
        for changed in self._watchers:
            changed()

    def _apart(
        self, call: Callable[[], T], done: Callable[[T | None, BaseException | None], None]
    ) -> None:
        """Runs a call on a thread of its own: those that answer requests go on."""

        def run() -> None:
            try:
                outcome: tuple[T | None, BaseException | None] = call(), None
            except BaseException as error:  # noqa: BLE001 - told to who asked
                outcome = None, error
            self._post(done, *outcome)

        threading.Thread(target=run, name="models", daemon=True).start()


def _latest(entry: _Entry) -> ServedModel | None:
    return next(reversed(entry.versions.values()), None)


def give_memory_back() -> None:
    """Frees what an unloaded model held: its cycles, and the pages that malloc keeps."""
    import ctypes  # noqa: PLC0415 - few servers unload
    import gc  # noqa: PLC0415

    gc.unfreeze()  # a model that was there at the start is among what was frozen then
    gc.collect()
    gc.freeze()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's
    if trim is not None:
        trim(0)
