"""How a worker process is started, and what it is given: the worker's contract as it is written."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

METRICS_VARIABLE = "FIELDPOST_SERVER_METRICS_DIR"
"""Where the workers of one server share their counters: a folder that outlives each of them."""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """How a worker is started.

    Attributes:
        command: The command line; its first element is the interpreter.
        env: The whole environment, without the variables of the contract.
        cwd: The folder it starts in.
    """

    command: Sequence[str]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path | None = None


@dataclass(frozen=True, slots=True)
class Place:
    """What every worker that fills one place of a pool is given.

    Attributes:
        slot: Its number, from 0.
        count: How many places there are.
        listeners: Descriptors of the sockets that it accepts from, owned by the supervisor.
        spares: Those of other places, to accept from when it is told to.
        lifeline: The read end of a pipe that ends with the supervisor.
        gate: The read end of a pipe that ends when the workers may accept connections.
    """

    slot: int
    count: int
    listeners: tuple[int, ...]
    spares: tuple[int, ...]
    lifeline: int
    gate: int

    @property
    def name(self) -> str:
        """How the log calls it."""
        return f"w{self.slot}"


class Pipes:
    """The pipes between a worker and its supervisor, both ends.

    Attributes:
        status: Where the worker says that it is ready, or why not.
        output: What it prints.
        orders: Tells it from which of its spares to accept; never waits.
    """

    def __init__(self) -> None:
        self.status, self.status_write = os.pipe()
        self.output, self.output_write = os.pipe()
        self.orders_read, self.orders = os.pipe()
        os.set_blocking(self.orders, False)

    def close_ours(self) -> None:
        """Closes the supervisor's ends."""
        for descriptor in (self.status, self.output, self.orders):
            os.close(descriptor)

    def close_theirs(self) -> None:
        """Closes the worker's ends, once it has inherited them."""
        for descriptor in (self.status_write, self.output_write, self.orders_read):
            os.close(descriptor)


def spawn(spec: WorkerSpec, place: Place, pipes: Pipes) -> subprocess.Popen[bytes]:
    """Starts a worker in a session of its own.

    Raises:
        OSError: The interpreter cannot be started.
    """
    fds = {
        "LISTEN_FD": place.listeners,
        "SPARE_FD": place.spares,
        "COVER_FD": (pipes.orders_read,),
        "STATUS_FD": (pipes.status_write,),
        "LIFELINE_FD": (place.lifeline,),
        "GATE_FD": (place.gate,),
    }
    numbers = {"WORKER_SLOT": (place.slot,), "WORKER_COUNT": (place.count,)}
    contract = {
        f"FIELDPOST_{name}": ",".join(map(str, values)) for name, values in (fds | numbers).items()
    }
    return subprocess.Popen(  # noqa: S603 - the command is ours, never a shell's
        list(spec.command),
        stdin=subprocess.DEVNULL,
        stdout=pipes.output_write,
        stderr=pipes.output_write,
        env={**spec.env, **contract},
        cwd=spec.cwd,
        pass_fds=[fd for each in fds.values() for fd in each],
        start_new_session=True,
    )
