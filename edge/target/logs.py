"""The log of a fleet's deployment: what happened, and what its module prints on devices."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from edge.controller.entities import CommandRecord, Event
from edge.controller.records import Fleet
from scoring.errors import NotFoundError

MOST_DEVICES: Final = 16
"""Whose logs are fetched: of a large fleet, 'fieldpost device logs NAME' asks one."""

_PATIENCE_S: Final = 15.0
_POLL_S: Final = 0.5
_MOST_EVENTS: Final = 20_000
_LINES: Final = 100


def read(fleet: Fleet, name: str, module: str, follow: bool, tail: int | None) -> Iterator[str]:
    """Lines `TIME TEXT` of what happened, then `DEVICE| TEXT` of what devices have printed.

    Args:
        fleet: The records.
        name: Of the deployment.
        module: On the devices.
        follow: Go on with what happens.
        tail: How many lines of each.
    """
    found = [one for one in fleet.events(most=_MOST_EVENTS) if _is_about(one, name)]
    last = max((one.number for one in fleet.events(most=1)), default=0)
    yield from map(_line, found if tail is None else found[len(found) - min(tail, len(found)) :])
    if tail != 0:
        yield from _printed(fleet, name, module, tail or _LINES)
    while follow:
        time.sleep(_POLL_S)
        for one in fleet.events(after=last):
            last = one.number
            if _is_about(one, name):
                yield _line(one)


def _is_about(event: Event, name: str) -> bool:
    return event.kind == "rollout" and event.subject.partition(":")[0] == name


def _line(event: Event) -> str:
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event.at))
    return f"{at} {event.subject} {event.text}"


def _printed(fleet: Fleet, name: str, module: str, tail: int) -> Iterator[str]:
    """What devices that are there have printed; who does not answer in time is left out."""
    asked = [
        fleet.request(device, "logs", {"module": module, "tail": tail}, timeout_s=_PATIENCE_S)
        for device in _online(fleet, name)
    ]
    until = time.monotonic() + _PATIENCE_S
    for one in asked:
        done = _answered(fleet, one, until)
        if done.state == "done":
            yield from (f"{done.device}| {line}" for line in done.output.splitlines())
        else:
            why = done.failure.message if done.failure else "It does not answer."
            yield f"{done.device}| ({why})"


def _online(fleet: Fleet, name: str) -> list[str]:
    try:
        condition = fleet.revision(name).condition
    except NotFoundError:
        return []
    return [one.name for one in fleet.devices(condition) if one.online][:MOST_DEVICES]


def _answered(fleet: Fleet, asked: CommandRecord, until: float) -> CommandRecord:
    while (now := fleet.command(asked.id)).state in {"waiting", "sent"}:
        if time.monotonic() > until:
            return now
        time.sleep(_POLL_S)
    return now
