"""An open-loop load generator: requests go out when they are due, answered or not before.

A closed loop waits with the next request while the server stalls, and so hides what a stall does to
everyone else. Here the latency counts from the moment at which a request was due.

    python -m benchmarks.rate URL RATE [SECONDS] < BODY
"""

from __future__ import annotations

import gc
import json
import select
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from benchmarks.load import LoadError
from benchmarks.payloads import JSON, Ask

CONNECTIONS = 16
_END = b"\r\n\r\n"
_PATIENCE_S = 10.0
_WARM_UP = 0.2


@dataclass(frozen=True)
class Tail:
    """Latencies of one run, in seconds, each from when its request was due.

    Attributes:
        rate: Answers per second.
        p50: The median.
        p99: One in a hundred takes longer.
    """

    rate: float
    p50: float
    p99: float

    @property
    def ratio(self) -> float:
        """How much longer the slow ones take."""
        return self.p99 / self.p50


def percentile(ordered: Sequence[float], percent: float) -> float:
    """The smallest value that so many percent do not exceed."""
    at = -(-len(ordered) * percent // 100)
    return ordered[max(0, int(at) - 1)]


def http_request(ask: Ask, host: str) -> bytes:
    """The bytes of a request."""
    headers = {"Host": host, "Content-Length": str(len(ask.body)), **ask.headers}
    lines = [f"POST {ask.path} HTTP/1.1", *(f"{name}: {text}" for name, text in headers.items())]
    return "\r\n".join(lines).encode() + _END + ask.body


def whole_size(data: bytes) -> int | None:
    """How long the response is that begins these bytes; None until its head is whole.

    Raises:
        LoadError: It is no 200 with a length.
    """
    end = data.find(_END)
    if end < 0:
        return None
    first, *lines = data[:end].decode("latin-1").lower().split("\r\n")
    if first.split(" ")[1] != "200":
        raise LoadError(f"answered {first}")
    for line in lines:
        name, _, value = line.partition(":")
        if name == "content-length":
            return end + len(_END) + int(value)
    raise LoadError("answered without a length")


class Generator:
    """Sends one request at a constant rate on some connections, turning an epoll loop of its own.

    It spins: where the load has a core to itself, it is never late by a sleep.
    """

    def __init__(self, address: tuple[str, int], request: bytes, connections: int) -> None:
        self._request = request
        self._poll = select.epoll()
        self._sockets: dict[int, socket.socket] = {}
        self._due: dict[int, float] = {}
        self._partial: dict[int, bytes] = {}
        self._size = 0
        self._latencies: list[float] = []
        for _ in range(connections):
            connection = socket.create_connection(address, timeout=5)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setblocking(False)
            self._sockets[connection.fileno()] = connection
            self._poll.register(connection.fileno(), select.EPOLLIN)
        self._idle = list(self._sockets)

    def close(self) -> None:
        """Closes everything."""
        self._poll.close()
        for connection in self._sockets.values():
            connection.close()

    def run(self, rate: float, seconds: float) -> Tail:
        """Sends for some time, and waits for the last answers.

        Raises:
            LoadError: An answer is not a 200, or none comes any more.
        """
        total, sent, self._latencies = int(rate * seconds), 0, []
        begun = time.perf_counter()
        limit = begun + seconds + _PATIENCE_S
        while len(self._latencies) < total:
            now = time.perf_counter()
            while sent < total and self._idle and begun + sent / rate <= now:
                self._send(begun + sent / rate)
                sent += 1
            for descriptor, _ in self._poll.poll(0):
                self._receive(descriptor)
            if now > limit:
                raise LoadError(f"{sent - len(self._latencies)} requests were never answered")
        took = time.perf_counter() - begun
        ordered = sorted(self._latencies[int(total * _WARM_UP) :])
        return Tail(total / took, percentile(ordered, 50), percentile(ordered, 99))

    def _send(self, due: float) -> None:
        descriptor = self._idle.pop()
        self._due[descriptor] = due
        if self._sockets[descriptor].send(self._request) != len(self._request):
            raise LoadError("the request does not fit into the socket's buffer")

    def _receive(self, descriptor: int) -> None:
        data = self._sockets[descriptor].recv(1 << 16)
        if not data:
            raise LoadError("the server closed a connection")
        if len(data) != self._size or descriptor in self._partial:
            data = self._partial.pop(descriptor, b"") + data
            size = whole_size(data)
            if size is None or len(data) < size:
                self._partial[descriptor] = data
                return
            self._size = size
        elif not data.startswith(b"HTTP/1.1 200"):
            raise LoadError(f"answered {data[:60]!r}")
        self._latencies.append(time.perf_counter() - self._due[descriptor])
        self._idle.append(descriptor)


def at_rate(url: str, ask: Ask, rate: float, seconds: float) -> Tail:
    """Sends a request at a constant rate.

    Raises:
        LoadError: Not every answer was a 200.
    """
    parts = urlsplit(url)
    address = (parts.hostname or "127.0.0.1", parts.port or 80)
    generator = Generator(address, http_request(ask, parts.netloc), CONNECTIONS)
    collected = gc.isenabled()
    gc.disable()
    try:
        return generator.run(rate, seconds)
    finally:
        generator.close()
        if collected:
            gc.enable()


def main(arguments: list[str]) -> None:
    parts = urlsplit(arguments[0])
    ask = Ask("stdin", "", parts.path or "/", sys.stdin.buffer.read(), lambda _headers, _body: [])
    seconds = float(arguments[2]) if len(arguments) > 2 else 5.0
    tail = at_rate(arguments[0], ask.with_headers(JSON), float(arguments[1]), seconds)
    print(json.dumps({"rate": tail.rate, "p50_s": tail.p50, "p99_s": tail.p99}))


if __name__ == "__main__":
    main(sys.argv[1:])
