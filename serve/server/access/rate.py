"""How often one may ask: a token bucket for each sender, shared by the workers of a server.

A bucket is one number, the time at which it will be full again (the generic cell rate algorithm):
one double in shared memory, read and written in one piece each. Two workers that write in the same
moment may let one request too many pass; that needs no lock and is what a limit can bear. A bucket
that is full holds no information, so its slot is free for another sender, and memory is bounded.
"""

from __future__ import annotations

import math
import mmap
import os
from hashlib import blake2b
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Self

from scoring.errors import RateLimitedError

if TYPE_CHECKING:
    from serve.server.settings import ServerSettings

_WORD = 8
_PROBES = 8
_IPV6_NETWORK = 64
# Of one request's interval: what sums of doubles may be off by.
_SLACK = 0.001


class Table:
    """The slots of all buckets.

    Args:
        path: A file that the workers of one server share; None for this process alone.
        slots: How many senders are counted at once. Where more ask at the same time, the one that
            is nearest to its full rate is forgotten.

    Attributes:
        owners: For each slot, whose it is: a hash of the sender.
        full_at: For each slot, when its bucket is full again, in monotonic seconds.
    """

    def __init__(self, path: Path | None = None, slots: int = 1 << 16) -> None:
        self._memory = _map(path, slots * 2 * _WORD)
        view = memoryview(self._memory)
        self.owners = view[: slots * _WORD].cast("Q")
        self.full_at = view[slots * _WORD :].cast("d")
        self._slots = slots

    def slot(self, owner: int, now: float) -> int:
        """The slot of a sender, claimed where it has none."""
        first = owner % self._slots
        probes = [(first + step) % self._slots for step in range(_PROBES)]
        for slot in probes:
            if self.owners[slot] == owner:
                return slot
        claimed = min(probes, key=lambda slot: max(self.full_at[slot], now))
        self.full_at[claimed] = 0.0
        self.owners[claimed] = owner
        return claimed


def _map(path: Path | None, size: int) -> mmap.mmap:
    if path is None:
        return mmap.mmap(-1, size)
    # The first of a server's workers comes before anything else has made their folder.
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(descriptor, size)
        return mmap.mmap(descriptor, size)
    finally:
        os.close(descriptor)


class Bucket:
    """The requests of one sender.

    Args:
        table: Where it is kept.
        sender: Whose it is.
        rate: Requests a second, in the long run.
        burst: Requests that may come at once.
    """

    __slots__ = ("_interval_s", "_most_s", "_owner", "_rate", "_slot", "_table", "_tolerance_s")

    def __init__(self, table: Table, sender: str, rate: float, burst: int) -> None:
        digest = blake2b(sender.encode("utf-8", "surrogateescape"), digest_size=_WORD).digest()
        self._owner = int.from_bytes(digest, "big") | 1  # 0 is nobody's
        self._table = table
        self._rate = rate
        self._interval_s = 1 / rate
        self._tolerance_s = (burst - 1 + _SLACK) * self._interval_s
        self._most_s = (burst + 1) * self._interval_s
        self._slot = 0

    def take(self) -> None:
        """Counts one request.

        Raises:
            RateLimitedError: It comes too early; says when it may be tried again.
        """
        wait_s = self.try_take(monotonic())
        if wait_s > 0:
            raise self._limited(wait_s)

    def try_take(self, now: float) -> float:
        """Counts one request at a time; 0, or the seconds until there is room for it."""
        table, slot = self._table, self._slot
        if table.owners[slot] != self._owner:
            slot = self._slot = table.slot(self._owner, now)
        full_at = table.full_at[slot]
        # Later than possible: of another rate, or of a machine's life before this one.
        if full_at < now or full_at - now > self._most_s:
            full_at = now
        wait_s = full_at - now - self._tolerance_s
        if wait_s > 0:
            return wait_s
        table.full_at[slot] = full_at + self._interval_s
        return 0.0

    def _limited(self, wait_s: float) -> RateLimitedError:
        error = RateLimitedError(
            f"More than {self._rate:g} requests a second.",
            hint=f"Try again in {math.ceil(wait_s)} s, and send more rows in one request.",
        )
        error.retry_after_s = max(1, math.ceil(wait_s))
        return error


class Limits:
    """The buckets of all senders.

    Args:
        table: Where they are.
        rate: Requests a second of one that has no rate of its own; 0 for no limit.
        burst: Requests that may come at once.
    """

    def __init__(self, table: Table, rate: float, burst: int) -> None:
        self._table = table
        self._rate = rate
        self._burst = burst

    @classmethod
    def from_settings(cls, settings: ServerSettings) -> Self:
        """The limits of a server, shared with its other workers where it has some."""
        folder = settings.metrics_dir
        table = Table(Path(folder) / "rates" if folder else None)
        return cls(table, settings.rate_limit, settings.rate_burst)

    def bucket(
        self, sender: str, rate: float | None = None, burst: int | None = None
    ) -> Bucket | None:
        """The bucket of a sender; None where nothing limits it."""
        rate = self._rate if rate is None else rate
        return Bucket(self._table, sender, rate, burst or self._burst) if rate > 0 else None


def sender_of(address: str) -> str:
    """What the requests of an address are counted under: itself, or its network in IPv6.

    There each customer has at least a /64, and could take a new address for every request.
    """
    if ":" not in address:
        return f"ip:{address}"
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return f"ip:{address}"
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return f"ip:{parsed.ipv4_mapped}"
        return f"ip6:{int(parsed) >> _IPV6_NETWORK:x}"
    return f"ip:{parsed}"
