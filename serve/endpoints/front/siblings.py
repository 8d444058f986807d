"""The workers of one front as others reach them: a folder with a socket for each."""

from __future__ import annotations

import asyncio
import os
import shutil
from pathlib import Path
from typing import Any

import msgspec

from scoring.errors import TargetError
from serve.endpoints.front.config import FrontConfig
from serve.endpoints.front.stats import Report
from serve.targets.local import control

_PREFIX = "worker-"
_TIMEOUT_S = 3.0


def name_of(slot: int) -> str:
    """The folder of a worker's socket: a successor's is beside that of the one that leaves."""
    return f"{_PREFIX}{slot}-{os.getpid()}"


def folders(folder: Path) -> list[Path]:
    """Those of all workers, also of dead ones."""
    return sorted(folder.glob(f"{_PREFIX}*"))


async def reports(folder: Path, *, without: Path | None = None) -> list[Report]:
    """What the workers have counted; those that do not answer are left out."""
    answers = await _ask_all(folder, {"op": "report"}, without)
    return [msgspec.json.decode(answer["report"], type=Report) for answer in answers.values()]


async def tell(folder: Path, config: FrontConfig) -> dict[str, int]:
    """Hands the traffic to all workers; the generation that each one follows then."""
    request = {"op": "traffic", "config": msgspec.to_builtins(config)}
    answers = await _ask_all(folder, request, None)
    return {name: int(answer["generation"]) for name, answer in answers.items()}


async def _ask_all(
    folder: Path, request: dict[str, Any], without: Path | None
) -> dict[str, dict[str, Any]]:
    places = [place for place in folders(folder) if place != without]
    answers = await asyncio.gather(*(_ask(place, request) for place in places))
    return {
        place.name: answer
        for place, answer in zip(places, answers, strict=True)
        if answer is not None
    }


async def _ask(place: Path, request: dict[str, Any]) -> dict[str, Any] | None:
    """The result of a request; None where nobody listens any more, or does not answer in time."""
    try:
        with control.socket_address(place) as address:
            reader, writer = await asyncio.open_unix_connection(
                address, limit=control.MAX_LINE_BYTES
            )
    except (FileNotFoundError, ConnectionRefusedError):
        _forget(place)
        return None
    except (OSError, TargetError):
        return None
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            writer.write(msgspec.json.encode(request) + b"\n")
            while line := await reader.readline():
                event = msgspec.json.decode(line, type=dict[str, Any])
                if event["event"] == "done":
                    return dict(event.get("result") or {})
                if event["event"] == "failed":
                    return None
    except (OSError, ValueError, TimeoutError):
        return None
    finally:
        writer.close()
    return None


def _forget(place: Path) -> None:
    """Removes what a killed worker has left."""
    pid = place.name.rpartition("-")[2]
    if pid.isdigit() and not Path(f"/proc/{pid}").exists():
        shutil.rmtree(place, ignore_errors=True)
