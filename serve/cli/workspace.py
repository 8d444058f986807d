"""The commands `fieldpost workspace …`."""

from __future__ import annotations

import click

from serve.cli.output import changes, common, fields, size
from serve.cli.output import show as print_out


@click.command(help="Show where the workspace is and what it holds.")
@common
def show(as_json: bool, workspace: str | None) -> None:
    """Shows the place (passwords masked) and how much is there."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        document = {
            "location": str(opened.registry.location),
            "blobs": str(opened.registry.location.blobs),
            "models": len(opened.models.list()),
            "environments": len(opened.environments.list()),
            "packages": len(opened.packages.list()),
            "deployments": len(opened.registry.deployments.list()),
        }
    print_out(document, fields(document.items()), as_json=as_json)


@click.command(help="Free bytes that nothing needs any more.")
@changes
@common
def gc(dry_run: bool, as_json: bool, workspace: str | None) -> None:
    """Removes blobs that nothing references, and what killed commands left."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        freed = opened.registry.gc(dry_run=dry_run)
    verb = "Would free" if dry_run else "Freed"
    print_out(freed, f"{verb} {size(freed.size)} in {freed.blobs} files.", as_json=as_json)
