"""The parts of the images' benchmark that need no engine."""

from __future__ import annotations

import socket
import threading

import onnx
import pytest

from benchmarks.images import rows, weights
from benchmarks.images.proxy import counting


def test_the_proxy_counts_what_is_sent_and_not_what_comes_back() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=answer, args=(server,), daemon=True).start()
        with (
            counting(server.getsockname()[1]) as proxy,
            socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client,
        ):
            client.sendall(b"x" * 100_000)
            client.shutdown(socket.SHUT_WR)
            received = b"".join(iter(lambda: client.recv(1 << 16), b""))

    assert received == b"y" * 7
    assert proxy.sent == 100_000


def answer(server: socket.socket) -> None:
    connection = server.accept()[0]
    with connection:
        while connection.recv(1 << 16):
            pass
        connection.sendall(b"y" * 7)


@pytest.mark.parametrize("size", [4_000, 1_000_000])
def test_models_have_their_size_and_differ(size: int) -> None:
    first, second = (weights.model(size, seed) for seed in (0, 1))

    onnx.checker.check_model(first)
    assert size <= first.ByteSize() < size + 1000
    assert first.SerializeToString() != second.SerializeToString()


def test_the_models_take_as_many_numbers_as_they_are_asked_with() -> None:
    (taken,) = weights.model(rows.MODEL_BYTES, 0).graph.input

    assert taken.type.tensor_type.shape.dim[1].dim_value == rows.INPUTS
