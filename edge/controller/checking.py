"""What a revision has to be before it is kept. Pure.

What is kept here and cannot be read again would take the whole fleet with it, and what devices
refuse would hold up all else that they are to run.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from edge.controller import conditions
from edge.controller.entities import Device, Revision
from edge.protocol.messages import Module
from edge.protocol.names import check_name
from scoring.errors import UsageError

PLAIN: Final = frozenset({"base", "cpus", "memory", "network", "pids", "probe", "tmp", "user"})
"""The settings of a module that have no prefix; see docs/how-to/run-modules-on-devices.md."""

_NAMED: Final = re.compile(r"(?:env|server)\.[^=\0]+")
_MOST_PRIORITY: Final = 1_000_000_000


def check(revision: Revision) -> None:
    """Refuses a revision that a device would refuse, or nobody could read again.

    Raises:
        InvalidNameError: A module's name is none.
        UsageError: The condition, a number or a setting is none; `where` says which.
    """
    conditions.parse(revision.condition)
    if not revision.modules:
        raise UsageError("A deployment has one module at least.", where="modules")
    if revision.rate < 0:
        raise UsageError("A rate is 0 (all that there is) or more.", where="rate")
    if abs(revision.priority) > _MOST_PRIORITY:
        raise UsageError(
            f"A priority is a number from -{_MOST_PRIORITY} to {_MOST_PRIORITY}.", where="priority"
        )
    for name, module in revision.modules.items():
        _require_readable(module, f"The module {check_name(name, 'module')}")
        _require_settings(name, module)
    _require_readable(revision, f"The revision of {revision.deployment}")
    require_ports(revision.modules)


def _require_readable(made: Module | Revision, what: str) -> None:
    """By reading it as it would be kept: its types say what a port or a soak may be."""
    try:
        msgspec.json.decode(msgspec.json.encode(made), type=type(made))
    except ValueError as error:
        raise UsageError(f"{what} cannot be so: {error}.", where="modules") from error


def _require_settings(name: str, module: Module) -> None:
    for key, value in module.settings.items():
        if key not in PLAIN and not _NAMED.fullmatch(key):
            raise UsageError(
                f"The module {name} has the setting {key[:64]!a}, which devices do not know.",
                hint=f"There are env.NAME, server.NAME, {', '.join(sorted(PLAIN))}.",
                where="settings",
            )
        if "\0" in value:
            raise UsageError(f"The setting {key[:64]} of {name} has a zero byte.", where="settings")


def require_ports(modules: Mapping[str, Module], who: str = "The") -> None:
    """Refuses modules that would have one port: devices refuse all that comes with them.

    Args:
        modules: Those of one device.
        who: How the sentence begins that says so.

    Raises:
        UsageError: Two of them have.
    """
    owners: dict[int, str] = {}
    for name, module in sorted(modules.items()):
        if module.port and (other := owners.setdefault(module.port, name)) != name:
            raise UsageError(
                f"{who} modules {other} and {name} would have one port, {module.port}.",
                hint="Give one of them another with --port.",
                where="port",
            )


def require_later(devices: Iterable[Device], modules: Mapping[str, Module]) -> None:
    """Refuses what some of these devices would: they go to no lower release.

    Raises:
        UsageError: One runs a later release.
    """
    for device in devices:
        for name, module in modules.items():
            runs = device.modules.get(name)
            if runs is not None and runs.release > module.release:
                raise UsageError(
                    f"The device {device.name} runs release {runs.release} of {name!r}, this "
                    f"package is release {module.release}, and devices go to no lower one.",
                    hint="Sign it as the next release: "
                    f"'fieldpost fleet trust sign {module.package}'.",
                    where="package",
                )
