"""The routes of the Open Inference Protocol, on a live server."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import pytest

from scoring.errors import CorruptModelError
from tests.support.oip import Echo, schema
from tests.support.server import (
    Client,
    LiveServer,
    Sums,
    post,
    serve_model,
    serve_models,
    until,
)

TENSOR = {"name": "x", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 3]}
REQUEST = {"inputs": [TENSOR]}


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    models = {"sums": Sums(), "größe x": Echo.of("float32")}
    with serve_models(models, server_name="triton") as live:
        yield live


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=f"http://127.0.0.1:{server.port}") as client:
        yield client


def client(server: LiveServer) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{server.port}", timeout=10)


def test_the_server_tells_its_name_and_extensions(http: httpx.Client) -> None:
    found = http.get("/v2").json()
    assert found["name"] == "triton"
    assert {"binary_tensor_data", "classification", "statistics"} <= set(found["extensions"])
    assert http.get("/v2/").json() == found


def test_health_is_told_in_json(http: httpx.Client) -> None:
    assert http.get("/v2/health/live").json() == {"live": True}
    assert http.get("/v2/health/ready").json() == {"ready": True}


def test_a_draining_server_is_not_ready() -> None:
    with serve_model() as server, client(server) as http:
        server.app.ready = False
        answer = http.get("/v2/health/ready")
        assert (answer.status_code, answer.json()) == (503, {"ready": False})
        assert http.get("/v2/health/live").status_code == 200


@pytest.mark.parametrize("path", ["/v2/models/sums", "/v2/models/sums/versions/1"])
def test_a_model_tells_its_tensors(http: httpx.Client, path: str) -> None:
    assert http.get(path).json() == {
        "name": "sums",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 3]}],
        "outputs": [
            {"name": "total", "datatype": "FP32", "shape": [-1]},
            {"name": "twice", "datatype": "FP32", "shape": [-1, 3]},
        ],
    }
    assert http.get(f"{path}/ready").json() == {"name": "sums", "ready": True}


def test_the_models_are_listed(http: httpx.Client) -> None:
    assert http.get("/v2/models").json() == {"models": ["sums", "größe x"]}


def test_the_configuration_leaves_out_the_batch(http: httpx.Client) -> None:
    found = http.get("/v2/models/sums/config").json()
    assert found["max_batch_size"] > 1
    assert found["input"] == [
        {"name": "x", "data_type": "TYPE_FP32", "dims": [3], "format": "FORMAT_NONE"}
    ]
    assert [output["dims"] for output in found["output"]] == [[], [3]]


def test_names_are_taken_with_their_escapes(http: httpx.Client) -> None:
    answer = http.post("/v2/models/gr%C3%B6%C3%9Fe%20x/infer", json=REQUEST)
    assert answer.json()["model_name"] == "größe x"


@pytest.mark.parametrize("path", ["/v2/models/sums/infer", "/v2/models/sums/versions/1/infer"])
@pytest.mark.parametrize("query", ["", "?test_1=1"])
def test_a_model_answers(http: httpx.Client, path: str, query: str) -> None:
    answer = http.post(path + query, json=REQUEST)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "model_name": "sums",
        "model_version": "1",
        "outputs": [
            {"name": "total", "datatype": "FP32", "shape": [1], "data": [6.0]},
            {"name": "twice", "datatype": "FP32", "shape": [1, 3], "data": [2.0, 4.0, 6.0]},
        ],
    }


@pytest.mark.parametrize("kind", ["text/plain", "application/octet-stream", "image/png", ""])
def test_the_content_type_is_not_asked_for(http: httpx.Client, kind: str) -> None:
    body = json.dumps(REQUEST).encode()
    answer = http.post("/v2/models/sums/infer", content=body, headers={"content-type": kind})
    assert answer.status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status", "words"),
    [
        ("GET", "/v2/models/x", 404, "Request for unknown model: 'x' is not found"),
        ("GET", "/v2/models/x/ready", 404, "Request for unknown model: 'x'"),
        ("GET", "/v2/models/x/config", 404, "Request for unknown model: 'x'"),
        ("GET", "/v2/models/x/stats", 404, "Request for unknown model: 'x'"),
        ("POST", "/v2/models/x/infer", 404, "Request for unknown model: 'x'"),
        ("GET", "/v2/models/sums/versions/7", 404, "'sums' version 7 is not found"),
        ("GET", "/v2/models/sums/versions/7/ready", 404, "'sums' version 7 is not found"),
        ("GET", "/v2/models/sums/versions/7/stats", 404, "'sums' version 7 is not found"),
        ("POST", "/v2/models/sums/versions/7/infer", 404, "'sums' version 7 is not found"),
        ("POST", "/v2/repository/models/x/load", 404, "failed to load 'x'"),
        ("POST", "/v2/repository/models/x/unload", 404, "failed to unload 'x'"),
        ("GET", "/v2/nothing", 404, "There is no"),
        ("GET", "/v2nothing", 404, "There is no"),
        ("GET", "/v2models", 404, "There is no"),
        ("GET", "/v2/models/sums/nothing", 404, "There is no"),
        ("GET", "/v2/models/sums/versions", 404, "There is no"),
        ("GET", "/v2/repository/models/sums", 404, "There is no"),
        ("POST", "/v2/repository/models/sums/forget", 404, "There is no"),
        ("GET", "/v2/models/sums/infer", 405, "does not take GET"),
        ("POST", "/v2", 405, "does not take POST"),
        ("DELETE", "/v2/models/sums", 405, "does not take DELETE"),
        ("GET", "/v2/repository/index", 405, "does not take GET"),
    ],
)
def test_errors_are_sentences(
    http: httpx.Client, method: str, path: str, status: int, words: str
) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]
    assert ("allow" in answer.headers) is (status == 405)


def test_bad_input_is_told_on_every_way(http: httpx.Client) -> None:
    body = {"inputs": [{**TENSOR, "data": [1, "a", 3]}]}
    for headers in ({}, {"timeout-ms": "5000"}):
        answer = http.post("/v2/models/sums/infer", json=body, headers=headers)
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("inputs[0].data[1] is a string")


@pytest.mark.parametrize("size", ["x", "-1", "1.5", "99999999999999999999", "1, 1"])
def test_a_bad_length_of_json_is_refused(http: httpx.Client, size: str) -> None:
    headers = {"inference-header-content-length": size}
    answer = http.post("/v2/models/sums/infer", json=REQUEST, headers=headers)
    assert answer.status_code == 400
    assert "Inference-Header-Content-Length" in answer.json()["error"]


def test_a_length_of_json_over_the_body_is_refused(http: httpx.Client) -> None:
    headers = {"inference-header-content-length": "999"}
    answer = http.post("/v2/models/sums/infer", json=REQUEST, headers=headers)
    assert answer.status_code == 400


# What goes wrong behind the routes


def test_a_failing_model_is_500_and_tells_no_secret() -> None:
    model = Sums()
    with serve_model(model, warm=False) as server, client(server) as http:
        model.error = RuntimeError("secret")
        for headers in ({}, {"timeout-ms": "5000"}):
            answer = http.post("/v2/models/sums/infer", json=REQUEST, headers=headers)
            assert answer.status_code == 500
            assert list(answer.json()) == ["error"]
            assert "secret" not in answer.text


def test_too_many_requests_are_told_to_come_back() -> None:
    model = Sums()
    model.go.clear()
    with (
        serve_model(model, inline=False, warm=False, max_pending=1) as server,
        client(server) as http,
        ThreadPoolExecutor() as pool,
    ):
        url = f"{http.base_url}/v2/models/sums/infer"
        first = pool.submit(httpx.post, url, json=REQUEST, timeout=20)
        assert model.entered.acquire(timeout=10)
        answer = http.post("/v2/models/sums/infer", json=REQUEST)
        model.go.set()
        assert first.result().status_code == 200
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    assert list(answer.json()) == ["error"]


def test_a_request_is_refused_after_its_deadline() -> None:
    model = Sums()
    model.go.clear()
    with (
        serve_model(model, inline=False, warm=False) as server,
        ThreadPoolExecutor() as pool,
    ):
        url = f"http://127.0.0.1:{server.port}/v2/models/sums/infer"
        first = pool.submit(httpx.post, url, json=REQUEST, timeout=20)
        assert model.entered.acquire(timeout=10)
        headers = {"timeout-ms": "1"}
        late = httpx.post(url, json=REQUEST, headers=headers, timeout=20)
        assert late.status_code == 504  # though the model goes on with the first
        assert "deadline" in late.json()["error"]
        model.go.set()
        assert first.result().status_code == 200


@pytest.mark.parametrize("header", [[], ["timeout-ms: 60000"]], ids=["fast", "exchange"])
def test_what_nobody_waits_for_is_not_computed(header: list[str]) -> None:
    model = Sums()
    model.go.clear()
    with serve_model(model, inline=False, warm=False) as server:
        body = json.dumps(REQUEST).encode()
        with Client(server.port) as first:
            first.send(post(body, "/v2/models/sums/infer"))
            assert model.entered.acquire(timeout=10)
            found = server.repository.models()[0]
            with Client(server.port) as gone:
                gone.send(post(body, "/v2/models/sums/infer", *header))
                until(lambda: found.pending == 2)
            until(lambda: server.hub.connections == 1)
            model.go.set()
            assert first.read().status == 200
            until(lambda: found.pending == 0)
        assert model.calls == 1


# The repository


def test_models_are_unloaded_and_loaded() -> None:
    with serve_model() as server, client(server) as http:
        index = http.post("/v2/repository/index")
        assert index.json() == [{"name": "sums", "version": "1", "state": "READY", "reason": ""}]
        body = {"parameters": {"unload_dependents": False}}
        assert http.post("/v2/repository/models/sums/unload", json=body).status_code == 200
        ready = http.get("/v2/models/sums/ready")
        assert ready.status_code == 503
        assert ready.json()["ready"] is False
        infer = http.post("/v2/models/sums/infer", json=REQUEST)
        assert infer.status_code == 503
        assert "not ready" in infer.json()["error"]
        (entry,) = http.post("/v2/repository/index", content=b"{}").json()
        assert entry["state"] == "UNAVAILABLE"
        assert http.post("/v2/repository/index", json={"ready": True}).json() == []
        assert http.post("/v2/repository/models/sums/load").status_code == 200
        assert http.post("/v2/models/sums/infer", json=REQUEST).status_code == 200


def test_an_endpoint_does_not_outlive_its_model() -> None:
    with serve_model() as server, client(server) as http:
        before = http.get("/v2/models/sums").json()
        server.app.repository.load("sums", lambda _error: None)  # type: ignore[union-attr]
        assert http.post("/v2/repository/models/sums/load").status_code == 200
        http.post("/v2/models/sums/infer", json=REQUEST)
        stats = http.get("/v2/models/sums/stats").json()["model_stats"][0]
        assert stats["inference_stats"]["success"]["count"] == 1
        assert http.get("/v2/models/sums").json() == before


@pytest.mark.parametrize(
    ("control", "body", "words"),
    [
        ("load", {"parameters": {"config": "{}"}}, "load takes no parameter 'config'"),
        ("load", {"parameters": {"file:1/model.onnx": "AA=="}}, "load takes no files"),
        ("load", {"parameters": {"unload_dependents": True}}, "load takes no parameter"),
        ("load", {"parameters": []}, "parameters is a list"),
        ("load", [], "The body is a list"),
        ("unload", {"parameters": {"config": ""}}, "unload takes no parameter"),
        ("unload", {"parameters": {"unload_dependents": None}}, "is null, not a boolean"),
    ],
)
def test_what_a_load_cannot_do_is_refused(
    http: httpx.Client, control: str, body: Any, words: str
) -> None:
    answer = http.post(f"/v2/repository/models/sums/{control}", json=body)
    assert answer.status_code == 400
    assert words in answer.json()["error"]


@pytest.mark.parametrize("body", [b"[]", b"{", b'{"ready": 1}'])
def test_a_bad_index_request_is_refused(http: httpx.Client, body: bytes) -> None:
    answer = http.post("/v2/repository/index", content=body)
    assert answer.status_code == 400


def test_a_model_that_does_not_load_is_told() -> None:
    with serve_model() as server, client(server) as http:

        def broken() -> Any:
            raise CorruptModelError("The file is cut off.")

        repository: Any = server.app.repository
        repository._source.makers["sums"] = broken
        answer = http.post("/v2/repository/models/sums/load")
        assert answer.status_code == 400
        assert answer.json()["error"].startswith("failed to load 'sums', The file is cut off.")
        assert http.post("/v2/models/sums/infer", json=REQUEST).status_code == 200


# Statistics


def test_statistics_count_requests_rows_and_failures() -> None:
    with serve_model() as server, client(server) as http:
        two = {"inputs": [{**TENSOR, "shape": [2, 3], "data": [1, 2, 3, 4, 5, 6]}]}
        assert http.post("/v2/models/sums/infer", json=REQUEST).status_code == 200
        assert http.post("/v2/models/sums/infer", json=two).status_code == 200
        assert http.post("/v2/models/sums/infer", json={}).status_code == 400
        found = http.get("/v2/models/sums/stats").json()
        assert found == http.get("/v2/models/stats").json()
        assert found == http.get("/v2/models/sums/versions/1/stats").json()
    (stats,) = found["model_stats"]
    assert (stats["name"], stats["version"]) == ("sums", "1")
    assert (stats["inference_count"], stats["execution_count"]) == (3, 2)
    assert stats["last_inference"] > 0
    assert stats["inference_stats"]["success"]["count"] == 2
    assert stats["inference_stats"]["fail"]["count"] == 1
    assert stats["inference_stats"]["compute_infer"]["ns"] > 0
    assert [batch["batch_size"] for batch in stats["batch_stats"]] == [1, 2]


# Compression


@pytest.mark.parametrize(
    ("coding", "undo"), [("gzip", gzip.decompress), ("deflate", zlib.decompress)]
)
@pytest.mark.parametrize("rows", [1, 20_000])
def test_an_answer_is_compressed_for_those_who_ask(
    server: LiveServer, coding: str, undo: Any, rows: int
) -> None:
    raw = np.arange(rows * 3, dtype="<f4").tobytes()
    tensor = {**TENSOR, "shape": [rows, 3], "parameters": {"binary_data_size": len(raw)}}
    del tensor["data"]
    text = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {
        "accept-encoding": coding,
        "inference-header-content-length": str(len(text)),
    }
    url = f"http://127.0.0.1:{server.port}/v2/models/sums/infer"
    with httpx.stream("POST", url, content=text + raw, headers=headers) as answer:
        assert answer.headers["content-encoding"] == coding
        body = undo(b"".join(answer.iter_raw()))
    size = int(answer.headers["inference-header-content-length"])
    total, twice = json.loads(body[:size])["outputs"]
    assert total["parameters"]["binary_data_size"] == rows * 4
    assert np.frombuffer(body[size + rows * 4 :], "<f4").tolist() == [
        2 * i for i in range(rows * 3)
    ]
    assert twice["shape"] == [rows, 3]


@pytest.mark.parametrize("accepted", ["gzip, deflate, br", "br", "*", "gzip;q=0", "identity"])
def test_other_answers_are_not_compressed(http: httpx.Client, accepted: str) -> None:
    headers = {"accept-encoding": accepted, "timeout-ms": "5000"}
    answer = http.post("/v2/models/sums/infer", json=REQUEST, headers=headers)
    assert "content-encoding" not in answer.headers


@pytest.mark.parametrize(("coding", "do"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_requests_may_be_compressed(http: httpx.Client, coding: str, do: Any) -> None:
    body = do(json.dumps(REQUEST).encode())
    headers = {"content-encoding": coding}
    answer = http.post("/v2/models/sums/infer", content=body, headers=headers)
    assert answer.json()["outputs"][0]["data"] == [6.0]


def test_bytes_alone_are_answered_with_bytes(http: httpx.Client) -> None:
    headers = {"inference-header-content-length": "0"}
    body = np.array([1, 2, 3], "<f4").tobytes()
    answer = http.post("/v2/models/sums/infer", content=body, headers=headers)
    size = int(answer.headers["inference-header-content-length"])
    assert np.frombuffer(answer.content[size:], "<f4").tolist() == [6, 2, 4, 6]


def test_tensors_are_answered_alike_on_every_way(http: httpx.Client, server: LiveServer) -> None:
    raw = np.array([1, 2, 3], "<f4").tobytes()
    tensor = {**TENSOR, "parameters": {"binary_data_size": len(raw)}}
    del tensor["data"]
    text = json.dumps({"id": "7", "inputs": [tensor]}).encode()
    sized = {"inference-header-content-length": str(len(text))}
    ways = [{}, {"timeout-ms": "5000"}, {"content-type": "application/octet-stream"}]
    paths = ["/v2/models/sums/infer", "/v2/models/sums/versions/1/infer"]
    found = [
        http.post(path, content=text + raw, headers=sized | way) for path in paths for way in ways
    ]
    assert {answer.status_code for answer in found} == {200}
    assert len({answer.content for answer in found}) == 1
    assert found[0].json()["outputs"][0]["data"] == [6.0]


def test_two_lengths_of_json_are_refused(http: httpx.Client) -> None:
    sized = [("inference-header-content-length", "20"), ("inference-header-content-length", "30")]
    assert http.post("/v2/models/sums/infer", json=REQUEST, headers=sized).status_code == 400


def test_two_models_with_one_name_for_an_input_are_told_apart(http: httpx.Client) -> None:
    echo = Echo(schema({"x": ("int8", (None, 3))}, {"x_out": ("int8", (None, 3))}))
    with serve_models({"a": Sums(), "b": echo}) as server, client(server) as other:
        assert other.post("/v2/models/a/infer", json=REQUEST).status_code == 200
        answer = other.post("/v2/models/b/infer", json=REQUEST)
        assert "data-type is 'FP32', but the model expects 'INT8'" in answer.json()["error"]
