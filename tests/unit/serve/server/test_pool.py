"""The pool with real worker processes over real sockets."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
import threading
import time
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pytest

from scoring.errors import DeploymentFailedError, EntryScriptError
from serve.server.listeners import Listeners
from serve.server.pool import WorkerPool
from serve.server.restarts import Limits
from serve.server.running import metrics_folder, serve_pool
from serve.server.spawning import WorkerSpec
from tests.support import local

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Iterator

QUICK = Limits(
    ready_timeout_s=10,
    drain_timeout_s=5,
    max_restarts=2,
    stable_s=0.3,
    first_wait_s=0.01,
    longest_wait_s=0.05,
    jitter_s=0.01,
    failed_pause_s=0.5,
)


class Bench:
    """A root, a listener and a log for the pools of one test."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.listeners = Listeners("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self.listeners.port}"
        self.log: list[tuple[str, str]] = []

    def behave(self, **behaviour: Any) -> None:
        (self.root / "behaviour.json").write_text(json.dumps(behaviour))

    def spec(self) -> WorkerSpec:
        command = (sys.executable, "-I", "-S", str(local.WORKER), str(self.root))
        return WorkerSpec(command, {"PATH": os.environ["PATH"]})

    def pool(self, workers: int = 1, limits: Limits = QUICK) -> WorkerPool:
        return WorkerPool(
            self.spec(),
            self.listeners,
            log=lambda name, text: self.log.append((name, text)),
            workers=workers,
            limits=limits,
        )

    @asynccontextmanager
    async def running(self, workers: int = 1, limits: Limits = QUICK) -> AsyncIterator[WorkerPool]:
        pool = self.pool(workers, limits)
        try:
            await pool.start()
            pool.accept()
            yield pool
        finally:
            await pool.kill()

    async def get(self, path: str = "/") -> str:
        return await asyncio.to_thread(local.get, self.url, path)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    made.behave(answer="hello")
    yield made
    made.listeners.close()


async def until(condition: Any) -> None:
    await asyncio.to_thread(local.eventually, condition)


def pids(pool: WorkerPool) -> set[int]:
    return {worker.pid for worker in pool.info().workers if worker.pid}


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(work)


def test_workers_answer_and_drain(bench: Bench) -> None:
    async def work() -> None:
        async with bench.running(workers=2) as pool:
            assert pool.info().state == "running"
            first = pids(pool)
            assert len(first) == 2
            assert (await bench.get()).startswith("hello ")
            await pool.drain()
            assert pool.info().state == "stopped"
            assert all(is_gone(pid) for pid in first)

    run(work())


def test_nothing_is_accepted_before_the_gate_opens_and_nothing_is_lost(bench: Bench) -> None:
    async def work() -> None:
        pool = bench.pool()
        try:
            await pool.start()
            answer = asyncio.ensure_future(bench.get())
            done, _ = await asyncio.wait([answer], timeout=0.3)
            assert not done
            pool.accept()
            assert (await answer).startswith("hello ")
        finally:
            await pool.kill()

    run(work())


def test_a_killed_worker_is_replaced_while_the_other_answers(bench: Bench) -> None:
    async def work() -> None:
        async with bench.running(workers=2) as pool:
            victim = min(pids(pool))
            local.kill(victim)
            for _ in range(20):
                assert (await bench.get()).startswith("hello ")
            await until(lambda: pool.info().state == "running" and victim not in pids(pool))
            info = pool.info()
            assert info.restarts == 1
            assert info.last_failure is not None
            assert "SIGKILL" in info.last_failure.message

    run(work())


def test_requests_wait_for_the_replacement_of_the_only_worker(bench: Bench) -> None:
    async def work() -> None:
        async with bench.running() as pool:
            before = pids(pool)
            local.kill(before.pop())
            await until(lambda: pool.info().state == "degraded")
            assert (await bench.get()).startswith("hello ")
            assert pool.info().restarts == 1

    run(work())


def test_a_script_that_fails_is_reported_with_its_own_traceback(bench: Bench) -> None:
    bench.behave(fail="no such column")

    async def work() -> None:
        pool = bench.pool(workers=2)
        with pytest.raises(EntryScriptError, match="no such column") as caught:
            await pool.start()
        assert "no such column" in caught.value.detail
        assert pool.info().state == "stopped"
        assert not pids(pool)

    run(work())


def test_a_worker_that_ends_without_a_word_is_tried_again_and_given_up(bench: Bench) -> None:
    bench.behave(exit=7, noise=["the last thing it said"])

    async def work() -> None:
        pool = bench.pool()
        with pytest.raises(DeploymentFailedError, match="ended with status 7") as caught:
            await pool.start()
        assert "the last thing it said" in caught.value.detail
        assert sum(text == "the last thing it said" for _, text in bench.log) == 3

    run(work())


def test_exit_status_3_is_not_tried_again(bench: Bench) -> None:
    bench.behave(exit=3, noise=["once"])

    async def work() -> None:
        with pytest.raises(DeploymentFailedError, match="status 3"):
            await bench.pool().start()
        assert sum(text == "once" for _, text in bench.log) == 1

    run(work())


def test_a_worker_that_never_becomes_ready_is_killed(bench: Bench) -> None:
    bench.behave(hang=True)

    async def work() -> None:
        pool = bench.pool(limits=Limits(ready_timeout_s=0.3))
        with pytest.raises(DeploymentFailedError, match=r"not ready within 0\.3 s") as caught:
            await pool.start()
        assert "ready_timeout_s" in caught.value.hint
        assert not pids(pool)

    run(work())


def test_an_interpreter_that_does_not_exist_is_named(bench: Bench) -> None:
    async def work() -> None:
        spec = WorkerSpec(("/nowhere/python", "x"), {})
        pool = WorkerPool(spec, bench.listeners, log=lambda *_: None, limits=QUICK)
        with pytest.raises(DeploymentFailedError, match="/nowhere/python cannot be started"):
            await pool.start()

    run(work())


def test_a_crash_loop_ends_in_failed_and_a_later_success_in_running(bench: Bench) -> None:
    async def work() -> None:
        async with bench.running() as pool:
            bench.behave(exit=9)
            local.kill(pids(pool).pop())
            await until(lambda: pool.info().state == "failed")
            failure = pool.info().last_failure
            assert failure is not None
            assert failure.message == "The worker ended with status 9."
            deaths = len([1 for _, text in bench.log if text.startswith("w0: The worker")])
            assert deaths == QUICK.max_restarts + 1
            bench.behave(answer="well again")
            await until(lambda: pool.info().workers[0].answers)
            assert pool.info().state == "failed", "one start is no success yet"
            assert (await bench.get()).startswith("well again")
            await until(lambda: pool.info().state == "running")

    run(work())


def test_a_worker_given_up_is_degraded_while_another_answers(bench: Bench) -> None:
    async def work() -> None:
        async with bench.running(workers=2) as pool:
            bench.behave(exit=9)
            local.kill(min(pids(pool)))
            await until(lambda: {w.state for w in pool.info().workers} == {"failed", "ready"})
            assert pool.info().state == "degraded"
            assert (await bench.get()).startswith("hello ")

    run(work())


def test_a_request_that_has_begun_is_answered_by_a_drain(bench: Bench) -> None:
    async def work() -> None:
        async with bench.running() as pool:
            slow = asyncio.ensure_future(bench.get("/sleep/0.5"))
            await asyncio.sleep(0.2)
            await pool.drain()
            assert (await slow).startswith("hello ")

    run(work())


def test_a_worker_that_does_not_drain_is_killed_with_its_children(bench: Bench) -> None:
    bench.behave(stubborn=True, child=True)

    async def work() -> None:
        async with bench.running(limits=Limits(drain_timeout_s=0.3, leave_s=0.1)) as pool:
            worker = pids(pool).pop()
            children = _children(worker)
            assert children
            await pool.drain()
            assert is_gone(worker)
            await until(lambda: all(_is_dead(child) for child in children))

    run(work())


def test_children_that_keep_the_pipes_open_hold_nothing_up(bench: Bench) -> None:
    bench.behave(child=True, exit=5)

    async def work() -> None:
        began = time.monotonic()
        with pytest.raises(DeploymentFailedError, match="status 5"):
            await bench.pool(limits=Limits(max_restarts=0)).start()
        assert time.monotonic() - began < 5

    run(work())


def test_output_is_taken_line_by_line(bench: Bench) -> None:
    async def work() -> None:
        bench.behave(noise=["one", "x" * 40_000, "three"])
        async with bench.running():
            await until(lambda: ("w0", "three") in bench.log)
        lines = [text for name, text in bench.log if name == "w0"]
        assert lines[0] == "one"
        assert "".join(lines[1:-1]) == "x" * 40_000
        assert max(map(len, lines)) <= 16_384

    run(work())


def test_workers_go_when_their_supervisor_is_killed(bench: Bench) -> None:
    bench.behave(answer="orphan")
    script = f"""
import asyncio, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parents[4])!r})
from serve.server.listeners import Listeners
from serve.server.pool import WorkerPool
from serve.server.spawning import WorkerSpec
async def main():
    spec = WorkerSpec({bench.spec().command!r}, {dict(bench.spec().env)!r})
    pool = WorkerPool(spec, Listeners("127.0.0.1", 0), log=lambda *_: None)
    await pool.start()
    print(*[worker.pid for worker in pool.info().workers], flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""

    async def work() -> None:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        worker = int(await process.stdout.readline())
        assert not _is_dead(worker)
        process.kill()
        await process.wait()
        await until(lambda: _is_dead(worker))

    run(work())


def test_a_cancelled_start_leaves_nothing(bench: Bench) -> None:
    bench.behave(hang=True)

    async def work() -> None:
        pool = bench.pool()
        starting = asyncio.ensure_future(pool.start())
        await until(lambda: pids(pool))
        worker = pids(pool).pop()
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        assert is_gone(worker)

    run(work())


def test_a_kill_during_a_start_leaves_nothing(bench: Bench) -> None:
    bench.behave(hang=True)

    async def work() -> None:
        for _ in range(5):  # who notices first, the killer or the starter, is a matter of chance
            pool = bench.pool()
            starting = asyncio.ensure_future(pool.start())
            await until(lambda pool=pool: pids(pool))
            worker = pids(pool).pop()
            await pool.kill()
            assert pool.info().state == "stopped"
            assert is_gone(worker)
            starting.cancel()
            await asyncio.wait([starting])

    run(work())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_foreground_serves_until_a_signal(bench: Bench, number: signal.Signals) -> None:
    seen: list[str] = []

    def on_ready(host: str, port: int) -> None:
        def use() -> None:
            seen.append(local.get(f"http://{host}:{port}"))
            os.kill(os.getpid(), number)

        threading.Thread(target=use).start()

    status = serve_pool(
        bench.spec().command,
        env=bench.spec().env,
        host="127.0.0.1",
        port=0,
        workers=2,
        log=lambda *_: None,
        on_ready=on_ready,
    )
    assert status == 0
    assert seen[0].startswith("hello ")


def test_the_foreground_ends_with_the_scripts_error(bench: Bench) -> None:
    bench.behave(fail="broken")
    with pytest.raises(EntryScriptError, match="broken"):
        serve_pool(
            bench.spec().command,
            env=bench.spec().env,
            host="127.0.0.1",
            port=0,
            workers=2,
            log=lambda *_: None,
        )


def test_the_foreground_ends_when_workers_keep_dying(bench: Bench) -> None:
    bench.behave(crash_after=0.0)
    with pytest.raises(DeploymentFailedError, match="SIGKILL"):
        serve_pool(
            bench.spec().command,
            env=bench.spec().env,
            host="127.0.0.1",
            port=0,
            workers=1,
            log=lambda *_: None,
            limits=QUICK,
        )


class Load:
    """Clients that connect anew for each request, and keep what went wrong."""

    def __init__(self, url: str, clients: int = 4) -> None:
        self.url = url
        self.errors: list[str] = []
        self.answers: list[str] = []
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while not self._done.is_set():
            try:
                self.answers.append(local.get(self.url))
            except Exception as error:  # noqa: BLE001 - any error is what is looked for
                self.errors.append(repr(error))


async def answering_pids(bench: Bench, times: int = 40) -> set[int]:
    return {int((await bench.get()).split()[1]) for _ in range(times)}


def test_connections_are_spread_over_the_workers(bench: Bench) -> None:
    async def work() -> None:
        async with bench.running(workers=3) as pool:
            assert await answering_pids(bench, 60) == pids(pool)

    run(work())


def test_no_connection_waits_for_a_worker_that_was_given_up(bench: Bench) -> None:
    async def work() -> None:
        limits = replace(QUICK, failed_pause_s=60)
        async with bench.running(workers=2, limits=limits) as pool:
            bench.behave(exit=9)
            victim = min(pids(pool))
            local.kill(victim)
            await until(lambda: "failed" in {w.state for w in pool.info().workers})
            (survivor,) = pids(pool)
            assert await answering_pids(bench, 100) == {survivor}

    run(work())


def test_others_answer_while_a_worker_starts_again_and_then_give_its_share_back(
    bench: Bench,
) -> None:
    async def work() -> None:
        async with bench.running(workers=2) as pool:
            bench.behave(answer="hello", slow_start=1.0)
            victim, survivor = sorted(pids(pool))
            local.kill(victim)
            await until(lambda: pool.info().state != "running" and victim not in pids(pool))
            began = time.monotonic()
            assert await answering_pids(bench, 40) == {survivor}
            assert time.monotonic() - began < 1
            await until(lambda: pool.info().state == "running")
            await until(lambda: len(pids(pool)) == 2)
            both = set[int]()
            while both != pids(pool):
                both |= await answering_pids(bench, 10)

    run(work())


def test_nothing_is_lost_from_four_workers_to_two_to_three(bench: Bench) -> None:
    async def work() -> None:
        bench.behave(answer="n4")
        present = bench.pool(4)
        await present.start()
        present.accept()
        with Load(bench.url) as load:
            for workers in (2, 3, 1, 4):
                bench.behave(answer=f"n{workers}")
                coming = bench.pool(workers)
                await coming.start()
                coming.accept()
                await present.drain()
                present = coming
                found = {await bench.get() for _ in range(30)}
                assert {text.split()[0] for text in found} == {f"n{workers}"}
                assert len(found) == workers
        await present.drain()
        assert load.errors == []
        assert len(load.answers) > 200

    run(work())


def test_nothing_but_its_own_requests_is_lost_with_a_killed_worker(bench: Bench) -> None:
    async def work() -> None:
        async with bench.running(workers=3, limits=replace(QUICK, max_restarts=100)) as pool:
            with Load(bench.url) as load:
                for number in range(6):
                    before = pids(pool)
                    local.kill(sorted(before)[number % 3])
                    await until(lambda b=before: len(pids(pool)) == 3 and pids(pool) != b)
                    await until(lambda: pool.info().state == "running")
            # Each of the clients has at most one request in the hands of the killed worker.
            assert len(load.errors) <= 6 * 4
            assert len(load.answers) > 10 * len(load.errors)

    run(work())


LEAKY = replace(QUICK, worker_max_mib=150, memory_look_s=0.05, replace_pause_s=0.01, stable_s=0.1)


def test_a_worker_that_leaks_is_replaced_and_no_request_is_lost(bench: Bench) -> None:
    async def work() -> None:
        async with bench.running(workers=2, limits=LEAKY) as pool:
            before = pids(pool)
            with Load(bench.url) as load:
                await bench.get("/leak/200")
                await until(lambda: len(pids(pool) - before) == 1 and len(pids(pool)) == 2)
                await until(lambda: any("is in its place" in text for _, text in bench.log))
            assert load.errors == []
            assert pool.info().state == "running"
            assert pool.info().restarts == 1
            assert pool.info().last_failure is None
            assert len(pids(pool) & before) == 1
            assert (before - pids(pool)) == {pid for pid in before if is_gone(pid)}
            (told,) = [text for _, text in bench.log if "worker_max_mib" in text]
            assert re.match(r"w\d holds \d{3} MiB, more than worker_max_mib = 150: a new one", told)

    run(work())


def test_a_worker_finishes_what_it_has_begun_before_its_replacement_is_alone(bench: Bench) -> None:
    async def work() -> None:
        async with bench.running(limits=LEAKY) as pool:
            slow = asyncio.ensure_future(bench.get("/sleep/1"))
            await bench.get("/leak/200")
            await until(lambda: pool.info().restarts == 1)
            assert (await slow).startswith("hello ")
            await until(lambda: len(pool.pids()) == 1)

    run(work())


def test_a_model_that_needs_more_than_the_limit_is_not_replaced_for_ever(bench: Bench) -> None:
    bench.behave(answer="big", hold=200)

    async def work() -> None:
        limits = replace(LEAKY, replace_pause_s=0.2)
        async with bench.running(limits=limits) as pool:
            await until(lambda: pool.info().restarts >= 2)
            told = [text for _, text in bench.log if "so soon after its start" in text]
            assert "Raise worker_max_mib" in told[0]
            pauses = [re.search(r"when it is ([\d.]+) s old", text) for text in told]
            ages = [float(found[1]) for found in pauses if found]
            assert ages == sorted(set(ages)), "each successor has to serve for longer"
            assert (await bench.get()).startswith("big ")

    run(work())


def test_a_replacement_that_fails_leaves_the_worker_where_it_is(bench: Bench) -> None:
    async def work() -> None:
        async with bench.running(limits=LEAKY) as pool:
            before = pids(pool)
            bench.behave(fail="the disk is gone")
            await bench.get("/leak/200")
            await until(lambda: any("goes on" in text for _, text in bench.log))
            assert pids(pool) == before
            assert (await bench.get()).startswith("hello ")
            assert pool.info().state == "running"

    run(work())


def test_a_pool_that_ends_during_a_replacement_leaves_nothing(bench: Bench) -> None:
    async def work() -> None:
        async with bench.running(limits=LEAKY) as pool:
            bench.behave(hang=True)
            await bench.get("/leak/200")
            await until(lambda: len(pool.pids()) == 2)
            both = pool.pids()
            await pool.drain()
            assert all(is_gone(pid) for pid in both)
            assert pool.pids() == []

    run(work())


def test_workers_know_their_place_and_share_a_folder_for_metrics(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    seen: list[dict[str, str]] = []

    def on_ready(host: str, port: int) -> None:
        def use() -> None:
            while len({env["FIELDPOST_WORKER_SLOT"] for env in seen}) < 2:
                seen.append(json.loads(local.get(f"http://{host}:{port}", "/env")))
            seen[0]["there"] = str(Path(seen[0]["FIELDPOST_SERVER_METRICS_DIR"]).is_dir())
            os.kill(os.getpid(), signal.SIGTERM)

        threading.Thread(target=use).start()

    serve_pool(
        bench.spec().command,
        env=bench.spec().env,
        host="127.0.0.1",
        port=0,
        workers=2,
        log=lambda *_: None,
        on_ready=on_ready,
    )
    assert {env["FIELDPOST_WORKER_SLOT"] for env in seen} == {"0", "1"}
    assert {env["FIELDPOST_WORKER_COUNT"] for env in seen} == {"2"}
    (folder,) = {env["FIELDPOST_SERVER_METRICS_DIR"] for env in seen}
    assert seen[0]["there"] == "True"
    assert not Path(folder).exists()


def test_a_folder_for_metrics_that_the_user_names_stays(tmp_path: Path) -> None:
    with metrics_folder({"FIELDPOST_SERVER_METRICS_DIR": str(tmp_path), "A": "b"}) as env:
        assert env == {"FIELDPOST_SERVER_METRICS_DIR": str(tmp_path), "A": "b"}
    assert tmp_path.is_dir()


def _children(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in text.split()]


def _is_dead(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return True
    return state in {"Z", "X"}
