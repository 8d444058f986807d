"""One worker process, from its start to its end: the supervisor's side of the worker's contract."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import DeploymentFailedError, FieldpostError
from scoring.workerreports import EXIT_NOT_LOADED
from serve.server.spawning import Pipes, spawn

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Sequence

    from serve.server.spawning import Place, WorkerSpec

LogSink = Callable[[str, str], None]
"""Takes the worker's name (`w0`) and one line without its end."""

_MAX_LINE_BYTES = 16_384
_TAIL_LINES = 40
_STATUS_BYTES = 1 << 20
_CHUNK_BYTES = 65_536
_OUTPUT_GRACE_S = 0.5


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a worker ended or never became ready, ready to be shown.

    Attributes:
        code: The code of the error, as `scoring.errors` has it.
        message: One sentence.
        hint: What to do next.
        where: The place in the user's input.
        detail: The traceback that the worker reported, or the end of its output.
        final: The worker said itself that it cannot load: another attempt would end alike.
    """

    message: str
    code: str = DeploymentFailedError.code
    hint: str = ""
    where: str = ""
    detail: str = ""
    final: bool = False

    def to_error(self) -> FieldpostError:
        """The failure as an error of the class that its code names."""
        kind = _error_class(self.code)
        return kind(self.message, hint=self.hint, where=self.where, detail=self.detail)


class WorkerDiedError(Exception):
    """A worker ended without being asked to, or never became ready (internal to the pool)."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


class Worker:
    """A running worker process. Create it with `Worker.start`, inside a running event loop."""

    def __init__(
        self, name: str, process: subprocess.Popen[bytes], orders: int, log: LogSink
    ) -> None:
        loop = asyncio.get_running_loop()
        self.name = name
        self.pid = process.pid
        self.started_at = time.monotonic()
        self.ready_at = float("inf")
        self.report: dict[str, Any] = {}
        self.ended: asyncio.Future[int] = loop.create_future()
        self._process = process
        self._orders: int | None = orders
        self._log = log
        self._leaving = False
        self._tail: deque[str] = deque(maxlen=_TAIL_LINES)
        self._status: asyncio.Task[bytes]
        self._output: asyncio.Task[None]
        threading.Thread(target=self._reap, args=(loop,), daemon=True).start()

    @classmethod
    def start(cls, spec: WorkerSpec, place: Place, log: LogSink) -> Worker:
        """Starts the process in a session of its own, so that no terminal's signal reaches it.

        Raises:
            WorkerDiedError: The interpreter cannot be started.
        """
        pipes = Pipes()
        try:
            process = spawn(spec, place, pipes)
        except OSError as error:
            pipes.close_ours()
            message = f"{spec.command[0]} cannot be started: {error.strerror}."
            raise WorkerDiedError(Failure(message)) from error
        finally:
            pipes.close_theirs()
        worker = cls(place.name, process, pipes.orders, log)
        worker._status = asyncio.ensure_future(_read_line(pipes.status))
        worker._output = asyncio.ensure_future(worker._capture(pipes.output))
        return worker

    def cover(self, descriptors: Sequence[int]) -> None:
        """Lets the worker accept from these of its spares, and from no others."""
        if self._orders is None:
            return
        line = ",".join(map(str, descriptors)) + "\n"
        with contextlib.suppress(OSError):  # it has gone, or hangs: then others cover for it
            os.write(self._orders, line.encode())

    async def ready(self, timeout_s: float) -> None:
        """Waits until the worker says that it is ready.

        Raises:
            WorkerDiedError: It failed, ended, or took too long; the process is gone then.
        """
        news: list[asyncio.Future[Any]] = [self._status, self.ended]
        await asyncio.wait(news, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if self.ended.done():  # what it still said; its children may hold the pipe open
            await asyncio.wait([self._status], timeout=_OUTPUT_GRACE_S)
        elif not self._status.done():
            raise WorkerDiedError(await self._too_late(timeout_s))
        # Cancelled: someone else has killed the worker meanwhile.
        told = self._status.done() and not self._status.cancelled()
        failure = self._judge(self._status.result() if told else b"")
        if failure is None:
            self.ready_at = time.monotonic()
            return
        await self._end_after_failure()
        raise WorkerDiedError(await self._with_exit(failure))

    async def death(self) -> Failure:
        """Waits for the end of a worker that nobody asked to go, and says how it ended."""
        return await self._with_exit(Failure(""))

    async def stop(self, patience_s: float) -> None:
        """Lets the worker drain (SIGTERM), and kills it and its children after the limit."""
        if not self._leaving:  # a second signal would cut the drain off
            self._leaving = True
            self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(patience_s):
                await asyncio.shield(self.ended)
        except TimeoutError:
            self._log(self.name, f"not gone within {patience_s:g} s: killed")
        await self.kill()

    async def kill(self) -> None:
        """Ends the worker's process group at once and waits until the worker is gone."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        await asyncio.shield(self.ended)
        await self._finish()

    async def _too_late(self, timeout_s: float) -> Failure:
        await self.kill()
        return Failure(
            f"The worker was not ready within {timeout_s:g} s.",
            hint="Raise ready_timeout_s, or look at what its start waits for.",
            detail=self._tail_text(),
            final=True,
        )

    def _judge(self, line: bytes) -> Failure | None:
        """None for a worker that is ready, else what it says of itself (or nothing)."""
        try:
            report = msgspec.json.decode(line, type=dict[str, Any]) if line else {}
        except msgspec.DecodeError:
            report = {}
        self.report = report
        if report.get("state") == "ready":
            return None
        error = report.get("error")
        if not isinstance(error, dict):
            return Failure("")
        texts = {key: str(error.get(key) or "") for key in ("code", "message", "hint", "where")}
        return Failure(**texts, detail=str(report.get("detail") or ""), final=True)

    async def _end_after_failure(self) -> None:
        """A worker that reported its failure goes by itself; one that does not is helped."""
        try:
            async with asyncio.timeout(5):
                await asyncio.shield(self.ended)
        except TimeoutError:
            await self.kill()

    async def _with_exit(self, failure: Failure) -> Failure:
        status = await asyncio.shield(self.ended)
        await self.kill()
        if failure.message:
            return failure
        return Failure(
            f"The worker {describe_exit(status)}.",
            hint="The end of its output says more; 'fieldpost deployment logs' shows all of it.",
            detail=self._tail_text(),
            final=status == EXIT_NOT_LOADED,
        )

    async def _finish(self) -> None:
        """Reads what is left of the output, without waiting for children that keep it open."""
        if self._orders is not None:
            os.close(self._orders)
            self._orders = None
        self._status.cancel()
        await asyncio.wait([self._status])
        await asyncio.wait([self._output], timeout=_OUTPUT_GRACE_S)
        self._output.cancel()
        await asyncio.wait([self._output])

    def _tail_text(self) -> str:
        return "\n".join(self._tail)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        status = self._process.wait()
        with contextlib.suppress(RuntimeError):  # the loop is gone: nobody waits any more
            loop.call_soon_threadsafe(self._set_ended, status)

    def _set_ended(self, status: int) -> None:
        if not self.ended.done():
            self.ended.set_result(status)

    async def _capture(self, descriptor: int) -> None:
        reader, transport = await _pipe_reader(descriptor)
        buffer = b""
        try:
            while chunk := await reader.read(_CHUNK_BYTES):
                *lines, buffer = (buffer + chunk).split(b"\n")
                if len(buffer) > _MAX_LINE_BYTES:
                    lines.append(buffer)
                    buffer = b""
                for line in lines:
                    self._emit(line)
        finally:
            transport.close()
            if buffer:
                self._emit(buffer)

    def _emit(self, line: bytes) -> None:
        for start in range(0, max(len(line), 1), _MAX_LINE_BYTES):
            text = line[start : start + _MAX_LINE_BYTES].decode("utf-8", "replace").rstrip("\r")
            self._tail.append(text)
            self._log(self.name, text)


def describe_exit(status: int) -> str:
    """A process's exit status in words: `ended with status 3`, `was killed by SIGKILL`."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        name = signal.Signals(-status).name
    except ValueError:
        name = f"signal {-status}"
    memory = " (out of memory?)" if -status == signal.SIGKILL else ""
    return f"was killed by {name}{memory}"


def _error_class(code: str) -> type[FieldpostError]:
    pending: list[type[FieldpostError]] = [FieldpostError]
    while pending:
        kind = pending.pop()
        if kind.code == code:
            return kind
        pending.extend(kind.__subclasses__())
    return DeploymentFailedError


async def _pipe_reader(descriptor: int) -> tuple[asyncio.StreamReader, asyncio.ReadTransport]:
    reader = asyncio.StreamReader(limit=_STATUS_BYTES)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    transport, _ = await asyncio.get_running_loop().connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), pipe
    )
    return reader, transport


async def _read_line(descriptor: int) -> bytes:
    """The first line of a pipe; empty where it ends, or is flooded, without one."""
    reader, transport = await _pipe_reader(descriptor)
    try:
        return await reader.readline()
    except ValueError:
        return b""
    finally:
        transport.close()
