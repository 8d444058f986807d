"""Which device is in which wave of a rollout."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from edge.controller import conditions, criteria
from edge.controller.entities import Device, Member, Plan
from scoring.errors import UsageError

_SIZE = re.compile(
    r"(?P<count>[1-9][0-9]{0,8})|(?P<percent>[0-9]{1,3}(?:\.[0-9]{1,4})?)%", re.ASCII
)
_ALL: Final = 100.0


class Amount(NamedTuple):
    """A number of devices: counted, or as a part of all.

    Attributes:
        value: The count, or the percentage.
        is_percent: Which of them.
    """

    value: float
    is_percent: bool

    def up(self, of: int) -> int:
        """Of so many, rounded up: a part of a wave is a device at least."""
        part = math.ceil(of * self.value / _ALL - 1e-9) if self.is_percent else int(self.value)
        return min(of, part)

    def down(self, of: int) -> int:
        """Of so many, rounded down: no more may fail than was said."""
        return math.floor(of * self.value / _ALL + 1e-9) if self.is_percent else int(self.value)


def parse_amount(text: str, where: str) -> Amount:
    """Reads `3` or `10%`.

    Raises:
        UsageError: It is neither.
    """
    text = text.strip()
    match = _SIZE.fullmatch(text)
    if match is None and text == "0":
        return Amount(0, is_percent=False)
    if match is None or (match["percent"] and float(match["percent"]) > _ALL):
        raise UsageError(
            f"{text[:40]!a} is no number of devices.",
            hint="Write a count (3) or a percentage (10%).",
            where=where,
        )
    if match["percent"]:
        return Amount(float(match["percent"]), is_percent=True)
    return Amount(int(match["count"]), is_percent=False)


def check(plan: Plan, *, longest_soak_s: float = 0.0) -> None:
    """Refuses a plan that cannot be followed.

    Raises:
        UsageError: A number is none, waves do not grow, or the timeout is over before a healthy
            device could be done.
    """
    if plan.first:
        conditions.parse(plan.first)
    parse_amount(plan.most_failures, "most_failures")
    criteria.check(plan)
    if not plan.waves:
        raise UsageError("A rollout has one wave at least.", hint="Write 100%.", where="waves")
    amounts = [parse_amount(text, "waves") for text in plan.waves]
    _require_growth(plan.waves, amounts)
    if not longest_soak_s < plan.timeout_s < math.inf:
        raise UsageError(
            f"A device is watched for {longest_soak_s:g} s before its version is good, and would "
            f"count as silent after {plan.timeout_s:g} s.",
            hint="Give a longer timeout, or a shorter soak time.",
            where="timeout_s",
        )
    if not 0 <= plan.between_s < math.inf:
        raise UsageError("The time between waves is 0 s at least.", where="between_s")


def _require_growth(texts: Sequence[str], amounts: Sequence[Amount]) -> None:
    for kind in (True, False):
        same = [amount.value for amount in amounts if amount.is_percent is kind]
        if same != sorted(set(same)) or 0 in same:
            raise UsageError(
                f"The waves {', '.join(texts)} do not grow.",
                hint="Each says how many devices have the new version after it: 1,10%,100%.",
                where="waves",
            )


def members(rollout: str, plan: Plan, devices: Iterable[Device]) -> list[Member]:
    """All devices in their waves; the last wave has all that are left.

    Within what the plan says, devices that are online come first, and otherwise in an order that is
    another for each rollout: no device is always the one that is tried on.

    Args:
        rollout: Its name.
        plan: One that `check` accepts.
        devices: Those that the revision is for.
    """
    first = conditions.parse(plan.first) if plan.first else None
    chosen: list[Device] = []
    rest: list[Device] = []
    for device in devices:
        picked = first is not None and first.matches(device.subject)
        (chosen if picked else rest).append(device)
    order = [*_in_order(rollout, chosen), *_in_order(rollout, rest)]
    ends = _ends(plan, len(order), len(chosen) if first else 0)
    made: list[Member] = []
    for wave, end in enumerate(ends):
        made += [Member(device=one.name, wave=wave) for one in order[len(made) : end]]
    return made


def _in_order(rollout: str, devices: list[Device]) -> list[Device]:
    def key(device: Device) -> tuple[bool, bytes]:
        mixed = hashlib.sha256(f"{rollout}\0{device.name}".encode()).digest()
        return (not device.online, mixed)

    return sorted(devices, key=key)


def _ends(plan: Plan, total: int, first: int) -> list[int]:
    """How many have it after each wave, each more than the one before."""
    ends = [first] if first else []
    for text in plan.waves:
        end = parse_amount(text, "waves").up(total)
        if end > (ends[-1] if ends else 0):
            ends.append(end)
    if total > (ends[-1] if ends else 0):
        ends.append(total)
    return ends


def allowed(plan: Plan, size: int) -> int:
    """How many devices of a wave may fail."""
    return parse_amount(plan.most_failures, "most_failures").down(size)
