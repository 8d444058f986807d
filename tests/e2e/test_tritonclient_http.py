"""Triton's own HTTP clients against a live server of real ONNX models, unmodified."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from scoring.schema import DType
from serve.server.v2.datatypes import BY_SCHEMA
from tests.support.oip import (
    DTYPES,
    onnx_predictor,
    samples,
    write_add_sub,
    write_identity,
)
from tests.support.server import LiveServer, Sums, serve_models

pytest.importorskip("onnx")
triton = pytest.importorskip("tritonclient.http")
triton_aio = pytest.importorskip("tritonclient.http.aio")
utils = pytest.importorskip("tritonclient.utils")

InferenceServerException: type[Exception] = utils.InferenceServerException
FP16_IN_JSON = "sending FP16 data via JSON is not supported"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder: Path = tmp_path_factory.mktemp("models")
    models: dict[str, Any] = {"sums": Sums()}
    for dtype in DTYPES:
        write_identity(folder / f"{dtype}.onnx", dtype)
        models[dtype] = onnx_predictor(folder / f"{dtype}.onnx")
    write_add_sub(folder / "simple.onnx")
    models["simple"] = onnx_predictor(folder / "simple.onnx")
    with serve_models(models, server_name="triton", warm=False) as live:
        yield live


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as found:
        yield found


def tensor(name: str, array: Any, *, binary: bool = True) -> Any:
    found = triton.InferInput(name, list(array.shape), utils.np_to_triton_dtype(array.dtype))
    found.set_data_from_numpy(array, binary_data=binary)
    return found


def texts(array: Any) -> Any:
    """Strings come as bytes in binary answers, as text in JSON."""
    if array.dtype.kind != "O":
        return array.tolist()
    flat = [v.decode() if isinstance(v, bytes) else v for v in array.ravel()]
    return np.array(flat, dtype=object).reshape(array.shape).tolist()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("binary_output", [True, False, None])
@pytest.mark.parametrize("binary_input", [True, False])
def test_every_datatype_comes_back(
    client: Any,
    dtype: DType,
    binary_input: bool,
    binary_output: bool | None,
    compression: str | None,
) -> None:
    array = samples(dtype)
    outputs = None
    if binary_output is not None:
        outputs = [triton.InferRequestedOutput("y", binary_data=binary_output)]
    call = partial(
        client.infer,
        dtype,
        [tensor("x", array, binary=binary_input)],
        outputs=outputs,
        request_id="7",
        request_compression_algorithm=compression,
        response_compression_algorithm=compression,
    )
    if dtype == "float16" and not (binary_input and binary_output is not False):
        with pytest.raises(InferenceServerException, match=FP16_IN_JSON):
            call()
        return
    result = call()
    found = result.as_numpy("y")
    assert found.dtype == array.dtype
    assert texts(found) == texts(array)
    response = result.get_response()
    assert response["id"] == "7"
    assert response["model_name"] == dtype
    assert response["outputs"][0]["datatype"] == BY_SCHEMA[dtype]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("binary", [True, False])
def test_numbers_that_json_does_not_have_come_back(client: Any, dtype: str, binary: bool) -> None:
    array = np.array([[np.nan, np.inf, -np.inf]], dtype=dtype)
    outputs = [triton.InferRequestedOutput("y", binary_data=binary)]
    result = client.infer(dtype, [tensor("x", array)], outputs=outputs)
    assert np.array_equal(result.as_numpy("y"), array, equal_nan=True)


def test_bf16_is_taken_for_float32(client: Any) -> None:
    ml_dtypes = pytest.importorskip("ml_dtypes")
    array = np.array([[1, -2.5, 3]], dtype=ml_dtypes.bfloat16)
    found = triton.InferInput("x", [1, 3], "BF16")
    found.set_data_from_numpy(array)
    assert client.infer("float32", [found]).as_numpy("y").tolist() == array.tolist()


# As Triton's example programs


def test_the_health_and_metadata_example(client: Any) -> None:
    assert client.is_server_live(query_params={"test_1": 1, "test_2": 2})
    assert client.is_server_ready()
    assert client.is_model_ready("simple")
    assert client.is_model_ready("simple", "1")
    assert client.get_server_metadata()["name"] == "triton"
    metadata = client.get_model_metadata("simple", query_params={"test_1": 1})
    assert metadata["name"] == "simple"
    assert client.get_model_config("simple")["name"] == "simple"
    with pytest.raises(InferenceServerException, match="Request for unknown model"):
        client.get_model_metadata("wrong_model_name")


@pytest.mark.parametrize("binary", [True, False])
def test_the_infer_example(client: Any, binary: bool) -> None:
    first = np.arange(16, dtype=np.int32).reshape(1, 16)
    second = np.ones((1, 16), dtype=np.int32)
    result = client.infer(
        "simple",
        [tensor("INPUT0", first), tensor("INPUT1", second, binary=binary)],
        outputs=[
            triton.InferRequestedOutput("OUTPUT0", binary_data=True),
            triton.InferRequestedOutput("OUTPUT1", binary_data=False),
        ],
        query_params={"test_1": 1},
        headers={"test": "1"},
        parameters={"priority_of_mine": 3},
        sequence_id=5,
        priority=2,
        timeout=1_000_000,
    )
    assert result.as_numpy("OUTPUT0").tolist() == (first + second).tolist()
    assert result.as_numpy("OUTPUT1").tolist() == (first - second).tolist()
    statistics = client.get_inference_statistics(model_name="simple")
    assert len(statistics["model_stats"]) == 1
    assert statistics["model_stats"][0]["inference_stats"]["success"]["count"] >= 1
    assert len(client.get_inference_statistics()["model_stats"]) == len(DTYPES) + 2


def test_the_asynchronous_example(client: Any) -> None:
    rows = [np.full((1, 16), number, dtype=np.int32) for number in range(8)]
    requests = [
        client.async_infer("simple", [tensor("INPUT0", row), tensor("INPUT1", row)]) for row in rows
    ]
    for row, request in zip(rows, requests, strict=True):
        assert request.get_result().as_numpy("OUTPUT0").tolist() == (2 * row).tolist()


def test_the_model_control_example(server: LiveServer, client: Any) -> None:
    client.load_model("sums")
    assert client.is_model_ready("sums")
    client.unload_model("sums")
    assert not client.is_model_ready("sums")
    states = {entry["name"]: entry["state"] for entry in client.get_model_repository_index()}
    assert states["sums"] == "UNAVAILABLE"
    client.load_model("sums")
    assert client.is_model_ready("sums")
    with pytest.raises(InferenceServerException, match="failed to load"):
        client.load_model("wrong_model_name")
    with pytest.raises(InferenceServerException, match="load takes no parameter 'config'"):
        client.load_model("sums", config="{}")


def test_the_classification_example(client: Any) -> None:
    outputs = [triton.InferRequestedOutput("y", class_count=2)]
    array = np.array([[0.1, 0.7, 0.2], [3, 2, 1]], dtype=np.float32)
    found = client.infer("float32", [tensor("x", array)], outputs=outputs).as_numpy("y")
    assert found.tolist() == [
        [b"0.700000:1", b"0.200000:2"],
        [b"3.000000:0", b"2.000000:1"],
    ]


def test_request_bodies_made_ahead_are_answered(server: LiveServer) -> None:
    array = np.zeros((2, 3), dtype=np.float32)
    body, size = triton.InferenceServerClient.generate_request_body([tensor("x", array)])
    answer = httpx.post(
        f"http://127.0.0.1:{server.port}/v2/models/float32/infer",
        content=body,
        headers={"Inference-Header-Content-Length": str(size)},
    )
    result = triton.InferenceServerClient.parse_response_body(
        answer.content, header_length=int(answer.headers["inference-header-content-length"])
    )
    assert result.as_numpy("y").tolist() == array.tolist()


# Errors

ROW = np.zeros((1, 16), dtype=np.int32)


@pytest.mark.parametrize(
    ("model", "version", "inputs", "outputs", "words"),
    [
        pytest.param("x", "", {"INPUT0": ROW}, [], "Request for unknown model", id="model"),
        pytest.param("simple", "9", {"INPUT0": ROW}, [], "version 9 is not found", id="version"),
        pytest.param("simple", "", {"INPUT0": ROW}, [], "missing required input", id="missing"),
        pytest.param("simple", "", {"IN": ROW}, [], "unexpected inference input", id="input"),
        pytest.param(
            "simple",
            "",
            {"INPUT0": ROW, "INPUT1": ROW.astype(np.int64)},
            [],
            "data-type is 'INT64', but the model expects 'INT32'",
            id="datatype",
        ),
        pytest.param(
            "simple", "", {"INPUT0": ROW, "INPUT1": ROW[:, :8]}, [], "unexpected shape", id="shape"
        ),
        pytest.param(
            "simple",
            "",
            {"INPUT0": ROW, "INPUT1": np.concatenate([ROW, ROW])},
            [],
            "'INPUT0' has 1 rows and 'INPUT1' 2",
            id="rows",
        ),
        pytest.param(
            "simple", "", {"INPUT0": ROW, "INPUT1": ROW}, ["OUT"], "inference output", id="output"
        ),
        pytest.param(
            "string",
            "",
            {"x": np.array([[b"\xff", b"", b""]], dtype=object)},
            [],
            "is not UTF-8",
            id="text",
        ),
    ],
)
@pytest.mark.parametrize("compression", [None, "gzip"])
def test_errors_reach_the_client(
    client: Any,
    model: str,
    version: str,
    inputs: dict[str, Any],
    outputs: list[str],
    words: str,
    compression: str | None,
) -> None:
    with pytest.raises(InferenceServerException) as caught:
        client.infer(
            model,
            [tensor(name, array) for name, array in inputs.items()],
            model_version=version,
            outputs=[triton.InferRequestedOutput(name) for name in outputs],
            response_compression_algorithm=compression,
        )
    assert words in caught.value.message()  # type: ignore[attr-defined]
    status = caught.value.status()  # type: ignore[attr-defined]
    assert status == ("404" if "not found" in words or "unknown" in words else "400")


def test_shared_memory_is_refused_clearly(client: Any) -> None:
    found = triton.InferInput("x", [1, 3], "FP32")
    found.set_shared_memory("region", 12)
    with pytest.raises(InferenceServerException, match="shared memory is not supported"):
        client.infer("float32", [found])


# asyncio


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_asyncio_client_gets_every_datatype_back(server: LiveServer, dtype: DType) -> None:
    array = samples(dtype)

    async def ask() -> Any:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert await client.is_server_ready()
            assert await client.is_model_ready(dtype)
            return await client.infer(
                dtype, [tensor("x", array)], response_compression_algorithm="gzip"
            )

    assert texts(asyncio.run(ask()).as_numpy("y")) == texts(array)


def test_the_asyncio_client_gets_errors_and_documents(server: LiveServer) -> None:
    async def ask() -> None:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert (await client.get_server_metadata())["name"] == "triton"
            assert (await client.get_model_metadata("simple"))["name"] == "simple"
            assert (await client.get_model_config("simple"))["max_batch_size"] > 1
            assert len(await client.get_model_repository_index()) == len(DTYPES) + 2
            assert (await client.get_inference_statistics("simple"))["model_stats"]
            assert not await client.is_model_ready("wrong")
            with pytest.raises(InferenceServerException, match="Request for unknown model"):
                await client.infer("wrong", [tensor("x", ROW)])
            many = [
                client.infer("simple", [tensor("INPUT0", ROW + i), tensor("INPUT1", ROW)])
                for i in range(32)
            ]
            for number, result in enumerate(await asyncio.gather(*many)):
                assert result.as_numpy("OUTPUT0")[0, 0] == number

    asyncio.run(ask())
