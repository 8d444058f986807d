"""Loading, unloading and swapping models of a repository whose source the test controls."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from scoring.bundle import Bundle
from scoring.errors import CorruptModelError, ModelNotReadyError, UnknownModelError
from serve.server.jobs import Jobs
from serve.server.models.call import Call
from serve.server.models.repository import LonelySource, Repository
from serve.server.models.served import ServedModel
from serve.server.settings import ServerSettings
from serve.server.telemetry.telemetry import Telemetry
from tests.support.server import Sums, until
from tests.support.telemetry import scrape

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from serve.server.models.repository import Versions


class Loop:
    """What is posted runs when the test says so; from any thread."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waiting: list[Callable[[], object]] = []

    def post(self, call: Callable[..., object], *args: Any) -> None:
        with self.lock:
            self.waiting.append(lambda: call(*args))

    def turn(self) -> bool:
        with self.lock:
            waiting, self.waiting = self.waiting, []
        for call in waiting:
            call()
        return bool(waiting)

    def until(self, condition: Callable[[], bool]) -> None:
        def look() -> bool:
            self.turn()
            return condition()

        until(look)


class Shelf(LonelySource):
    """Versions by name, as the test puts them; loading waits for `go`."""

    def __init__(self, loop: Loop, **versions: list[int]) -> None:
        self.versions = versions
        self.go = threading.Event()
        self.go.set()
        self.changed: dict[str, bool] = {}
        self.settled: list[str] = []
        self.reached_count = 0
        self._loop = loop

    def names(self) -> list[str]:
        return list(self.versions)

    def loaded(self) -> list[str]:
        return [name for name in self.versions if self.versions[name]]

    def open(self, name: str, present: Versions) -> list[ServedModel]:
        assert self.go.wait(10)
        if not self.versions[name]:
            raise CorruptModelError("it is torn")
        return self.follow(name, present)

    def follow(self, name: str, present: Versions) -> list[ServedModel]:
        return [present.get(str(v)) or self._make(name, v) for v in self.versions[name]]

    def _make(self, name: str, version: int) -> ServedModel:
        jobs = Jobs(self._loop.post, 10)
        bundle = Bundle(name=name, model_version=version, runtime="onnx", format="onnx")
        return ServedModel(Sums(), bundle, jobs, ServerSettings(), self._loop.post, inline=True)

    def settle(self) -> None:
        self.settled.append("all")

    def news(self) -> dict[str, bool]:
        changed, self.changed = self.changed, {}
        return changed

    def reached(self) -> None:
        self.reached_count += 1


@pytest.fixture
def loop() -> Loop:
    return Loop()


def ask(loop: Loop, change: Callable[[Callable[[BaseException | None], None]], None]) -> Any:
    """Asks for a change and waits until it is told to be done."""
    done: list[BaseException | None] = []
    change(done.append)
    loop.until(lambda: bool(done))
    return done[0]


def test_the_newest_version_answers_where_none_is_named(loop: Loop) -> None:
    repository = Repository(Shelf(loop, a=[1, 3], b=[2]), loop.post)
    repository.load_all()
    assert repository.get("a").version == "3"
    assert repository.get("a", "1").version == "1"
    assert repository.versions("a") == ["1", "3"]
    assert repository.default is None
    with pytest.raises(UnknownModelError, match="unknown model: 'c'"):
        repository.get("c")
    with pytest.raises(UnknownModelError, match="version 2 is not found"):
        repository.get("a", "2")


def test_the_only_model_is_the_default(loop: Loop) -> None:
    repository = Repository(Shelf(loop, a=[1]), loop.post)
    repository.load_all()
    assert repository.default is repository.get("a")


def test_a_load_swaps_the_versions_and_the_old_one_answers_until_then(loop: Loop) -> None:
    shelf = Shelf(loop, a=[1])
    repository = Repository(shelf, loop.post)
    repository.load_all()
    old = repository.get("a")
    shelf.versions["a"] = [2]
    shelf.go.clear()
    done: list[BaseException | None] = []
    repository.load("a", done.append)
    loop.turn()
    assert repository.get("a") is old
    assert not done
    shelf.go.set()
    loop.until(lambda: bool(done))
    assert done == [None]
    assert repository.get("a").version == "2"
    assert shelf.settled == ["all"]
    with pytest.raises(ModelNotReadyError):
        old.submit(Call(1, 0.0))


def test_versions_that_stay_are_not_loaded_again(loop: Loop) -> None:
    shelf = Shelf(loop, a=[1])
    repository = Repository(shelf, loop.post)
    repository.load_all()
    first = repository.get("a")
    shelf.versions["a"] = [1, 2]
    assert ask(loop, lambda done: repository.load("a", done)) is None
    assert repository.get("a", "1") is first
    assert repository.get("a").version == "2"


def test_a_load_that_fails_leaves_the_old_versions(loop: Loop) -> None:
    shelf = Shelf(loop, a=[1])
    telemetry = Telemetry.from_settings(ServerSettings(), loop.post, {})
    repository = Repository(shelf, loop.post, telemetry)
    repository.load_all()
    old = repository.get("a")
    shelf.versions["a"] = []
    assert isinstance(ask(loop, lambda done: repository.load("a", done)), CorruptModelError)
    assert repository.get("a") is old
    assert scrape(telemetry)("fieldpost_model_loads_total", model="a", outcome="failed") == 1
    telemetry.close()


def test_a_model_that_never_loaded_says_why(loop: Loop) -> None:
    shelf = Shelf(loop, a=[1], b=[])
    repository = Repository(shelf, loop.post)
    repository.load_all()
    ask(loop, lambda done: repository.load("b", done))
    with pytest.raises(ModelNotReadyError, match="it is torn"):
        repository.get("b")
    states = {entry.name: (entry.state, entry.reason) for entry in repository.index()}
    assert states == {"a": ("READY", ""), "b": ("UNAVAILABLE", "it is torn")}


def test_unload_and_load_again(loop: Loop) -> None:
    repository = Repository(Shelf(loop, a=[1]), loop.post)
    repository.load_all()
    changes: list[int] = []
    repository.watch(lambda: changes.append(len(repository.models())))
    assert ask(loop, lambda done: repository.unload("a", done)) is None
    with pytest.raises(ModelNotReadyError, match="unloaded"):
        repository.get("a")
    assert [(e.state, e.reason) for e in repository.index()] == [("UNAVAILABLE", "unloaded")]
    assert ask(loop, lambda done: repository.load("a", done)) is None
    assert repository.get("a").version == "1"
    assert changes == [0, 1]


def test_changes_of_one_model_wait_for_each_other(loop: Loop) -> None:
    shelf = Shelf(loop, a=[1])
    repository = Repository(shelf, loop.post)
    repository.load_all()
    shelf.go.clear()
    order: list[str] = []
    repository.load("a", lambda _error: order.append("load"))
    repository.unload("a", lambda _error: order.append("unload"))
    repository.load("a", lambda _error: order.append("again"))
    shelf.go.set()
    loop.until(lambda: len(order) == 3)
    assert order[0] == "load"
    assert repository.get("a").version == "1"


def test_unknown_names_are_told_at_once(loop: Loop) -> None:
    repository = Repository(Shelf(loop, a=[1]), loop.post)
    repository.load_all()
    assert isinstance(ask(loop, lambda done: repository.load("x", done)), UnknownModelError)
    assert isinstance(ask(loop, lambda done: repository.unload("x", done)), UnknownModelError)


def test_a_worker_follows_what_others_do(loop: Loop) -> None:
    shelf = Shelf(loop, a=[1], b=[])
    repository = Repository(shelf, loop.post)
    repository.load_all()
    assert shelf.reached_count == 1
    shelf.versions["b"] = [7]
    shelf.changed = {"a": False, "b": True}
    repository.tick()
    loop.until(lambda: shelf.reached_count == 2)
    assert repository.get("b").version == "7"
    with pytest.raises(ModelNotReadyError):
        repository.get("a")
