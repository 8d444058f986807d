"""A click group whose commands are imported only when one of them runs.

`fieldpost --help` has to answer at once, so the one-line helps stand in the table beside the import
paths, and a test compares them with the commands' own.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, NamedTuple

import click

if TYPE_CHECKING:
    from collections.abc import Iterable

EXTENSIONS = "fieldpost.commands"


class Entry(NamedTuple):
    """One command: where it is (`module:attribute`) and its help line."""

    path: str
    help: str


class LazyGroup(click.Group):
    """A group over a table of entries, extended by installed entry points where asked."""

    def __init__(
        self,
        name: str,
        *,
        entries: dict[str, Entry],
        help: str,  # noqa: A002 - click's own name
        extensible: bool = False,
        no_args_is_help: bool = True,
    ) -> None:
        super().__init__(name, help=help, no_args_is_help=no_args_is_help)
        self.entries = entries
        self._extensible = extensible

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The commands in the order of the table, then those of other distributions."""
        return [*self.entries, *sorted(self._extensions())]

    def get_command(
        self,
        ctx: click.Context,  # noqa: ARG002
        cmd_name: str,
    ) -> click.Command | None:
        """Imports the command that was asked for."""
        entry = self.entries.get(cmd_name)
        path = entry.path if entry else self._extensions().get(cmd_name)
        if path is None:
            return None
        module, _, attribute = path.partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, with the nearest command in the error."""
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            ctx.fail(_unknown(name, self.list_commands(ctx)))
        return super().resolve_command(ctx, args)

    def format_commands(
        self,
        ctx: click.Context,
        formatter: click.HelpFormatter,
    ) -> None:
        """Writes the table without importing a single command of its own."""
        rows = [(name, entry.help) for name, entry in self.entries.items()]
        rows += [(name, self._summary(ctx, name)) for name in sorted(self._extensions())]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def _summary(self, ctx: click.Context, name: str) -> str:
        """The help of an extension, which alone knows it; its module should be a light one."""
        try:
            command = self.get_command(ctx, name)
        except Exception as error:  # noqa: BLE001 - one that is broken spoils no help
            return f"(cannot be loaded: {error})"
        return command.get_short_help_str() if command else ""

    def _extensions(self) -> dict[str, str]:
        if not self._extensible:
            return {}
        from importlib import metadata

        points = metadata.entry_points(group=EXTENSIONS)
        return {point.name: point.value for point in points}


def _unknown(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, list(known), n=1)
    advice = f" Did you mean '{near[0]}'?" if near else ""
    return f"No such command '{name}'.{advice}"
