"""What happens to the agent's state machine (events), and what it asks for (effects).

Whoever carries out the effects keeps to this:

- The state is in the journal before any effect of it is begun.
- Effects of one module are carried out one after another; those of others may run beside them.
- Every effect can be asked for again after a restart: it finds what is done already.
- `Fetch`, `Verify`, `Stage`, `Probe`, `Switch`, `Revert` and `Stop` are answered by one `Done` or
  `Failed` with the same attempt; `Measure` by `Measured` or `Failed`. Late answers do no harm.
- `Tick` comes at least once a second while anything is on its way.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from edge.agent.windows import Local
from edge.protocol.messages import Desired, Failure, Module, Phase, Source


class Moment(NamedTuple):
    """Now.

    Attributes:
        steady: Seconds of a clock that is never set (`time.monotonic`).
        local: What the wall clock shows.
    """

    steady: float
    local: Local


# -- events


class Boot(msgspec.Struct, frozen=True):
    """The agent has begun; the first event."""


class Tick(msgspec.Struct, frozen=True):
    """Time has passed."""


class Wanted(msgspec.Struct, frozen=True):
    """A desired state whose signatures, device and metadata are right."""

    desired: Desired


class Done(msgspec.Struct, frozen=True):
    """The effect of a phase is carried out."""

    module: str
    attempt: int
    phase: Phase


class Failed(msgspec.Struct, frozen=True):
    """The effect of a phase could not be carried out.

    Attributes:
        retryable: Whether the same may work later.
    """

    module: str
    attempt: int
    phase: Phase
    failure: Failure
    retryable: bool = False


class Measured(msgspec.Struct, frozen=True):
    """What a version that soaks has shown since the switch.

    Attributes:
        healthy: Whether it answers probes.
        requests: How many it has answered.
        failed: How many of them with an error of its own.
        latency_s: What the slowest hundredth took.
    """

    module: str
    attempt: int
    healthy: bool
    requests: int = 0
    failed: int = 0
    latency_s: float = 0.0


class Crashed(msgspec.Struct, frozen=True):
    """What answered has ended by itself.

    Attributes:
        package: What it was.
    """

    module: str
    package: str
    failure: Failure


Event = Boot | Tick | Wanted | Done | Failed | Measured | Crashed


# -- effects


class Start(msgspec.Struct, frozen=True):
    """Run this and keep it running, from what is on the disk; nothing else may hold that up."""

    module: str
    run: Module


class Cancel(msgspec.Struct, frozen=True):
    """Whatever attempts up to this one are doing is not wanted: end it, and their candidates.

    What answers on the module's own port already stays.
    """

    module: str
    attempt: int


class Fetch(msgspec.Struct, frozen=True):
    """Get the blobs of a package that are not here.

    Attributes:
        rate: Bytes a second; 0 for all.
    """

    module: str
    attempt: int
    wanted: Module
    sources: tuple[Source, ...]
    rate: int = 0


class Verify(msgspec.Struct, frozen=True):
    """Compare the package with the signed metadata."""

    module: str
    attempt: int
    wanted: Module


class Stage(msgspec.Struct, frozen=True):
    """Unpack it beside what runs; a damaged blob is thrown away, and the failure retryable."""

    module: str
    attempt: int
    wanted: Module


class Probe(msgspec.Struct, frozen=True):
    """Start a candidate on a spare port, and see whether it answers."""

    module: str
    attempt: int
    wanted: Module


class Switch(msgspec.Struct, frozen=True):
    """Let the candidate answer on the module's own port, and drain what it replaces."""

    module: str
    attempt: int
    wanted: Module


class Measure(msgspec.Struct, frozen=True):
    """Say how the version that soaks does."""

    module: str
    attempt: int


class Revert(msgspec.Struct, frozen=True):
    """Let this answer again, and end everything else of the module; None: nothing answers.

    What is damaged of it is fetched again.
    """

    module: str
    attempt: int
    run: Module | None


class Stop(msgspec.Struct, frozen=True):
    """Drain and end a module that is not wanted any more."""

    module: str
    attempt: int


class Clean(msgspec.Struct, frozen=True):
    """Remove packages that nothing needs.

    Attributes:
        keep: Packages that have to stay.
        spare: Packages that may stay while there is space.
    """

    keep: frozenset[str]
    spare: frozenset[str] = frozenset()


Effect = Start | Cancel | Fetch | Verify | Stage | Probe | Switch | Measure | Revert | Stop | Clean
