"""Jobs beside models, over every protocol, for several principals."""

from __future__ import annotations

import contextlib
import gzip
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import UnauthorizedError
from serve.server.access.principal import SCOPES, Principal
from serve.server.asyncjobs.gate import AsyncJobsGate, folder_of
from tests.support.server import ANSWER, BODY, Answer, Client, LiveServer, get, post, serve_model

if TYPE_CHECKING:
    from collections.abc import Iterator

PREFER = "Prefer: respond-async"


class Keys:
    """A guard that knows two keys."""

    def __init__(self) -> None:
        self.principals = {
            name.encode(): Principal(f"key:{name}", name, dict.fromkeys(SCOPES))
            for name in ("ann", "bob")
        }

    def admit(self, credential: bytes, _target: bytes, _address: str) -> Principal:
        principal = self.principals.get(credential.removeprefix(b"Bearer "))
        if principal is None:
            raise UnauthorizedError("Who are you?")
        return principal

    def decide(self, *_: object) -> None:
        raise AssertionError("admit has decided")

    def tick(self) -> None:
        pass


@contextlib.contextmanager
def serving(folder: Path, guard: Any = None, **given: Any) -> Iterator[LiveServer]:
    live = serve_model(jobs_dir=str(folder), **given)
    live.app.guard = guard
    gate = AsyncJobsGate(
        live.settings, "sums", live.jobs, live.loop.call_soon_threadsafe, live.app.dispatch
    )
    live.app.later = gate
    live.app.add(gate)
    with live:
        live.call(gate.start)
        try:
            yield live
        finally:
            live.call(gate.close)


def ask(live: LiveServer, request: bytes) -> Answer:
    with Client(live.port) as client:
        client.send(request)
        return client.read()


def result_of(live: LiveServer, accepted: Answer, *headers: str) -> Answer:
    assert accepted.status == 202, accepted.body
    place = accepted.headers["location"]

    def ended() -> bool:
        status = json.loads(ask(live, get(place, *headers)).body)["status"]
        return status not in {"queued", "running"}

    while not ended():
        pass
    return ask(live, get(f"{place}/result", *headers))


V2 = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}]}
).encode()


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/score", BODY),
        ("/v2/models/sums/infer", V2),
        ("/v1/models/sums:predict", b'{"instances": [[1, 2, 3]]}'),
        ("/invocations", b'{"inputs": [[1, 2, 3]]}'),
    ],
    ids=["azure", "v2", "v1", "mlflow"],
)
def test_every_protocol_can_answer_later(tmp_path: Path, path: str, body: bytes) -> None:
    kind = "Content-Type: application/json"
    with serving(tmp_path) as live:
        now = ask(live, post(body, path, kind))
        later = result_of(live, ask(live, post(body, path, kind, PREFER)))
    assert now.status == 200
    assert (later.status, later.body) == (now.status, now.body)
    assert {**later.headers, "date": ""} == {**now.headers, "date": ""}


def test_compressed_bodies(tmp_path: Path) -> None:
    with serving(tmp_path) as live:
        sent = post(
            gzip.compress(BODY), "/score", "Content-Type: application/json",
            "Content-Encoding: gzip", PREFER,
        )  # fmt: skip
        assert json.loads(result_of(live, ask(live, sent)).body) == ANSWER
        broken = post(b"broken", "/score", "Content-Encoding: gzip", PREFER)
        assert ask(live, broken).status == 400


def test_bad_input_is_told_by_the_result(tmp_path: Path) -> None:
    with serving(tmp_path) as live:
        accepted = ask(live, post(b"{", "/score", "Content-Type: application/json", PREFER))
        assert result_of(live, accepted).status == 400


def test_jobs_are_seen_by_their_owners_alone(tmp_path: Path) -> None:
    ann, bob = "Authorization: Bearer ann", "Authorization: Bearer bob"
    kind = "Content-Type: application/json"
    key = "Idempotency-Key: one"
    with serving(tmp_path, Keys()) as live:
        assert ask(live, post(BODY, "/score", kind, PREFER)).status == 401
        of_ann = ask(live, post(BODY, "/score", kind, PREFER, ann, key))
        assert result_of(live, of_ann, ann).status == 200
        place = of_ann.headers["location"]
        for path in (place, f"{place}/result"):
            assert ask(live, get(path, bob)).status == 404
            assert ask(live, get(path)).status == 401
        assert ask(live, get(place, bob, method="DELETE")).status == 404
        assert json.loads(ask(live, get("/jobs", bob)).body) == {"jobs": []}
        of_bob = ask(live, post(BODY, "/score", kind, PREFER, bob, key))
        assert of_bob.headers["location"] != place
        assert len(json.loads(ask(live, get("/jobs", ann)).body)["jobs"]) == 1
        assert b"ann" not in (tmp_path / place.rsplit("/", 1)[1] / "request").read_bytes()


def test_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from serve.server.asyncjobs.store import Limits

    monkeypatch.setattr("serve.server.asyncjobs.store.Limits", lambda **_: Limits(jobs=1))
    with serving(tmp_path) as live:
        assert ask(live, post(BODY, "/score", PREFER)).status == 202
        more = ask(live, post(BODY, "/score", PREFER))
        assert more.status == 503
        assert "retry-after" in more.headers


def test_a_folder_that_cannot_be_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    taken = tmp_path / "file"
    taken.write_bytes(b"")
    with serving(taken / "jobs") as live:
        answer = ask(live, post(BODY, "/score", PREFER))
        assert answer.status == 500
        assert "FIELDPOST_SERVER_JOBS_DIR" in json.loads(answer.body)["error"]["hint"]
        other = post(BODY, "/score", 'Prefer: note="respond-async", respond-asynchronously')
        assert ask(live, other).status == 200
        assert ask(live, post(BODY, "/score", "Content-Type: application/json")).status == 200


def test_where_jobs_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert folder_of("/srv/jobs", "iris") == Path("/srv/jobs")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert folder_of("", "iris") == tmp_path / "fieldpost/jobs/iris"
    assert folder_of("", "../a/b").name == "_a_b"
    assert folder_of("", "..").name == "unnamed"
    monkeypatch.setenv("XDG_STATE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert folder_of("", "iris") == tmp_path / ".local/state/fieldpost/jobs/iris"
