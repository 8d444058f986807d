"""The queue before a worker: bounded, with deadlines, on threads and on an event loop."""

from __future__ import annotations

import asyncio
import select
import threading
import time
import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import DeadlineExceededError, OverloadedError
from serve.server.jobs import Jobs
from serve.server.tasks import Tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator


async def seen(condition: Callable[[], bool]) -> None:
    """Waits for what another thread does."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - it has no event of this loop
            await asyncio.sleep(0.001)


class Harness:
    """A server's event loop on this thread, and a worker on another."""

    def __init__(self, *, concurrency: int = 0, limit: int = 10, turns: bool = False) -> None:
        self.loop = asyncio.new_event_loop()
        self.jobs = Jobs(self.loop.call_soon_threadsafe, limit)
        self.outcomes: list[tuple[Any, BaseException | None]] = []
        if concurrency:
            self.jobs.run_on(Tasks(asyncio.SelectorEventLoop(), concurrency))
        if turns:
            self.jobs.take_turns(self.loop)
        self.worker = threading.Thread(target=self.jobs.work)
        self.worker.start()

    def close(self) -> None:
        self.jobs.stop()
        self.worker.join(10)
        assert not self.worker.is_alive()
        self.loop.run_until_complete(asyncio.sleep(0))
        self.loop.close()

    def done(self, result: Any, error: BaseException | None) -> None:
        self.outcomes.append((result, error))

    def do(self, function: Callable[[], Any]) -> Any:
        """Runs something on the server's loop."""

        async def wrapped() -> Any:
            return function()

        return self.loop.run_until_complete(wrapped())

    def until(self, condition: Callable[[], bool]) -> None:
        self.loop.run_until_complete(seen(condition))


@pytest.fixture
def threaded() -> Iterator[Harness]:
    harness = Harness()
    yield harness
    harness.close()


@pytest.fixture
def tasks() -> Iterator[Harness]:
    harness = Harness(concurrency=2, limit=4)
    yield harness
    harness.close()


def test_results_and_errors(threaded: Harness) -> None:
    def fail() -> None:
        raise SystemExit(3)

    threaded.do(lambda: threaded.jobs.submit(lambda: 5, threaded.done))
    threaded.do(lambda: threaded.jobs.submit(fail, threaded.done))
    threaded.until(lambda: len(threaded.outcomes) == 2)
    assert threaded.outcomes[0] == (5, None)
    assert isinstance(threaded.outcomes[1][1], SystemExit)
    assert threaded.jobs.pending == 0


def test_a_deadline_is_told_in_time_and_nothing_is_run(threaded: Harness) -> None:
    go, ran = threading.Event(), []
    threaded.do(lambda: threaded.jobs.submit(go.wait, threaded.done))
    begun = time.monotonic()
    threaded.do(
        lambda: threaded.jobs.submit(
            lambda: ran.append(1), threaded.done, deadline=time.monotonic() + 0.05
        )
    )
    threaded.until(lambda: bool(threaded.outcomes))
    assert 0.04 < time.monotonic() - begun < 5
    assert isinstance(threaded.outcomes[0][1], DeadlineExceededError)
    go.set()
    threaded.until(lambda: threaded.jobs.pending == 0)
    assert len(threaded.outcomes) == 2
    assert not ran


def test_an_answered_job_is_not_held_until_its_deadline(threaded: Harness) -> None:
    class Body:
        """What a request holds."""

    def ask() -> weakref.ref[Body]:
        body = Body()
        threaded.jobs.submit(partial(id, body), threaded.done, deadline=time.monotonic() + 3600)
        return weakref.ref(body)

    held = threaded.do(ask)
    threaded.until(lambda: bool(threaded.outcomes))
    threaded.until(lambda: held() is None)


def test_each_of_several_deadlines_is_told(threaded: Harness) -> None:
    go = threading.Event()
    threaded.do(lambda: threaded.jobs.submit(go.wait, threaded.done))
    begun = time.monotonic()
    for left in (0.06, 0.02, 0.04, 3600):
        submit = partial(threaded.jobs.submit, int, threaded.done, deadline=begun + left)
        threaded.do(submit)
    threaded.until(lambda: len(threaded.outcomes) == 3)
    assert time.monotonic() - begun >= 0.06
    go.set()
    threaded.until(lambda: threaded.jobs.pending == 0)
    assert threaded.outcomes[3:] == [(True, None), (0, None)]


def test_a_deadline_that_passes_while_it_runs_changes_nothing(threaded: Harness) -> None:
    deadline = time.monotonic() + 0.02

    def work() -> str:
        time.sleep(0.1)
        return "done"

    threaded.do(lambda: threaded.jobs.submit(work, threaded.done, deadline=deadline))
    threaded.until(lambda: bool(threaded.outcomes))
    assert threaded.outcomes == [("done", None)]


def test_a_deadline_that_has_passed_is_refused(threaded: Harness) -> None:
    with pytest.raises(DeadlineExceededError):
        threaded.do(lambda: threaded.jobs.submit(int, threaded.done, deadline=0.0))
    assert threaded.jobs.pending == 0


def test_a_cancelled_job_is_not_run(threaded: Harness) -> None:
    go, ran = threading.Event(), []
    threaded.do(lambda: threaded.jobs.submit(go.wait, threaded.done))
    job = threaded.do(lambda: threaded.jobs.submit(lambda: ran.append(1), threaded.done))
    job.cancel()
    go.set()
    threaded.until(lambda: threaded.jobs.pending == 0)
    assert not ran
    assert len(threaded.outcomes) == 1


# Coroutines


class Work:
    """Coroutines that wait until they are told, and count."""

    def __init__(self) -> None:
        self.running = self.most = 0
        self.log: list[str] = []
        self.go = threading.Event()

    def start(self, name: str) -> Callable[[Callable[[Any], None]], Coroutine[Any, Any, None]]:
        async def run(respond: Callable[[Any], None]) -> None:
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await seen(self.go.is_set)
                respond(name)
            except asyncio.CancelledError:
                self.log.append(f"cancelled {name}")
                raise
            finally:
                self.running -= 1

        return run


def test_coroutines_run_side_by_side_up_to_the_limit(tasks: Harness) -> None:
    work = Work()
    for name in "abcd":
        tasks.do(lambda: tasks.jobs.submit_coroutine(work.start(name), tasks.done))  # noqa: B023
    with pytest.raises(OverloadedError):
        tasks.do(lambda: tasks.jobs.submit_coroutine(work.start("e"), tasks.done))
    tasks.until(lambda: work.running == 2)
    work.go.set()
    tasks.until(lambda: tasks.jobs.pending == 0)
    assert work.most == 2
    assert sorted(result for result, _ in tasks.outcomes) == list("abcd")


def test_a_cancelled_coroutine(tasks: Harness) -> None:
    work = Work()
    jobs = [
        tasks.do(lambda: tasks.jobs.submit_coroutine(work.start(name), tasks.done))  # noqa: B023
        for name in "abc"
    ]
    tasks.until(lambda: work.running == 2)
    jobs[2].cancel()  # waits
    jobs[0].cancel()  # runs
    tasks.until(lambda: work.log == ["cancelled a"])
    work.go.set()
    tasks.until(lambda: tasks.jobs.pending == 0)
    assert tasks.outcomes == [("b", None)]


def test_deadlines_of_coroutines(tasks: Harness) -> None:
    work = Work()
    soon = time.monotonic() + 0.05
    for name, deadline in (("a", float("inf")), ("b", soon), ("c", soon)):
        tasks.do(
            lambda: tasks.jobs.submit_coroutine(
                work.start(name),  # noqa: B023
                tasks.done,
                deadline=deadline,  # noqa: B023
            )
        )
    tasks.until(lambda: len(tasks.outcomes) == 2)
    assert all(isinstance(error, DeadlineExceededError) for _, error in tasks.outcomes)
    assert "cancelled b" in work.log
    work.go.set()
    tasks.until(lambda: tasks.jobs.pending == 0)
    assert tasks.outcomes[-1] == ("a", None)


def test_plain_calls_run_between_coroutines(tasks: Harness) -> None:
    work = Work()
    for _ in range(3):
        tasks.do(lambda: tasks.jobs.submit_coroutine(work.start("x"), tasks.done))
    tasks.do(lambda: tasks.jobs.submit(lambda: "plain", tasks.done))
    tasks.until(lambda: tasks.outcomes == [("plain", None)])
    work.go.set()
    tasks.until(lambda: tasks.jobs.pending == 0)


def test_a_coroutine_goes_on_behind_its_answer(
    tasks: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    go = threading.Event()

    async def run(respond: Callable[[Any], None]) -> None:
        respond(1)
        await seen(go.is_set)
        raise ValueError("behind it")

    tasks.do(lambda: tasks.jobs.submit_coroutine(run, tasks.done))
    tasks.until(lambda: bool(tasks.outcomes))
    assert tasks.jobs.pending == 1
    go.set()
    tasks.until(lambda: tasks.jobs.pending == 0)
    assert tasks.outcomes == [(1, None)]
    assert "behind its answer" in caplog.text


def test_the_end_of_the_process_is_not_a_coroutines_to_ask_for(
    tasks: Harness, caplog: pytest.LogCaptureFixture
) -> None:
    async def leave() -> None:
        raise SystemExit(3)

    async def run(respond: Callable[[Any], None]) -> None:
        own = asyncio.create_task(leave())
        await asyncio.wait([own])
        respond(own.exception())

    tasks.do(lambda: tasks.jobs.submit_coroutine(run, tasks.done))
    tasks.until(lambda: bool(tasks.outcomes))
    assert isinstance(tasks.outcomes[0][0], SystemExit)
    assert "asked to end" in caplog.text


def test_what_is_left_at_the_end_is_cancelled() -> None:
    harness, work = Harness(concurrency=2), Work()
    harness.do(lambda: harness.jobs.submit_coroutine(work.start("a"), harness.done))
    harness.until(lambda: work.running == 1)
    harness.close()
    assert work.log == ["cancelled a"]


@pytest.fixture
def turning() -> Iterator[Harness]:
    harness = Harness(turns=True)
    yield harness
    harness.close()


class TurnedByHand:
    """A loop that only notes what it is asked for."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], object]] = []
        self.later: list[Callable[[], object]] = []
        self.heard: list[tuple[int, Callable[[], object]]] = []

    def call_soon(self, call: Callable[[], object]) -> None:
        self.soon.append(call)

    def call_later(self, _seconds: float, call: Callable[[], object]) -> None:
        self.later.append(call)

    def add_reader(self, descriptor: int, call: Callable[[], object]) -> None:
        self.heard.append((descriptor, call))


def test_calls_of_one_turn_go_to_the_worker_and_come_back_together() -> None:
    outcomes: list[Any] = []
    loop: Any = TurnedByHand()
    jobs = Jobs(lambda *_call: None, 10)
    jobs.take_turns(loop)
    for number in range(5):
        jobs.submit(lambda n=number: n, lambda *outcome: outcomes.append(outcome))  # type: ignore[misc]
    assert len(loop.soon) == 1
    loop.soon[0]()
    jobs.stop()
    jobs.work()
    ((descriptor, hear),) = loop.heard
    assert outcomes == []
    hear()
    assert outcomes == [(number, None) for number in range(5)]
    assert (len(loop.later), jobs.pending) == (1, 0)
    assert not select.select([descriptor], [], [], 0)[0], "it was told once"


def test_an_outcome_does_not_wait_for_a_long_call_behind_it(turning: Harness) -> None:
    go = threading.Event()
    turning.do(lambda: [turning.jobs.submit(call, turning.done) for call in (lambda: 1, go.wait)])
    turning.until(lambda: turning.outcomes == [(1, None)])
    go.set()
    turning.until(lambda: len(turning.outcomes) == 2)


def test_one_that_fails_to_be_finished_does_not_keep_the_others(turning: Harness) -> None:
    def refuse(*_outcome: object) -> None:
        raise ValueError

    seen: list[object] = []
    turning.loop.set_exception_handler(lambda _loop, context: seen.append(context["exception"]))
    turning.do(lambda: [turning.jobs.submit(int, done) for done in (refuse, turning.done, refuse)])
    turning.until(lambda: len(turning.outcomes) == 1 and len(seen) == 2)
    assert turning.jobs.pending == 0


def test_what_was_submitted_before_the_end_is_done(turning: Harness) -> None:
    ran: list[int] = []

    def submit_and_stop() -> None:
        turning.jobs.submit(lambda: ran.append(1), turning.done)
        turning.jobs.stop()

    turning.do(submit_and_stop)
    turning.worker.join(10)
    assert ran == [1]
