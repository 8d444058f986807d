"""The limit that the server is measured against: a bare protocol on uvloop with httptools.

It parses HTTP and the payload, runs the same model and writes the answer, and does nothing else: no
limits, no timeouts, no checks, one request at a time.

    BENCH_MODEL=iris.onnx python -m benchmarks.bare_http KIND PORT

KIND: `score` (`{"data": rows}`), `v2` (the Open Inference Protocol in JSON) or `binary` (its binary
tensors).
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast

import httptools
import numpy as np
import orjson
import uvloop

from benchmarks.peers.model import Model

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
BINARY_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/octet-stream\r\n"
    b"inference-header-content-length: %d\r\ncontent-length: %d\r\n\r\n%b%b"
)


class Bare(asyncio.Protocol):
    """One connection that answers `{"data": rows}`."""

    transport: asyncio.Transport

    def __init__(self, model: Model) -> None:
        self.model = model
        self.parser = httptools.HttpRequestParser(self)
        self.parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.parts.append(body)

    def on_message_complete(self) -> None:
        body = self.parts[0] if len(self.parts) == 1 else b"".join(self.parts)
        self.parts = []
        self.transport.write(self.answer(body))

    def answer(self, body: bytes) -> bytes:
        rows = np.array(orjson.loads(body)["data"], dtype=np.float32)
        label, probabilities = self.model(rows)
        answer = orjson.dumps(
            {"predictions": label, "probabilities": probabilities},
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        return HEAD % (len(answer), answer)


class BareV2(Bare):
    """The Open Inference Protocol in JSON."""

    def answer(self, body: bytes) -> bytes:
        tensor = orjson.loads(body)["inputs"][0]
        rows = np.array(tensor["data"], dtype=np.float32).reshape(tensor["shape"])
        label, probabilities = self.model(rows)
        outputs = [
            output("label", "INT64", label, data=label),
            output("probabilities", "FP32", probabilities, data=probabilities.ravel()),
        ]
        answer = orjson.dumps(
            {"model_name": "iris", "model_version": "1", "outputs": outputs},
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        return HEAD % (len(answer), answer)


class BareBinary(Bare):
    """The Open Inference Protocol with binary tensors."""

    def __init__(self, model: Model) -> None:
        super().__init__(model)
        self.size = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"inference-header-content-length":
            self.size = int(value)

    def answer(self, body: bytes) -> bytes:
        tensor = orjson.loads(body[: self.size])["inputs"][0]
        data = np.frombuffer(body, np.float32, offset=self.size)
        label, probabilities = self.model(data.reshape(tensor["shape"]))
        outputs = [
            output("label", "INT64", label, parameters={"binary_data_size": label.nbytes}),
            output(
                "probabilities",
                "FP32",
                probabilities,
                parameters={"binary_data_size": probabilities.nbytes},
            ),
        ]
        head = orjson.dumps({"model_name": "pixels", "model_version": "1", "outputs": outputs})
        tensors = label.tobytes() + probabilities.tobytes()
        return BINARY_HEAD % (len(head), len(head) + len(tensors), head, tensors)


def output(name: str, datatype: str, array: Any, **rest: Any) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": array.shape, **rest}


KINDS = {"score": Bare, "v2": BareV2, "binary": BareBinary}


async def main(kind: str, port: int) -> None:
    model, protocol = Model(), KINDS[kind]
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: protocol(model), "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2])))
