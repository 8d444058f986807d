"""What goes wrong on simulated devices: the same for the same seed, whatever else happens."""

from __future__ import annotations

import random
from typing import Annotated, Final, Literal

import msgspec

from scoring.errors import UsageError

Part = Annotated[float, msgspec.Meta(ge=0, le=1)]
Seconds = Annotated[float, msgspec.Meta(ge=0)]
FailingPhase = Literal["fetching", "staging", "probing", "soaking"]

_PHASES: Final[tuple[FailingPhase, ...]] = ("fetching", "staging", "probing", "soaking")
_SLOWER: Final = 20.0


class Broken(msgspec.Struct, frozen=True, kw_only=True):
    """A version that does not work on some devices.

    Attributes:
        package: The digest of its manifest, or how it begins.
        devices: On which; empty for all.
        phase: Where it fails: `soaking` is after the switch, so that the device goes back.
    """

    package: str
    devices: frozenset[str] = frozenset()
    phase: FailingPhase = "soaking"


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How well a simulated fleet does.

    Attributes:
        seed: Of everything that is left to chance.
        step_s: How long a device takes for each step of an update.
        slow: The part of devices that take twenty times as long.
        failing: The part of pairs of a device and a version that do not work.
        broken: Versions that do not work on certain devices.
        offline: The part of the time that a device has no connection.
        spell_s: How long it has none, on average.
        reboots_s: Between two power cuts of a device, on average; 0 for none.
    """

    seed: int = 0
    step_s: Seconds = 0.2
    slow: Part = 0.0
    failing: Part = 0.0
    broken: tuple[Broken, ...] = ()
    offline: Annotated[float, msgspec.Meta(ge=0, lt=1)] = 0.0
    spell_s: Annotated[float, msgspec.Meta(gt=0)] = 30.0
    reboots_s: Seconds = 0.0


class Fate:
    """What happens to one device.

    Args:
        faults: Of the fleet.
        device: Its name.
    """

    def __init__(self, faults: Faults, device: str) -> None:
        self._faults = faults
        self._device = device
        self._chance = random.Random(f"{faults.seed}/{device}")  # noqa: S311 - nothing secret
        self.is_slow = self._chance.random() < faults.slow

    def spread(self) -> float:
        """A number from 0 to 1, for pauses."""
        return self._chance.random()

    def step_s(self) -> float:
        """How long the next step takes."""
        longest = self._faults.step_s * (_SLOWER if self.is_slow else 1.0)
        return longest * (0.5 + 0.5 * self._chance.random())

    def fails(self, package: str) -> FailingPhase | None:
        """Where a version fails on this device; the same each time that it is tried."""
        for one in self._faults.broken:
            if package.startswith(one.package) and (not one.devices or self._device in one.devices):
                return one.phase
        seed = f"{self._faults.seed}/{self._device}/{package}"
        chance = random.Random(seed)  # noqa: S311 - nothing secret
        return chance.choice(_PHASES) if chance.random() < self._faults.failing else None

    def online_s(self) -> float | None:
        """How long the connection lasts; None for always."""
        part = self._faults.offline
        if not part:
            return None
        return self._chance.expovariate(part / (self._faults.spell_s * (1 - part)))

    def offline_s(self) -> float:
        """How long there is none then."""
        return self._chance.expovariate(1 / self._faults.spell_s)

    def power_s(self) -> float | None:
        """How long until its power is cut; None for never."""
        mean = self._faults.reboots_s
        return self._chance.expovariate(1 / mean) if mean else None


def parse_broken(text: str) -> Broken:
    """Reads `DIGEST[@PHASE][=DEVICE,DEVICE]`.

    Raises:
        UsageError: It is not of this form.
    """
    what, _, names = text.partition("=")
    package, at, phase = what.partition("@")
    found = next((one for one in _PHASES if one == phase), None)
    if not package or (at and found is None):
        raise UsageError(
            f"{text[:80]!a} does not say what is broken.",
            hint=f"Write DIGEST@PHASE=DEVICE,DEVICE; a phase is {', '.join(_PHASES)}.",
            where="broken",
        )
    prefix = package if package.startswith("sha256:") else f"sha256:{package}"
    devices = frozenset(filter(None, (name.strip() for name in names.split(","))))
    return Broken(package=prefix, devices=devices, phase=found or "soaking")
