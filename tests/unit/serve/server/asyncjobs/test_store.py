"""Jobs on disk: kept, claimed by one at a time, ended once, bounded, forgotten."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from scoring.errors import AlreadyExistsError, NotFoundError, OverloadedError
from serve.server.asyncjobs import records
from serve.server.asyncjobs.files import read_pair, write_record
from serve.server.asyncjobs.records import Record, Request, Result
from serve.server.asyncjobs.store import Limits, Store
from serve.server.errors import JobExpiredError
from tests.support.server import until

if TYPE_CHECKING:
    from pathlib import Path

    from serve.server.asyncjobs.claims import Claim

REQUEST = Request(method="POST", target="/score", headers=[("content-type", "text/plain")])


def job(body: bytes = b"body", **more: Any) -> Record:
    now = time.time()
    return Record(
        **{
            "id": records.new_id(more.get("created", now)),
            "status": "queued",
            "created": now,
            "target": "/score",
            "request_bytes": len(body),
            **more,
        }
    )


def submit(store: Store, body: bytes = b"body", **more: Any) -> Record:
    return store.submit(job(body, **more), REQUEST, body)


def answer(claim: Claim, status: int = 200, body: bytes = b"done") -> None:
    with claim.writer() as writer:
        writer.begin(Result(status=status, headers=[("x", "y")]))
        writer.append(body)
        writer.finish()
    claim.adopt_result()
    claim.release()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "jobs"


@pytest.fixture
def store(folder: Path) -> Store:
    return Store(folder, Limits())


def test_a_job_from_its_request_to_its_result(store: Store, folder: Path) -> None:
    record = submit(store, b"\0body\n")
    assert store.read(record.id) == record
    claim = store.claim_next()
    assert claim is not None
    assert claim.request() == (REQUEST, b"\0body\n")
    running = Store(folder, Limits()).read(record.id)
    assert (running.status, running.attempts) == ("running", 1)
    answer(claim)
    ended = store.read(record.id)
    assert (ended.status, ended.http_status, ended.result_bytes) == ("succeeded", 200, 4)
    assert read_pair(store.result(record.id), Result)[1] == b"done"
    assert store.claim_next() is None


def test_an_error_is_a_failure_with_a_result(store: Store) -> None:
    record = submit(store)
    claim = store.claim_next()
    assert claim is not None
    answer(claim, 400)
    failed = store.read(record.id)
    assert (failed.status, failed.http_status) == ("failed", 400)
    assert "400" in failed.reason


def test_files_are_for_their_user_alone(store: Store, folder: Path) -> None:
    record = submit(store, key=records.digest(b"k"))
    for path in (folder, folder / record.id, *(folder / record.id).iterdir()):
        assert not path.stat().st_mode & 0o077, path


def test_the_oldest_first_and_each_once(store: Store, folder: Path) -> None:
    ids = [submit(store).id for _ in range(3)]
    other = Store(folder, Limits())
    claims = [store.claim_next(), other.claim_next(), store.claim_next()]
    assert [claim.record.id for claim in claims if claim is not None] == sorted(ids)
    assert other.claim_next() is None
    for claim in claims:
        assert claim is not None
        claim.requeue()
        claim.release()
    again = other.claim_next()
    assert again is not None
    assert (again.record.id, again.record.attempts) == (min(ids), 1)
    again.release()


def test_a_job_whose_worker_dies_again_and_again_is_given_up(store: Store) -> None:
    record = submit(store)
    for attempt in range(1, 4):
        claim = store.claim_next()
        assert claim is not None
        assert claim.record.attempts == attempt
        claim.release()  # as the kernel does for the dead
    assert store.claim_next() is None
    ended = store.read(record.id)
    assert ended.status == "failed"
    assert "3 attempts" in ended.reason


def test_a_result_without_its_note_is_adopted(store: Store, folder: Path) -> None:
    record = submit(store)
    claim = store.claim_next()
    assert claim is not None
    with claim.writer() as writer:
        writer.begin(Result(status=200, headers=[]))
        writer.append(b"done")
        writer.finish()
    claim.release()
    other = Store(folder, Limits())
    assert other.claim_next() is None
    assert other.read(record.id).status == "succeeded"


def test_leftovers_of_a_killed_writer_are_swept(store: Store, folder: Path) -> None:
    record = submit(store)
    left = folder / record.id / ".fieldpost-tmp-0123"
    left.write_bytes(b"half")
    claim = store.claim_next()
    assert claim is not None
    assert not left.exists()
    claim.release()


def test_a_writer_repeats_what_failed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    record = submit(store)
    claim = store.claim_next()
    assert claim is not None
    writer = claim.writer()
    writer.begin(Result(status=200, headers=[]))
    real, failures = os.pwrite, [1]

    def full(fd: int, data: memoryview, offset: int) -> int:
        if failures and len(data) > 2:
            return real(fd, data[:2], offset)
        if failures:
            failures.pop()
            raise OSError(28, "No space left on device")
        return real(fd, data, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(Exception, match="No space"):
        writer.append(b"parts")
    writer.append(b"parts")
    writer.finish()
    writer.close()
    assert read_pair(store.result(record.id), Result)[1] == b"parts"
    claim.release()


# Cancelled, late, expired


def test_cancelled_before_it_begins(store: Store) -> None:
    record = submit(store)
    assert store.cancel(record.id).status == "cancelled"
    assert store.claim_next() is None


def test_who_runs_a_job_is_asked_to_stop(store: Store, folder: Path) -> None:
    record = submit(store)
    claim = store.claim_next()
    assert claim is not None
    assert not claim.is_cancelled()
    assert Store(folder, Limits()).cancel(record.id).status == "running"
    assert claim.is_cancelled()
    claim.release()  # it died before it could
    assert store.claim_next() is None
    assert store.read(record.id).status == "cancelled"


def test_a_deadline_passes_in_the_queue(store: Store) -> None:
    record = submit(store, deadline=time.time() - 1)
    assert store.claim_next() is None
    assert "deadline" in store.read(record.id).reason


def test_what_waits_too_long_is_not_answered(folder: Path) -> None:
    store = Store(folder, Limits(ttl_s=100))
    record = submit(store, created=time.time() - 101)
    assert store.claim_next() is None
    assert store.read(record.id).status == "failed"


def test_what_is_over_is_forgotten_and_known_to_have_been(folder: Path) -> None:
    store = Store(folder, Limits(ttl_s=100))
    old = submit(store, created=time.time() - 500, key=records.digest(b"k"))
    claim = store.claim_next()
    assert claim is None  # it had waited too long
    ended = msgspec.structs.replace(store.read(old.id), finished=time.time() - 101)
    write_record(folder / old.id, ended)
    fresh = Store(folder, Limits(ttl_s=100))
    assert fresh.claim_next() is None
    with pytest.raises(JobExpiredError):
        fresh.read(old.id)
    assert sorted(path.name for path in folder.iterdir()) == [".entrance", "keys"]
    assert not list((folder / "keys").iterdir())


@pytest.mark.parametrize("job_id", ["f" * 32, "..", "", "keys", ".entrance"])
def test_unknown_names(store: Store, job_id: str) -> None:
    with pytest.raises(NotFoundError):
        store.read(job_id)


# Idempotency


def test_one_key_is_one_job(store: Store, folder: Path) -> None:
    key, print_ = records.digest(b"k"), "abc"
    first = submit(store, key=key, fingerprint=print_)
    again = submit(Store(folder, Limits()), key=key, fingerprint=print_)
    assert again == first
    assert len(store.newest("", 10)) == 1
    with pytest.raises(AlreadyExistsError, match="another request"):
        submit(store, key=key, fingerprint="other")
    store.cancel(first.id)
    store.remove(first.id)
    assert submit(store, key=key, fingerprint="other").id != first.id


def test_a_key_whose_job_never_came_is_free(store: Store, folder: Path) -> None:
    key = records.digest(b"k")
    (folder / "keys" / key).write_text(records.new_id(time.time()))
    record = submit(store, key=key)
    assert store.read(record.id) == record


# Bounds and lists


@pytest.mark.parametrize("limits", [Limits(jobs=2), Limits(total_bytes=10)], ids=["jobs", "bytes"])
def test_there_is_an_end_to_what_is_kept(folder: Path, limits: Limits) -> None:
    store = Store(folder, limits)
    first = submit(store)
    submit(store)
    with pytest.raises(OverloadedError):
        submit(store)
    store.cancel(first.id)
    store.remove(first.id)
    submit(store)


def test_everyone_sees_the_own_jobs(store: Store) -> None:
    mine = [submit(store, principal="me").id for _ in range(3)]
    theirs = submit(store, principal="you").id
    assert {record.id for record in store.newest("me", 10)} == set(mine)
    assert [record.id for record in store.newest("me", 2)] == sorted(mine, reverse=True)[:2]
    assert [record.id for record in store.newest("you", 10)] == [theirs]
    assert store.newest("me", 10, "running") == []
    assert store.newest("", 10) == []


def test_children_do_not_hold_the_jobs_of_a_dead_worker(folder: Path) -> None:
    store = Store(folder, Limits())
    submit(store)
    reading, writing = os.pipe()
    worker = os.fork()
    if worker == 0:
        claim = Store(folder, Limits()).claim_next()
        child = os.fork()
        if child == 0:
            time.sleep(30)
            os._exit(0)
        os.write(writing, b"%d\n" % child)
        os._exit(0 if claim is not None else 1)
    os.close(writing)
    with os.fdopen(reading) as pipe:
        child = int(pipe.readline())
    assert os.waitpid(worker, 0)[1] == 0
    try:
        # The child lets go as soon as it runs, which may be a moment after its parent has gone.
        claims: list[Any] = [None]

        def claimed() -> bool:
            claims[0] = store.claim_next()
            return claims[0] is not None

        until(claimed)
        assert claims[0].record.attempts == 2
        claims[0].release()
    finally:
        os.kill(child, 9)
