"""The commands `fieldpost workspace …`."""

from __future__ import annotations

from pathlib import Path

import click

from scoring.commands.output import changes, common, fields, size
from scoring.commands.output import show as print_out
from serve.cli.provenance import public_keys


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


@click.command(help="Show or set whose signature deployments require.")
@click.option(
    "--verify-key",
    "verify_keys",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="A public key (cosign.pub); one of those that are given must sign. Replaces the others.",
)
@click.option("--none", "nothing", is_flag=True, help="Deploy what nobody signed, too.")
@changes
@common
def policy(
    verify_keys: tuple[Path, ...],
    nothing: bool,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Without options it shows the policy; it holds for everyone who uses the workspace."""
    from serve.workspace import Workspace

    if verify_keys and nothing:
        raise click.UsageError("Give --verify-key or --none, not both.")
    keys = public_keys(verify_keys)
    with Workspace(workspace) as opened:
        if (keys or nothing) and not dry_run:
            opened.require_signatures(keys)
        required = keys if keys or nothing else opened.required_signers()
    fingerprints = [key.fingerprint for key in required]
    text = "\n".join(["Deployments require a signature by one of:", *fingerprints])
    print_out(
        {"required_signers": fingerprints},
        text if fingerprints else "Deployments require no signature.",
        as_json=as_json,
    )


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
