"""The routes of a model: what they answer, and where the model runs."""

from __future__ import annotations

import gzip
import json
import threading
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import OverloadedError, ScoringFailedError, WrongTypeError
from scoring.payload.mediatype import require_json
from serve.server.cost import Cost
from serve.server.jobs import Jobs
from tests.support.server import ANSWER, BODY, Client, LiveServer, Sums, get, post, serve_model

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scoring.runtimes.base import Arrays


@pytest.fixture(scope="module", params=[True, False], ids=["inline", "on threads"])
def server(request: pytest.FixtureRequest) -> Iterator[LiveServer]:
    with serve_model(inline=request.param, max_body_bytes=1 << 20) as live:
        yield live


@pytest.fixture
def client(server: LiveServer) -> Iterator[Client]:
    with Client(server.port) as connection:
        yield connection


def ask(client: Client, request: bytes) -> tuple[int, Any]:
    client.send(request)
    answer = client.read()
    return answer.status, json.loads(answer.body) if answer.body else None


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/health/live", {"live": True}),
        ("/health/ready", {"ready": True}),
        ("/health/startup", {"started": True}),
    ],
)
def test_health_is_json(client: Client, path: str, body: object) -> None:
    assert ask(client, get(path)) == (200, body)


def test_the_root_says_healthy(client: Client) -> None:
    client.send(get("/"))
    answer = client.read()
    assert (answer.status, answer.body) == (200, b"Healthy")
    assert answer.headers["content-type"].startswith("text/plain")


def test_not_ready_is_503(server: LiveServer, client: Client) -> None:
    server.call(lambda: setattr(server.app, "ready", False))
    try:
        assert ask(client, get("/health/ready")) == (503, {"ready": False})
        assert ask(client, get("/health/live")) == (200, {"live": True})
    finally:
        server.call(lambda: setattr(server.app, "ready", True))


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        'Application/JSON; charset="UTF-8"',
        "application/x-www-form-urlencoded",
        "text/plain; charset=us-ascii",
        "application/octet-stream",
        "application/vnd.api+json",
        "",
    ],
)
def test_json_is_taken_under_many_names(client: Client, content_type: str) -> None:
    request = post(BODY, "/score", *([f"Content-Type: {content_type}"] if content_type else []))
    assert ask(client, request) == (200, ANSWER)


@pytest.mark.parametrize(
    "content_type",
    ["text/csv", "multipart/form-data; boundary=x", "application/json; charset=utf-16"],
)
def test_other_content_types_are_415(client: Client, content_type: str) -> None:
    status, body = ask(client, post(BODY, "/score", f"Content-Type: {content_type}"))
    assert (status, body["error"]["code"]) == (415, "unsupported_media_type")
    assert body["error"]["where"] == "content-type"


def test_inputs_are_answered_by_name(client: Client) -> None:
    status, body = ask(client, post(b'{"inputs": {"x": [[1, 2, 3]]}}'))
    assert (status, body) == (200, {"outputs": {"total": [6.0], "twice": [[2.0, 4.0, 6.0]]}})


@pytest.mark.parametrize(
    ("body", "code", "where"),
    [
        (b"", "malformed_payload", ""),
        (b"{", "malformed_payload", "line 1, column 2"),
        (b'{"data": [[1, 2]]}', "wrong_shape", "data[0]"),
        (b'{"data": [[1, 2, "3"]]}', "wrong_type", "data[0][2]"),
        (b'{"data": [[1, 2, null]]}', "missing_value", "data[0][2]"),
        (b'{"data": [[1, 2, NaN]]}', "missing_value", "data[0][2]"),
        (b'{"rows": [[1, 2, 3]]}', "unknown_input", ""),
        (b"[" * 2000, "payload_too_deep", ""),
    ],
)
def test_bad_input_is_400_with_the_place(
    client: Client, body: bytes, code: str, where: str
) -> None:
    status, answer = ask(client, post(body))
    assert (status, answer["error"]["code"]) == (400, code)
    if where:
        assert answer["error"]["where"] == where


def test_compressed_bodies_are_taken_and_judged(client: Client) -> None:
    packed = gzip.compress(BODY)
    assert ask(client, post(packed, "/score", "Content-Encoding: gzip")) == (200, ANSWER)
    status, body = ask(client, post(packed[:-3], "/score", "Content-Encoding: gzip"))
    assert (status, body["error"]["code"]) == (400, "malformed_payload")
    status, body = ask(client, post(packed, "/score", "Content-Encoding: br"))
    assert (status, body["error"]["code"]) == (415, "unsupported_media_type")
    bomb = gzip.compress(b" " * (5 << 20))
    status, body = ask(client, post(bomb, "/score", "Content-Encoding: gzip"))
    assert (status, body["error"]["code"]) == (413, "payload_too_large")


def test_unknown_paths_and_methods_are_json(client: Client) -> None:
    status, body = ask(client, get("/nothing"))
    assert (status, body["error"]["code"]) == (404, "route_not_found")
    client.send(get("/score"))
    answer = client.read()
    assert (answer.status, answer.headers["allow"]) == (405, "POST, OPTIONS")
    assert json.loads(answer.body)["error"]["code"] == "method_not_allowed"
    assert ask(client, post(BODY, "/"))[0] == 405


def test_options_is_empty(client: Client) -> None:
    client.send(get("/score", method="OPTIONS"))
    answer = client.read()
    assert (answer.status, answer.body) == (200, b"")
    assert "POST" in answer.headers["allow"]


@pytest.mark.parametrize(
    ("target", "key", "value"),
    [
        ("/swagger.json", "swagger", "2.0"),
        ("/swagger.json?version=2", "swagger", "2.0"),
        ("/swagger.json?version=3", "openapi", "3.0.3"),
        ("/swagger.json?version=3.1", "openapi", "3.1.0"),
        ("/openapi.json", "openapi", "3.0.3"),
    ],
)
def test_the_documents_have_the_version_asked_for(
    client: Client, target: str, key: str, value: str
) -> None:
    status, body = ask(client, get(target))
    assert (status, body[key]) == (200, value)


@pytest.mark.parametrize("version", ["4", "", "2.1"])
def test_other_versions_are_404(client: Client, version: str) -> None:
    assert ask(client, get(f"/swagger.json?version={version}"))[0] == 404


@pytest.mark.parametrize("inline", [True, False])
@pytest.mark.parametrize(
    ("error", "code"), [(ScoringFailedError("no"), "scoring_failed"), (KeyError("x"), "internal")]
)
def test_a_model_that_fails_is_500_and_the_server_goes_on(
    inline: bool, error: Exception, code: str
) -> None:
    model = Sums()
    with serve_model(model, inline=inline) as live, Client(live.port) as client:
        model.error = error
        status, body = ask(client, post())
        assert (status, body["error"]["code"]) == (500, code)
        model.error = None
        assert ask(client, post()) == (200, ANSWER)


def test_the_client_is_told_nothing_of_a_bug() -> None:
    model = Sums()
    with serve_model(model) as live, Client(live.port) as client:
        model.error = RuntimeError("a secret path")
        assert "secret" not in json.dumps(ask(client, post())[1])


# Where the model runs


class Where(Sums):
    """A model that says on which thread it ran."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        self.names.append(threading.current_thread().name)
        return super().predict(inputs)


@pytest.mark.parametrize(
    ("given", "thread"),
    [({"inline": True}, False), ({"inline": False}, True), ({"inline_ms": 0}, True)],
)
def test_the_setting_decides_where_the_model_runs(given: dict[str, Any], thread: bool) -> None:
    model = Where()
    with serve_model(model, **given) as live, Client(live.port) as client:
        model.names.clear()
        assert ask(client, post()) == (200, ANSWER)
        assert [name.startswith("model-") for name in model.names] == [thread]


def test_a_large_body_goes_to_a_thread() -> None:
    model = Where()
    with serve_model(model) as live, Client(live.port) as client:
        model.names.clear()
        assert ask(client, post(BODY + b" " * 1_200_000)) == (200, ANSWER)
        assert ask(client, post()) == (200, ANSWER)
        assert [name.startswith("model-") for name in model.names] == [True, False]


def test_an_exclusive_model_never_runs_twice_at_once() -> None:
    model = Where()
    model.thread_safe = False
    large = post(BODY + b" " * 1_200_000)
    with serve_model(model) as live, Client(live.port) as first, Client(live.port) as second:
        model.names.clear()
        model.go.clear()
        first.send(large)
        assert model.entered.acquire(timeout=10)
        second.send(post())
        live.until(lambda: live.repository.get("sums").pending == 2)
        model.go.set()
        assert [first.read().status, second.read().status] == [200, 200]
        assert all(name == "model-0" for name in model.names)


def test_cost_starts_on_threads_and_does_not_flap() -> None:
    cost = Cost(0.002)
    seen = [cost.inline]
    # Not below half of the limit; below it; between; over the limit.
    for seconds, times in ((0.0015, 1), (0.0001, 200), (0.0015, 20), (0.003, 200)):
        for _ in range(times):
            cost.note(seconds)
        seen.append(cost.inline)
    assert seen == [False, False, True, True, False]


def test_one_pause_of_the_machine_does_not_make_a_model_slow() -> None:
    cost = Cost(0.002)
    cost.note(0.0001)
    cost.note(30.0)
    assert cost.inline


def test_a_limit_of_zero_is_never_inline() -> None:
    cost = Cost(0)
    cost.note(0.0)
    assert not cost.inline


@pytest.mark.parametrize("content_type", ["image/png", "application/xml", "json", "text/html; x=y"])
def test_only_json_is_json(content_type: str) -> None:
    with pytest.raises(Exception, match="takes JSON"):
        require_json(content_type)


# The queue


class Posted:
    """Collects what would run on the event loop."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def __call__(self, function: Callable[..., object], *arguments: object) -> None:
        self.calls.append((function, arguments))

    def run(self) -> None:
        calls, self.calls = self.calls, []
        for function, arguments in calls:
            function(*arguments)


def test_jobs_run_in_order_and_tell_results_and_errors() -> None:
    posted = Posted()
    jobs = Jobs(posted, 10)
    seen: list[tuple[object, BaseException | None]] = []

    def fail() -> None:
        raise SystemExit(3)

    jobs.submit(lambda: 1, lambda *outcome: seen.append(outcome))
    jobs.submit(fail, lambda *outcome: seen.append(outcome))
    jobs.submit(lambda: 2, lambda *outcome: seen.append(outcome)).cancel()
    assert jobs.pending == 3
    jobs.stop()
    jobs.work()
    posted.run()
    assert seen[0] == (1, None)
    assert isinstance(seen[1][1], SystemExit)
    assert len(seen) == 2
    assert jobs.pending == 0


def test_a_job_that_ran_is_told_although_it_was_cancelled() -> None:
    """What it made may have to be closed."""
    posted = Posted()
    jobs = Jobs(posted, 10)
    seen: list[object] = []

    def make() -> str:
        job.cancel()
        return "made"

    job = jobs.submit(make, lambda *outcome: seen.append(outcome[0]))
    jobs.stop()
    jobs.work()
    posted.run()
    assert seen == ["made"]


def test_the_queue_is_bounded_but_for_what_was_let_in() -> None:
    jobs = Jobs(Posted(), 1)
    jobs.submit(int, lambda *_: None)
    with pytest.raises(OverloadedError):
        jobs.submit(int, lambda *_: None)
    jobs.submit(int, lambda *_: None, unbounded=True)
    assert jobs.pending == 2


def test_a_failed_example_only_warns(caplog: pytest.LogCaptureFixture) -> None:
    model = Sums()
    model.error = WrongTypeError("the example is wrong")
    with serve_model(model) as live, Client(live.port) as client:
        model.error = None
        assert ask(client, post()) == (200, ANSWER)
    assert "example" in caplog.text
