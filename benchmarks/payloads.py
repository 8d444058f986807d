"""The requests that everyone gets, and how their answers are read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import orjson

from benchmarks.models import PIXELS

ROWS = 32
IRIS = [[5.1, 3.5, 1.4, 0.2]]
IRIS_LABELS = [0]
JSON = {"Content-Type": "application/json"}
GRPC_PATH = "/inference.GRPCInferenceService/ModelInfer"
Labels = Callable[[Mapping[str, str], bytes], list[int]]


@dataclass(frozen=True)
class Ask:
    """One kind of request.

    Attributes:
        name: Unique; files are called by it.
        model: `iris` or `pixels`.
        path: The target.
        body: Sent with POST.
        headers: Beside those that the client needs.
        labels: Reads the labels from the answer's headers (names in lower case) and body.
        answer_bytes: The least that an answer has.
    """

    name: str
    model: str
    path: str
    body: bytes
    labels: Labels
    headers: Mapping[str, str] = field(default_factory=lambda: JSON)
    answer_bytes: int = 1

    def at(self, path: str) -> Self:
        """The same, elsewhere."""
        return replace(self, path=path)

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """The same, with more headers."""
        return replace(self, headers={**self.headers, **headers})

    def reading(self, labels: Labels) -> Self:
        """The same, for a server that answers in another form."""
        return replace(self, labels=labels)


def pixels() -> np.ndarray[Any, np.dtype[np.float32]]:
    """32 rows of 784 floats."""
    return np.random.default_rng(1).random((ROWS, PIXELS)).astype(np.float32)


def _prediction_labels(_headers: Mapping[str, str], body: bytes) -> list[int]:
    return [int(label) for label in orjson.loads(body)["predictions"]]


def _v2_labels(_headers: Mapping[str, str], body: bytes) -> list[int]:
    outputs = {output["name"]: output for output in orjson.loads(body)["outputs"]}
    return [int(label) for label in np.ravel(outputs["label"]["data"])]


def _binary_labels(headers: Mapping[str, str], body: bytes) -> list[int]:
    size = int(headers["inference-header-content-length"])
    at = size
    for output in orjson.loads(body[:size])["outputs"]:
        end = at + output["parameters"]["binary_data_size"]
        if output["name"] == "label":
            return [int(label) for label in np.frombuffer(body[at:end], np.int64)]
        at = end
    raise KeyError("label")


def v2_document(rows: Any, shape: tuple[int, ...]) -> dict[str, Any]:
    """The request of the Open Inference Protocol with the data in JSON."""
    tensor = {"name": "X", "shape": list(shape), "datatype": "FP32", "data": rows}
    return {"inputs": [tensor]}


def _binary_request(rows: np.ndarray[Any, Any]) -> tuple[bytes, int]:
    size = {"binary_data_size": rows.nbytes}
    tensor = {"name": "X", "shape": rows.shape, "datatype": "FP32", "parameters": size}
    head = orjson.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}})
    return head + rows.tobytes(), len(head)


def score_ask() -> Ask:
    """Iris, one row of JSON."""
    body = orjson.dumps({"data": IRIS})
    return Ask("score", "iris", "/score", body, _prediction_labels)


def v2_ask() -> Ask:
    """The same in the Open Inference Protocol."""
    body = orjson.dumps(v2_document(IRIS[0], (1, 4)))
    return Ask("v2", "iris", "/v2/models/iris/infer", body, _v2_labels)


def large_ask() -> Ask:
    """32 rows of 784 doubles as a Python client writes them: half a megabyte of JSON."""
    rows = np.random.default_rng(1).random((ROWS, PIXELS))
    return Ask(
        "large", "pixels", "/score", orjson.dumps({"data": rows.tolist()}), _prediction_labels
    )


def binary_ask() -> Ask:
    """The same rows as binary tensors."""
    body, size = _binary_request(pixels())
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(size),
    }
    return Ask("binary", "pixels", "/v2/models/pixels/infer", body, _binary_labels, headers)


def grpc_ask() -> Ask:
    """Iris, one row, a ModelInfer call with its five bytes of frame."""
    headers = {"content-type": "application/grpc", "te": "trailers"}
    message = infer_message("iris", "X", IRIS)
    frame = b"\0" + len(message).to_bytes(4, "big") + message
    return Ask("grpc", "iris", GRPC_PATH, frame, _no_labels, headers, answer_bytes=30)


def _no_labels(_headers: Mapping[str, str], _body: bytes) -> list[int]:
    """h2load's answers are not kept: a client of the protocol checks beforehand."""
    return IRIS_LABELS


def infer_message(model: str, name: str, rows: Any) -> bytes:
    """A ModelInferRequest with one raw FP32 tensor, in protobuf's own bytes."""
    array = np.asarray(rows, np.float32)
    shape = b"".join(_varint(size) for size in array.shape)
    tensor = _part(1, name.encode()) + _part(2, b"FP32") + _part(3, shape)
    return _part(1, model.encode()) + _part(5, tensor) + _part(7, array.tobytes())


def _part(number: int, data: bytes) -> bytes:
    """A field of bytes with its number and length."""
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    digits = []
    while value > 0x7F:
        digits.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*digits, value])
