"""Replaces workers that hold too much memory, one at a time, while they answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from serve.server.child import LogSink, Worker, WorkerDiedError
from serve.server.footprint import MIB, Leash, held_bytes, is_known

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve.server.restarts import Limits
    from serve.server.slots import Slot


class MemoryWatch:
    """Looks at the memory of a pool's workers now and then.

    Args:
        slots: The places of the pool.
        limits: With `worker_max_mib` set.
        log: Takes what is done, and why.
    """

    def __init__(self, slots: Sequence[Slot], limits: Limits, log: LogSink) -> None:
        self._leashes = [(slot, Leash(limits)) for slot in slots]
        self._limits = limits
        self._log = log

    async def run(self) -> None:
        """Looks, and replaces, until it is cancelled."""
        if not is_known():
            self._log("pool", "worker_max_mib has no effect: this system does not tell the memory")
            return
        while True:
            await asyncio.sleep(self._limits.memory_look_s)
            for slot, leash in self._leashes:
                if slot.answers and slot.worker is not None:
                    await self._look(slot, slot.worker, leash)

    async def _look(self, slot: Slot, worker: Worker, leash: Leash) -> None:
        used = await asyncio.to_thread(held_bytes, worker.pid)
        verdict = leash.judge(worker.ready_at, used)
        if verdict == "too_soon":
            self._say(
                slot,
                used,
                f"so soon after its start; it is replaced when it is {leash.pause_s:g} s old. "
                "Raise worker_max_mib if the model needs as much",
            )
        elif verdict == "replace":
            self._say(slot, used, "a new one is started")
            await self._replace(slot, worker, leash)

    async def _replace(self, slot: Slot, worker: Worker, leash: Leash) -> None:
        patience_s = self._limits.drain_timeout_s + self._limits.leave_s
        try:
            successor = await slot.replace(patience_s)
        except WorkerDiedError as error:
            leash.lengthen()
            self._log("pool", f"{slot.name} goes on, the new one failed: {error.failure.message}")
            return
        if successor is not None:
            self._log(
                "pool",
                f"{slot.name}: process {worker.pid} has left, {successor.pid} is in its place",
            )

    def _say(self, slot: Slot, used: int, then: str) -> None:
        limit = self._limits.worker_max_mib
        self._log(
            "pool",
            f"{slot.name} holds {used / MIB:.0f} MiB, more than worker_max_mib = {limit}: {then}",
        )
