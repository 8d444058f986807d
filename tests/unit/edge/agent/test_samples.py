"""Examples that a version has to answer before it may answer others: asked of real workers."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from edge.agent import samples
from edge.protocol.messages import Module
from scoring.errors import DeploymentFailedError
from scoring.quantum.describing import describe
from scoring.schema import ModelSchema, TensorSpec
from tests.support.circuit_server import serving, write_root
from tests.support.circuits import random_circuit

RUN = Module(package=f"sha256:{'0' * 64}", timeout_s=5)
MODEL = random_circuit(2, 8, 5)


def root_with(folder: Path, example: Any, **changes: Any) -> Path:
    schema = msgspec.structs.replace(describe(MODEL), example=example, **changes)
    return write_root(folder / "root", MODEL, schema)


@pytest.mark.parametrize(
    "example",
    [None, {"data": [[1.0, 2, 3, 4]]}, {"inputs": {"X": [[1, 2, 3, 4]]}}],
    ids=["none", "rows", "named"],
)
def test_an_example_that_is_answered(tmp_path: Path, example: Any) -> None:
    root = root_with(tmp_path, example)
    with serving(root) as (port, _):
        samples.require_answer(port, RUN, root)


def test_an_error_is_told_with_its_reason(tmp_path: Path) -> None:
    root = root_with(tmp_path, {"data": [[1.0, 2]]})
    with serving(root) as (port, _):
        with pytest.raises(DeploymentFailedError, match=r"status 400: data\[0\] has 2 values"):
            samples.require_answer(port, RUN, root)
        ready = msgspec.structs.replace(RUN, settings={"probe": "ready"})
        samples.require_answer(port, ready, root)


@pytest.mark.parametrize("example", [{"data": [[1, 2, 3, 4]]}, {"inputs": {"X": [[1, 2, 3, 4]]}}])
def test_an_answer_without_what_the_model_promises(tmp_path: Path, example: Any) -> None:
    root = root_with(tmp_path, example)
    promised = root_with(
        tmp_path / "promised",
        example,
        outputs=(*describe(MODEL).outputs, TensorSpec("margin", "float64", (None,))),
    )
    with (
        serving(root) as (port, _),
        pytest.raises(DeploymentFailedError, match="lacks margin"),
    ):
        samples.require_answer(port, RUN, promised)


class Scripted(http.server.BaseHTTPRequestHandler):
    """Answers with what its server has been given."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        status, body = self.server.answer  # type: ignore[attr-defined]
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def scripted() -> Iterator[http.server.HTTPServer]:
    with http.server.HTTPServer(("127.0.0.1", 0), Scripted) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, b"oops", "with status 500"),
        (200, b"<html>", "lacks JSON|lacks predictions"),
        (200, b"[1]", "lacks predictions, probabilities"),
        (200, b'{"predictions": [], "probabilities": null}', "lacks predictions, probabilities"),
        (200, b'{"predictions": [1], "probabilities": [[0, 1]]}', ""),
        (401, b"{}", ""),
        (429, b"{}", ""),
    ],
)
def test_answers_of_any_kind(
    tmp_path: Path, scripted: Any, status: int, body: bytes, words: str
) -> None:
    scripted.answer = status, body
    root = root_with(tmp_path, {"data": [[1, 2, 3, 4]]})
    if not words:
        samples.require_answer(scripted.server_port, RUN, root)
        return
    with pytest.raises(DeploymentFailedError, match=words) as caught:
        samples.require_answer(scripted.server_port, RUN, root)
    assert caught.value.detail == body.decode()


def test_what_does_not_answer(tmp_path: Path) -> None:
    root = root_with(tmp_path, {"data": [[1, 2, 3, 4]]})
    with pytest.raises(DeploymentFailedError, match="does not answer the package's example"):
        samples.require_answer(9, RUN, root)


def test_a_package_that_says_nothing_of_itself_has_no_example(tmp_path: Path) -> None:
    samples.require_answer(9, RUN, tmp_path)


def test_a_schema_without_example(tmp_path: Path) -> None:
    assert isinstance(describe(MODEL), ModelSchema)
    samples.require_answer(9, RUN, root_with(tmp_path, None))
