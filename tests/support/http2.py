"""An HTTP/2 client that sends what it is told, well-formed or not."""

from __future__ import annotations

import contextlib
import select
import socket
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from hpack import Decoder, Encoder
from hyperframe.frame import Frame

from serve.server.grpc import frames as f
from serve.server.grpc.messages import ModelInferRequest
from serve.server.grpc.reading import framed

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

INFER = "/inference.GRPCInferenceService/ModelInfer"
LIVE = "/inference.GRPCInferenceService/ServerLive"


def infer_body(*rows: list[float], name: str = "sums") -> bytes:
    """An infer request for the model of sums, as gRPC sends it."""
    made = ModelInferRequest(model_name=name)
    made.inputs.add(name="x", datatype="FP32", shape=[len(rows), 3])
    made.raw_input_contents.append(np.array(rows, np.float32).tobytes())
    return framed(made.SerializeToString())


BODY = infer_body([1, 2, 3])


def grpc_head(path: str = INFER, *more: tuple[str, str]) -> list[tuple[str, str]]:
    """The fields of a call."""
    return [
        (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "test"),
        ("te", "trailers"), ("content-type", "application/grpc"), *more,
    ]  # fmt: skip


class Http2Client:
    """A connection; it greets the server unless it is told not to."""

    def __init__(
        self,
        port: int,
        settings: Mapping[int, int] | None = None,
        *,
        greet: bool = True,
        timeout_s: float = 10,
    ) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=timeout_s)
        self.encoder = Encoder()
        self.decoder = Decoder()
        self._buffer = b""
        self.window = f.DEFAULT_WINDOW
        if greet:
            self.send(f.PREFACE, f.settings(dict(settings or {})))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *parts: bytes) -> None:
        self.socket.sendall(b"".join(parts))

    def head(
        self, stream_id: int, fields: Iterable[tuple[str, str]], *, end: bool = False
    ) -> bytes:
        """A HEADERS frame."""
        block = self.encoder.encode(list(fields))
        return f.headers(stream_id, block, f.END_STREAM if end else 0)

    def data(self, stream_id: int, body: bytes, *, end: bool = True) -> bytes:
        """A DATA frame."""
        return f.frame(f.DATA, f.END_STREAM if end else 0, stream_id, body)

    def call(self, stream_id: int, body: bytes = BODY, path: str = INFER) -> None:
        """Sends a whole call."""
        self.send(self.head(stream_id, grpc_head(path)), self.data(stream_id, body))

    def read(self) -> Any:
        """The next frame; raises EOFError at the end."""
        while len(self._buffer) < f.HEAD_SIZE:
            self._more()
        frame, size = Frame.parse_frame_header(memoryview(self._buffer)[: f.HEAD_SIZE])
        while len(self._buffer) < f.HEAD_SIZE + size:
            self._more()
        frame.parse_body(memoryview(self._buffer)[f.HEAD_SIZE : f.HEAD_SIZE + size])
        self._buffer = self._buffer[f.HEAD_SIZE + size :]
        return frame

    def _more(self) -> None:
        data = self.socket.recv(1 << 16)
        if not data:
            raise EOFError
        self._buffer += data

    def until(self, kind: int, *, ack: bool = False) -> Any:
        """The next frame of a type; others are passed over."""
        while True:
            frame = self.read()
            if frame.type == kind and ("ACK" in frame.flags) == ack:
                return frame

    def answer(self, stream_id: int) -> tuple[dict[str, str], bytes, dict[str, str]]:
        """Head, data and trailers of a stream that ends well; raises ResetError otherwise."""
        heads: list[dict[str, str]] = []
        data = b""
        while True:
            frame = self.read()
            if frame.type == f.GOAWAY and frame.error_code:
                raise GoneError(frame.error_code, bytes(frame.additional_data))
            if frame.type == f.HEADERS:
                fields = self.decoder.decode(frame.data)
                if frame.stream_id == stream_id:
                    heads.append({str(k): str(v) for k, v in fields})
            if frame.stream_id != stream_id:
                continue
            if frame.type == f.RST_STREAM:
                raise ResetError(frame.error_code)
            if frame.type == f.DATA:
                data += frame.data
            if "END_STREAM" in frame.flags:
                return heads[0], data, heads[-1]

    def status(self, stream_id: int) -> int:
        """gRPC's status of a call."""
        return int(self.answer(stream_id)[2]["grpc-status"])

    def end(self) -> int:
        """The code with which the server ends the connection."""
        code = -1
        try:
            while True:
                frame = self.read()
                if frame.type == f.GOAWAY:
                    code = frame.error_code
        except (EOFError, ConnectionResetError):
            return code

    def flood(self, data: bytes, times: int) -> int:
        """Sends the same again and again, reading beside it; the code of the end, -1 for none."""
        left = memoryview(data * times)
        with contextlib.suppress(ConnectionError):
            while left:
                ready, free, _ = select.select([self.socket], [self.socket], [], 10)
                if ready:
                    got = self.socket.recv(1 << 16)
                    if not got:
                        break
                    self._buffer += got
                if free:
                    left = left[self.socket.send(left[:16_384]) :]
        return self.end()

    def is_alive(self, stream_id: int) -> bool:
        """Whether the connection still answers a call."""
        self.call(stream_id)
        return self.status(stream_id) == 0


class ResetError(Exception):
    """The server has reset a stream."""


class GoneError(Exception):
    """The server has ended the connection."""
