"""What a supervisor hands to a worker: the contract that every server here understands."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from scoring.errors import UsageError

_PLACE_DIGITS = 5


@dataclass(frozen=True, slots=True)
class Contract:
    """What a supervisor hands to a worker (docs/explanation/architecture.md); None: absent.

    Attributes:
        listen_fd: Listening sockets to accept from, which stay the supervisor's.
        spare_fd: Those of other workers, to accept from while their worker is absent.
        cover_fd: The read end of a pipe of lines: the numbers of the spares to accept from now.
        status_fd: The write end of a pipe for one line of JSON: ready, or why not.
        lifeline_fd: The read end of a pipe; at its end the worker drains and goes.
        gate_fd: The read end of a pipe; at its end a ready worker begins to accept.
        worker_slot: The worker's place among its siblings, from 0.
        worker_count: How many places there are.
    """

    listen_fd: tuple[int, ...] = ()
    spare_fd: tuple[int, ...] = ()
    cover_fd: int | None = None
    status_fd: int | None = None
    lifeline_fd: int | None = None
    gate_fd: int | None = None
    worker_slot: int = 0
    worker_count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.worker_slot < self.worker_count:
            raise UsageError(
                f"There is no worker {self.worker_slot} of {self.worker_count}.",
                hint="Workers count from 0.",
                where="FIELDPOST_WORKER_SLOT",
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Contract:
        """Reads `FIELDPOST_LISTEN_FD` and its siblings.

        Raises:
            UsageError: One is not what it should be: the number of an open descriptor, a place.
        """
        given: dict[str, Any] = {}
        for field in fields(cls):
            text = environment.get(_variable(field.name), "")
            if text:
                given[field.name] = _read(field.name, text, many=field.default == ())
        return cls(**given)

    @classmethod
    def variables(cls) -> list[str]:
        """The names of the variables."""
        return [_variable(field.name) for field in fields(cls)]


def _variable(name: str) -> str:
    return f"FIELDPOST_{name.upper()}"


def _read(name: str, text: str, *, many: bool) -> int | tuple[int, ...]:
    if many:
        return tuple(_descriptor(name, part) for part in text.split(","))
    return _descriptor(name, text) if name.endswith("_fd") else _place(name, text)


def _place(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < _PLACE_DIGITS):
        variable = _variable(name)
        raise UsageError(f"{variable} is {text!r}, not a number of workers.", where=variable)
    return int(text)


def _descriptor(name: str, text: str) -> int:
    variable = _variable(name)
    try:
        number = int(text)
        os.fstat(number)
    except (ValueError, OverflowError, OSError) as error:
        raise UsageError(
            f"{variable} is {text!r}, which is no open descriptor.", where=variable
        ) from error
    return number
