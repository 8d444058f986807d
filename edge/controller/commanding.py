"""Commands on their way to devices, and their answers, part by part."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Protocol

import msgspec

from edge.controller.entities import CommandRecord, CommandState, Device
from edge.protocol.messages import Command, CommandResult, Failure
from scoring.errors import FieldpostError

GRACE_S: Final = 10.0
"""An answer may come so long after the deadline: that is for the beginning."""

MOST_PARTS: Final = 256
MOST_OUTPUT: Final = 8 * 1024 * 1024


class Signer(Protocol):
    """Signs commands."""

    def sign(self, message: Command) -> bytes:
        """The envelope of a message; raises PayloadTooLargeError."""
        ...


class Commanding:
    """The commands that nobody has answered yet.

    Args:
        signer: Signs them.
    """

    def __init__(self, signer: Signer) -> None:
        self._signer = signer
        self._open: dict[str, CommandRecord] = {}
        self._changed: dict[str, CommandRecord] = {}
        self._parts: dict[str, dict[int, str]] = {}

    def take(self, commands: dict[str, CommandRecord]) -> None:
        """Begins anew with what the records have, but for what was answered meanwhile.

        What was to be sent and is not in the records was not sent either: it is sent now.
        """
        self._changed = {name: one for name, one in self._changed.items() if one.state != "sent"}
        self._open = {name: one for name, one in commands.items() if name not in self._changed}
        self._parts = {name: one for name, one in self._parts.items() if name in self._open}

    def waiting(self) -> set[str]:
        """The devices for which something was not sent yet."""
        return {one.device for one in self._open.values() if one.state == "waiting"}

    def due(self, device: Device, now: float) -> Iterator[bytes]:
        """What to send to a device that is there: it does the same command once."""
        for one in list(self._open.values()):
            if one.device != device.name or now >= one.deadline:
                continue
            command = Command(
                site=device.site,
                device=device.name,
                id=one.id,
                key=one.key,
                deadline=one.deadline,
                verb=one.verb,
                arguments=one.arguments,
            )
            try:
                payload = self._signer.sign(command)
            except FieldpostError as error:
                self._end(one, "failed", failure=Failure(code=error.code, message=error.message))
                continue
            if one.state == "waiting":
                self._set(one, "sent")
            yield payload

    def answer(self, result: CommandResult) -> None:
        """Takes a part of an answer; the command is over with the last."""
        one = self._open.get(result.id)
        if one is None or one.device != result.device or result.part >= result.parts:
            return
        parts = self._parts.setdefault(one.id, {})
        parts[result.part] = result.output
        size = sum(map(len, parts.values()))
        if result.parts > MOST_PARTS or size > MOST_OUTPUT:
            text = f"The answer is longer than {MOST_OUTPUT} characters."
            self._end(one, "failed", failure=Failure(code="payload_too_large", message=text))
        elif len(parts) == result.parts:
            output = "".join(parts[number] for number in sorted(parts))
            state: CommandState = "done" if result.ok else "failed"
            self._end(one, state, output=output, failure=result.failure)

    def expire(self, now: float) -> None:
        """Gives up commands whose deadline is over."""
        for one in list(self._open.values()):
            if now > one.deadline + (GRACE_S if one.state == "sent" else 0):
                what = "did not answer" if one.state == "sent" else "was not there"
                text = f"The device {what} before the deadline."
                self._end(one, "expired", failure=Failure(code="deadline_exceeded", message=text))

    def _set(self, one: CommandRecord, state: CommandState, **values: object) -> CommandRecord:
        made = msgspec.structs.replace(one, state=state, **values)
        self._open[one.id] = self._changed[one.id] = made
        return made

    def _end(self, one: CommandRecord, state: CommandState, **values: object) -> None:
        self._set(one, state, **values)
        del self._open[one.id]
        self._parts.pop(one.id, None)

    def changed(self) -> list[CommandRecord]:
        """What is to be written."""
        return list(self._changed.values())

    def written(self) -> None:
        """It was."""
        self._changed.clear()
