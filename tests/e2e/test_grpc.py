"""The Open Inference Protocol over gRPC with the clients that people use, on a live server."""

from __future__ import annotations

import asyncio
import queue
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as stubs
from tritonclient.utils import InferenceServerException

from scoring.errors import ScoringFailedError
from scoring.schema import DType
from tests.support.echo import DATATYPES, NUMBERS, Echo, example
from tests.support.grpc_calls import (
    Classes,
    as_sent,
    channel,
    request,
    sums_request,
    tensor,
)
from tests.support.server import LiveServer, Sums, serve_models

if TYPE_CHECKING:
    from collections.abc import Iterator


CONTENTS = {
    "BOOL": "bool_contents", "INT8": "int_contents", "INT16": "int_contents",
    "INT32": "int_contents", "INT64": "int64_contents", "UINT8": "uint_contents",
    "UINT16": "uint_contents", "UINT32": "uint_contents", "UINT64": "uint64_contents",
    "FP32": "fp32_contents", "FP64": "fp64_contents", "BYTES": "bytes_contents",
}  # fmt: skip
EVERY: tuple[DType, ...] = (*NUMBERS, "string")


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    models: dict[str, Any] = {f"echo-{dtype}": Echo(dtype) for dtype in EVERY}
    models |= {"sums": Sums(), "classes": Classes(), "missing": Echo("float32", missing=True)}
    with serve_models(models, max_body_bytes=24 << 20) as live:
        yield live


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as made:
        yield made


@pytest.fixture(scope="module")
def stub(server: LiveServer) -> Iterator[Any]:
    with channel(server) as made:
        yield stubs.GRPCInferenceServiceStub(made)


# Health and metadata


def test_tells_health_and_metadata(client: triton.InferenceServerClient) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("sums")
    assert client.is_model_ready("sums", "1")
    server = client.get_server_metadata()
    assert server.name == "fieldpost"
    assert server.version
    assert "model_repository" in server.extensions
    model = client.get_model_metadata("sums", as_json=True)
    assert model["name"] == "sums"
    assert model["versions"] == ["1"]
    assert model["inputs"] == [{"name": "x", "datatype": "FP32", "shape": ["-1", "3"]}]
    assert [output["name"] for output in model["outputs"]] == ["total", "twice"]


def test_tells_configuration_and_statistics(client: triton.InferenceServerClient) -> None:
    config = client.get_model_config("sums").config
    assert (config.name, config.input[0].name, list(config.input[0].dims)) == ("sums", "x", [3])
    before = client.get_inference_statistics("sums").model_stats[0]
    client.infer("sums", [tensor("x", np.zeros((4, 3), np.float32))])
    after = client.get_inference_statistics("sums").model_stats[0]
    assert after.inference_count - before.inference_count == 4
    assert after.inference_stats.success.count - before.inference_stats.success.count == 1
    assert after.last_inference > 0
    assert len(client.get_inference_statistics().model_stats) == len(EVERY) + 3


def test_loads_and_unloads_models(client: triton.InferenceServerClient) -> None:
    states = {m.name: m.state for m in client.get_model_repository_index().models}
    assert states["missing"] == "READY"
    client.unload_model("missing")
    assert not client.is_model_ready("missing")
    with pytest.raises(InferenceServerException, match="not ready") as caught:
        client.infer("missing", [tensor("given", np.zeros((1, 1), np.float32))])
    assert caught.value.status() == "StatusCode.UNAVAILABLE"
    client.load_model("missing")
    assert client.is_model_ready("missing")


def test_refuses_what_it_cannot_load(client: triton.InferenceServerClient) -> None:
    with pytest.raises(InferenceServerException, match="failed to load 'nothing'") as caught:
        client.load_model("nothing")
    assert caught.value.status() == "StatusCode.NOT_FOUND"
    with pytest.raises(InferenceServerException, match="takes no parameter") as caught:
        client.load_model("sums", config="{}")
    assert caught.value.status() == "StatusCode.INVALID_ARGUMENT"
    with pytest.raises(InferenceServerException, match="failed to unload 'nothing'"):
        client.unload_model("nothing")


# Inference


@pytest.mark.parametrize("dtype", EVERY)
def test_raw_tensors_of_every_datatype_come_back(
    client: triton.InferenceServerClient, dtype: DType
) -> None:
    given = example(dtype)
    for _ in range(2):  # as an unknown shape, and as a known one
        answer = client.infer(f"echo-{dtype}", [tensor("given", as_sent(given))], request_id="7")
        assert answer.get_response().id == "7"
        got = answer.as_numpy("same")
        np.testing.assert_array_equal(got, as_sent(given))


@pytest.mark.parametrize("dtype", [dtype for dtype in EVERY if dtype != "float16"])
def test_typed_contents_of_every_datatype_come_back(stub: Any, dtype: DType) -> None:
    given = example(dtype)
    datatype = DATATYPES[dtype]
    sent = request(f"echo-{dtype}", datatype, given.shape)
    getattr(sent.inputs[0].contents, CONTENTS[datatype]).extend(as_sent(given).ravel().tolist())
    answer = triton.InferResult(stub.ModelInfer(sent))
    np.testing.assert_array_equal(answer.as_numpy("same"), as_sent(given))


def test_bf16_is_widened(stub: Any) -> None:
    bits = np.array([0x3F80, 0xC000], np.uint16)  # 1 and -2
    answer = stub.ModelInfer(request("echo-float32", "BF16", [1, 2], bits.tobytes()))
    np.testing.assert_array_equal(triton.InferResult(answer).as_numpy("same"), [[1.0, -2.0]])


def test_nan_goes_through_to_networks(client: triton.InferenceServerClient) -> None:
    given = np.array([[np.nan, np.inf]], np.float32)
    for model in ("missing", "echo-float32", "echo-float32"):
        got = client.infer(model, [tensor("given", given)]).as_numpy("same")
        np.testing.assert_array_equal(got, given)


def test_outputs_are_chosen_and_classified(client: triton.InferenceServerClient) -> None:
    inputs = [
        tensor("a", np.ones((2, 1), np.float32)),
        tensor("b", np.array([[b"x"], [b"y"]], dtype=object)),
    ]
    wanted = [
        triton.InferRequestedOutput("odds", class_count=2),
        triton.InferRequestedOutput("label"),
    ]
    answer = client.infer("classes", inputs, outputs=wanted)
    assert answer.as_numpy("label").tolist() == [b"x!", b"y!"]
    assert answer.as_numpy("odds").tolist()[0] == [b"0.500000:1:green", b"0.300000:2:blue"]
    assert answer.as_numpy("map") is None
    every = client.infer("classes", inputs)
    assert every.as_numpy("map")[0].startswith(b'{"red":0.2')
    with pytest.raises(InferenceServerException, match="unexpected inference output"):
        client.infer("classes", inputs, outputs=[triton.InferRequestedOutput("nothing")])


def test_columns_come_with_and_without_their_dimension(
    client: triton.InferenceServerClient,
) -> None:
    inputs = [
        tensor("b", np.array([b"x"], dtype=object)),
        tensor("a", np.ones(1, np.float32)),
    ]
    assert client.infer("classes", inputs).as_numpy("label").tolist() == [b"x!"]


@pytest.mark.parametrize("algorithm", ["gzip", "deflate"])
def test_compression_goes_both_ways(client: triton.InferenceServerClient, algorithm: str) -> None:
    for rows in (1, 3, 20_000):
        given = np.tile(np.arange(6, dtype=np.int32), (rows, 1))
        answer = client.infer(
            "echo-int32", [tensor("given", given)], compression_algorithm=algorithm
        )
        np.testing.assert_array_equal(answer.as_numpy("same"), given)


def test_large_messages_pass_all_windows(client: triton.InferenceServerClient) -> None:
    given = np.random.default_rng(0).integers(0, 2**63, (2, 1_250_000), np.int64)  # 20 MB
    for _ in range(2):
        np.testing.assert_array_equal(
            client.infer("echo-int64", [tensor("given", given)]).as_numpy("same"), given
        )


def test_messages_over_the_limit_are_refused(server: LiveServer, stub: Any) -> None:
    size = 25 << 20
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(request("echo-uint8", "UINT8", [1, size], b"\0" * size))
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "the server takes" in caught.value.details()
    # Zeros are small when compressed, and not for long.
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(
            request("echo-uint8", "UINT8", [1, size], b"\0" * size),
            compression=grpc.Compression.Gzip,
        )
    assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert stub.ServerLive(pb.ServerLiveRequest()).live


def test_many_calls_at_once_get_their_own_answers(client: triton.InferenceServerClient) -> None:
    answers: queue.Queue[tuple[int, Any, Any]] = queue.Queue()
    for number in range(300):
        given = tensor("x", np.full((1 + number % 3, 3), number, np.float32))
        client.async_infer(
            "sums",
            [given],
            callback=lambda result, error, n=number: answers.put((n, result, error)),
        )
    for _ in range(300):
        number, result, error = answers.get(timeout=20)
        assert error is None
        assert result.as_numpy("total").tolist() == [3.0 * number] * (1 + number % 3)


def test_the_asyncio_client_works(server: LiveServer) -> None:
    async def talk() -> None:
        async with triton_aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            assert await client.is_server_ready()
            given = tensor("x", np.ones((2, 3), np.float32))
            results = await asyncio.gather(*[client.infer("sums", [given]) for _ in range(20)])
            assert all(r.as_numpy("total").tolist() == [3.0, 3.0] for r in results)
            with pytest.raises(InferenceServerException, match="Request for unknown model"):
                await client.infer("nothing", [given])

    asyncio.run(talk())


# Errors


def wrong_requests() -> Iterator[Any]:
    status = grpc.StatusCode

    def case(sent: Any, code: Any, words: str) -> Any:
        return pytest.param(sent, code, words, id=words)

    four = np.zeros((1, 4), np.float32).tobytes()
    yield case(request("nothing", "FP32", [1]), status.NOT_FOUND, "Request for unknown model")
    version = sums_request([1, 2, 3], model_version="7")
    yield case(version, status.NOT_FOUND, "version 7 is not found")
    bad = status.INVALID_ARGUMENT
    yield case(pb.ModelInferRequest(model_name="sums"), bad, "missing required")
    yield case(request("sums", "FP32", [1, 3]), bad, "unexpected inference input")
    yield case(request("echo-float32", "FP64", [1, 4], four), bad, "data-type")
    yield case(request("echo-float32", "FP99", [1, 4], four), bad, "but the model expects")
    yield case(request("echo-float32", "FP32", [1, 5], four), bad, "bytes of binary data")
    yield case(request("echo-float32", "FP32", [4], four), bad, "unexpected shape")
    yield case(request("echo-float32", "FP32", [-1, -4], four), bad, "got [-1, -4]")
    yield case(request("echo-float32", "FP32", [2**62, 2**62], four), bad, "takes 85070591730234")
    yield case(request("echo-float32", "FP32", [0, 4], b""), bad, "at least one row")
    yield case(request("echo-float32", "FP32", [1, 4]), bad, "neither contents nor")
    typed = request("echo-float32", "FP32", [1, 2])
    typed.inputs[0].contents.fp64_contents.extend([1, 2])
    yield case(typed, bad, "stands in fp32_contents")
    half = request("echo-float16", "FP16", [1, 1])
    half.inputs[0].contents.fp32_contents.append(1)
    yield case(half, bad, "FP16 data")
    few = request("echo-float32", "FP32", [1, 2])
    few.inputs[0].contents.fp32_contents.append(1)
    yield case(few, bad, "1 elements")
    both = request("echo-float32", "FP32", [1, 4], four)
    both.inputs[0].contents.fp32_contents.extend([0] * 4)
    yield case(both, bad, "beside raw_input_contents")
    more = request("echo-float32", "FP32", [1, 4], four)
    more.raw_input_contents.append(four)
    yield case(more, bad, "2 entries for 1 inputs")
    text = request("echo-string", "BYTES", [1, 1], b"\x02\0\0\0\xff\xfe")
    yield case(text, bad, "not UTF-8")
    yield case(request("echo-string", "BYTES", [1, 1], b"\x09\0\0\0ab"), bad, "element 0 of 1")
    yield case(request("echo-bool", "BOOL", [1, 1], b"\x02"), bad, "a boolean is 0 or 1")
    small = request("echo-int8", "INT8", [1, 1])
    small.inputs[0].contents.int_contents.append(200)
    yield case(small, bad, "beyond the range")
    shared = request("echo-float32", "FP32", [1, 4], four)
    shared.inputs[0].parameters["shared_memory_region"].string_param = "r"
    yield case(shared, bad, "shared memory")
    twice = request("echo-float32", "FP32", [1, 4], four)
    twice.inputs.add(name="given", datatype="FP32", shape=[1, 4])
    twice.raw_input_contents.append(four)
    yield case(twice, bad, "stands twice")


@pytest.mark.parametrize(("sent", "code", "words"), list(wrong_requests()))
def test_wrong_requests_are_told_what_is_wrong(stub: Any, sent: Any, code: Any, words: str) -> None:
    with pytest.raises(grpc.RpcError) as caught:
        stub.ModelInfer(sent)
    assert caught.value.code() == code, caught.value.details()
    assert words in caught.value.details()
    told = dict(caught.value.trailing_metadata())
    assert told["fieldpost-code"]


def test_bytes_that_are_no_message_are_refused(server: LiveServer) -> None:
    with channel(server) as made:
        call = made.unary_unary("/inference.GRPCInferenceService/ModelInfer")
        with pytest.raises(grpc.RpcError) as caught:
            call(b"\xff\xff\xff")
        assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT
        assert "inference.ModelInferRequest" in caught.value.details()


@pytest.mark.parametrize(
    "path", ["/inference.GRPCInferenceService/TraceSetting", "/a.B/C", "/", "/score"]
)
def test_unknown_methods_are_unimplemented(server: LiveServer, path: str) -> None:
    with channel(server) as made:
        with pytest.raises(grpc.RpcError) as caught:
            made.unary_unary(path)(b"x" * 100_000)
        assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
        assert path in caught.value.details()


def test_one_message_is_one_message(server: LiveServer) -> None:
    with channel(server) as made:
        call = made.stream_unary("/inference.GRPCInferenceService/ServerLive")
        for sent, words in (([b"", b""], "more than one"), ([], "none")):
            with pytest.raises(grpc.RpcError) as caught:
                call(iter(sent))
            assert caught.value.code() == grpc.StatusCode.UNIMPLEMENTED
            assert words in caught.value.details()


def test_failures_of_a_model_are_internal(server: LiveServer) -> None:
    failing, broken = Sums(), Sums()
    failing.error = ScoringFailedError("The model failed: 100 % wrong\n(déjà vu)")
    broken.error = KeyError("secret")
    models = {"failing": failing, "broken": broken}
    with serve_models(models, warm=False) as live, channel(live) as made:
        stub = stubs.GRPCInferenceServiceStub(made)
        sent = sums_request([1, 2, 3])
        sent.model_name = "failing"
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(sent)
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert caught.value.details() == "The model failed: 100 % wrong\n(déjà vu)"
        sent.model_name = "broken"
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(sent)
        assert caught.value.code() == grpc.StatusCode.INTERNAL
        assert "secret" not in caught.value.details()


# Health and reflection, as load balancers and tools ask


def health(server: LiveServer, made: grpc.Channel, service: str) -> int:
    call = made.unary_unary("/grpc.health.v1.Health/Check")
    answer = call(b"\x0a" + bytes([len(service)]) + service.encode() if service else b"")
    return answer[1]  # type: ignore[no-any-return]


def test_answers_health_checks(server: LiveServer) -> None:
    with channel(server) as made:
        assert health(server, made, "") == 1
        assert health(server, made, "inference.GRPCInferenceService") == 1
        assert health(server, made, "sums") == 1
        with pytest.raises(grpc.RpcError) as caught:
            health(server, made, "nothing")
        assert caught.value.code() == grpc.StatusCode.NOT_FOUND


def test_a_watch_tells_of_changes() -> None:
    with serve_models({"sums": Sums()}) as live, channel(live) as made:
        call = made.unary_stream("/grpc.health.v1.Health/Watch")
        answers = call(b"")
        assert next(answers) == b"\x08\x01"
        live.call(lambda: setattr(live.app, "ready", False))
        assert next(answers) == b"\x08\x02"
        assert health(live, made, "") == 2
        assert not stubs.GRPCInferenceServiceStub(made).ServerReady(pb.ServerReadyRequest()).ready
        unknown = call(b"\x0a\x01x")
        assert next(unknown) == b"\x08\x03"
        unknown.cancel()
        answers.cancel()


def test_tells_tools_of_its_services(server: LiveServer) -> None:
    from serve.server.grpc.messages import message

    asks = message("grpc.reflection.v1.ServerReflectionRequest")
    tells = message("grpc.reflection.v1.ServerReflectionResponse")
    questions = [
        asks(list_services=""),
        asks(file_containing_symbol="inference.GRPCInferenceService"),
        asks(file_by_filename="health.proto"),
        asks(file_containing_symbol="no.Thing"),
        asks(all_extension_numbers_of_type="a.B"),
    ]
    with channel(server) as made:
        for version in ("v1", "v1alpha"):
            call = made.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=asks.SerializeToString,
                response_deserializer=tells.FromString,
            )
            services, file, named, absent, extensions = call(iter(questions))
            names = [service.name for service in services.list_services_response.service]
            assert "inference.GRPCInferenceService" in names
            assert b"ModelInfer" in file.file_descriptor_response.file_descriptor_proto[0]
            assert named.file_descriptor_response.file_descriptor_proto
            assert absent.error_response.error_code == 5
            assert extensions.error_response.error_code == 12
