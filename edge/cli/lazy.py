"""A group whose commands are imported when they run: listing them costs nothing."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import NamedTuple

import click


class Entry(NamedTuple):
    """One command: where it is (`module:attribute`) and its help line, which a test compares."""

    path: str
    help: str


class LazyGroup(click.Group):
    """A group over a table of entries.

    Args:
        name: Of the group.
        entries: Name to command.
        help: Of the group.
    """

    def __init__(self, name: str, *, entries: Mapping[str, Entry], help: str) -> None:  # noqa: A002
        super().__init__(name, help=help, no_args_is_help=True)
        self.entries = dict(entries)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's own
        """In the order of the table."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Imports one."""
        entry = self.entries.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.path.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Writes the table without importing anything."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.help) for name, entry in self.entries.items()])
