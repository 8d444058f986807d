"""A real process that speaks the worker's contract, with the standard library alone.

`python -I -S tiny_worker.py ROOT`: ROOT holds `behaviour.json`:

    answer      what every request is answered with (with the worker's pid behind it)
    fail        a message: report `failed` with a traceback and exit 3
    exit        exit at once with this status, without a word
    crash_after seconds from ready until the process kills itself
    hang        never become ready
    slow_start  seconds before ready
    stubborn    do not go at SIGTERM
    child       start a child that holds all descriptors open and sleeps
    noise       lines to print at start

    hold        MiB of memory to hold from the start

A request for `/sleep/S` takes S seconds; `/kill` kills the worker; `/print/TEXT` prints; `/leak/M`
holds M MiB more.
"""

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any


def tell(report: dict[str, Any]) -> None:
    os.write(int(os.environ["FIELDPOST_STATUS_FD"]), json.dumps(report).encode() + b"\n")


def fail(message: str) -> None:
    try:
        int(message)
    except ValueError:
        error = {"code": "entry_script", "message": f"The script failed: {message}"}
        tell({"state": "failed", "error": error, "detail": traceback.format_exc()})
    sys.exit(3)


def sockets(variable: str) -> dict[int, socket.socket]:
    numbers = [int(text) for text in os.environ[variable].split(",") if text]
    found = {number: socket.socket(fileno=number) for number in numbers}
    for each in found.values():
        each.setblocking(False)
    return found


class Server:
    def __init__(self, behaviour: dict[str, Any]) -> None:
        self.behaviour = behaviour
        self.leaving = asyncio.Event()
        self.connections: set[asyncio.Task[None]] = set()
        self.held = [bytearray(b"x" * (behaviour.get("hold", 0) << 20))]

    async def run(self) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, self.on_term)
        lifeline = int(os.environ["FIELDPOST_LIFELINE_FD"])
        loop.add_reader(lifeline, self.leaving.set)
        tell({"state": "ready"})
        await self.gate()
        if "crash_after" in self.behaviour:
            loop.call_later(self.behaviour["crash_after"], os.kill, os.getpid(), signal.SIGKILL)
        listeners = sockets("FIELDPOST_LISTEN_FD")
        spares = sockets("FIELDPOST_SPARE_FD")
        for listener in listeners.values():
            # No task: one that is cancelled in `sock_accept` may lose the connection it has got.
            loop.add_reader(listener, self.accept, listener)
        orders = int(os.environ["FIELDPOST_COVER_FD"])
        loop.add_reader(orders, self.cover, orders, spares)
        await self.leaving.wait()
        for descriptor in (lifeline, orders):
            loop.remove_reader(descriptor)
        for listener in (*listeners.values(), *spares.values()):
            loop.remove_reader(listener)
        if self.connections:
            await asyncio.wait(self.connections, timeout=20)

    def on_term(self) -> None:
        if not self.behaviour.get("stubborn"):
            self.leaving.set()

    def cover(self, orders: int, spares: dict[int, socket.socket]) -> None:
        loop = asyncio.get_running_loop()
        lines = os.read(orders, 65_536).decode().split("\n")
        if len(lines) < 2:
            loop.remove_reader(orders)
            return
        wanted = {int(number) for number in lines[-2].split(",") if number}
        for number, spare in spares.items():
            loop.remove_reader(spare)
            if number in wanted:
                loop.add_reader(spare, self.accept, spare)

    async def gate(self) -> None:
        opened = asyncio.Event()
        loop = asyncio.get_running_loop()
        number = int(os.environ["FIELDPOST_GATE_FD"])
        loop.add_reader(number, opened.set)
        await opened.wait()
        loop.remove_reader(number)

    def accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:  # another worker was faster
            return
        connection.setblocking(False)
        task = asyncio.ensure_future(self.serve(connection))
        self.connections.add(task)
        task.add_done_callback(self.connections.discard)

    async def serve(self, connection: socket.socket) -> None:
        reader, writer = await asyncio.open_connection(sock=connection)
        try:
            while await self.answer_one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    async def answer_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = asyncio.ensure_future(reader.readuntil(b"\r\n\r\n"))
        leave = asyncio.ensure_future(self.leaving.wait())
        await asyncio.wait([head, leave], return_when=asyncio.FIRST_COMPLETED)
        if not head.done():  # an idle connection gets one last chance, then it is closed
            await asyncio.wait([head], timeout=0.5)
        leave.cancel()
        if not head.done():
            head.cancel()
            return False
        path = head.result().split()[1].decode()
        await self.act(path)
        last = self.leaving.is_set()
        body = f"{self.behaviour.get('answer', '')} {os.getpid()}".encode()
        if path == "/env":
            body = json.dumps(dict(os.environ)).encode()
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %s\r\n\r\n%s"
            % (len(body), b"close" if last else b"keep-alive", body)
        )
        await writer.drain()
        return not last

    async def act(self, path: str) -> None:
        verb, _, value = path.strip("/").partition("/")
        if verb == "sleep":
            await asyncio.sleep(float(value))
        elif verb == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif verb == "leak":
            self.held.append(bytearray(int(value) << 20))
            self.held[-1][::4096] = b"x" * len(self.held[-1][::4096])
        elif verb == "print":
            print(value, flush=True)


def main() -> None:
    behaviour = json.loads((Path(sys.argv[1]) / "behaviour.json").read_text())
    for line in behaviour.get("noise", []):
        print(line, flush=True)
    if behaviour.get("child"):
        subprocess.Popen(["sleep", "60"], close_fds=False)
    if "exit" in behaviour:
        os._exit(behaviour["exit"])
    if "fail" in behaviour:
        fail(behaviour["fail"])
    if behaviour.get("hang"):
        signal.pause()
    if "slow_start" in behaviour:
        import time

        time.sleep(behaviour["slow_start"])
    asyncio.run(Server(behaviour).run())


if __name__ == "__main__":
    main()
