"""Generators and `async def` in scripts, in a real worker, with real clients."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.support.scripts import ScriptWorker, serving
from tests.support.server import Client, post, until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SYNC = """
    import json, threading, time
    closed, computed = [], []

    def init():
        assert threading.current_thread() is threading.main_thread()

    def run(data):
        asked = json.loads(data)
        what = asked.get("what", "values")
        if what == "told":
            return {"closed": closed, "computed": computed}
        if what == "note":
            computed.append(asked["name"])
            return "noted"
        if what == "iterator":
            return iter(asked["values"])
        if what == "bytes":
            return (bytes([value]) for value in asked["values"])
        return values(asked)

    def values(asked):
        try:
            for value in asked.get("values", []):
                if value == "raise":
                    raise ValueError("no such value")
                if value == "wait":
                    time.sleep(30)
                if value == "nap":
                    time.sleep(0.4)
                yield value
            n = 0
            while asked.get("endless"):
                yield f"{n} " * 5000
                n += 1
        except GeneratorExit:
            closed.append("left")
            raise
        finally:
            closed.append("closed")
"""


@pytest.fixture(scope="module")
def sync(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptWorker]:
    folder = tmp_path_factory.mktemp("sync")
    with serving(folder, SYNC, FIELDPOST_SERVER_SCORING_TIMEOUT_MS="500") as worker:
        yield worker


def ask(worker: ScriptWorker, events: bool = False, **asked: Any) -> httpx.Response:
    headers = {"accept": "text/event-stream"} if events else {}
    return httpx.post(f"{worker.url}/score", json=asked, headers=headers, timeout=20)


def test_values_are_json_lines(sync: ScriptWorker) -> None:
    answer = ask(sync, values=[{"a": 1}, [2], "text", None, 1.5])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.headers["x-ms-run-function-failed"] == "False"
    assert float(answer.headers["x-ms-run-fn-exec-ms"]) >= 0
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == [{"a": 1}, [2], "text", None, 1.5]


def test_text_and_bytes_are_sent_as_they_are(sync: ScriptWorker) -> None:
    text = ask(sync, values=["Grüße, ", "", "Welt"])
    assert (text.headers["content-type"], text.text) == (
        "text/plain; charset=utf-8",
        "Grüße, Welt",
    )
    data = ask(sync, what="bytes", values=[0, 255])
    assert (data.headers["content-type"], data.content) == ("application/octet-stream", b"\0\xff")
    assert ask(sync, what="iterator", values=["a", "b"]).text == "ab"
    assert ask(sync, values=[]).content == b""


def test_values_are_events_for_those_who_ask(sync: ScriptWorker) -> None:
    answer = ask(sync, events=True, values=["a\nb", {"x": 1}, {"event": "end", "data": "now"}])
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.headers["cache-control"] == "no-cache"
    assert answer.text == 'data: a\ndata: b\n\ndata: {"x":1}\n\nevent: end\ndata: now\n\n'


def test_an_error_before_the_first_value_is_an_ordinary_one(sync: ScriptWorker) -> None:
    for events in (False, True):
        answer = ask(sync, events=events, values=["raise"])
        assert answer.status_code == 500
        assert "error occurred in scoring script" in answer.json()["message"]
        assert answer.headers["x-ms-run-function-failed"] == "True"
    assert httpx.post(f"{sync.url}/score", content="{", timeout=9).status_code == 400


def test_an_error_behind_it_is_an_event_or_cuts_the_answer_off(sync: ScriptWorker) -> None:
    answer = ask(sync, events=True, values=["a", "raise", "b"])
    assert answer.status_code == 200
    assert answer.text.startswith("data: a\n\nevent: error\ndata: {")
    assert answer.text.endswith("}\n\n")
    assert "no such value" not in answer.text
    with pytest.raises(httpx.RemoteProtocolError):
        ask(sync, values=["a", "raise"])
    assert "no such value" in sync.log.read_text()


def test_the_time_limit_is_that_of_each_value(sync: ScriptWorker) -> None:
    late = ask(sync, values=["wait"])
    assert (late.status_code, late.json()["message"]) == (500, "Scoring timeout after 500 ms")
    assert "event: error" in ask(sync, events=True, values=["a", "wait"]).text


def test_a_client_that_leaves_closes_the_generator(sync: ScriptWorker) -> None:
    before = ask(sync, what="told").json()["closed"].count("left")
    with httpx.stream("POST", f"{sync.url}/score", json={"endless": 1}, timeout=9) as answer:
        assert next(answer.iter_bytes()).startswith(b"0 0 ")
    until(lambda: ask(sync, what="told").json()["closed"].count("left") == before + 1)


def test_what_has_not_begun_is_not_computed(sync: ScriptWorker) -> None:
    """The client that leaves, and the deadline that passes."""
    with Client(sync.port) as busy, Client(sync.port) as gone:
        busy.send(post(b'{"values": ["begun ", "nap"]}'))
        until(lambda: received(busy, b"begun"))  # and the nap is asked for
        gone.send(post(b'{"what": "note", "name": "gone"}'))
        gone.socket.close()
        begun = time.perf_counter()
        late = httpx.post(
            f"{sync.url}/score",
            json={"what": "note", "name": "late"},
            headers={"timeout-ms": "50"},
            timeout=9,
        )
        assert late.status_code == 504
        assert late.json()["error"]["code"] == "deadline_exceeded"
        assert time.perf_counter() - begun < 0.3  # and not when its turn has come
        assert busy.read().body == b"begun nap"
    assert ask(sync, what="note", name="last").json() == "noted"
    assert ask(sync, what="told").json()["computed"] == ["last"]


def received(client: Client, part: bytes) -> bool:
    client._more()
    return part in client._buffer


ASYNC = """
    import asyncio, json, sys, threading, time
    log, running, most = [], 0, 0

    async def init():
        global lock, loop
        assert threading.current_thread() is threading.main_thread()
        loop, lock = asyncio.get_running_loop(), asyncio.Lock()
        asyncio.create_task(heart())

    async def heart():
        while True:
            await asyncio.sleep(0.01)
            log.append("beat") if "beat" not in log else None

    async def run(data, request_headers):
        global running, most
        assert asyncio.get_running_loop() is loop
        asked = json.loads(data)
        what = asked.get("what", "sleep")
        if what == "told":
            return {"log": log, "most": most, "running": running}
        if what == "raise":
            raise ValueError("own")
        if what == "exit":
            sys.exit(3)
        if what == "timeout":
            raise TimeoutError
        if what == "cancelled":
            raise asyncio.CancelledError
        if what == "block":
            time.sleep(asked["seconds"])
            return "blocked"
        if what == "stream":
            return values(asked)
        if what == "iterator":
            return iter([1, 2])
        running += 1
        most = max(most, running)
        try:
            async with lock:
                pass
            await asyncio.sleep(asked["seconds"])
            return request_headers["Host"]
        except asyncio.CancelledError:
            log.append(f"cancelled {asked.get('name')}")
            raise
        finally:
            running -= 1

    async def values(asked):
        try:
            async with asyncio.timeout(20):
                for value in asked["values"]:
                    if value == "raise":
                        raise ValueError("no such value")
                    if value == "wait":
                        await asyncio.sleep(30)
                    yield value
                n = 0
                while asked.get("endless"):
                    yield f"{n} " * 5000
                    n += 1
        except asyncio.CancelledError:
            log.append("stream cancelled")
            raise
        finally:
            log.append("stream closed")
"""


@pytest.fixture(scope="module")
def asynchronous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ScriptWorker]:
    folder = tmp_path_factory.mktemp("async")
    with serving(folder, ASYNC, FIELDPOST_SERVER_SCORING_TIMEOUT_MS="1500") as worker:
        yield worker


def told(worker: ScriptWorker) -> dict[str, Any]:
    document: dict[str, Any] = ask(worker, what="told").json()
    return document


def test_an_async_run_answers_many_at_once(asynchronous: ScriptWorker) -> None:
    with ThreadPoolExecutor(20) as pool:
        begun = time.perf_counter()
        answers = list(pool.map(lambda _: ask(asynchronous, seconds=0.5).json(), range(20)))
        assert time.perf_counter() - begun < 5
    assert len(set(answers)) == 1
    assert told(asynchronous)["most"] > 10
    assert "beat" in told(asynchronous)["log"]


@pytest.mark.parametrize("what", ["raise", "exit", "timeout", "cancelled"])
def test_errors_of_an_async_run_are_its_own(asynchronous: ScriptWorker, what: str) -> None:
    answer = ask(asynchronous, what=what)
    assert answer.status_code == 500
    assert "error occurred in scoring script" in answer.json()["message"]
    assert told(asynchronous)["running"] == 0


def test_a_client_that_leaves_cancels_an_async_run(asynchronous: ScriptWorker) -> None:
    with Client(asynchronous.port) as client:
        client.send(post(b'{"seconds": 20, "name": "left"}'))
        until(lambda: told(asynchronous)["running"] == 1)
    until(lambda: "cancelled left" in told(asynchronous)["log"], 1)  # and not the time limit


def test_a_deadline_cancels_an_async_run(asynchronous: ScriptWorker) -> None:
    answer = httpx.post(
        f"{asynchronous.url}/score",
        json={"seconds": 20, "name": "late"},
        headers={"timeout-ms": "100"},
        timeout=9,
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (504, "deadline_exceeded")
    assert answer.json()["message"], "as Azure's clients look for it"
    assert "cancelled late" in told(asynchronous)["log"]


def test_the_scoring_timeout_cancels_an_async_run(asynchronous: ScriptWorker) -> None:
    answer = ask(asynchronous, seconds=20, name="slow")
    assert (answer.status_code, answer.json()["message"]) == (500, "Scoring timeout after 1500 ms")
    assert "cancelled slow" in told(asynchronous)["log"]


def test_an_async_generator_is_streamed(asynchronous: ScriptWorker) -> None:
    lines = ask(asynchronous, what="stream", values=[{"a": 1}, 2])
    assert (lines.headers["content-type"], lines.text) == ("application/x-ndjson", '{"a":1}\n2\n')
    events = ask(asynchronous, events=True, what="stream", values=["a", "raise"])
    assert events.text.startswith("data: a\n\nevent: error\ndata: {")
    assert ask(asynchronous, what="stream", values=["raise"]).status_code == 500
    assert ask(asynchronous, what="stream", values=[]).content == b""
    assert ask(asynchronous, what="iterator").text == "1\n2\n"
    with pytest.raises(httpx.RemoteProtocolError):
        ask(asynchronous, what="stream", values=["a", "raise"])


def test_a_client_that_leaves_a_stream_cancels_it(asynchronous: ScriptWorker) -> None:
    closed = told(asynchronous)["log"].count("stream closed")
    for asked in ({"values": [], "endless": 1}, {"values": ["a", "wait"]}):
        with httpx.stream(
            "POST", f"{asynchronous.url}/score", json={"what": "stream", **asked}, timeout=9
        ) as answer:
            next(answer.iter_bytes())
        closed += 1
        # In less than the time limit: a stream that has nothing to send is cancelled, too.
        until(lambda: told(asynchronous)["log"].count("stream closed") == closed, 1)  # noqa: B023
    assert "stream cancelled" in told(asynchronous)["log"]


def test_a_deadline_ends_a_stream_too(asynchronous: ScriptWorker) -> None:
    answer = httpx.post(
        f"{asynchronous.url}/score",
        json={"what": "stream", "values": ["a", "wait"]},
        headers={"timeout-ms": "200", "accept": "text/event-stream"},
        timeout=9,
    )
    assert answer.text.startswith("data: a\n\nevent: error\n")


def test_health_answers_while_an_async_run_blocks(asynchronous: ScriptWorker) -> None:
    answers: list[Any] = []
    thread = threading.Thread(
        target=lambda: answers.append(ask(asynchronous, what="block", seconds=1).json())
    )
    with httpx.Client(timeout=9) as probe:
        probe.get(f"{asynchronous.url}/health/live")
        thread.start()
        times = []
        while thread.is_alive():
            begun = time.perf_counter()
            assert probe.get(f"{asynchronous.url}/health/ready").status_code == 200
            times.append(time.perf_counter() - begun)
    assert answers == ["blocked"]
    assert sorted(times)[len(times) // 2] < 0.1


def test_a_drain_lets_async_runs_finish(tmp_path: Path) -> None:
    with serving(tmp_path, ASYNC) as worker, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask, worker, seconds=0.6)
        until(lambda: told(worker)["running"] == 1)
        begun = time.perf_counter()
        assert worker.leave() == 0
        assert answer.result().status_code == 200
        assert time.perf_counter() - begun < 5
