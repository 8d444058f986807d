"""The commands `fieldpost env …`."""

from __future__ import annotations

from pathlib import Path

import click

from serve.cli.output import changes, common, fields, table
from serve.cli.output import show as print_out

_PLATFORM = click.option(
    "--platform", default=None, help="linux/amd64 or linux/arm64. Default: this machine's."
)
_PYTHON = click.option("--python", default=None, help="Python version. Default: the running one.")


@click.command(help="Lock and register an environment.")
@click.argument("name")
@click.argument("file", type=click.Path(path_type=Path))
@_PLATFORM
@_PYTHON
@changes
@common
def register(
    name: str,
    file: Path,
    platform: str | None,
    python: str | None,
    dry_run: bool,
    as_json: bool,
    workspace: str | None,
) -> None:
    """Locks FILE (requirements.txt, pyproject.toml, uv.lock or conda YAML) as the next NAME."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        call = opened.environments.plan if dry_run else opened.environments.register
        found = call(name, file, platform=platform, python=python)
    verb = "Would register" if dry_run else "Registered"
    text = f"{verb} {found.name}:{found.version} ({found.platform}, Python {found.python})."
    print_out(found.to_dict(), text, as_json=as_json)


@click.command("list", help="List environments.")
@common
def list_environments(as_json: bool, workspace: str | None) -> None:
    """Lists environments, newest first."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        found = opened.environments.list()
    rows = [
        (
            f"{e.name}:{e.version}",
            e.platform,
            e.python,
            e.source_kind,
            e.hash[:19],
            e.created_at[:19],
        )
        for e in found
    ]
    headings = ("ENVIRONMENT", "PLATFORM", "PYTHON", "FROM", "HASH", "CREATED")
    text = table(headings, rows) if rows else "No environments: 'fieldpost env register NAME FILE'."
    print_out([e.to_dict() for e in found], text, as_json=as_json)


@click.command(help="Show an environment and its lock.")
@click.argument("ref")
@common
def show(ref: str, as_json: bool, workspace: str | None) -> None:
    """Shows REF: NAME, NAME:VERSION or a hash."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        found = opened.environments.get(ref)
        lock = opened.environments.lock_text(found)
    text = fields(
        [
            ("environment", f"{found.name}:{found.version}"),
            ("platform", found.platform),
            ("python", found.python),
            ("from", found.source_kind),
            ("hash", found.hash),
            ("created", f"{found.created_at} by {found.created_by}"),
        ]
    )
    print_out(found.to_dict() | {"lock": lock}, f"{text}\n\n{lock}", as_json=as_json)


@click.command(help="Print the lock of a requirements file.")
@click.argument("file", type=click.Path(path_type=Path))
@_PLATFORM
@_PYTHON
@common
def lock(
    file: Path, platform: str | None, python: str | None, as_json: bool, workspace: str | None
) -> None:
    """Resolves FILE with hashes and prints the result; nothing is registered."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        found = opened.environments.resolve(file, platform=platform, python=python)
    document = {
        "platform": found.platform,
        "python": found.python,
        "hash": found.hash,
        "lock": found.text,
    }
    print_out(document, found.text.rstrip(), as_json=as_json)
