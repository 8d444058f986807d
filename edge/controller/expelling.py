"""Ends the connections of devices whose certificates are revoked.

A broker looks at the list of revoked certificates when somebody connects, and never again. But it
has one connection under a client's name: whoever takes that name over ends it. With the fleet's own
broker the name is that of the certificate, so that the controller makes one for a minute. A device
that comes back is refused, once the broker has read the newer list; until then it is put out again.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from edge.controller.records import Fleet

logger = logging.getLogger(__name__)

LOOK_S: Final = 5.0
_MOST_AT_ONCE: Final = 20


class Revocations(Protocol):
    """Who was let in, and is not any more: `Enrolment` of `edge.security`."""

    def revoked(self) -> Iterable[Certificate]:
        """The certificates that are revoked and not yet over."""
        ...

    def certificates(self, device: str = "") -> Iterable[Certificate]:
        """All certificates of a device."""
        ...


class Certificate(Protocol):
    """What is asked of one."""

    @property
    def device(self) -> str:
        """Whose."""
        ...

    @property
    def expires_at(self) -> float:
        """Seconds since the epoch."""
        ...

    @property
    def revoked_at(self) -> float | None:
        """None for a good one."""
        ...


class Expeller:
    """A chore of the controller that leads.

    Args:
        fleet: The records.
        revocations: Who is not let in any more.
        put_out: Ends the connection of a device, by its site and name; whether it could be done.
    """

    def __init__(
        self, fleet: Fleet, revocations: Revocations, put_out: Callable[[str, str], bool]
    ) -> None:
        self._fleet, self._revocations, self._put_out = fleet, revocations, put_out

    def __call__(self) -> list[str]:
        """Puts out who is there and may not be; returns whom."""
        names = {one.device for one in self._revocations.revoked()}
        gone = [name for name in sorted(names) if not self._has_good(name)]
        if not gone:
            return []
        online = {one.name: one.site for one in self._fleet.devices() if one.online}
        out = []
        for name in [name for name in gone if name in online][:_MOST_AT_ONCE]:
            if self._put_out(online[name], name):
                logger.warning("device put out device=%s reason=revoked", name)
                out.append(name)
        return out

    def _has_good(self, device: str) -> bool:
        """Whether it was let in again with another certificate."""
        now = self._fleet.clock()
        return any(
            one.revoked_at is None and one.expires_at > now
            for one in self._revocations.certificates(device)
        )
