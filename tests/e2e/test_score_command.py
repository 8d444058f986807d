"""`fieldpost score` against real servers: protocols, keys, several models, jobs, TLS."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from scoring import errors
from serve import trust
from serve.asking import Asking, ask
from serve.cli.main import run
from serve.oip_documents import inputs_of
from serve.server.access import tls
from serve.server.access.keychain import Keychain
from serve.server.protocol import Connection
from serve.server.settings import ServerSettings
from tests.support.certificates import Authority
from tests.support.scripts import serving
from tests.support.server import Sums, serve_models

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.support.server import LiveServer

    Score = Callable[..., Any]

ROWS = {"data": [[1, 2, 3], [4, 5, 6]]}
TENSOR = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}


@pytest.fixture
def score(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Score:
    """Runs the command; gives the answer, or the error where one is expected."""
    monkeypatch.setenv("FIELDPOST_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.delenv("FIELDPOST_API_KEY", raising=False)

    def scored(url: str, body: object, *options: str, expect: int = 0) -> Any:
        status = run(["score", url, "-d", json.dumps(body), "--wait", "0", "--json", *options])
        told = capsys.readouterr()
        assert status == expect, told
        document = json.loads(told.out)
        return document["error"] if expect else document

    return scored


@contextlib.contextmanager
def served_over_tls(tls_cert: str, tls_key: str) -> Iterator[str]:
    """The URL of a server with a second port, behind TLS."""
    context = tls.context(ServerSettings(tls_cert=tls_cert, tls_key=tls_key))
    with serve_models({"sums": Sums()}) as live:

        async def listen() -> Any:
            return await live.loop.create_server(
                lambda: Connection(live.hub), "127.0.0.1", 0, ssl=context
            )

        server = asyncio.run_coroutine_threadsafe(listen(), live.loop).result(10)
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        live.call(server.close)


@pytest.fixture(scope="module")
def two() -> Iterator[LiveServer]:
    with serve_models({"one": Sums(), "other": Sums()}) as live:
        yield live


@pytest.fixture(scope="module")
def alone() -> Iterator[LiveServer]:
    with serve_models({"sums": Sums()}) as live:
        yield live


@pytest.mark.parametrize("protocol", ["v2", "grpc"])
@pytest.mark.parametrize(
    "body",
    [ROWS, ROWS["data"], {"inputs": {"x": ROWS["data"]}}, {"instances": ROWS["data"]}],
    ids=["data", "list", "inputs", "instances"],
)
def test_the_same_request_over_the_inference_protocol(
    alone: LiveServer, score: Score, protocol: str, body: object
) -> None:
    answer = score(f"http://127.0.0.1:{alone.port}", body, "--protocol", protocol)
    assert answer == {"outputs": {"total": [6.0, 15.0], "twice": [[2, 4, 6], [8, 10, 12]]}}


def test_tensors_as_the_protocol_writes_them(alone: LiveServer, score: Score) -> None:
    answer = score(f"grpc://127.0.0.1:{alone.port}", {"inputs": [TENSOR]})
    assert answer["outputs"]["total"] == [6.0]


@pytest.mark.parametrize("protocol", ["score", "v2", "grpc"])
def test_a_model_of_several_is_named(two: LiveServer, score: Score, protocol: str) -> None:
    url = f"http://127.0.0.1:{two.port}"
    answer = score(url, ROWS, "--protocol", protocol, "--model", "other")
    totals = answer.get("outputs", {}).get("total") or [x["total"] for x in answer["predictions"]]
    assert totals == [6.0, 15.0]
    unknown = score(url, ROWS, "--protocol", protocol, "--model", "none", expect=1)
    assert unknown["code"] in {"unknown_model", "bad_input"}
    assert "none" in unknown["message"]


@pytest.mark.parametrize("protocol", ["v2", "grpc"])
def test_which_of_several_has_to_be_said(two: LiveServer, score: Score, protocol: str) -> None:
    url = f"http://127.0.0.1:{two.port}"
    error = score(url, ROWS, "--protocol", protocol, expect=2)
    assert "one, other" in error["message"]
    assert "--model" in error["hint"]


@pytest.mark.parametrize("protocol", ["score", "v2", "grpc"])
def test_keys_are_shown_and_never_told(
    score: Score, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    chain = Keychain(tmp_path / "keys.json")
    _, secret = chain.create("tester")
    with serve_models({"sums": Sums()}, api_keys=str(chain.path)) as live:
        url, choice = f"http://127.0.0.1:{live.port}", ["--protocol", protocol]
        assert score(url, ROWS, *choice, expect=1)["code"] == "unauthorized"
        wrong = score(url, ROWS, *choice, "--api-key", f"{secret}x", expect=1)
        assert wrong["code"] == "unauthorized"
        assert secret not in str(wrong)
        assert score(url, ROWS, *choice, "--api-key", secret)
        monkeypatch.setenv("FIELDPOST_API_KEY", secret)
        assert score(url, ROWS, *choice)
        assert score(url, ROWS, *choice, "--header", "Authorization: no", expect=1)
    assert secret not in repr(Asking(api_key=secret, headers={"x": secret}))


@pytest.mark.parametrize("protocol", ["score", "v2", "grpc"])
def test_the_server_gives_up_in_time(score: Score, protocol: str) -> None:
    slow = Sums()
    with serve_models({"sums": slow}, inline=False) as live:
        url = f"http://127.0.0.1:{live.port}"
        warmed = slow.calls
        slow.go.clear()
        first = threading.Thread(target=ask, args=(url, ROWS, Asking()))
        first.start()
        assert slow.entered.acquire(timeout=10)  # what follows waits behind it
        try:
            error = score(url, ROWS, "--protocol", protocol, "--timeout-ms", "100", expect=1)
        finally:
            slow.go.set()
            first.join()
        assert error["code"] == "deadline_exceeded"
        assert slow.calls == warmed + 1


def test_a_job_is_awaited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = """
        import time
        def init():
            pass
        def run(data):
            if data == '"fail"':
                raise ValueError("no")
            time.sleep(0.3)
            return {"given": data}
    """
    given = {"FIELDPOST_SERVER_JOBS_DIR": str(tmp_path / "jobs")}
    with serving(tmp_path, code, **given) as worker:
        assert run(["score", worker.url, "-d", "[1]", "--later", "--json"]) == 0
        told = capsys.readouterr()
        assert json.loads(told.out) == {"given": "[1]"}
        assert f"Accepted as {worker.url}/jobs/" in told.err
        with pytest.raises(errors.ScoringFailedError):
            ask(worker.url, b'"fail"', Asking(later=True))
        with pytest.raises(errors.DeadlineExceededError, match=r"is (queued|running)"):
            ask(worker.url, b"[2]", Asking(later=True, timeout_s=0.1))


def test_what_cannot_be_later_says_so(alone: LiveServer, score: Score) -> None:
    url = f"http://127.0.0.1:{alone.port}"
    assert score(url, ROWS, "--later", "--protocol", "grpc", expect=2)["where"] == "later"


def test_certificates_are_believed_as_told(tmp_path: Path, score: Score) -> None:
    authority = Authority()
    cert, key = authority.issue(tmp_path, "server")
    other, _ = authority.issue(tmp_path, "other")
    ca = authority.write(tmp_path / "ca.pem")
    given = {"FIELDPOST_SERVER_TLS_CERT": str(cert), "FIELDPOST_SERVER_TLS_KEY": str(key)}
    code = "def init():\n    pass\n\ndef run(data):\n    return data\n"
    with serving(tmp_path, code, **given) as worker:
        assert "--ca" in score(worker.url, [1], expect=1)["hint"]
        assert score(worker.url, [1], "--ca", str(ca)) == "[1]"
        assert ask(worker.url, b"[1]", Asking(certificate=str(cert))) == "[1]"
        with pytest.raises(errors.TargetError, match="not believed"):
            ask(worker.url, b"[1]", Asking(certificate=str(other)))
    for protocol in ("v2", "grpc"):
        with served_over_tls(str(cert), str(key)) as url:
            answer = score(url, ROWS, "--ca", str(ca), "--protocol", protocol)
            assert answer["outputs"]["total"] == [6.0, 15.0]
            how = Asking(protocol=protocol, certificate=str(cert), retry_s=0)
            assert ask(url, ROWS, how) == answer
            wrong = Asking(protocol=protocol, certificate=str(other), retry_s=0)
            with pytest.raises(errors.TargetError):
                ask(url, ROWS, wrong)
    for path in (key, tmp_path / "none.pem"):
        with pytest.raises(errors.UsageError, match="certificate"):
            trust.context("", str(path))


@pytest.mark.parametrize(
    ("document", "says"),
    [
        ({}, "no inputs"),
        ({"data": [], "inputs": {}}, "more than one kind"),
        ("text", "no inputs"),
        ({"inputs": [{"name": "x"}]}, "no name or no data"),
        ({"inputs": [{**TENSOR, "shape": [7]}]}, "inputs[0]"),
        ({"inputs": [{**TENSOR, "shape": "wide"}]}, "inputs[0]"),
    ],
)
def test_what_is_no_request_is_told_before_it_is_sent(document: object, says: str) -> None:
    with pytest.raises(errors.InputError) as caught:
        inputs_of(document, ["x"])
    assert says in caught.value.message


def test_rows_are_for_models_of_one_input() -> None:
    with pytest.raises(errors.InputError, match="2 inputs"):
        inputs_of(ROWS, ["a", "b"])
    assert np.asarray(inputs_of({"inputs": [TENSOR]}, ["x"])["x"]).tolist() == [[1, 2, 3]]


def test_the_command_imports_no_client_before_it_needs_one() -> None:
    code = (
        "import sys, serve.cli.score, serve.asking\n"
        "print(*{'httpx', 'tritonclient', 'grpc', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert done.strip() == ""
