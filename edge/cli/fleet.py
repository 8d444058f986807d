"""The commands `fieldpost fleet deploy|list|show|remove|events`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click
import msgspec

from edge.cli.output import DURATION, RATE, counted, document, opened
from edge.cli.watching import print_out as print_watched
from edge.cli.watching import watchable
from scoring.commands.output import changes, common, fields, note, table, write_line
from scoring.commands.output import pairs as read_pairs
from scoring.commands.output import show as print_out

if TYPE_CHECKING:
    from edge.controller.entities import Deployment, Event, Plan, Revision
    from edge.controller.records import Deploying, Fleet
    from edge.protocol.messages import Module, Window
    from edge.workspace import Workspace

_MAIN: Final = "main"
_POLL_S: Final = 1.0


def _options(function: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_OPTIONS: Final = (
    click.option("--package", metavar="REF", help="A digest or NAME[:VERSION]: the module 'main'."),
    click.option(
        "--module",
        "modules",
        multiple=True,
        metavar="NAME=REF",
        help="A further module, or one of another name; may be repeated.",
    ),
    click.option(
        "--where",
        "condition",
        required=True,
        help="Which devices: \"tags.area == 'yard' and facts.memory_mib >= 512\", or '*'.",
    ),
    click.option("--priority", default=0, show_default=True, help="Of several, the highest wins."),
    click.option("--layer", is_flag=True, help="Add the modules to another deployment's."),
    click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help="env.NAME=VALUE, say."
    ),
    click.option(
        "--port",
        type=click.IntRange(0, 65_535),
        default=0,
        help="Where 'main' answers. Default: the one it has had.",
    ),
    click.option(
        "--run",
        type=click.Choice(["auto", "process", "container", "circuit"]),
        default="auto",
        show_default=True,
        help="As what it runs.",
    ),
    click.option("--window", default="", metavar="HH:MM-HH:MM[/mon,...]", help="When to switch."),
    click.option("--rate", type=RATE, default="0", help="Bytes a second for fetching: 500k."),
    click.option(
        "--soak", type=DURATION, default="10s", show_default=True, help="Watched before it is good."
    ),
    click.option(
        "--most-errors",
        default=1.0,
        help="Part of requests that may fail, of a device that soaks and of a wave: 0.01.",
    ),
    click.option("--most-latency", type=DURATION, default="0", help="Of the slowest hundredth."),
    click.option(
        "--phase-timeout", type=DURATION, default="10m", show_default=True, help="On the device."
    ),
    click.option(
        "--waves",
        default="1,10%,50%,100%",
        show_default=True,
        help="How many devices have it after each wave.",
    ),
    click.option("--first", default="", metavar="CONDITION", help="Which devices come first."),
    click.option(
        "--failures",
        default="0",
        show_default=True,
        help="How many of a wave may fail: a count, or a percentage.",
    ),
    click.option(
        "--timeout",
        type=DURATION,
        default="30m",
        show_default=True,
        help="A device without progress for so long counts as failed.",
    ),
    click.option("--between", type=DURATION, default="0", help="From wave to wave."),
    click.option(
        "--observe",
        type=DURATION,
        default="0",
        help="Judge each wave by what its devices tell for so long: a few minutes, say.",
    ),
    click.option(
        "--offline",
        type=click.Choice(["fail", "wait"]),
        default="fail",
        show_default=True,
        help="What devices that are not there count as.",
    ),
    click.option("--watch", "watching", is_flag=True, help="Until it ends, or halts: then exit 1."),
)


@click.command(help="Roll a package out to the devices that match.")
@click.argument("name")
@_options
@changes
@common
def deploy(name: str, workspace: str | None, dry_run: bool, as_json: bool, **given: Any) -> None:
    """Begins the rollout of a new revision of the deployment NAME."""
    from edge.controller import texts

    wanted = {
        "condition": given["condition"],
        "priority": given["priority"],
        "layer": given["layer"],
        "window": texts.window(given["window"], "--window"),
        "rate": given["rate"],
        "plan": _plan(given),
    }
    with opened(workspace) as (found, fleet):
        modules = _modules(found, given)
        made = fleet.plan_deployment(name, modules, **wanted)
        _require_later(fleet, made)
        if not dry_run:
            made = fleet.deploy(name, modules, **wanted)
        if given["watching"] and not dry_run:
            _watch(fleet, made, as_json)
            return
    print_out(_document(made) | {"dry_run": dry_run}, _describe(made, dry_run), as_json=as_json)


def _require_later(fleet: Fleet, made: Deploying) -> None:
    from edge.controller import checking

    names = {member.device for member in made.members}
    devices = [device for device in fleet.devices() if device.name in names]
    checking.require_later(devices, made.revision.modules)


def _watch(fleet: Fleet, made: Deploying, as_json: bool) -> None:
    from edge.cli import rollout

    course = rollout.watch(fleet, made.rollout.id, quiet=as_json)
    print_out(rollout.document(course), rollout.describe(course), as_json=as_json)
    if course.rollout.state != "complete":
        raise click.exceptions.Exit(1)


def _plan(given: dict[str, Any]) -> Plan:
    from edge.controller.entities import Plan

    return Plan(
        waves=tuple(part.strip() for part in given["waves"].split(",") if part.strip()),
        first=given["first"],
        most_failures=given["failures"],
        timeout_s=given["timeout"],
        between_s=given["between"],
        offline=given["offline"],
        observe_s=given["observe"],
        most_errors=given["most_errors"],
        most_latency_s=given["most_latency"],
    )


def _modules(workspace: Workspace, given: dict[str, Any]) -> dict[str, Module]:
    """The modules, each of a package that the workspace has and signed metadata permits."""
    from edge.controller.permits import SignedPermits
    from edge.protocol.messages import Module, Soak
    from edge.security.place import security_of

    refs = _refs(given)
    if not 0 <= given["most_errors"] <= 1:
        raise click.BadParameter("It is a part of 1.", param_hint="--most-errors")
    permits = SignedPermits(security_of(workspace).repository)
    soak = Soak(
        seconds=given["soak"],
        most_errors=given["most_errors"],
        most_latency_s=given["most_latency"],
    )
    made = {}
    for name, ref in refs.items():
        digest = workspace.registry.packages.get(ref).digest
        made[name] = Module(
            package=digest,
            release=permits.release(digest),
            port=given["port"] if name == _MAIN or len(refs) == 1 else 0,
            settings=read_pairs(given["settings"], "--set"),
            run=given["run"],
            soak=soak,
            timeout_s=given["phase_timeout"],
        )
    return made


def _refs(given: dict[str, Any]) -> dict[str, str]:
    """Name of a module to the reference of its package."""
    texts = list(given["modules"])
    if given["package"]:
        texts.insert(0, f"{_MAIN}={given['package']}")
    refs = read_pairs(texts, "--module")
    if not refs:
        raise click.UsageError("Say what to run: --package REF, or --module NAME=REF.")
    if len(refs) < len(texts):
        raise click.UsageError("A module has one package: --package is that of the module 'main'.")
    return refs


def _document(made: Deploying) -> dict[str, Any]:
    return {
        "id": made.rollout.id,
        "revision": document(made.revision),
        "plan": document(made.rollout.plan),
        "waves": _waves(made),
    }


def _waves(made: Deploying) -> list[list[str]]:
    found: list[list[str]] = [[] for _ in range(made.rollout.waves)]
    for member in made.members:
        found[member.wave].append(member.device)
    return found


def _describe(made: Deploying, dry_run: bool) -> str:
    waves = _waves(made)
    what = "would go" if dry_run else "goes"
    count = len(made.members)
    to = f"{counted(count, 'device')} in {counted(len(waves), 'wave')}"
    lines = [f"{made.rollout.id} {what} to {to}."]
    lines += [f"  wave {number + 1}: {_some(names)}" for number, names in enumerate(waves)]
    if not count:
        lines.append(
            "No device would run it now: none matches, or others of higher rank apply to all that "
            "do. Those for which that changes get it."
        )
    if not dry_run:
        lines.append(f"Watch it with: fieldpost rollout show {made.rollout.id} --watch")
    return "\n".join(lines)


def _some(names: list[str], most: int = 8) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


@click.command("list", help="List what the fleet is to run.")
@watchable
@common
def list_deployments(watching: bool, as_json: bool, workspace: str | None) -> None:
    """Lists deployments with their newest revisions."""
    with opened(workspace) as (_, fleet):
        print_watched(lambda: _listed(fleet.deployments()), watching=watching, as_json=as_json)


def _listed(found: list[tuple[Deployment, Revision]]) -> tuple[Any, str]:
    rows = [
        (
            one.name,
            revision.number,
            one.stable,
            revision.priority,
            "layer" if revision.layer else "",
            revision.condition,
            " ".join(f"{name}={m.package[7:19]}" for name, m in sorted(revision.modules.items())),
        )
        for one, revision in found
    ]
    headings = ("DEPLOYMENT", "REVISION", "STABLE", "PRIORITY", "KIND", "WHERE", "MODULES")
    text = table(headings, rows) if rows else "No deployments: 'fieldpost fleet deploy NAME …'."
    documents = [{"stable": one.stable, **document(revision)} for one, revision in found]
    return documents, text


@click.command(help="Show a deployment: for which devices, and what.")
@click.argument("name", metavar="NAME[:REVISION]")
@common
def show(name: str, as_json: bool, workspace: str | None) -> None:
    """Shows a revision of a deployment, the newest by default."""
    deployment, _, number = name.partition(":")
    if number and not number.isdigit():
        raise click.BadParameter(f"'{name}' is not of the form NAME[:REVISION].")
    with opened(workspace) as (_, fleet):
        revision = fleet.revision(deployment, int(number or 0))
        matching = [device.name for device in fleet.devices(revision.condition)]
    print_out(
        document(revision) | {"devices": matching},
        _describe_revision(revision, matching),
        as_json=as_json,
    )


def _describe_revision(revision: Revision, matching: list[str]) -> str:
    head = fields(
        [
            ("deployment", revision.id),
            ("where", revision.condition),
            ("matches", f"{len(matching)}: {_some(matching)}" if matching else "no device"),
            ("priority", revision.priority),
            ("layer", "yes" if revision.layer else ""),
            ("window", _say_window(revision.window)),
            ("made", time.strftime("%Y-%m-%d %H:%M", time.localtime(revision.created_at))),
            ("by", revision.created_by),
        ]
    )
    rows = [
        (name, module.package[:19], module.release, module.port, module.run)
        for name, module in sorted(revision.modules.items())
    ]
    return f"{head}\n\n" + table(("MODULE", "PACKAGE", "RELEASE", "PORT", "RUN"), rows)


def _say_window(window: Window | None) -> str:
    if window is None:
        return ""
    from edge.controller.texts import DAYS

    begins, ends = divmod(window.begins, 60), divmod(window.ends, 60)
    days = ",".join(DAYS[day] for day in window.days)
    return f"{begins[0]:02}:{begins[1]:02}-{ends[0]:02}:{ends[1]:02}" + (f"/{days}" if days else "")


@click.command(help="Take a deployment from all devices at once.")
@click.argument("name")
@changes
@common
def remove(name: str, dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Removes the deployment NAME; devices run what else applies to them, or nothing."""
    with opened(workspace) as (_, fleet):
        fleet.remove_deployment(name, dry_run=dry_run)
    text = f"{'Would remove' if dry_run else 'Removed'} {name}."
    print_out({"name": name, "dry_run": dry_run}, text, as_json=as_json)


@click.command(help="Tell what happened, the newest last.")
@click.option("-n", "--tail", type=click.IntRange(1, 20_000), default=50, show_default=True)
@click.option(
    "-f",
    "--follow",
    is_flag=True,
    help="Go on as things happen: with --json one document in each line.",
)
@common
def events(tail: int, follow: bool, as_json: bool, workspace: str | None) -> None:
    """Lists events of rollouts, devices and security."""
    with opened(workspace) as (_, fleet):
        found = fleet.events(most=tail)
        if not follow:
            print_out(found, "\n".join(map(_event, found)), as_json=as_json)
            if not found and not as_json:
                note("Nothing has happened yet.")
            return
        last = 0
        while True:
            for one in found:
                last = one.number
                write_line(msgspec.json.encode(one).decode() if as_json else _event(one))
            sys.stdout.flush()
            time.sleep(_POLL_S)
            found = fleet.events(after=last)


def _event(one: Event) -> str:
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(one.at))
    return f"{at}  {one.kind:<10}  {one.subject}  {one.text}"
