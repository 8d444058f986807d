"""Follows an endpoint's record: hands its traffic to the front's workers, and leads promotions.

The record is the wish; this makes it so, again and again, whatever was killed in between. It lives
in the process that supervises the front.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import FieldpostError, InUseError, NotFoundError
from serve.endpoints import promotion as promotions
from serve.endpoints import records
from serve.endpoints.front import siblings
from serve.endpoints.front.config import write_config
from serve.endpoints.front.stats import merged
from serve.endpoints.window import Window

if TYPE_CHECKING:
    from pathlib import Path

    from serve.endpoints.front.config import FrontConfig
    from serve.endpoints.promotion import Promotion
    from serve.registry import Registry
    from serve.registry.records import Endpoint
    from serve.targets.local.logs import LogWriter

FOLLOW_S = 2.0
"""How soon a change is followed that nobody told of, such as a deployment's new address."""

LEAD_S = 0.5
"""How often a promotion is looked at."""


class Conductor:
    """Keeps a front in step with its record.

    Args:
        folder: The endpoint's.
        location: What `Registry` takes.
        name: The endpoint.
        log: Takes what it does.
    """

    def __init__(self, folder: Path, location: str, name: str, log: LogWriter) -> None:
        self._folder = folder
        self._location = location
        self._name = name
        self._log = log
        self._turn = asyncio.Lock()
        self._told = asyncio.Event()
        self._registry: Registry | None = None
        self._written: FrontConfig | None = None
        self._record: Endpoint | None = None
        self._window = Window()
        self._window_of: tuple[float, int] | None = None
        self._complaint = ""

    async def run(self) -> None:
        """Follows the record until it is cancelled; nothing ends it else."""
        while True:
            leads = False
            try:
                await self.sync()
                leads = await self._lead()
                self._complaint = ""
            except NotFoundError:
                """It was deleted: whoever did that ends this process, too."""
            except (FieldpostError, OSError, msgspec.MsgspecError) as error:
                if str(error) != self._complaint:
                    self._complaint = str(error)
                    self._log.write("conductor", f"the endpoint cannot be followed: {error}")
            await self._rest(LEAD_S if leads else FOLLOW_S)

    async def _rest(self, seconds: float) -> None:
        """Waits, less where someone told of a change meanwhile."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._told.wait()
        self._told.clear()

    async def told(self) -> dict[str, Any]:
        """`sync`, for someone who has just changed the record."""
        self._told.set()
        return await self.sync()

    async def sync(self) -> dict[str, Any]:
        """Lets the workers follow the record as it is now.

        Returns:
            The record's generation, and the one that each worker follows.

        Raises:
            FieldpostError: The registry cannot be read, or the file of the front not written.
        """
        async with self._turn:
            config = await asyncio.to_thread(self._read)
            if config != self._written:
                write_config(self._folder, config)
                followed = await siblings.tell(self._folder, config)
                self._written = config
                weights = ", ".join(f"{n}={w}" for n, w in config.traffic.weights.items())
                self._log.write("conductor", f"generation {config.generation}: {weights}")
                return {"generation": config.generation, "followed": followed}
            return {"generation": config.generation, "followed": {}}

    async def report(self) -> dict[str, Any]:
        """What all workers have counted together."""
        found = merged(await siblings.reports(self._folder))
        return {"report": msgspec.json.encode(found).decode()}

    async def close(self) -> None:
        """Closes the registry."""
        if self._registry is not None:
            await asyncio.to_thread(self._registry.close)

    def _read(self) -> FrontConfig:
        registry = self._open()
        self._record = registry.endpoints.get(self._name)
        return records.config_of(registry, self._record)

    def _open(self) -> Registry:
        if self._registry is None:
            from serve.registry import Registry  # noqa: PLC0415 - workers never need it

            self._registry = Registry(self._location)
        return self._registry

    async def _lead(self) -> bool:
        """Takes a promotion one decision further; whether there is one under way."""
        record = self._record
        state = records.promotion_of(record) if record is not None else None
        if record is None or state is None or state.phase != "running":
            self._window_of = None
            return False
        reports = await siblings.reports(self._folder)
        now = time.monotonic()
        if self._window_of != (state.since, state.step):
            self._window.reset(reports)
            self._window_of = (state.since, state.step)
        self._window.add(reports, now)
        decided = promotions.decide(state, *self._seen(state, now), time.time())
        if decided != state:
            await self._follow(record, decided)
        return decided.phase == "running"

    def _seen(self, state: Promotion, now: float) -> tuple[promotions.Seen, promotions.Seen]:
        to = state.plan.to
        others = [name for name in state.before.weights if name != to]
        return self._window.seen([to], now), self._window.seen(others, now)

    async def _follow(self, record: Endpoint, decided: Promotion) -> None:
        def write() -> None:
            records.change(self._open(), record, promotions.traffic(decided), decided)

        with contextlib.suppress(InUseError):  # a user was faster: what they say counts
            await asyncio.to_thread(write)
            self._log.write("conductor", decided.events[-1].text)
        await self.sync()
