"""The commands `fieldpost deploy` and `fieldpost deployment …`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from scoring.commands.output import changes, common, fields, note, pairs, size, table, write_line
from scoring.commands.output import show as print_out
from scoring.errors import FieldpostError
from serve.cli.provenance import public_keys

if TYPE_CHECKING:
    from serve.workspace import Workspace
    from serve.workspace.deployments import DeploymentView


@click.command(help="Run a package on a target, under a name.")
@click.argument("name")
@click.option("--package", required=True, metavar="REF", help="A digest or NAME[:VERSION].")
@click.option("--target", default="local", show_default=True, help="Where it runs.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting; may be repeated."
)
@click.option(
    "--verify-key",
    "verify_keys",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A public key (cosign.pub) that must have signed the package; of several, one.",
)
@click.option("--diff", "as_diff", is_flag=True, help="Only show what would change in a cluster.")
@click.option("--force-conflicts", "force", is_flag=True, help="Take over what others own there.")
@changes
@common
def deploy(
    name: str,
    package: str,
    target: str,
    settings: tuple[str, ...],
    verify_keys: tuple[Path, ...],
    as_diff: bool,
    force: bool,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Deploys a package as NAME; a further call is a new revision of it."""
    from serve.workspace import Workspace

    chosen = pairs(settings, "--set")
    keys = public_keys(verify_keys)
    with Workspace(workspace) as opened:
        if as_diff:
            _print_difference(opened, name, package, target, chosen, force=force, as_json=as_json)
            return
        if dry_run:
            plan = opened.plan_deployment(
                name, package, target=target, settings=chosen, verify_keys=keys
            )
            _print_plan(opened, plan, chosen, as_json=as_json)
            return
        with _interruptible(opened, name):
            deployed = opened.deploy(
                name,
                package,
                target=target,
                settings=chosen,
                progress=None if as_json else note,
                verify_keys=keys,
                force=force,
            )
        view = deployed.view()
    text = f"{view.name} revision {view.revision} is {view.state}{_at(view)}"
    print_out(view, text, as_json=as_json)


def _at(view: DeploymentView) -> str:
    """Where it answers: on a fleet that is no one place."""
    return f" at {view.url}" if view.url else ""


def _print_plan(
    opened: Workspace, plan: dict[str, object], settings: dict[str, str], *, as_json: bool
) -> None:
    """What a deploy would do: the objects that it would make, on a target that has such."""
    name, package, target = (str(plan[key]) for key in ("name", "package", "target"))
    objects = opened.deployments.preview(name, package, target=target, settings=settings)
    if objects is None:
        print_out(plan, fields(plan.items()), as_json=as_json)
        return
    from serve.targets.kubernetes.diff import as_yaml

    text = "" if as_json else as_yaml(list(objects)).rstrip()
    print_out(plan | {"objects": list(objects)}, text, as_json=as_json)


def _print_difference(
    opened: Workspace,
    name: str,
    package: str,
    target: str,
    settings: dict[str, str],
    *,
    force: bool,
    as_json: bool,
) -> None:
    """What a deploy would change in the cluster."""
    from serve.targets.kubernetes.diff import shown

    found = opened.deployments.difference(
        name, package, target=target, settings=settings, force=force
    )
    print_out({"name": name, "objects": list(found)}, shown(found), as_json=as_json)


@contextmanager
def _interruptible(opened: Workspace, name: str) -> Iterator[None]:
    """Says what becomes of a revision whose command is interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        with suppress(FieldpostError):  # not even a name, or a target that does not answer
            note(outlook(name, opened.deployments.get(name).revisions[-1].state))
        raise


def outlook(name: str, state: str) -> str:
    """What an interrupted deploy has left, by the state of its latest revision."""
    see = f"'fieldpost deployment show {name}'"
    if state in ("failed", "abandoned"):  # the target has cleared it away
        return f"The new revision was given up, and what ran before goes on: {see}."
    if state == "pending":
        return f"The new revision goes on without this command: {see}."
    return f"It was over, or had not begun: {see}."


@click.command("list", help="List deployments as they are.")
@common
def list_deployments(as_json: bool, workspace: str | None) -> None:
    """Lists deployments, asking each target what really runs."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        views = opened.deployments.list()
    rows = [
        (view.name, view.target, view.state, view.revision, view.model, view.url, view.note)
        for view in views
    ]
    headings = ("NAME", "TARGET", "STATE", "REVISION", "MODEL", "URL", "NOTE")
    text = (
        table(headings, rows) if rows else "No deployments: 'fieldpost deploy NAME --package REF'."
    )
    print_out(views, text, as_json=as_json)


@click.command(help="Show a deployment: revisions, workers, URL.")
@click.argument("name")
@common
def show(name: str, as_json: bool, workspace: str | None) -> None:
    """Shows NAME with its revisions and workers."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        view = opened.deployments.get(name)
    print_out(view, _describe(view), as_json=as_json)


def _describe(view: DeploymentView) -> str:
    workers = table(
        ("WORKER", "PID", "STATE", "RESTARTS", "MEMORY"),
        [
            (w.name, w.pid, w.state, w.restarts, size(w.rss_bytes) if w.rss_bytes else None)
            for w in view.workers
        ],
    )
    revisions = table(
        ("REVISION", "STATE", "MODEL", "PACKAGE", "CREATED", "REASON"),
        [
            (r.number, r.state, r.model, r.package[:19], r.created_at[:19], r.reason)
            for r in reversed(view.revisions)
        ],
    )
    head = fields(
        [
            ("deployment", view.name),
            ("target", view.target),
            ("state", view.state),
            ("note", view.note),
            ("url", view.url),
            ("revision", view.revision),
            ("settings", ", ".join(f"{k}={v}" for k, v in sorted(view.settings.items()))),
        ]
    )
    return "\n\n".join([head, *([workers] if view.workers else []), revisions])


@click.command(help="Print or follow a deployment's logs.")
@click.argument("name")
@click.option("-f", "--follow", is_flag=True, help="Go on as lines are written.")
@click.option("-n", "--tail", type=click.IntRange(min=0), help="Only the last lines.")
@common
def logs(name: str, follow: bool, tail: int | None, as_json: bool, workspace: str | None) -> None:
    """Prints the logs of NAME's workers."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        lines = opened.deployments.logs(name, follow=follow and not as_json, tail=tail)
        if as_json:
            print_out({"name": name, "lines": list(lines)}, "", as_json=True)
            return
        for line in lines:
            write_line(line)


@click.command(help="Start a stopped or lost deployment again.")
@click.argument("name")
@changes
@common
def start(name: str, dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Starts NAME at its last good revision, on its own address."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        if not dry_run:
            opened.deployments.start(name)
        view = opened.deployments.get(name)
    text = f"Would start {name}." if dry_run else f"{view.name} is {view.state}{_at(view)}"
    print_out(view, text, as_json=as_json)


@click.command(help="Stop a deployment; its records stay.")
@click.argument("name")
@changes
@common
def stop(name: str, dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Lets NAME finish what it answers, then ends its processes."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        if not dry_run:
            opened.deployments.stop(name)
        view = opened.deployments.get(name)
    text = f"Would stop {name}." if dry_run else f"{view.name} is {view.state}."
    print_out(view, text, as_json=as_json)


@click.command(help="Change how many workers answer.")
@click.argument("name")
@click.argument("count", type=click.IntRange(min=1))
@changes
@common
def scale(name: str, count: int, dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Runs NAME with COUNT workers, or pods."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        if not dry_run:
            opened.deployments.scale(name, count, progress=None if as_json else note)
        view = opened.deployments.get(name)
    done = f"{view.name} is {view.state} with {len(view.workers)} workers at {view.url}"
    text = f"Would run {name} with {count} workers." if dry_run else done
    print_out(view, text, as_json=as_json)


@click.command(help="Return to an earlier revision.")
@click.argument("name")
@click.option(
    "--to", "number", type=click.IntRange(min=1), help="The revision. Default: the last good one."
)
@changes
@common
def rollback(
    name: str, number: int | None, dry_run: bool, as_json: bool, workspace: str | None
) -> None:
    """Deploys an earlier revision's package and settings as a new revision."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        goal = opened.deployments.rollback_goal(name, number)
        if not dry_run:
            with _interruptible(opened, name):
                progress = None if as_json else note
                opened.deployments.rollback(name, to=goal.number, progress=progress)
        view = opened.deployments.get(name)
    done = f"{view.name} revision {view.revision} is {view.state}{_at(view)}"
    text = f"Would return {name} to revision {goal.number} ({goal.package})." if dry_run else done
    print_out(msgspec.to_builtins(view) | {"rollback_to": goal.number}, text, as_json=as_json)


@click.command(help="Delete a stopped deployment's records.")
@click.argument("name")
@changes
@common
def delete(name: str, dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Deletes the records and logs of NAME, which must be stopped."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        view = opened.deployments.get(name)
        if not dry_run:
            opened.deployments.delete(name)
    verb = "Would delete" if dry_run else "Deleted"
    print_out({"name": view.name, "deleted": not dry_run}, f"{verb} {view.name}.", as_json=as_json)
