"""The limit that the server is measured against: a bare protocol on uvloop with httptools.

It parses HTTP and JSON, runs the same model with onnxruntime and writes the answer, and does
nothing else: no limits, no timeouts, no checks of the payload.

    python benchmarks/bare_http.py MODEL.onnx [PORT]
    wrk -t1 -c16 -d5s -s benchmarks/iris.lua http://127.0.0.1:5099/score
"""

from __future__ import annotations

import asyncio
import sys
from typing import cast

import httptools
import numpy as np
import onnxruntime
import orjson
import uvloop


class Bare(asyncio.Protocol):
    transport: asyncio.Transport

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self.session = session
        self.name = session.get_inputs()[0].name
        self.names = [output.name for output in session.get_outputs()]
        self.parser = httptools.HttpRequestParser(self)
        self.body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_url(self, url: bytes) -> None:
        self.url = url

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        rows = np.array(orjson.loads(self.body)["data"], dtype=np.float32)
        self.body = b""
        label, probabilities = self.session.run(self.names, {self.name: rows})
        answer = orjson.dumps(
            {"predictions": label, "probabilities": probabilities},
            option=orjson.OPT_SERIALIZE_NUMPY,
        )
        self.transport.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b"
            % (len(answer), answer)
        )


async def main(path: str, port: int) -> None:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    server = await asyncio.get_running_loop().create_server(
        lambda: Bare(session), "127.0.0.1", port
    )
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 5099))
