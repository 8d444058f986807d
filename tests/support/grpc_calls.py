"""What tests of gRPC share: a channel, requests by hand, and a look into the server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import np_to_triton_dtype

from scoring.schema import ModelSchema, TensorSpec
from serve.server.grpc.connection import GrpcConnection

if TYPE_CHECKING:
    from collections.abc import Iterable

    from scoring.runtimes.base import Arrays
    from tests.support.server import LiveServer


class Classes:
    """Probabilities, labels and maps of three classes."""

    thread_safe = True
    schema = ModelSchema(
        inputs=(TensorSpec("a", "float32", (None, 1)), TensorSpec("b", "string", (None, 1))),
        outputs=(
            TensorSpec("label", "string", (None,)),
            TensorSpec("odds", "float32", (None, 3)),
            TensorSpec("map", "map", (None,)),
        ),
        layout="table",
        classes=("red", "green", "blue"),
    )

    def predict(self, inputs: Arrays) -> dict[str, Any]:
        rows = len(inputs["a"])
        label = np.empty(rows, dtype=object)
        label[:] = [f"{b}!" for b in inputs["b"][:, 0]]
        odds = np.tile(np.array([0.2, 0.5, 0.3], np.float32), (rows, 1)) * inputs["a"]
        return {
            "label": label,
            "odds": odds,
            "map": [dict(zip(self.schema.classes, row, strict=True)) for row in odds.tolist()],
        }


def channel(server: LiveServer, *options: tuple[str, Any]) -> grpc.Channel:
    sizes = [(f"grpc.max_{way}_message_length", -1) for way in ("send", "receive")]
    return grpc.insecure_channel(f"127.0.0.1:{server.port}", options=[*sizes, *options])


def tensor(name: str, array: np.ndarray[Any, Any]) -> triton.InferInput:
    made = triton.InferInput(name, array.shape, np_to_triton_dtype(array.dtype))
    made.set_data_from_numpy(array)
    return made


def as_sent(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Strings as tritonclient takes them."""
    if array.dtype != object:
        return array
    return np.array([v.encode() for v in array.ravel()], dtype=object).reshape(array.shape)


def request(
    model: str, datatype: str, shape: Iterable[int], raw: bytes | None = None, **more: Any
) -> Any:
    made = pb.ModelInferRequest(model_name=model, **more)
    made.inputs.add(name="given", datatype=datatype, shape=shape)
    if raw is not None:
        made.raw_input_contents.append(raw)
    return made


def sums_request(*rows: list[float], **more: Any) -> Any:
    made = pb.ModelInferRequest(model_name="sums", **more)
    made.inputs.add(name="x", datatype="FP32", shape=[len(rows), 3])
    made.raw_input_contents.append(np.array(rows, np.float32).tobytes())
    return made


def totals(response: Any) -> list[float]:
    return np.frombuffer(response.raw_output_contents[0], np.float32).tolist()  # type: ignore[no-any-return]


def connections(server: LiveServer) -> list[GrpcConnection]:
    """The open HTTP/2 connections."""
    found: list[Any] = list(server.hub._connections)
    return [each for each in found if isinstance(each, GrpcConnection)]


def streams(server: LiveServer) -> int:
    """How many calls are open."""
    return sum(len(connection._streams) for connection in connections(server))
