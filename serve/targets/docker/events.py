"""What a front has told of its workers, read from its log. Pure.

A line is `TIME {"front": "r3/w0", "state": "ready"}`; an empty name means the front itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


class Told(msgspec.Struct, frozen=True):
    """What is known of a worker.

    Attributes:
        joined: It is connected to the front.
        ready: Its model is loaded.
        opened: It may accept connections.
        error: Why it last failed to load: an error's document.
        detail: The traceback that belongs to it.
    """

    joined: bool = False
    ready: bool = False
    opened: bool = False
    error: dict[str, Any] | None = None
    detail: str = ""

    @property
    def answers(self) -> bool:
        """Whether it takes requests."""
        return self.ready and self.opened


class _Event(msgspec.Struct):
    front: str
    state: str
    error: dict[str, Any] | None = None
    detail: str = ""


def read(lines: Iterable[str]) -> dict[str, Told]:
    """The workers by their names, as the last lines leave them."""
    known: dict[str, Told] = {}
    for line in lines:
        event = _parse(line)
        if event is None:
            continue
        if not event.front:  # it has started anew: nobody has joined yet
            known = {name: msgspec.structs.replace(told, **_LEFT) for name, told in known.items()}
        else:
            known[event.front] = _after(known.get(event.front, Told()), event)
    return known


_LEFT: dict[str, Any] = {"joined": False, "ready": False, "opened": False}


def _after(told: Told, event: _Event) -> Told:
    if event.state == "joined":
        return Told(joined=True)
    if event.state == "gone":
        return msgspec.structs.replace(told, **_LEFT)
    if event.state == "failed":
        return msgspec.structs.replace(told, error=event.error or {}, detail=event.detail)
    if event.state in ("ready", "opened"):
        return msgspec.structs.replace(told, **{event.state: True})
    return told


def _parse(line: str) -> _Event | None:
    begin = line.find('{"front":')
    if begin < 0:
        return None
    try:
        return msgspec.json.decode(line[begin:], type=_Event)
    except (msgspec.DecodeError, msgspec.ValidationError):
        return None
