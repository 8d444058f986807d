"""What the agent knows of its modules, in the form in which the journal keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from edge.protocol.messages import SETTLED, Desired, Failure, Module, ModuleState, Phase


class Track(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One module, and how far it is.

    Attributes:
        phase: On the way to `wanted`.
        wanted: What is to run; None: it is to be stopped.
        active: What answers, and what a boot starts. It is `good`, or `wanted` while that soaks,
            or a first version that has to be replaced before it was good.
        good: What was accepted last, and what a revert goes back to.
        previous: What was accepted before that; kept while there is space for it.
        rejected: What failed after the switch.
        failure: Why `wanted` does not answer.
        attempt: Counts up with everything that is begun: an answer to an earlier one is stale.
        failures: In a row, for the wait before the next attempt.
        boots: Of the agent, in phases in which a version may have brought the device down.
        retry: Whether a module that failed is tried again by itself.
    """

    phase: Phase = "waiting"
    wanted: Module | None = None
    active: Module | None = None
    good: Module | None = None
    previous: Module | None = None
    rejected: Module | None = None
    failure: Failure | None = None
    attempt: int = 0
    failures: int = 0
    boots: int = 0
    retry: bool = False

    @property
    def settled(self) -> bool:
        """Whether nothing is on its way, and nothing will be by itself."""
        return self.phase in SETTLED and not self.retry


class DeviceState(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All that the agent has to know after a restart.

    Attributes:
        desired: The newest desired state that was taken on.
        tracks: Name to module.
        floors: Name of a module to the highest release that was good on this device; it stays
            when the module goes.
        refused: Why a newer desired state was not taken on.
    """

    desired: Desired | None = None
    tracks: dict[str, Track] = {}
    floors: dict[str, int] = {}
    refused: Failure | None = None

    @property
    def generation(self) -> int:
        """Of the desired state; 0 for none."""
        return self.desired.generation if self.desired else 0

    def packages(self) -> frozenset[str]:
        """The digests of what runs, of what may have to run again, and of what is on its way."""
        return frozenset(
            module.package
            for track in self.tracks.values()
            for module in (track.wanted, track.active, track.good)
            if module
        )

    def previous(self) -> frozenset[str]:
        """The digests of what ran before, which may go when space is short."""
        found = (track.previous for track in self.tracks.values())
        return frozenset(module.package for module in found if module) - self.packages()


class Live(NamedTuple):
    """What the supervisor sees of a module.

    Attributes:
        healthy: Whether it answers.
        port: Where.
        restarts: Since it answers.
    """

    healthy: bool = False
    port: int = 0
    restarts: int = 0


def same_run(one: Module | None, other: Module | None) -> bool:
    """Whether both are run alike: only what is checked on the way may differ."""
    if one is None or other is None:
        return one is other
    return (one.package, one.port, one.settings, one.run) == (
        other.package,
        other.port,
        other.settings,
        other.run,
    )


def proven(state: DeviceState) -> dict[str, str]:
    """Module to the package that has shown what it had to, and runs."""
    return {
        name: track.good.package
        for name, track in state.tracks.items()
        if track.good is not None and track.active == track.good
    }


def reported(state: DeviceState, live: Mapping[str, Live]) -> dict[str, ModuleState]:
    """The modules as a report tells them."""
    return {
        name: _module_state(track, live.get(name, Live())) for name, track in state.tracks.items()
    }


def _module_state(track: Track, live: Live) -> ModuleState:
    return ModuleState(
        phase=track.phase,
        wanted=track.wanted.package if track.wanted else "",
        package=track.active.package if track.active else "",
        release=track.active.release if track.active else 0,
        healthy=live.healthy,
        port=live.port,
        restarts=live.restarts,
        failure=track.failure,
    )
