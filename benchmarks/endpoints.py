"""What a front costs: requests to a server that does nothing, directly and through an endpoint.

python -m benchmarks.endpoints [--seconds S] [--dry]
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import msgspec
import uvloop

from benchmarks import load
from benchmarks.payloads import JSON, Ask
from benchmarks.results import Row, report
from serve.endpoints.front.config import (
    FOLDER_VARIABLE,
    SETTINGS_VARIABLE,
    Address,
    FrontConfig,
    FrontSettings,
    write_config,
)
from serve.endpoints.traffic import Shadow, Traffic

LIMIT = 0.15
"""The least part of the rate that is to be left: the server does nothing, and the front reads and
writes each request and each answer."""

_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 18\r\n\r\n"
_BODY = b'{"predictions":[]}'


class Nothing(asyncio.Protocol):
    """Answers whatever arrives in one piece, without looking at it."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, _data: bytes) -> None:
        self._transport.write(_ANSWER + _BODY)


async def answer(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Nothing, "127.0.0.1", port)
    await server.serve_forever()


@contextmanager
def process(*command: str, **given: object) -> Iterator[None]:
    started = subprocess.Popen([sys.executable, *command], **given)  # type: ignore[call-overload]
    try:
        yield
    finally:
        started.terminate()
        started.wait(20)


@contextmanager
def front(folder: Path, traffic: Traffic, url: str) -> Iterator[str]:
    """A worker of a front, on a port of its own."""
    addresses = {name: Address(url) for name in traffic.deployments}
    write_config(folder, FrontConfig(name="ep", generation=1, traffic=traffic, addresses=addresses))
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setblocking(False)
        env = os.environ | {
            "FIELDPOST_LISTEN_FD": str(listener.fileno()),
            FOLDER_VARIABLE: str(folder),
            SETTINGS_VARIABLE: msgspec.json.encode(FrontSettings()).decode(),
        }
        module = "serve.endpoints.front.process"
        with process("-m", module, env=env, pass_fds=[listener.fileno()]):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def until_open(url: str) -> None:
    host, _, port = url.removeprefix("http://").rpartition(":")
    while True:
        try:
            socket.create_connection((host, int(port)), 1).close()
        except ConnectionRefusedError:
            time.sleep(0.02)
        else:
            return


def measure(seconds: float) -> list[Row]:
    """Requests per second, directly and through fronts with one thing more each."""
    ask = Ask("score", "iris", "/score", b'{"data":[[5.1,3.5,1.4,0.2]]}', _no_labels, JSON)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    fronts = {
        "to one deployment": Traffic(weights={"a": 1}),
        "by weight to two": Traffic(weights={"a": 9, "b": 1}),
        "with a copy of a tenth": Traffic(weights={"a": 1}, shadows=(Shadow("b", 10),)),
    }
    rows = []
    with process("-m", "benchmarks.endpoints", "--answer", str(port)):
        until_open(url)
        for title, traffic in fronts.items():
            with tempfile.TemporaryDirectory() as name:
                folder = Path(name)
                direct = load.wrk(url, ask, folder, seconds=seconds)
                with front(folder, traffic, url) as through:
                    until_open(through)
                    found = load.wrk(through, ask, folder, seconds=seconds)
            rows.append(_row(title, direct, found))
    return rows


def _row(title: str, direct: load.Measured, found: load.Measured) -> Row:
    part = found.rate / direct.rate
    return Row(
        f"an endpoint's front, {title}",
        "requests/s",
        found.rate,
        f"at least {LIMIT:.0%} of a server that does nothing",
        part >= LIMIT,
        {"directly": direct.rate},
        part,
        notes=f"p99 {found.p99 * 1e3:.2f} ms, directly {direct.p99 * 1e3:.2f} ms; 16 connections",
    )


def _no_labels(_headers: object, _body: bytes) -> list[int]:
    return []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--dry", action="store_true", help="write no results")
    parser.add_argument("--answer", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.answer:
        uvloop.run(answer(given.answer))
        return
    rows = measure(given.seconds)
    if given.dry:
        print(msgspec.json.format(msgspec.json.encode(rows)).decode())
        return
    report("endpoints", rows, "httptools", "uvloop")


if __name__ == "__main__":
    main()
