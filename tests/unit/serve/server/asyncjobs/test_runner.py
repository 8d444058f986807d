"""When jobs begin, beside live requests."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import TYPE_CHECKING

import pytest

from scoring.http import Response
from serve.server.asyncjobs import runner as runners
from serve.server.asyncjobs.records import Record, Request, new_id
from serve.server.asyncjobs.runner import Runner
from serve.server.asyncjobs.store import Limits, Store
from serve.server.jobs import Jobs

if TYPE_CHECKING:
    from pathlib import Path

    from serve.server.exchange import Exchange


_REQUEST = Request(method="POST", target="/score", headers=[])


def _job() -> Record:
    now = time.time()
    return Record(id=new_id(now), status="queued", created=now, target="/score")


class Bench:
    """A runner whose handlers do what they are told."""

    def __init__(self, folder: Path, concurrency: int) -> None:
        self.store = Store(folder, Limits())
        self.loop = asyncio.get_running_loop()
        self.live = Jobs(self.loop.call_soon_threadsafe, 100)
        self.begun: list[Exchange] = []
        self.runner = Runner(
            self.store, self.live, self.loop.call_soon_threadsafe, self.begun.append, concurrency
        )

    def submit(self, count: int = 1) -> list[Record]:
        return [self.store.submit(_job(), _REQUEST, b"body") for _ in range(count)]

    async def until_begun(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.begun) < count:  # noqa: ASYNC110 - the list is a list
                await asyncio.sleep(0.005)

    async def until(self, record: Record, status: str) -> None:
        async with asyncio.timeout(10):
            while self.store.read(record.id).status != status:  # noqa: ASYNC110 - on the disk
                await asyncio.sleep(0.005)


def test_as_many_at_once_as_are_allowed(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, 2)
        records = bench.submit(3)
        bench.runner.look()
        await bench.until_begun(2)
        assert bench.runner.running == 2
        bench.begun[0].respond(Response(200, b"one"))
        await bench.until(records[0], "succeeded")
        await bench.until_begun(3)
        for exchange in bench.begun[1:]:
            exchange.respond(Response(200, b"more"))
        for record in records:
            await bench.until(record, "succeeded")
        await asyncio.wait_for(bench.runner.finish(), 5)
        bench.runner.close()

    asyncio.run(main())


def test_jobs_give_way_for_a_while(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        bench, go = Bench(tmp_path, 1), threading.Event()
        thread = threading.Thread(target=bench.live.work)
        thread.start()
        bench.live.submit(go.wait, lambda *_: None)
        bench.submit(2)
        bench.runner.look()
        await asyncio.sleep(0.2)
        assert not bench.begun
        monkeypatch.setattr(runners, "_LONGEST_WAIT_S", 0.1)
        await bench.until_begun(1)  # although the live one still waits
        bench.begun[0].respond(Response(200, b"one"))
        go.set()
        monkeypatch.setattr(runners, "_LONGEST_WAIT_S", 100)
        await bench.until_begun(2)
        bench.live.stop()
        thread.join()
        bench.runner.close()

    asyncio.run(main())


@pytest.mark.parametrize("status", [429, 503])
def test_no_room_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    monkeypatch.setattr(runners, "POLL_S", 0.05)

    async def main() -> None:
        bench = Bench(tmp_path, 1)
        (record,) = bench.submit()
        bench.runner.look()
        for attempt in range(1, 6):
            await bench.until_begun(attempt)
            bench.begun[-1].respond(Response(status, b"{}"))
        await bench.until_begun(6)
        bench.begun[-1].respond(Response(200, b"at last"))
        await bench.until(record, "succeeded")
        assert bench.store.read(record.id).attempts == 1
        bench.runner.close()

    asyncio.run(main())


def test_what_still_runs_at_the_end_is_put_back(tmp_path: Path) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, 1)
        (record,) = bench.submit()
        bench.runner.look()
        await bench.until_begun(1)
        bench.runner.close()
        kept = Store(tmp_path, Limits()).read(record.id)
        assert (kept.status, kept.attempts) == ("queued", 0)
        bench.begun[0].respond(Response(200, b"late"))  # which nobody wants any more
        claim = Store(tmp_path, Limits()).claim_next()
        assert claim is not None
        claim.release()

    asyncio.run(main())


def test_a_request_that_cannot_be_read_fails_its_job(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        bench = Bench(tmp_path, 1)
        (record,) = bench.submit()
        (tmp_path / record.id / "request").write_bytes(b"garbage\n")
        bench.runner.look()
        await bench.until(record, "failed")
        assert "cannot be read" in bench.store.read(record.id).reason
        bench.runner.close()

    asyncio.run(main())
    assert "cannot be read" in caplog.text
