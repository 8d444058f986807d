"""Everyone is asked the same, in the words of each protocol."""

from __future__ import annotations

import numpy as np
import orjson
import pytest

from benchmarks import payloads


def test_half_a_megabyte_of_json() -> None:
    ask = payloads.large_ask()
    assert 450_000 < len(ask.body) < 550_000
    assert np.shape(orjson.loads(ask.body)["data"]) == (32, 784)


def test_the_binary_request_holds_the_same_rows() -> None:
    ask = payloads.binary_ask()
    size = int(ask.headers["Inference-Header-Content-Length"])
    [tensor] = orjson.loads(ask.body[:size])["inputs"]
    assert tensor["parameters"]["binary_data_size"] == len(ask.body) - size
    rows = np.frombuffer(ask.body[size:], np.float32).reshape(tensor["shape"])
    assert np.array_equal(rows, payloads.pixels())


def test_the_grpc_request_is_what_its_own_library_writes() -> None:
    messages = pytest.importorskip("serve.server.grpc.messages")
    request = messages.ModelInferRequest(model_name="iris")
    request.inputs.add(name="X", datatype="FP32", shape=[1, 300])
    rows = np.arange(300, dtype=np.float32)[None]
    request.raw_input_contents.append(rows.tobytes())
    assert payloads.infer_message("iris", "X", rows) == request.SerializeToString()


def test_a_frame_says_its_length() -> None:
    body = payloads.grpc_ask().body
    assert body[0] == 0
    assert int.from_bytes(body[1:5], "big") == len(body) - 5


@pytest.mark.parametrize(
    ("ask", "headers", "body"),
    [
        (payloads.score_ask(), {}, b'{"predictions":[2,0]}'),
        (payloads.v2_ask(), {}, b'{"outputs":[{"name":"label","data":[[2],[0]]}]}'),
        (
            payloads.binary_ask(),
            {"inference-header-content-length": "67"},
            b'{"outputs":[{"name":"label","parameters":{"binary_data_size":16}}]}'
            + np.array([2, 0]).tobytes(),
        ),
    ],
    ids=["score", "v2", "binary"],
)
def test_labels_are_read_from_answers(
    ask: payloads.Ask, headers: dict[str, str], body: bytes
) -> None:
    assert ask.labels(headers, body) == [2, 0]
