"""The command `fieldpost device simulate`."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from edge.cli.needs import require_fleet
from edge.cli.output import DURATION
from edge.cli.trust import common, opened
from scoring.commands.output import changes, fields, note, pairs
from scoring.commands.output import show as print_out

if TYPE_CHECKING:
    from edge.controller.records import Fleet
    from edge.security.fleet import FleetSecurity
    from edge.simulator.crowd import Crowd, Tally
    from edge.simulator.faults import Faults
    from edge.simulator.wire import Access

PASSWORD_VARIABLE: Final = "FIELDPOST_BROKER_PASSWORD"  # noqa: S105 - its name, not a password
_TELL_S: Final = 2.0
_MOST: Final = 20_000


class Part(click.ParamType):  # type: ignore[type-arg]
    """`5%`, or `0.05`."""

    name = "part"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """A number from 0 to 1."""
        text = str(value).strip()
        try:
            found = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
        except ValueError:
            found = -1.0
        if not 0 <= found <= 1:
            self.fail(f"'{value}' is no part of all: write 5%, or 0.05.", param, ctx)
        return found


@click.command(help="Simulate devices at a broker, until Ctrl-C: the agent's own state machine.")
@click.option(
    "--broker",
    required=True,
    metavar="URL",
    help=f"mqtts://HOST:8883, or mqtt://USER@HOST:1883 with ${PASSWORD_VARIABLE}.",
)
@click.option(
    "-n", "--count", type=click.IntRange(1, _MOST), default=10, show_default=True, help="How many."
)
@click.option("--name", "prefix", default="sim", show_default=True, help="Their names begin so.")
@click.option("--site", default="default", show_default=True, help="Where they are.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="May be repeated.")
@click.option("--seed", default=0, show_default=True, help="Of what is left to chance.")
@click.option(
    "--step", type=DURATION, default="200ms", show_default=True, help="What an update's steps take."
)
@click.option("--slow", type=Part(), default="0", help="The part that takes 20 times as long.")
@click.option("--failing", type=Part(), default="0", help="How often a version fails on a device.")
@click.option(
    "--broken",
    multiple=True,
    metavar="DIGEST[@PHASE][=DEVICE,…]",
    help="A version that fails (on these devices) while fetching, staging, probing or soaking.",
)
@click.option("--offline", type=Part(), default="0", help="The part of the time without a network.")
@click.option(
    "--spell", type=DURATION, default="30s", show_default=True, help="How long that is at a time."
)
@click.option("--reboot", type=DURATION, default="0", help="A power cut of each, once in so long.")
@click.option("--over", type=DURATION, default="0", help="Connect spread over so long.")
@click.option("--for", "lasts_s", type=DURATION, default="0", help="End after so long.")
@click.option("--remove", is_flag=True, help="Forget the devices at the end.")
@changes
@common
def simulate(
    broker: str,
    workspace: str | None,
    folder: Path | None,
    dry_run: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Enlists devices in the workspace's fleet, and lets them live."""
    require_fleet()
    from edge.controller.records import Fleet
    from edge.simulator import roster

    names = roster.names(given["prefix"], given["count"])
    faults = _faults(given)
    _require_simulated(faults, names)
    with opened(workspace, folder) as (found, security):
        access = _access(broker, security, given["site"])
        if dry_run:
            text = f"Would simulate {len(names)} devices at {broker_of(access)}, {_range(names)}."
            print_out({"devices": names, "dry_run": True}, text, as_json=as_json)
            return
        fleet = Fleet(found.registry.database)
        tags = pairs(given["tags"], "--tag")
        with _crowd(fleet, security, names, access, faults, tags, given) as crowd:
            note(f"{len(names)} devices at {broker_of(access)}: {_range(names)}. Ctrl-C ends them.")
            _watch(crowd, given["lasts_s"], quiet=as_json)
            tally = crowd.tally()
        if given["remove"]:
            _remove(fleet, names)
    print_out(_document(tally), describe(tally), as_json=as_json)


def _crowd(
    fleet: Fleet,
    security: FleetSecurity,
    names: list[str],
    access: Access,
    faults: Faults,
    tags: dict[str, str],
    given: dict[str, Any],
) -> Crowd:
    from edge.simulator import roster
    from edge.simulator.crowd import Crowd

    metadata = roster.Metadata(security.repository)
    root = metadata.root  # raises before anything is changed
    known = roster.enlist(fleet, names, given["site"], tags)
    return Crowd(known, access, root=root, metadata=metadata, faults=faults, over_s=given["over"])


def _faults(given: dict[str, Any]) -> Faults:
    from edge.simulator.faults import Faults, parse_broken

    if given["offline"] >= 1:
        raise click.BadParameter("They would never be there.", param_hint="--offline")
    if not given["spell"]:
        raise click.BadParameter("It is longer than nothing.", param_hint="--spell")
    return Faults(
        seed=given["seed"],
        step_s=given["step"],
        slow=given["slow"],
        failing=given["failing"],
        broken=tuple(parse_broken(text) for text in given["broken"]),
        offline=given["offline"],
        spell_s=given["spell"],
        reboots_s=given["reboot"],
    )


def _require_simulated(faults: Faults, names: list[str]) -> None:
    """A name that is written wrong would break nothing, and say nothing."""
    for one in faults.broken:
        strange = sorted(one.devices - set(names))
        if strange:
            raise click.BadParameter(
                f"There is no {strange[0]!r} among {_range(names)}.", param_hint="--broken"
            )


def _access(url: str, security: FleetSecurity, site: str) -> Access:
    from edge.agent.config import Broker
    from edge.controller.broker import parse_url
    from edge.simulator.roster import Certificates
    from edge.simulator.wire import Access

    settings = parse_url(url, os.environ.get(PASSWORD_VARIABLE, ""))
    tls = Certificates(security.ensure_authority(), site) if settings.tls else None
    broker = Broker(settings.host, settings.port, settings.tls)
    return Access(broker, tls, settings.user, settings.password)


def broker_of(access: Access) -> str:
    """The broker's URL, without who asks."""
    host, port, tls = access.broker
    return f"mqtt{'s' if tls else ''}://{host}:{port}"


def _range(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"


def _watch(crowd: Crowd, lasts_s: float, *, quiet: bool) -> None:
    """Until it is to end; tells on stderr what changes."""
    ending = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ending.set())
    ends = time.monotonic() + lasts_s if lasts_s else float("inf")
    before = ""
    while not ending.is_set() and time.monotonic() < ends:
        line = _line(crowd.tally())
        if line != before and not quiet:
            before = line
            note(line)
        ending.wait(min(_TELL_S, max(0.0, ends - time.monotonic())))


def _line(tally: Tally) -> str:
    phases = ", ".join(f"{count} {phase}" for phase, count in sorted(tally.phases.items()))
    away = f", {tally.cuts} cuts, {tally.reboots} reboots" if tally.cuts or tally.reboots else ""
    return f"{tally.connected} of {tally.devices} connected; {phases or 'nothing runs'}{away}"


def describe(tally: Tally) -> str:
    """A tally as text."""
    phases = sorted(tally.phases.items())
    packages = sorted(tally.packages.items())
    return fields(
        [
            ("devices", tally.devices),
            ("connected", tally.connected),
            ("settled", tally.settled),
            ("phases", ", ".join(f"{count} {phase}" for phase, count in phases)),
            ("run", "\n".join(f"{count} {package[:19]}" for package, count in packages)),
            ("cut", tally.cuts),
            ("rebooted", tally.reboots),
        ]
    )


def _document(tally: Tally) -> dict[str, Any]:
    import msgspec

    document: dict[str, Any] = msgspec.to_builtins(tally)
    return document


def _remove(fleet: Fleet, names: Iterable[str]) -> None:
    for name in names:
        fleet.remove_device(name)
