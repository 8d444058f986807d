"""The desk behind a control socket: requests are carried out, with their progress told on the way.

See `serve.targets.local.control` for what is said. A request goes on if its client does not.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import FieldpostError
from serve.targets.local import control
from serve.targets.local.launch import error_document

if TYPE_CHECKING:
    import socket

Handler = Callable[[dict[str, Any], Callable[[str], None]], Awaitable[Any]]
"""Carries out one request; takes what tells progress; answers plain values."""

HEARTBEAT_S = 5.0

_REQUEST_TIMEOUT_S = 10.0
_LAST_WORDS_S = 2.0


@contextlib.asynccontextmanager
async def open_desk(server: socket.socket, handle: Handler) -> AsyncIterator[None]:
    """Answers on the socket within the block; at its end, what has begun may still be told.

    Args:
        server: From `control.listen`; it is closed at the end.
        handle: See `Handler`.
    """
    conversations: set[asyncio.Task[None]] = set()

    def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(_serve(handle, reader, writer))
        conversations.add(task)
        task.add_done_callback(conversations.discard)

    desk = await asyncio.start_unix_server(converse, sock=server, limit=control.MAX_LINE_BYTES)
    try:
        yield
    finally:
        desk.close()
        if conversations:
            await asyncio.wait(conversations, timeout=_LAST_WORDS_S)


async def _serve(
    handle: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
) -> None:
    """One connection: a request, its progress, its end. It goes on if the client does not."""

    def tell(event: dict[str, Any]) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            writer.write(msgspec.json.encode(event) + b"\n")

    try:
        async with asyncio.timeout(_REQUEST_TIMEOUT_S):
            line = await reader.readline()
        if not line:
            return  # someone who looked whether we are here
        tell(await _answer(handle, msgspec.json.decode(line, type=dict[str, Any]), tell))
        await writer.drain()
    except (TimeoutError, OSError, ValueError, msgspec.DecodeError) as error:
        tell({"event": "failed", "error": error_document(error)})
    finally:
        writer.close()


async def _answer(
    handle: Handler, request: dict[str, Any], tell: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    def progress(text: str) -> None:
        tell({"event": "progress", "text": text})

    # A task of its own: a launch that `stop` cancels still gets its answer.
    work = asyncio.ensure_future(handle(request, progress))
    while not (await asyncio.wait([work], timeout=HEARTBEAT_S))[0]:
        progress("")
    if work.cancelled():
        error = {"code": "target", "message": "The deployment was stopped meanwhile."}
        return {"event": "failed", "error": error}
    failure = work.exception()
    if failure is None:
        return {"event": "done", "result": work.result()}
    detail = failure.detail if isinstance(failure, FieldpostError) else ""
    return {"event": "failed", "error": error_document(failure), "detail": detail}
