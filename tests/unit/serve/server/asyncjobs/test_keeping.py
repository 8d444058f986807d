"""A streamed answer on its way to the disk: what is repeated, and what is let go of."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from scoring.durable import TEMPORARY_PREFIX
from scoring.errors import StorageFullError
from scoring.http import Response
from serve.server.asyncjobs import keeping
from serve.server.asyncjobs.claims import Claim
from serve.server.asyncjobs.keeping import Keeper
from serve.server.asyncjobs.records import Record, Request, new_id
from serve.server.asyncjobs.store import Limits, Store
from serve.server.jobs import Jobs

if TYPE_CHECKING:
    from collections.abc import Iterator


_REQUEST = Request(method="POST", target="/score", headers=[])


def _claim(folder: Path) -> Claim:
    store, now = Store(folder, Limits()), time.time()
    store.submit(
        Record(id=new_id(now), status="queued", created=now, target="/score"), _REQUEST, b""
    )
    claim = store.claim_next()
    assert claim is not None
    return claim


class Bench:
    """A keeper with threads of its own."""

    def __init__(self, claim: Claim) -> None:
        post = asyncio.get_running_loop().call_soon_threadsafe
        self.io, self.jobs = Jobs(post, 100), Jobs(post, 100)
        self.io.start_threads(1, "io")
        self.jobs.start_threads(1, "jobs")
        self.ended = asyncio.Event()
        self.keeper = Keeper(claim, self.io, self.jobs, self.ended.set)

    async def settle(self) -> None:
        """Returns when the threads have done what they were asked for."""
        for jobs in (self.io, self.jobs, self.io):
            jobs.stop()
            await asyncio.to_thread(jobs.join, 5)


def _parts() -> Iterator[bytes]:
    yield b"one"
    yield b"two"


def _open_files() -> set[str]:
    return {each.name for each in Path("/proc/self/fd").iterdir()}


def test_the_end_of_a_stream_closes_no_connection(tmp_path: Path) -> None:
    """What is opened between the end and the look at it has the number that the file had."""
    claim = _claim(tmp_path)
    others: list[int] = []
    adopt = claim.adopt_result

    def opening() -> bool:
        others.extend(os.open(tmp_path, os.O_RDONLY) for _ in range(8))
        return adopt()

    claim.adopt_result = opening  # type: ignore[method-assign]

    async def main() -> None:
        bench = Bench(claim)
        bench.keeper.keep(Response(200, _parts(), []))
        await asyncio.wait_for(bench.ended.wait(), 5)
        await bench.settle()

    asyncio.run(main())
    assert len(others) == 8
    for each in others:
        os.close(each)  # raises where it was closed
    claim.release()


def test_an_end_that_cannot_be_noted_is_noted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result has its name by then: it is not given another one."""
    monkeypatch.setattr(keeping, "RETRY_S", 0.01)
    claim = _claim(tmp_path)
    adopt, failures = claim.adopt_result, [1, 2]

    def failing() -> bool:
        if failures:
            failures.pop()
            raise StorageFullError(os.strerror(errno.ENOSPC))
        return adopt()

    claim.adopt_result = failing  # type: ignore[method-assign]

    async def main() -> None:
        bench = Bench(claim)
        bench.keeper.keep(Response(200, _parts(), []))
        await asyncio.wait_for(bench.ended.wait(), 5)
        await bench.settle()

    asyncio.run(main())
    assert claim.record.status == "succeeded"
    (folder,) = (each.parent for each in tmp_path.glob("*/result"))
    assert (folder / "result").read_bytes().endswith(b"\nonetwo")
    claim.release()


def test_a_stop_before_the_file_is_open_leaves_none(tmp_path: Path) -> None:
    claim = _claim(tmp_path)
    before = _open_files()

    async def main() -> None:
        bench, go = Bench(claim), threading.Event()
        bench.io.submit(go.wait, lambda *_: None)
        bench.keeper.keep(Response(200, _parts(), []))
        bench.keeper.stop()
        go.set()
        await bench.settle()
        assert not bench.ended.is_set()

    asyncio.run(main())
    assert _open_files() <= before
    assert not list(tmp_path.glob(f"*/{TEMPORARY_PREFIX}*"))
    claim.release()
