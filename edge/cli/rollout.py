"""The commands `fieldpost rollout …`."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from edge.cli.output import ago, counted, opened
from edge.cli.output import document as all_fields
from edge.cli.watching import print_out as print_watched
from edge.cli.watching import watchable
from scoring.commands.output import changes, common, fields, note, table
from scoring.commands.output import show as print_out

if TYPE_CHECKING:
    from edge.controller.entities import Rollout
    from edge.controller.records import Fleet
    from edge.controller.rollouts import Course

_POLL_S = 0.5
_NOBODY_S = 10.0
_MOST_LINES = 40
_ORDER = ("failed", "silent", "started", "pending", "good", "withdrawn", "gone")


@click.command("list", help="List rollouts, the newest first.")
@watchable
@common
def list_rollouts(watching: bool, as_json: bool, workspace: str | None) -> None:
    """Lists rollouts."""
    with opened(workspace) as (_, fleet):
        print_watched(lambda: _listed(fleet.rollouts()), watching=watching, as_json=as_json)


def _listed(found: list[Rollout]) -> tuple[Any, str]:
    rows = [
        (one.id, one.state, f"{one.wave + 1}/{one.waves}", ago(one.created_at), one.note)
        for one in found
    ]
    headings = ("ROLLOUT", "STATE", "WAVE", "AGE", "NOTE")
    text = table(headings, rows) if rows else "No rollouts: 'fieldpost fleet deploy NAME …'."
    return [_document(one) for one in found], text


def _document(rollout: Rollout) -> dict[str, Any]:
    return {"id": rollout.id, **all_fields(rollout)}


@click.command(help="Show a rollout, device by device; or watch it.")
@click.argument("ref", metavar="NAME[:REVISION]")
@click.option("--watch", "watching", is_flag=True, help="Until it ends, or halts: then exit 1.")
@click.option("--all", "every", is_flag=True, help="Every device, however many.")
@common
def show(ref: str, watching: bool, every: bool, as_json: bool, workspace: str | None) -> None:
    """Shows a rollout."""
    with opened(workspace) as (_, fleet):
        course = watch(fleet, ref, quiet=as_json) if watching else fleet.rollout(ref)
    print_out(document(course), describe(course, every=every), as_json=as_json)
    if watching and course.rollout.state != "complete":
        raise click.exceptions.Exit(1)


def watch(fleet: Fleet, ref: str, *, quiet: bool) -> Course:
    """Follows a rollout until it ends or halts; says on stderr how far it is."""
    before, begun, warned = "", time.monotonic(), False
    while True:
        course = fleet.rollout(ref)
        line = _line(course)
        if not warned and _is_idle(course) and time.monotonic() - begun > _NOBODY_S:
            warned = True
            note("No controller seems to lead this fleet: 'fieldpost fleet controller'.")
        if not quiet and line != before:
            before = line
            click.echo(line, err=True)
        if course.rollout.state not in {"running", "paused"}:
            return course
        time.sleep(_POLL_S)


def _is_idle(course: Course) -> bool:
    """Whether nobody has begun it: it waits for a controller."""
    return course.rollout.state == "running" and course.rollout.wave < 0


def _line(course: Course) -> str:
    rollout = course.rollout
    counts = ", ".join(f"{count} {state}" for state, count in course.counts().items())
    return f"{rollout.id} {rollout.state}, wave {rollout.wave + 1} of {rollout.waves}: {counts}"


def document(course: Course) -> dict[str, Any]:
    """A rollout with its members, as `--json` has it."""
    members = all_fields(course.members)
    return {**_document(course.rollout), "counts": course.counts(), "devices": members}


def describe(course: Course, *, every: bool = False) -> str:
    """A rollout as text: what needs a look comes first."""
    rollout = course.rollout
    head = fields(
        [
            ("rollout", rollout.id),
            ("state", rollout.state),
            ("note", rollout.note),
            ("wave", f"{rollout.wave + 1} of {rollout.waves}"),
            ("devices", ", ".join(f"{n} {state}" for state, n in course.counts().items())),
        ]
    )
    members = sorted(
        course.members, key=lambda one: (_ORDER.index(one.state), one.wave, one.device)
    )
    shown = members if every else members[:_MOST_LINES]
    rows = [(m.device, m.wave + 1, m.state, m.phase, ago(m.progressed), m.note) for m in shown]
    text = table(("DEVICE", "WAVE", "STATE", "PHASE", "SINCE", "NOTE"), rows)
    left = len(members) - len(shown)
    more = f"\n… and {left} more: --all" if left else ""
    return f"{head}\n\n{text}{more}" if rows else head


@click.command(help="Tell no further device.")
@click.argument("ref", metavar="NAME[:REVISION]")
@changes
@common
def pause(ref: str, dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Pauses a rollout; devices that were told go on."""
    with opened(workspace) as (_, fleet):
        rollout = fleet.pause(ref, dry_run=dry_run)
    _say(rollout, "pause", dry_run, as_json)


@click.command(help="Go on, over what failed until now.")
@click.argument("ref", metavar="NAME[:REVISION]")
@changes
@common
def resume(ref: str, dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Resumes a rollout that was paused, or halted."""
    with opened(workspace) as (_, fleet):
        rollout = fleet.resume(ref, dry_run=dry_run)
    _say(rollout, "resume", dry_run, as_json)


def _say(rollout: Rollout, verb: str, dry_run: bool, as_json: bool) -> None:
    text = f"Would {verb} {rollout.id}, which is {rollout.state}." if dry_run else ""
    made = _document(rollout) | {"dry_run": dry_run}
    print_out(made, text or f"{rollout.id} is {rollout.state}.", as_json=as_json)


@click.command(help="End a rollout; who does not run it well goes back.")
@click.argument("ref", metavar="NAME[:REVISION]")
@click.option("--revert", is_flag=True, help="Those that run it well go back, too.")
@changes
@common
def abort(ref: str, revert: bool, dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Ends a rollout; devices that were told and are not good go back to what they had."""
    with opened(workspace) as (_, fleet):
        rollout = fleet.rollout(ref).rollout
        back = fleet.abort(ref, revert=revert, dry_run=dry_run)
    verb = "Would abort" if dry_run else "Aborted"
    to_go = f"{counted(len(back), 'device')} {'goes' if len(back) == 1 else 'go'} back"
    text = f"{verb} {rollout.id}: {to_go}."
    if revert and back:
        text += (
            "\nWho ran it well goes to no lower release: sign the earlier package again, which "
            "makes it the newest ('fieldpost fleet trust sign')."
        )
    made = {"id": rollout.id, "back": back, "dry_run": dry_run}
    print_out(made, text, as_json=as_json)


@click.command(help="Tell devices that failed once more.")
@click.argument("ref", metavar="NAME[:REVISION]")
@click.argument("devices", nargs=-1, metavar="[DEVICE]...")
@changes
@common
def retry(
    ref: str, devices: tuple[str, ...], dry_run: bool, as_json: bool, workspace: str | None
) -> None:
    """Tells DEVICES, or all that failed, once more."""
    with opened(workspace) as (_, fleet):
        rollout = fleet.rollout(ref).rollout
        again = fleet.retry(ref, devices, dry_run=dry_run)
    verb = "Would tell" if dry_run else "Telling"
    text = f"{verb} {counted(len(again), 'device')} of {rollout.id} again."
    made = {"id": rollout.id, "again": again, "dry_run": dry_run}
    print_out(made, text if again else f"No device of {rollout.id} failed.", as_json=as_json)
