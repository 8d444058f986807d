"""What a controller may have done now: restart, logs, report; shell where the device allows it.

A command is done once, however often it comes: its key stands in the journal before it is begun,
and the answer is given again. Nothing is begun after its deadline (see `DeviceTrust`).
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Final, Protocol

import msgspec

from edge.agent.logs import ModuleLog
from edge.agent.supervisor import failure_of
from edge.protocol import messages
from edge.protocol.messages import Command, CommandResult, Failure
from edge.protocol.names import is_name
from scoring import digest as digests
from scoring.errors import FieldpostError, ForbiddenError, NotFoundError, UsageError

MOST_KEPT: Final = 64
_PREFIX: Final = "cmd."
_PART: Final = 32 * 1024
_MOST_OUTPUT: Final = 256 * 1024
_MOST_KEPT_OUTPUT: Final = 4096
_SHELL_S: Final = 60.0
_KEPT_S: Final = 86_400.0
"""For so long after its deadline the key of a command is known: people give it again, too."""


class Notes(Protocol):
    """Where the keys of commands are kept: the journal."""

    def note(self, key: str) -> str | None:
        """The text kept under a key."""
        ...

    def set_note(self, key: str, text: str) -> None:
        """Keeps a text under a key."""
        ...

    def drop_note(self, key: str) -> None:
        """Forgets it."""
        ...

    def notes(self, prefix: str) -> dict[str, str]:
        """All with keys that begin so."""
        ...


class Done(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the journal keeps of a command.

    Attributes:
        deadline: Until then it may come again.
        over: Whether it was carried out to its end.
        ok: Whether it was done.
        output: The end of what it said.
        failure: Why it was not done.
    """

    deadline: float
    over: bool = False
    ok: bool = False
    output: str = ""
    failure: Failure | None = None


class Device(Protocol):
    """What commands act on."""

    def modules(self) -> list[str]:
        """The names of what it runs, or is to run."""
        ...

    def restart(self, module: str) -> bool:
        """Starts a module anew; whether there is one of that name."""
        ...

    def log(self, module: str) -> ModuleLog:
        """What a module prints."""
        ...

    def report(self) -> None:
        """Has a report sent now."""
        ...


class Commands:
    """Carries out commands.

    Args:
        device: What they act on.
        notes: Where their keys are kept.
        name: Of the device.
        shell: Whether `shell` is allowed.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        device: Device,
        notes: Notes,
        name: str,
        *,
        shell: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._device, self._notes, self._name = device, notes, name
        self._shell, self._clock = shell, clock

    def carry_out(self, command: Command) -> list[CommandResult]:
        """Does what is asked for, unless it was done before; the answer, in parts.

        Args:
            command: Checked, and within its deadline.

        Raises:
            WorkspaceError: Its key cannot be kept: nothing was begun.
        """
        key = _PREFIX + digests.parse(digests.of_bytes(command.key.encode()))
        known = _read(self._notes.note(key))
        if known is None:
            self._forget()
            self._notes.set_note(key, _text(Done(deadline=command.deadline)))
            known = self._done(command)
            kept = msgspec.structs.replace(known, output=known.output[-_MOST_KEPT_OUTPUT:])
            self._notes.set_note(key, _text(kept))
        elif not known.over:
            text = "The agent ended while it was at this, and does not begin it again."
            known = Done(
                deadline=known.deadline, failure=Failure(code="deployment_failed", message=text)
            )
        return list(self._results(command, known))

    def _done(self, command: Command) -> Done:
        try:
            if command.verb == "shell":
                return self._run(command)
            output = self._act(command)
        except FieldpostError as error:
            return Done(deadline=command.deadline, over=True, failure=failure_of(error))
        return Done(deadline=command.deadline, over=True, ok=True, output=output)

    def _act(self, command: Command) -> str:
        match command.verb:
            case "restart":
                return self._restart(command)
            case "logs":
                return self._logs(self._named(command), _bytes(command), _lines(command))
            case "report":
                self._device.report()
                return ""
            case other:
                raise UsageError(
                    f"This agent knows no command {other[:64]!a}.",
                    hint="It knows restart, logs, report and shell.",
                )

    def _named(self, command: Command) -> list[str]:
        """The module that it names, or all of the device."""
        if "module" in command.arguments:
            return [_module(command)]
        found = self._device.modules()
        if not found:
            raise NotFoundError("No module runs here.")
        return found

    def _logs(self, names: list[str], most_bytes: int, most_lines: int) -> str:
        """The ends of logs, one after another; each under its name where there are several."""
        found = []
        for name in names:
            lines = self._device.log(name).tail(most_bytes // len(names)).splitlines(keepends=True)
            if not lines and name not in self._device.modules():
                raise _no_module(name)
            text = "".join(lines[-most_lines:])
            found.append(text if len(names) == 1 else f"== {name}\n{text}")
        return "".join(found)

    def _restart(self, command: Command) -> str:
        """Starts anew the module that it names, or all that run: one may have been stopped."""
        names = self._named(command)
        done = [name for name in names if self._device.restart(name)]
        if not done:
            raise _no_module(", ".join(names))
        return "\n".join(f"{name} is started anew" for name in done)

    def _run(self, command: Command) -> Done:
        if not self._shell:
            raise ForbiddenError(
                "This device lets nobody run programs.",
                hint="Whoever has the device may say 'shell = true' in its agent.toml.",
            )
        line = command.arguments.get("command")
        if not isinstance(line, list) or not line or not all(isinstance(x, str) for x in line):
            raise UsageError("The command 'shell' needs a list: the program and its arguments.")
        try:
            found = subprocess.run(  # noqa: S603 - what its owner has allowed
                line,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_SHELL_S,
                check=False,
            )
        except (OSError, ValueError, subprocess.TimeoutExpired) as error:
            raise UsageError(f"The program cannot be run: {error}.") from error
        output, status = found.stdout[-_MOST_OUTPUT:].decode(errors="replace"), found.returncode
        made = Done(deadline=command.deadline, over=True, ok=status == 0, output=output)
        if made.ok:
            return made
        why = Failure(code="deployment_failed", message=f"The program ended with status {status}.")
        return msgspec.structs.replace(made, failure=why)

    def _results(self, command: Command, done: Done) -> Iterator[CommandResult]:
        parts = [done.output[i : i + _PART] for i in range(0, len(done.output), _PART)] or [""]
        for number, part in enumerate(parts):
            yield CommandResult(
                device=self._name,
                id=command.id,
                part=number,
                parts=len(parts),
                ok=done.ok,
                output=part,
                failure=done.failure,
            )

    def _forget(self) -> None:
        """Drops the keys of commands of long ago, and the oldest of too many."""
        kept: list[tuple[float, str]] = []
        for key, text in self._notes.notes(_PREFIX).items():
            done = _read(text)
            if done is None or done.deadline + _KEPT_S < self._clock():
                self._notes.drop_note(key)
            else:
                kept.append((done.deadline, key))
        for _, key in sorted(kept)[: max(0, len(kept) - MOST_KEPT)]:
            self._notes.drop_note(key)


def encode(result: CommandResult) -> bytes:
    """A part of an answer, cut where escapes make it too large for a message."""
    output = result.output
    while True:
        try:
            return messages.encode(msgspec.structs.replace(result, output=output))
        except FieldpostError:
            output = output[len(output) // 2 :]


def _no_module(name: str) -> NotFoundError:
    return NotFoundError(f"No module {name} runs here.")


def _module(command: Command) -> str:
    name = command.arguments.get("module")
    if not isinstance(name, str) or not is_name(name):
        raise UsageError(f"The command {command.verb} needs the name of a module.")
    return name


def _bytes(command: Command) -> int:
    wanted = command.arguments.get("bytes", 64 * 1024)
    if not isinstance(wanted, int) or wanted < 1:
        raise UsageError("The command logs takes 'bytes', a number.")
    return min(wanted, _MOST_OUTPUT)


def _lines(command: Command) -> int:
    wanted = command.arguments.get("tail", _MOST_OUTPUT)
    if not isinstance(wanted, int) or wanted < 1:
        raise UsageError("The command logs takes 'tail', a number of lines.")
    return wanted


def _text(done: Done) -> str:
    return msgspec.json.encode(done).decode()


def _read(text: str | None) -> Done | None:
    try:
        return msgspec.json.decode(text, type=Done) if text else None
    except (msgspec.DecodeError, ValueError):
        return None
