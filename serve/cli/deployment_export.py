"""`fieldpost deployment export`: a deployment in the form of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from scoring.commands.output import changes, common, note, pairs, show

if TYPE_CHECKING:
    from serve.targets.kubernetes.export import Form

_FORMS = ("yaml", "kustomize", "helm", "kserve", "ray")


@click.command(help="Write a deployment for Kubernetes' or Ray's own tools.")
@click.argument("what", nargs=-1, required=True, metavar="[NAME] DIR")
@click.option("--package", metavar="REF", help="A digest or NAME[:VERSION], in place of NAME's.")
@click.option(
    "--form",
    type=click.Choice(_FORMS),
    default="yaml",
    show_default=True,
    help="Plain YAML, a Kustomize base, a Helm chart, KServe, or a Ray Serve application.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="A setting; may be repeated."
)
@changes
@common
def export(
    what: tuple[str, ...],
    package: str | None,
    form: Form,
    settings: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Writes NAME, or a package, to DIR; images are named by digest, and no secret is written."""
    from serve.workspace import Workspace

    *names, folder = what
    if len(names) > 1 or not (names or package):
        raise click.UsageError("Give NAME DIR, or --package REF DIR.")
    with Workspace(workspace) as opened:
        done = opened.deployments.export(
            names[0] if names else None,
            Path(folder),
            form=form,
            package=package,
            settings=pairs(settings, "--set"),
            dry_run=dry_run,
        )
    if done.left_out and not as_json:
        note(f"not carried over, for they mean nothing in a cluster: {', '.join(done.left_out)}")
    count = f"{len(done.files)} file{'s' * (len(done.files) > 1)}"
    head = f"{'Would write' if dry_run else 'Wrote'} {count} to {folder}. Next:"
    show(done, "\n".join([head, *(f"  {each}" for each in done.next)]), as_json=as_json)
