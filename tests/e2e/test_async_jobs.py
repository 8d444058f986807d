"""`Prefer: respond-async` against real workers: the whole life of a job over HTTP."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.scripts import ScriptWorker, script_root, serving
from tests.support.server import Client, post, until

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = """
    import json, os, time

    def init():
        pass

    def run(data, request_headers):
        asked = json.loads(data)
        if "note" in asked:
            with open(asked["note"], "a") as notes:
                notes.write(f"{os.getpid()}\\n")
        if "sleep" in asked:
            time.sleep(asked["sleep"])
        if "until" in asked:
            while not os.path.exists(asked["until"]):
                time.sleep(0.01)
        if "raise" in asked:
            raise ValueError("own")
        if "stream" in asked:
            return parts(asked)
        if asked.get("headers"):
            return request_headers
        return asked

    def parts(asked):
        for number in range(asked["stream"]):
            if asked.get("break") == number:
                raise ValueError("own")
            yield f"{number} " * 1000
"""
ASYNC = {"prefer": "respond-async"}


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptWorker]:
    folder = tmp_path_factory.mktemp("jobs")
    with serving(folder, SCRIPT, FIELDPOST_SERVER_JOBS_DIR=str(folder / "jobs")) as worker:
        yield worker


def ask(worker: ScriptWorker, asked: Any, **headers: str) -> httpx.Response:
    return httpx.post(f"{worker.url}/score", json=asked, headers={**ASYNC, **headers}, timeout=20)


def accepted(worker: ScriptWorker, asked: Any, **headers: str) -> str:
    answer = ask(worker, asked, **headers)
    assert answer.status_code == 202, answer.text
    return str(answer.headers["location"])


def status(worker: ScriptWorker, place: str) -> dict[str, Any]:
    document: dict[str, Any] = httpx.get(worker.url + place, timeout=20).json()
    return document


def wait(worker: ScriptWorker, place: str, timeout_s: float = 20) -> dict[str, Any]:
    ended = ("succeeded", "failed", "cancelled")
    until(lambda: status(worker, place)["status"] in ended, timeout_s)
    return status(worker, place)


def test_a_job_is_accepted_told_and_answered(worker: ScriptWorker) -> None:
    answer = ask(worker, {"a": [1, 2]})
    assert answer.status_code == 202
    assert answer.headers["preference-applied"] == "respond-async"
    assert int(answer.headers["retry-after"]) > 0
    document = answer.json()
    place = answer.headers["location"]
    assert place == f"/jobs/{document['id']}"
    assert document["status"] == "queued"
    ended = wait(worker, place)
    assert (ended["status"], ended["attempts"], ended["http_status"]) == ("succeeded", 1, 200)
    assert ended["created"] <= ended["started"] <= ended["finished"]
    result = httpx.get(worker.url + place + "/result")
    live = httpx.post(f"{worker.url}/score", json={"a": [1, 2]})
    assert (result.status_code, result.content) == (200, live.content)
    changing = {"date", "x-request-id", "x-ms-request-id", "x-ms-run-fn-exec-ms"}
    assert {k: v for k, v in result.headers.items() if k not in changing} == {
        k: v for k, v in live.headers.items() if k not in changing
    }
    head = httpx.head(worker.url + place + "/result")
    assert head.headers["content-length"] == str(len(live.content))


def test_errors_are_results_too(worker: ScriptWorker) -> None:
    for content, code in (("{", 400), ('{"raise": 1}', 500)):
        answer = httpx.post(f"{worker.url}/score", content=content, headers=ASYNC)
        place = answer.headers["location"]
        ended = wait(worker, place)
        assert (ended["status"], ended["http_status"]) == ("failed", code)
        assert httpx.get(worker.url + place + "/result").status_code == code


def test_the_script_gets_the_request_without_credentials(worker: ScriptWorker) -> None:
    place = accepted(
        worker, {"headers": True}, authorization="Bearer secret", cookie="secret", **{"x-own": "1"}
    )
    wait(worker, place)
    headers = httpx.get(worker.url + place + "/result").json()
    assert headers["X-Own"] == "1"
    assert "secret" not in json.dumps(headers)


@pytest.mark.parametrize("way", ["Content-Type: application/json", "Content-Type: text/plain"])
def test_blanks_around_a_headers_value_are_none_of_it(worker: ScriptWorker, way: str) -> None:
    """On the short way and on the long one, for the script and for what is answered."""
    with Client(worker.port) as client:
        sent = ("X-Own:\t1 \t", "X-Ms-Client-Request-Id:  order 7  ", "X-Empty:  ")
        client.send(post(b'{"headers": true}', "/score", way, *sent))
        answer = client.read()
    headers = json.loads(answer.body)
    assert (headers["X-Own"], headers["X-Empty"]) == ("1", "")
    assert headers["X-Ms-Client-Request-Id"] == "order 7"
    assert b"x-ms-client-request-id: order 7\r\n" in answer.raw_head.lower()


def test_who_waits_a_moment_may_get_the_answer_itself(worker: ScriptWorker, tmp_path: Path) -> None:
    answer = ask(worker, {"a": 1}, prefer="respond-async, wait=10")
    assert (answer.status_code, answer.json()) == (200, {"a": 1})
    go = tmp_path / "go"
    late = ask(worker, {"until": str(go)}, prefer="respond-async, wait=1")
    assert late.status_code == 202
    go.touch()
    assert wait(worker, late.headers["location"])["status"] == "succeeded"


def test_no_result_before_its_time(worker: ScriptWorker, tmp_path: Path) -> None:
    go = tmp_path / "go"
    place = accepted(worker, {"until": str(go)})
    until(lambda: status(worker, place)["status"] == "running")
    early = httpx.get(f"{worker.url}{place}/result")
    assert (early.status_code, early.json()["error"]["code"]) == (409, "job_state")
    assert "retry-after" in early.headers
    assert "retry-after" in httpx.get(worker.url + place).headers
    go.touch()
    wait(worker, place)
    assert httpx.get(f"{worker.url}{place}/result").status_code == 200


def test_a_streamed_answer_is_kept_whole(worker: ScriptWorker) -> None:
    place = accepted(worker, {"stream": 2000})
    ended = wait(worker, place)
    assert ended["status"] == "succeeded"
    result = httpx.get(f"{worker.url}{place}/result", timeout=20)
    assert result.text == "".join(f"{number} " * 1000 for number in range(2000))
    assert result.headers["content-type"] == "text/plain; charset=utf-8"
    events = accepted(worker, {"stream": 1}, accept="text/event-stream")
    wait(worker, events)
    assert httpx.get(f"{worker.url}{events}/result").text.startswith("data: 0 0 ")


def test_a_streamed_answer_that_breaks_off_is_a_failure(worker: ScriptWorker) -> None:
    ended = wait(worker, place := accepted(worker, {"stream": 3, "break": 2}))
    assert (ended["status"], ended["http_status"]) == ("failed", 500)
    assert "broke off" in httpx.get(f"{worker.url}{place}/result").json()["error"]["message"]


@pytest.mark.parametrize("way", ["delete", "cancel"])
def test_a_job_is_cancelled(worker: ScriptWorker, tmp_path: Path, way: str) -> None:
    go, notes = tmp_path / "go", tmp_path / "notes"
    running = accepted(worker, {"until": str(go)})
    waiting = accepted(worker, {"note": str(notes)})
    until(lambda: status(worker, running)["status"] == "running")

    def cancel(place: str) -> httpx.Response:
        if way == "delete":
            return httpx.delete(worker.url + place)
        return httpx.post(f"{worker.url}{place}/cancel")

    for place in (waiting, running):
        answer = cancel(place)
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
        assert status(worker, place)["status"] == "cancelled"
        assert httpx.get(f"{worker.url}{place}/result").status_code == 409
    go.touch()
    after = accepted(worker, {"a": 1})
    assert wait(worker, after)["status"] == "succeeded"
    assert status(worker, running)["status"] == "cancelled"
    assert not notes.exists()
    again = cancel(running)
    assert again.status_code == (204 if way == "delete" else 409)
    assert httpx.get(worker.url + running).status_code == (404 if way == "delete" else 200)


def test_one_key_is_one_job(worker: ScriptWorker, tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    key = {"idempotency-key": "order-7"}
    place = accepted(worker, {"note": str(notes)}, **key)
    assert accepted(worker, {"note": str(notes)}, **key) == place
    wait(worker, place)
    assert accepted(worker, {"note": str(notes)}, **key) == place
    assert len(notes.read_text().split()) == 1
    other = ask(worker, {"other": 1}, **key)
    assert (other.status_code, other.json()["error"]["code"]) == (409, "already_exists")
    assert ask(worker, {}, **{"idempotency-key": "k" * 300}).status_code == 400


def test_the_list_is_newest_first(worker: ScriptWorker) -> None:
    places = [accepted(worker, {"a": number}) for number in range(3)]
    for place in places:
        wait(worker, place)
    listed = httpx.get(f"{worker.url}/jobs", params={"limit": 2}).json()["jobs"]
    assert [job["links"]["self"] for job in listed] == places[:0:-1]
    assert httpx.get(f"{worker.url}/jobs?status=running").json() == {"jobs": []}
    for limit in ("0", "x", "-1", "9999999999999"):
        assert httpx.get(f"{worker.url}/jobs?limit={limit}").status_code == 400


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [
        ("GET", "/jobs/" + "f" * 32, 404),
        ("GET", "/jobs/" + "0" * 11 + "1" + "f" * 20, 410),
        ("GET", "/jobs/../../etc/passwd", 404),
        ("GET", "/jobs/%2e%2e%2fkeys", 404),
        ("GET", "/jobs/", 404),
        ("GET", "/jobs/x/y", 404),
        ("POST", "/jobs", 405),
        ("PUT", "/jobs/" + "f" * 32, 405),
        ("GET", "/jobs/" + "f" * 32 + "/cancel", 405),
    ],
)
def test_what_is_not_there(worker: ScriptWorker, method: str, path: str, code: int) -> None:
    with Client(worker.port) as client:
        client.send(f"{method} {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n".encode())
        assert client.read().status == code


def test_other_requests_are_answered_at_once(worker: ScriptWorker) -> None:
    """Only inference can wait; and nobody is made to."""
    assert httpx.get(f"{worker.url}/score", headers=ASYNC).status_code != 202
    assert httpx.post(f"{worker.url}/nothing", headers=ASYNC).status_code == 404
    live = httpx.post(f"{worker.url}/score", json={"a": 1}, headers={"prefer": "wait=5"})
    assert (live.status_code, live.json()) == (200, {"a": 1})


def test_a_deadline_holds_for_a_job_in_the_queue(worker: ScriptWorker, tmp_path: Path) -> None:
    go = tmp_path / "go"
    running = accepted(worker, {"until": str(go)})
    until(lambda: status(worker, running)["status"] == "running")
    late = accepted(worker, {"a": 1}, **{"timeout-ms": "10"})
    time.sleep(0.02)
    go.touch()
    ended = wait(worker, late)
    assert ended["status"] == "failed"
    assert "deadline" in ended["reason"]


def test_live_requests_come_first(worker: ScriptWorker, tmp_path: Path) -> None:
    """A job begins when nobody live waits: of two that wait, the live one is first."""
    go, notes = tmp_path / "go", tmp_path / "notes"
    busy = {"until": str(go), "note": str(notes)}
    with Client(worker.port) as first, Client(worker.port) as second:
        first.send(post(json.dumps(busy).encode()))
        until(notes.exists)
        second.send(post(b'{"sleep": 0.2}'))
        place = accepted(worker, {"a": 1})
        go.touch()
        assert first.read().status == 200
        assert second.read().status == 200
        ended = time.time()
    started = datetime.fromisoformat(wait(worker, place)["started"]).timestamp()
    assert started > ended - 0.1


# Restarts


def test_jobs_survive_a_kill_and_run_again(tmp_path: Path) -> None:
    env = {"FIELDPOST_SERVER_JOBS_DIR": str(tmp_path / "jobs")}
    go, notes = tmp_path / "go", tmp_path / "notes"
    with serving(tmp_path, SCRIPT, **env) as worker:
        done = accepted(worker, {"a": 1})
        wait(worker, done)
        running = accepted(worker, {"until": str(go), "note": str(notes)})
        queued = accepted(worker, {"b": 2})
        until(notes.exists)
        worker.kill()
        go.touch()
        worker.start()
        assert httpx.get(f"{worker.url}{done}/result").json() == {"a": 1}
        ended = wait(worker, running)
        assert (ended["status"], ended["attempts"]) == ("succeeded", 2)
        assert wait(worker, queued)["attempts"] == 1
        assert len(notes.read_text().split()) == 2
        assert worker.leave() == 0


def test_a_drain_waits_for_a_job_or_puts_it_back(tmp_path: Path) -> None:
    env = {"FIELDPOST_SERVER_JOBS_DIR": str(tmp_path / "jobs")}
    notes = tmp_path / "notes"
    with serving(tmp_path, SCRIPT, FIELDPOST_SERVER_DRAIN_TIMEOUT_S="2", **env) as worker:
        short = accepted(worker, {"sleep": 0.5, "note": str(notes)})
        until(notes.exists)
        assert worker.leave() == 0
        worker.start()
        assert status(worker, short)["status"] == "succeeded"
        notes.unlink()
        go = tmp_path / "go"
        long = accepted(worker, {"until": str(go), "note": str(notes)})
        until(notes.exists)
        assert worker.leave() == 0
        go.touch()
        worker.start()
        ended = wait(worker, long)
        assert (ended["status"], ended["attempts"]) == ("succeeded", 1)


def test_several_workers_share_a_store(tmp_path: Path) -> None:
    env = {"FIELDPOST_SERVER_JOBS_DIR": str(tmp_path / "jobs")}
    go, notes = tmp_path / "go", tmp_path / "notes"
    with serving(tmp_path, SCRIPT, **env) as one:
        first = accepted(one, {"until": str(go), "note": str(notes)})
        until(notes.exists)
        two = ScriptWorker(script_root(tmp_path / "two", SCRIPT), env)
        two.start()
        try:
            second = accepted(one, {"note": str(notes)})
            assert wait(two, second)["status"] == "succeeded"
            assert notes.read_text().split() == [str(one.process.pid), str(two.process.pid)]
            answer = httpx.delete(two.url + first)  # which the other one runs
            assert answer.json()["status"] == "running"
            assert wait(two, first)["status"] == "cancelled"
            go.touch()
            go.unlink()
            third = accepted(one, {"until": str(go)})
            until(lambda: status(two, third)["status"] == "running")
            for worker in (one, two):
                if worker.process.pid == runner_of(tmp_path, one, two, third):
                    worker.kill()
                    other = two if worker is one else one
            go.touch()
            assert wait(other, third)["attempts"] == 2
        finally:
            two.kill()


def runner_of(folder: Path, one: ScriptWorker, two: ScriptWorker, place: str) -> int:
    """The process that has the job's folder open."""
    job = (folder / "jobs" / place.rsplit("/", 1)[1]).resolve()
    for worker in (one, two):
        for fd in Path(f"/proc/{worker.process.pid}/fd").iterdir():
            try:
                if fd.resolve() == job:
                    return worker.process.pid
            except OSError:
                continue
    raise AssertionError("nobody runs it")


CANCELLED = """
    import asyncio, json
    log = []
    def init(): pass
    async def run(data):
        asked = json.loads(data)
        if "told" in asked:
            return log
        try:
            log.append("begun")
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            log.append("cancelled")
            raise
"""


def test_an_async_run_of_a_cancelled_job_is_cancelled(tmp_path: Path) -> None:
    def told(worker: ScriptWorker) -> Any:
        return httpx.post(f"{worker.url}/score", json={"told": 1}).json()

    with serving(tmp_path, CANCELLED, FIELDPOST_SERVER_JOBS_DIR=str(tmp_path / "jobs")) as worker:
        place = accepted(worker, {})
        until(lambda: told(worker) == ["begun"])
        assert httpx.delete(worker.url + place).json()["status"] == "cancelled"
        until(lambda: told(worker) == ["begun", "cancelled"])


def test_nothing_of_jobs_is_loaded_until_one_is_asked_for(tmp_path: Path) -> None:
    code = """
        import sys
        def init(): pass
        def run(data):
            return sorted(m for m in sys.modules if m.startswith("serve.server.asyncjobs."))
    """
    jobs = tmp_path / "jobs"
    with serving(tmp_path, code, FIELDPOST_SERVER_JOBS_DIR=str(jobs)) as worker:
        loaded = httpx.post(f"{worker.url}/score", content="x").json()
        assert loaded == ["serve.server.asyncjobs.gate"]
        assert not jobs.exists()


def test_an_async_generator_can_be_a_job(tmp_path: Path) -> None:
    code = """
        import asyncio
        def init(): pass
        async def run(data):
            for number in range(3):
                await asyncio.sleep(0.01)
                yield {"n": number}
            if data == "wait":
                await asyncio.sleep(30)
    """
    with serving(tmp_path, code, FIELDPOST_SERVER_JOBS_DIR=str(tmp_path / "jobs")) as worker:
        place = accepted(worker, {})
        assert wait(worker, place)["status"] == "succeeded"
        result = httpx.get(f"{worker.url}{place}/result")
        assert result.text == '{"n":0}\n{"n":1}\n{"n":2}\n'
        endless = httpx.post(f"{worker.url}/score", content="wait", headers=ASYNC)
        place = endless.headers["location"]
        until(lambda: status(worker, place)["status"] == "running")
        assert httpx.delete(worker.url + place).json()["status"] == "cancelled"
        again = accepted(worker, {})
        assert wait(worker, again)["status"] == "succeeded"
