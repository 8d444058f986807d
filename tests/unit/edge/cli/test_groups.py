"""The groups: their tables, and what every command has."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from edge.cli import groups
from scoring.commands.lazy import LazyGroup

READING = {"list", "show", "events", "logs", "report", "controller", "claims", "certificates"}
ALL = [
    (group, name)
    for group in (groups.fleet, groups.device, groups.rollout)
    for name in group.entries
]


def _command(group: LazyGroup, name: str) -> click.Command:
    command = group.get_command(click.Context(group), name)
    assert command is not None
    return command


@pytest.mark.parametrize(("group", "name"), ALL, ids=[f"{g.name} {n}" for g, n in ALL])
def test_commands_are_what_the_table_says(group: LazyGroup, name: str) -> None:
    command = _command(group, name)
    assert command.help == group.entries[name].help
    if isinstance(command, click.Group):
        return
    options = {option for parameter in command.params for option in parameter.opts}
    assert {"--json", "--debug"} <= options
    if name == "demo":  # in a workspace of its own, which goes with it
        return
    assert "--workspace" in options
    if name not in READING:
        assert "--dry-run" in options


def test_listing_them_imports_next_to_nothing() -> None:
    code = (
        "import sys\nfrom edge.cli.groups import device, fleet, rollout\n"
        "for group in (device, fleet, rollout):\n"
        "    group.main(['--help'], standalone_mode=False)\n"
        "print(*sorted({m.split('.')[0] for m in sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    names = set(done.stdout.splitlines()[-1].split())
    assert not names & {"msgspec", "paho", "cryptography", "tuf", "serve", "numpy", "asyncio"}
