"""The commands `fieldpost device …`, besides those that let devices in and out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click
import msgspec

from edge.cli.output import DURATION, ago, opened
from edge.cli.watching import print_out as print_watched
from edge.cli.watching import watchable
from scoring.commands.output import changes, common, fields, table
from scoring.commands.output import pairs as read_tags
from scoring.commands.output import show as print_out

if TYPE_CHECKING:
    from edge.controller.entities import CommandRecord, Device
    from edge.controller.records import Fleet

_POLL_S = 0.2


@click.command("list", help="List devices, all or those that match.")
@click.option("--where", "condition", default="*", help="A condition: tags.area == 'yard'.")
@watchable
@common
def list_devices(condition: str, watching: bool, as_json: bool, workspace: str | None) -> None:
    """Lists devices as the controller knows them."""
    with opened(workspace) as (_, fleet):
        print_watched(lambda: _listed(fleet.devices(condition)), watching=watching, as_json=as_json)


def _listed(found: list[Device]) -> tuple[Any, str]:
    rows = [
        (
            device.name,
            device.site,
            "online" if device.online else "offline",
            ago(device.seen_at),
            _running(device),
            f"{device.observed}/{device.generation}",
            " ".join(f"{key}={value}" for key, value in sorted(device.tags.items())),
        )
        for device in found
    ]
    headings = ("DEVICE", "SITE", "STATE", "SEEN", "RUNS", "GENERATION", "TAGS")
    text = table(headings, rows) if rows else "No devices: 'fieldpost device claim NAME'."
    return [_document(device) for device in found], text


def _running(device: Device) -> str:
    return " ".join(
        f"{name}={state.package.removeprefix('sha256:')[:12] or 'nothing'}"
        + ("" if state.phase == "good" else f"({state.phase})")
        for name, state in sorted(device.modules.items())
    )


def _document(device: Device) -> dict[str, Any]:
    document: dict[str, Any] = msgspec.to_builtins(device)
    del document["envelope"], document["content"]
    return document


@click.command(help="Show a device: its facts, and what it runs.")
@click.argument("name")
@watchable
@common
def show(name: str, watching: bool, as_json: bool, workspace: str | None) -> None:
    """Shows the device NAME."""
    with opened(workspace) as (_, fleet):
        print_watched(lambda: _shown(fleet.device(name)), watching=watching, as_json=as_json)


def _shown(device: Device) -> tuple[Any, str]:
    return _document(device), _describe(device)


def _describe(device: Device) -> str:
    head = fields(
        [
            ("device", device.name),
            ("site", device.site),
            ("state", "online" if device.online else "offline"),
            ("seen", f"{ago(device.seen_at)} ago" if device.seen_at else "never"),
            ("generation", f"{device.observed} of {device.generation}"),
            ("tags", " ".join(f"{k}={v}" for k, v in sorted(device.tags.items()))),
            ("facts", " ".join(f"{k}={v}" for k, v in sorted(device.facts.items()))),
            ("refused", device.refused.message if device.refused else ""),
        ]
    )
    rows = [
        (
            name,
            state.phase,
            state.package[:19],
            state.wanted[:19],
            state.port,
            state.restarts,
            state.failure.message if state.failure else "",
        )
        for name, state in sorted(device.modules.items())
    ]
    headings = ("MODULE", "PHASE", "RUNS", "WANTED", "PORT", "RESTARTS", "FAILURE")
    return f"{head}\n\n{table(headings, rows)}" if rows else head


@click.command(help="Make a device known, without a certificate.")
@click.argument("name")
@click.option("--site", default="default", show_default=True, help="Where it is.")
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", help="May be repeated.")
@changes
@common
def add(
    name: str, site: str, tags: tuple[str, ...], dry_run: bool, as_json: bool, workspace: str | None
) -> None:
    """Makes the device NAME known; those that join with a token are known by themselves."""
    chosen = read_tags(tags, "--tag")
    if dry_run:
        text = f"Would add {name} at {site}."
        print_out({"name": name, "site": site, "dry_run": True}, text, as_json=as_json)
        return
    with opened(workspace) as (_, fleet):
        device = fleet.add_device(name, site, chosen)
    print_out(_document(device), f"Added {name} at {site}.", as_json=as_json)


@click.command(help="Set or remove tags of a device.")
@click.argument("name")
@click.argument("tags", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--remove", multiple=True, metavar="KEY", help="A tag to remove; may be repeated.")
@changes
@common
def tag(
    name: str,
    tags: tuple[str, ...],
    remove: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Sets tags of the device NAME; deployments that match then come to it."""
    chosen = read_tags(tags, "TAGS")
    with opened(workspace) as (_, fleet):
        device = fleet.device(name) if dry_run else fleet.tag_device(name, chosen, remove)
    kept = {key: value for key, value in device.tags.items() if key not in remove} | chosen
    text = " ".join(f"{key}={value}" for key, value in sorted(kept.items())) or "no tags"
    print_out(
        {"name": name, "tags": kept, "dry_run": dry_run},
        f"{name} would have {text}" if dry_run else f"{name} has {text}",
        as_json=as_json,
    )


@click.command(help="Forget a device; nothing more is taken from it.")
@click.argument("name")
@changes
@common
def remove(name: str, dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Forgets the device NAME; its certificate is revoked by 'device revoke'."""
    with opened(workspace) as (_, fleet):
        device = fleet.device(name) if dry_run else fleet.remove_device(name)
    text = f"{'Would forget' if dry_run else 'Forgot'} {device.name}."
    print_out({"name": name, "dry_run": dry_run}, text, as_json=as_json)


def _asking(function: Any) -> Any:
    """Adds the options of commands that wait for a device."""
    for option in (
        click.option(
            "--timeout", type=DURATION, default="60s", show_default=True, help="Begin until then."
        ),
        click.option("--no-wait", is_flag=True, help="Do not wait for the answer."),
    ):
        function = option(function)
    return function


@click.command(help="Restart what a device runs.")
@click.argument("name")
@click.option("--module", default="", help="Which module. Default: all.")
@_asking
@changes
@common
def restart(
    name: str,
    module: str,
    timeout: float,
    no_wait: bool,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Restarts the modules of the device NAME."""
    arguments = {"module": module} if module else {}
    if dry_run:
        with opened(workspace) as (_, fleet):
            fleet.device(name)
        text = f"Would restart {module or 'all modules'} of {name}."
        print_out({"name": name, "module": module, "dry_run": True}, text, as_json=as_json)
        return
    _do(name, "restart", arguments, timeout, no_wait, as_json, workspace)


@click.command(help="Fetch the end of a device's logs.")
@click.argument("name")
@click.option("--module", default="", help="Of which module. Default: of all.")
@click.option("-n", "--tail", type=click.IntRange(1, 10_000), default=200, show_default=True)
@_asking
@common
def logs(
    name: str,
    module: str,
    tail: int,
    timeout: float,
    no_wait: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Prints the end of the logs of the device NAME."""
    arguments = {"module": module, "tail": tail} if module else {"tail": tail}
    _do(name, "logs", arguments, timeout, no_wait, as_json, workspace)


@click.command(help="Let a device report anew, and show that.")
@click.argument("name")
@_asking
@common
def report(name: str, timeout: float, no_wait: bool, as_json: bool, workspace: str | None) -> None:
    """Asks the device NAME for a report."""
    _do(name, "report", {}, timeout, no_wait, as_json, workspace)


def _do(
    name: str,
    verb: str,
    arguments: dict[str, Any],
    timeout: float,
    no_wait: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    with opened(workspace) as (_, fleet):
        asked = fleet.request(name, verb, arguments, timeout_s=timeout)
        done = asked if no_wait else _wait(fleet, asked)
    text = done.output.rstrip() or f"{name}: {verb} is {done.state}."
    if done.failure is not None and done.state in {"failed", "expired"}:
        text = f"{text}\n{done.failure.message}".lstrip()
    print_out(done, text, as_json=as_json)
    if done.state in {"failed", "expired"}:
        raise click.exceptions.Exit(1)


def _wait(fleet: Fleet, asked: CommandRecord) -> CommandRecord:
    """The command once it is over; without a controller that is at its deadline."""
    grace = 15.0
    while (now := fleet.command(asked.id)).state in {"waiting", "sent"}:
        if time.time() > asked.deadline + grace:
            return msgspec.structs.replace(now, state="expired")
        time.sleep(_POLL_S)
    return now
