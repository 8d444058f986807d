"""Writes `cli.md` from the commands themselves: `python docs/reference/make_cli.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click

from serve.cli.main import root

HEAD = """# The command line

Every command has `--json` (one JSON document on stdout; progress and logs go to stderr),
`--workspace` (default: `$FIELDPOST_WORKSPACE`, else `~/.fieldpost`) and `--debug`; those that
change something have `--dry-run`. Exit statuses: 0 done, 1 failed, 2 wrong usage; `serve`
also 3: the script does not load. These options are left out below.
"""
_COMMON = {"as_json", "workspace", "debug", "dry_run"}


def page() -> str:
    """The page."""
    return HEAD + "".join(_commands(root, "fieldpost"))


def _commands(group: click.Group, path: str) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield f"\n## {path} {name}\n\n{command.help}\n"
            yield from _commands(command, f"{path} {name}")
        elif command is not None:
            yield _command(command, f"{path} {name}")


def _command(command: click.Command, path: str) -> str:
    context = click.Context(command, info_name=path)
    pieces = [piece for piece in command.collect_usage_pieces(context) if piece != "[OPTIONS]"]
    lines = [f"\n### {' '.join([path, *pieces])}\n", f"{command.help}\n"]
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is not None and record[1] and parameter.name not in _COMMON:
            lines.append(f"- `{record[0]}`: {record[1]}")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("cli.md").write_text(page(), encoding="utf-8")
