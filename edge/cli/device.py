"""The commands `fieldpost device …`, besides those that let devices in and out."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import click
import msgspec

from edge.cli.output import DURATION, ago, opened
from edge.cli.output import document as all_fields
from edge.cli.watching import print_out as print_watched
from edge.cli.watching import watchable
from scoring.commands.output import changes, common, fields, note, table
from scoring.commands.output import pairs as read_tags
from scoring.commands.output import show as print_out

if TYPE_CHECKING:
    from edge.controller.entities import CommandRecord, Device
    from edge.controller.records import Fleet

_POLL_S: Final = 0.2
_REPORT_S: Final = 10.0
_GRACE_S: Final = 15.0


@click.command("list", help="List devices, all or those that match.")
@click.option("--where", "condition", default="*", help="A condition: tags.area == 'yard'.")
@watchable
@common
def list_devices(condition: str, watching: bool, as_json: bool, workspace: str | None) -> None:
    """Lists devices as the controller knows them."""
    with opened(workspace) as (_, fleet):
        print_watched(
            lambda: _listed(fleet.devices(condition), condition), watching=watching, as_json=as_json
        )


def _listed(found: list[Device], condition: str) -> tuple[Any, str]:
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
    text = table(headings, rows) if rows else _nobody(condition)
    return [_document(device) for device in found], text


def _nobody(condition: str) -> str:
    if condition.strip() in {"*", "all"}:
        return "No devices: 'fieldpost device claim NAME --site SITE' lets one in."
    return f"No device meets the condition {condition}"


def _running(device: Device) -> str:
    return " ".join(
        f"{name}={state.package.removeprefix('sha256:')[:12] or 'nothing'}"
        + ("" if state.phase == "good" else f"({state.phase})")
        for name, state in sorted(device.modules.items())
    )


def _document(device: Device) -> dict[str, Any]:
    made: dict[str, Any] = all_fields(device)
    del made["envelope"], made["content"]
    return made


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
    with opened(workspace) as (_, fleet):
        device = fleet.add_device(name, site, chosen, dry_run=dry_run)
    text = f"{'Would add' if dry_run else 'Added'} {name} at {site}."
    print_out(_document(device) | {"dry_run": dry_run}, text, as_json=as_json)


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
        kept = fleet.tag_device(name, chosen, remove, dry_run=dry_run).tags
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
        click.option(
            "--key", default="", help="Given again with the same one, it is done once (for a day)."
        ),
    ):
        function = option(function)
    return function


class _Asked(NamedTuple):
    """How a device is asked."""

    timeout: float
    no_wait: bool
    key: str
    as_json: bool
    workspace: str | None


@click.command(help="Restart what a device runs.")
@click.argument("name")
@click.option("--module", default="", help="Which module. Default: all.")
@_asking
@changes
@common
def restart(
    name: str, module: str, dry_run: bool, as_json: bool, workspace: str | None, **given: Any
) -> None:
    """Restarts the modules of the device NAME."""
    arguments = {"module": module} if module else {}
    if dry_run:
        _would(name, f"restart {module or 'all modules'} of", as_json, workspace, module=module)
        return
    _do(name, "restart", arguments, _Asked(as_json=as_json, workspace=workspace, **given))


@click.command(help="Fetch the end of a device's logs.")
@click.argument("name")
@click.option("--module", default="", help="Of which module. Default: of all.")
@click.option("-n", "--tail", type=click.IntRange(1, 10_000), default=200, show_default=True)
@_asking
@common
def logs(
    name: str, module: str, tail: int, as_json: bool, workspace: str | None, **given: Any
) -> None:
    """Prints the end of the logs of the device NAME."""
    arguments = {"module": module, "tail": tail} if module else {"tail": tail}
    _do(name, "logs", arguments, _Asked(as_json=as_json, workspace=workspace, **given))


@click.command(
    help="Run a program on a device whose agent.toml says 'shell = true': shell NAME -- ls -l."
)
@click.argument("name")
@click.argument("line", nargs=-1, required=True, metavar="PROGRAM [ARGUMENT]...")
@_asking
@changes
@common
def shell(
    name: str,
    line: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
    **given: Any,
) -> None:
    """Runs a program on the device NAME, and prints what it prints."""
    if dry_run:
        _would(name, f"run {' '.join(line)} on", as_json, workspace, command=line)
        return
    arguments = {"command": list(line)}
    _do(name, "shell", arguments, _Asked(as_json=as_json, workspace=workspace, **given))


@click.command(help="Let a device report anew, and show that.")
@click.argument("name")
@_asking
@common
def report(name: str, as_json: bool, workspace: str | None, **given: Any) -> None:
    """Asks the device NAME for a report."""
    _do(name, "report", {}, _Asked(as_json=as_json, workspace=workspace, **given))


def _would(name: str, what: str, as_json: bool, workspace: str | None, **more: object) -> None:
    with opened(workspace) as (_, fleet):
        fleet.device(name)
    made = {"name": name, **more, "dry_run": True}
    print_out(made, f"Would {what} {name}.", as_json=as_json)


def _do(name: str, verb: str, arguments: dict[str, Any], asked: _Asked) -> None:
    with opened(asked.workspace) as (_, fleet):
        before = fleet.device(name)
        done = fleet.request(name, verb, arguments, timeout_s=asked.timeout, key=asked.key)
        if not asked.no_wait:
            done = _wait(fleet, done)
        told = _reported(fleet, before) if (verb, done.state) == ("report", "done") else None
    made = all_fields(done) | ({"device_now": told and _document(told)} if verb == "report" else {})
    if told is not None:
        print_out(made, _describe(told), as_json=asked.as_json)
    else:
        print_out(made, done.output.rstrip(), as_json=asked.as_json)
    if not asked.as_json:
        _tell_state(done, is_shown=bool(done.output or told))
    if done.state in {"failed", "expired"}:
        raise click.exceptions.Exit(1)


def _tell_state(done: CommandRecord, *, is_shown: bool) -> None:
    """How a command ended goes to stderr: on stdout is what the device said, and nothing else."""
    if done.state in {"failed", "expired"}:
        why = done.failure.message if done.failure else ""
        note(f"{done.device}: {done.verb} has {_ENDED[done.state]}. {why}".rstrip())
    elif not is_shown:
        note(f"{done.device}: {done.verb} is {done.state}, and there is nothing to show.")


_ENDED: Final = {"failed": "failed", "expired": "not been done in time"}


def _wait(fleet: Fleet, asked: CommandRecord) -> CommandRecord:
    """The command once it is over; without a controller that is at its deadline."""
    from edge.protocol.messages import Failure

    while (now := fleet.command(asked.id)).state in {"waiting", "sent"}:
        if time.time() > asked.deadline + _GRACE_S:
            why = Failure(code="deadline_exceeded", message=_NOBODY)
            return msgspec.structs.replace(now, state="expired", failure=why)
        time.sleep(_POLL_S)
    return now


_NOBODY: Final = "No controller took it up: is 'fieldpost fleet controller' running?"


def _reported(fleet: Fleet, before: Device) -> Device:
    """The device with the report that it was asked for, which comes after the answer."""
    ends = time.monotonic() + _REPORT_S
    while time.monotonic() < ends:
        device = fleet.device(before.name)
        if (device.boot, device.seq) > (before.boot, before.seq):
            return device
        time.sleep(_POLL_S)
    return before
