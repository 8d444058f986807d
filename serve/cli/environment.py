"""The commands `fieldpost env …`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click
import msgspec

from scoring.commands.output import changes, common, fields, table
from scoring.commands.output import show as print_out

if TYPE_CHECKING:
    from serve.packaging.lock import Lock

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
        if dry_run:
            plan = opened.environments.resolve(file, platform=platform, python=python)
            text = f"Would register {name}: {len(plan.packages)} packages, {plan.hash}."
            print_out(_lock_document(plan), text, as_json=as_json)
            return
        found = opened.environments.register(name, file, platform=platform, python=python)
    text = f"Registered {found.ref} ({found.platform}, Python {found.python})."
    print_out(found, text, as_json=as_json)


def _lock_document(lock: Lock) -> dict[str, object]:
    return {
        "platform": lock.target.platform,
        "python": lock.target.python,
        "hash": lock.hash,
        "lock": lock.text,
    }


@click.command("list", help="List environments.")
@common
def list_environments(as_json: bool, workspace: str | None) -> None:
    """Lists environments, newest first."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        found = opened.environments.list()
    rows = [
        (
            e.ref,
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
    print_out(found, text, as_json=as_json)


@click.command(help="Show an environment and its lock.")
@click.argument("ref")
@common
def show(ref: str, as_json: bool, workspace: str | None) -> None:
    """Shows REF: NAME, NAME:VERSION or a hash."""
    from serve.workspace import Workspace

    with Workspace(workspace) as opened:
        found = opened.environments.get(ref)
        text = opened.environments.read(found).lock.text
    head = fields(
        [
            ("environment", found.ref),
            ("platform", found.platform),
            ("python", found.python),
            ("from", found.source_kind),
            ("hash", found.hash),
            ("created", f"{found.created_at} by {found.created_by}"),
        ]
    )
    print_out(msgspec.to_builtins(found) | {"lock": text}, f"{head}\n\n{text}", as_json=as_json)


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
    print_out(_lock_document(found), found.text.rstrip(), as_json=as_json)
