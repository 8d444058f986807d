"""Deadlines, cancelled calls, streams, keys and drains over gRPC, with the clients people use."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
from math import inf
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.grpc import service_pb2 as pb
from tritonclient.grpc import service_pb2_grpc as stubs

from serve.server.grpc import frames as f
from serve.server.grpc.messages import message
from serve.server.grpc.reading import framed
from tests.support.echo import Echo
from tests.support.grpc_calls import (
    Classes,
    channel,
    connections,
    request,
    streams,
    sums_request,
    tensor,
    totals,
)
from tests.support.http2 import Http2Client, grpc_head, infer_body
from tests.support.server import LiveServer, Sums, serve_models, until

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def server() -> Iterator[LiveServer]:
    models: dict[str, Any] = {"sums": Sums(), "echo-uint8": Echo("uint8")}
    with serve_models(models) as live:
        yield live


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as made:
        yield made


@pytest.fixture(scope="module")
def stub(server: LiveServer) -> Iterator[Any]:
    with channel(server) as made:
        yield stubs.GRPCInferenceServiceStub(made)


# Times and ends


@pytest.fixture
def slow() -> Iterator[tuple[LiveServer, Sums]]:
    model = Sums()
    with serve_models({"sums": model}, inline=False, max_batch_rows=1, max_pending=8) as live:
        yield live, model
        model.go.set()


def test_a_deadline_is_honoured_in_the_queue(slow: tuple[LiveServer, Sums]) -> None:
    live, model = slow
    with channel(live) as made:
        stub = stubs.GRPCInferenceServiceStub(made)
        model.go.clear()
        first = stub.ModelInfer.future(sums_request([1, 2, 3]))
        assert model.entered.acquire(timeout=10)
        calls = model.calls
        late = stub.ModelInfer.future(sums_request([1, 2, 3]), timeout=0.05)
        assert late.exception().code() == grpc.StatusCode.DEADLINE_EXCEEDED
        model.go.set()
        assert totals(first.result()) == [6.0]
        assert totals(stub.ModelInfer(sums_request([1, 1, 1]))) == [3.0]
        assert model.calls == calls + 1


def test_a_cancelled_call_is_not_computed(slow: tuple[LiveServer, Sums]) -> None:
    live, model = slow
    with channel(live) as made:
        stub = stubs.GRPCInferenceServiceStub(made)
        model.go.clear()
        first = stub.ModelInfer.future(sums_request([1, 2, 3]))
        assert model.entered.acquire(timeout=10)
        calls = model.calls
        waiting = [stub.ModelInfer.future(sums_request([9, 9, 9])) for _ in range(5)]
        served = live.repository.get("sums")
        live.until(lambda: served.pending == 6)
        for call in waiting:
            call.cancel()
        live.until(lambda: streams(live) == 1)
        model.go.set()
        assert totals(stub.ModelInfer(sums_request([0, 0, 1]))) == [1.0]
        assert totals(first.result()) == [6.0]
        assert model.calls == calls + 1


def test_a_full_queue_is_unavailable(slow: tuple[LiveServer, Sums]) -> None:
    live, model = slow
    with channel(live) as made:
        stub = stubs.GRPCInferenceServiceStub(made)
        model.go.clear()
        calls = [stub.ModelInfer.future(sums_request([1, 2, 3])) for _ in range(20)]
        until(lambda: sum(call.done() for call in calls) == 12)
        refused = [call.exception() for call in calls if call.done()]
        assert {error.code() for error in refused} == {grpc.StatusCode.UNAVAILABLE}
        model.go.set()
        assert sum(call.exception() is None for call in calls) == 8


def test_a_client_that_goes_takes_its_calls_along(slow: tuple[LiveServer, Sums]) -> None:
    live, model = slow
    model.go.clear()
    made = channel(live, ("grpc.use_local_subchannel_pool", 1))
    stub = stubs.GRPCInferenceServiceStub(made)
    calls = [stub.ModelInfer.future(sums_request([1, 2, 3])) for _ in range(4)]
    assert model.entered.acquire(timeout=10)
    served = live.repository.get("sums")
    live.until(lambda: served.pending == 4)
    began = model.calls
    made.close()
    del calls
    live.until(lambda: live.hub.connections == 0)
    model.go.set()
    live.until(lambda: served.pending == 0)
    assert model.calls == began


# Streams


def test_a_stream_answers_in_order_and_goes_on_after_errors(
    client: triton.InferenceServerClient,
) -> None:
    answers: queue.Queue[tuple[Any, Any]] = queue.Queue()
    client.start_stream(callback=lambda result, error: answers.put((result, error)))
    for number in range(100):
        name = "nothing" if number == 50 else "x"
        given = tensor(name, np.full((1, 3), number, np.float32))
        client.async_stream_infer(
            "sums", [given], request_id=str(number), enable_empty_final_response=number % 2 == 0
        )
    for number in range(100):
        result, error = answers.get(timeout=10)
        if number == 50:
            assert "unexpected inference input" in str(error)
            continue
        assert error is None
        response = result.get_response()
        assert response.id == str(number)
        assert response.parameters["triton_final_response"].bool_param
        assert result.as_numpy("total").tolist() == [3.0 * number]
    client.stop_stream()


def test_the_asyncio_client_streams(server: LiveServer) -> None:
    async def talk() -> list[float]:
        async def requests() -> Any:
            for number in range(5):
                given = tensor("x", np.full((1, 3), number, np.float32))
                yield {"model_name": "sums", "inputs": [given]}

        async with triton_aio.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
            found = []
            async for result, error in client.stream_infer(requests()):
                assert error is None
                found += result.as_numpy("total").tolist()
            return found

    assert asyncio.run(talk()) == [0.0, 3.0, 6.0, 9.0, 12.0]


@pytest.mark.parametrize("names", ["", "s", "x", "sx", "xs", "sxs", "ssxxs"])
@pytest.mark.parametrize("whole", [True, False], ids=["at-once", "in-turn"])
def test_a_stream_whose_end_comes_at_once_is_answered_in_order(
    server: LiveServer, names: str, *, whole: bool
) -> None:
    """`s` asks for the sums, `x` for a model that is not there."""
    body = b"".join(
        infer_body([1, 2, 3], name="sums" if name == "s" else "other") for name in names
    )
    with Http2Client(server.port) as raw:
        head = raw.head(1, grpc_head("/inference.GRPCInferenceService/ModelStreamInfer"))
        end = f.frame(f.DATA, f.END_STREAM, 1, body if whole else b"")
        parts = [head, end] if whole else [head, f.frame(f.DATA, 0, 1, body), end]
        raw.send(*parts)
        _, data, trailers = raw.answer(1)
    assert trailers["grpc-status"] == "0"
    assert "".join("x" if each.error_message else "s" for each in answers_in(data)) == names


@pytest.mark.parametrize("count", [1, 2, 1000])
def test_questions_that_come_at_once_are_answered_in_order(server: LiveServer, count: int) -> None:
    asks, tells = (message(f"grpc.reflection.v1.ServerReflection{n}") for n in _KINDS)
    names = [f"file{number}.proto" for number in range(count)]
    body = b"".join(framed(asks(file_by_filename=n).SerializeToString()) for n in names)
    with Http2Client(server.port) as raw:
        raw.send(
            raw.head(1, grpc_head("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"))
        )
        for begin in range(0, len(body), f.DEFAULT_FRAME_SIZE):
            part = body[begin : begin + f.DEFAULT_FRAME_SIZE]
            last = begin + len(part) == len(body)
            raw.send(f.frame(f.DATA, f.END_STREAM if last else 0, 1, part))
        _, data, trailers = raw.answer(1)
    assert trailers["grpc-status"] == "0"
    answers = answers_in(data, tells)
    assert [each.original_request.file_by_filename for each in answers] == names


_KINDS = ("Request", "Response")


def answers_in(data: bytes, kind: Any = pb.ModelStreamInferResponse) -> list[Any]:
    """The messages of a stream's body."""
    found = []
    while data:
        end = 5 + int.from_bytes(data[1:5], "big")
        found.append(kind.FromString(data[5:end]))
        data = data[end:]
    return found


def test_streams_of_large_messages_keep_to_the_windows(stub: Any) -> None:
    size = 3 << 20

    def requests() -> Iterator[Any]:
        for number in range(8):
            yield request("echo-uint8", "UINT8", [1, size], bytes([number]) * size)

    for number, answer in enumerate(stub.ModelStreamInfer(requests())):
        assert answer.infer_response.raw_output_contents[0] == bytes([number]) * size


def test_a_stream_keeps_its_client_waiting() -> None:
    """More requests than the server takes at once: all of them are answered, none is refused."""
    with (
        serve_models({"sums": Sums()}, inline=False, max_batch_rows=1) as live,
        channel(live) as made,
    ):
        stub = stubs.GRPCInferenceServiceStub(made)
        answers = stub.ModelStreamInfer(sums_request([n, 0, 0]) for n in range(2000))
        assert [totals(a.infer_response)[0] for a in answers] == [*range(2000)]


def test_a_stream_that_is_cancelled_computes_no_more(slow: tuple[LiveServer, Sums]) -> None:
    live, model = slow
    with channel(live) as made:
        stub = stubs.GRPCInferenceServiceStub(made)
        model.go.clear()
        done = threading.Event()

        def requests() -> Iterator[Any]:
            for _ in range(5):
                yield sums_request([1, 2, 3])
            done.wait(20)

        answers = stub.ModelStreamInfer(requests())
        assert model.entered.acquire(timeout=10)
        served = live.repository.get("sums")
        live.until(lambda: served.pending == 5)
        began = model.calls
        answers.cancel()
        done.set()
        live.until(lambda: not streams(live))
        model.go.set()
        live.until(lambda: served.pending == 0)
        assert model.calls == began


# The end of a server


def test_a_drain_finishes_what_has_begun(slow: tuple[LiveServer, Sums]) -> None:
    live, model = slow
    with channel(live) as made:
        stub = stubs.GRPCInferenceServiceStub(made)
        model.go.clear()
        done = threading.Event()
        stream = stub.ModelStreamInfer(_once_then_wait(done))
        call = stub.ModelInfer.future(sums_request([4, 5, 6]))
        assert model.entered.acquire(timeout=10)
        served = live.repository.get("sums")
        live.until(lambda: served.pending == 2)

        def drain() -> None:
            live.hub.draining = True
            live.hub.end_idle()

        live.call(drain)
        assert live.call(lambda: live.hub.connections) == 1
        model.go.set()
        assert totals(call.result(10)) == [15.0]
        assert totals(next(stream).infer_response) == [6.0]
        assert list(stream) == []
        live.until(lambda: live.hub.connections == 0)
        done.set()


def _once_then_wait(done: threading.Event) -> Iterator[Any]:
    yield sums_request([1, 2, 3])
    done.wait(20)


def test_an_idle_client_goes_at_the_end_of_a_drain(server: LiveServer) -> None:
    with serve_models({"sums": Sums()}) as live, channel(live) as made:
        stub = stubs.GRPCInferenceServiceStub(made)
        stub.ServerLive(pb.ServerLiveRequest())
        assert live.call(lambda: live.hub.connections) == 1
        live.call(live.hub.end_idle)
        live.until(lambda: live.hub.connections == 0)
        assert stub.ServerLive(pb.ServerLiveRequest(), wait_for_ready=True).live  # a new connection


def test_no_call_is_lost_while_connections_are_renewed() -> None:
    """Clients whose connections the server ends now and then never notice."""
    with serve_models({"sums": Sums()}) as live, channel(live) as made:
        stub = stubs.GRPCInferenceServiceStub(made)
        stop = time.monotonic() + 1.5
        renewed = 0
        while time.monotonic() < stop:
            calls = [stub.ModelInfer.future(sums_request([n, 0, 0])) for n in range(20)]

            def renew() -> None:
                for connection in connections(live):
                    if connection._last:
                        connection._announce()

            live.call(renew)
            renewed += 1
            assert [totals(call.result(10))[0] for call in calls] == [*range(20)]
        assert renewed > 5


def test_a_connection_that_has_just_begun_is_not_told_to_go_at_once() -> None:
    """A client of grpcio would count it as one that failed, and wait for twenty seconds."""
    with serve_models({"sums": Sums()}) as live, Http2Client(live.port):
        live.until(lambda: len(connections(live)) == 1)

        def drain() -> tuple[float, float]:
            live.hub.draining = True
            (connection,) = connections(live)
            connection.expire()
            fresh = connection._announced
            connection._born -= 2
            connection.expire()
            return fresh, connection._announced

        fresh, later = live.call(drain)
        assert fresh == inf
        assert later < inf


def test_keys_are_asked_for(tmp_path: Any) -> None:
    from serve.server.access import keys
    from serve.server.access.keyfile import write

    key, text = keys.make("tester")
    other, other_text = keys.make("other", models=["classes"])
    file = tmp_path / "keys.json"
    write(file, keys.KeyFile(keys=(key, other)))
    models = {"sums": Sums(), "classes": Classes()}
    with serve_models(models, api_keys=str(file)) as live, channel(live) as made:
        stub = stubs.GRPCInferenceServiceStub(made)
        assert stub.ServerReady(pb.ServerReadyRequest()).ready
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(sums_request([1, 2, 3]))
        assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED
        for shown in (("authorization", f"Bearer {text}"), ("x-api-key", text)):
            answer = stub.ModelInfer(sums_request([1, 2, 3]), metadata=[shown])
            assert totals(answer) == [6.0]
        with pytest.raises(grpc.RpcError) as caught:
            stub.ModelInfer(sums_request([1, 2, 3]), metadata=[("x-api-key", other_text)])
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
        with pytest.raises(grpc.RpcError) as caught:
            stub.RepositoryModelUnload(
                pb.RepositoryModelUnloadRequest(model_name="sums"),
                metadata=[("x-api-key", text)],
            )
        assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED
