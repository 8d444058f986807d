"""The client of inference servers, against a live one."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from scoring.errors import (
    InputError,
    ScoringFailedError,
    UnknownInputError,
    UnknownModelError,
    UnreachableError,
    UsageError,
    WrongShapeError,
    WrongTypeError,
)
from serve.oip import OipClient
from tests.support.oip import DTYPES, Echo, samples
from tests.support.server import LiveServer, Sums, serve_models

pytest.importorskip("tritonclient.http")
pytest.importorskip("tritonclient.grpc")


class Failing(Sums):
    def predict(self, inputs: Any) -> dict[str, Any]:
        raise RuntimeError("broken")


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    models: dict[str, Any] = {dtype: Echo.of(dtype) for dtype in DTYPES}
    models |= {"sums": Sums(), "failing": Failing()}
    with serve_models(models, warm=False) as live:
        yield live


@pytest.fixture(scope="module", params=["http", "grpc"])
def client(request: pytest.FixtureRequest, server: LiveServer) -> Iterator[OipClient]:
    with OipClient(f"{request.param}://127.0.0.1:{server.port}", retry_s=0.2) as found:
        if not found.ready():
            pytest.skip("the server does not speak this yet")
        yield found


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_datatype_comes_back(client: OipClient, dtype: str) -> None:
    array = samples(dtype)  # type: ignore[arg-type]
    found = client.score(dtype, {"x": array})
    assert found["x_out"].dtype == array.dtype
    assert found["x_out"].tolist() == array.tolist()


def test_outputs_are_all_or_the_named_ones(client: OipClient) -> None:
    row = np.array([[1, 2, 3]], dtype=np.float32)
    assert list(client.score("sums", {"x": row})) == ["total", "twice"]
    found = client.score("sums", {"x": row}, outputs=["total"], version="1")
    assert {name: array.tolist() for name, array in found.items()} == {"total": [6.0]}


@pytest.mark.parametrize("rows", [[[1, 2, 3]], [[1.0, 2.0, 3.0]], np.array([[1, 2, 3]], "int64")])
def test_lists_and_other_numbers_are_cast(client: OipClient, rows: Any) -> None:
    assert client.score("sums", {"x": rows})["total"].tolist() == [6.0]


@pytest.mark.parametrize(
    ("model", "inputs", "error"),
    [
        pytest.param("nope", {"x": [[1, 2, 3]]}, UnknownModelError, id="model"),
        pytest.param("sums", {"y": [[1, 2, 3]]}, UnknownInputError, id="input"),
        pytest.param("sums", {"x": [["a", "b", "c"]]}, WrongTypeError, id="type"),
        pytest.param("int8", {"x": [[1.5, 2, 3]]}, WrongTypeError, id="kind"),
        pytest.param("sums", {"x": [[1, 2], [3]]}, WrongShapeError, id="ragged"),
        pytest.param("sums", {"x": [[1, 2]]}, InputError, id="shape"),
        pytest.param("failing", {"x": [[1, 2, 3]]}, ScoringFailedError, id="failing"),
    ],
)
def test_errors_are_those_of_everywhere(
    client: OipClient, model: str, inputs: Any, error: type[Exception]
) -> None:
    with pytest.raises(error):
        client.score(model, inputs)


def test_readiness_is_told(client: OipClient) -> None:
    assert client.ready()
    assert client.ready("sums")
    assert client.ready("sums", version="1")
    assert not client.ready("nope")


@pytest.mark.parametrize("url", ["localhost:5001", "ftp://a", "http://", "grpc:/x"])
def test_other_urls_are_refused(url: str) -> None:
    with pytest.raises(UsageError):
        OipClient(url)


@pytest.mark.parametrize("scheme", ["http", "grpc"])
def test_nothing_there_is_told_after_the_retries(scheme: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: connections are refused
        with OipClient(f"{scheme}://127.0.0.1:{taken.getsockname()[1]}", retry_s=0.1) as client:
            with pytest.raises(UnreachableError):
                client.score("m", {"x": [1]})
            assert not client.ready()


def test_a_model_that_is_loaded_meanwhile_is_waited_for(server: LiveServer) -> None:
    repository = server.repository
    server.call(lambda: repository.unload("sums", lambda _error: None))
    server.until(lambda: not any(m.name == "sums" for m in repository.models()))
    server.loop.call_soon_threadsafe(
        lambda: server.loop.call_later(0.2, repository.load, "sums", lambda _error: None)
    )
    with OipClient(f"http://127.0.0.1:{server.port}", retry_s=10) as client:
        assert client.score("sums", {"x": [[1, 2, 3]]})["total"].tolist() == [6.0]
