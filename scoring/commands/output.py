"""What commands print: one JSON document on stdout, or text; progress and logs go to stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from scoring.commands import OutputError

Function = TypeVar("Function", bound=Callable[..., Any])


def write_json(document: Any) -> None:
    """Writes one JSON document and a line end to stdout."""
    text = msgspec.json.format(msgspec.json.encode(document, enc_hook=_plain), indent=2)
    write_line(text.decode())


def write_line(text: str) -> None:
    """Writes a line to stdout.

    Raises:
        BrokenPipeError: The reader has left.
        OutputError: It cannot be written: the disk is full, say.
    """
    try:
        click.echo(text)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise OutputError(error.strerror or str(error)) from error


def _plain(value: object) -> object:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form.")


def show(document: Any, text: str, *, as_json: bool) -> None:
    """Prints the document where `--json` was given, else the text."""
    if as_json:
        write_json(document)
    elif text:
        write_line(text)


def note(sentence: str) -> None:
    """Tells the user what happens now: on stderr, so that stdout stays the answer's."""
    click.echo(sentence, err=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns of text, aligned; empty cells show as `-`."""
    cells = [[str(cell) if cell not in (None, "") else "-" for cell in row] for row in rows]
    widths = [
        max([len(heading), *(len(row[column]) for row in cells)])
        for column, heading in enumerate(headings)
    ]
    lines = [headings, *cells]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """`name: value` lines, aligned, without those whose value is empty."""
    kept = [(name, str(value)) for name, value in pairs if value not in (None, "", (), [], {})]
    width = max((len(name) for name, _ in kept), default=0)
    indent = "\n" + " " * (width + 2)
    return "\n".join(
        f"{name}:".ljust(width + 2) + value.rstrip().replace("\n", indent) for name, value in kept
    )


def size(count: int) -> str:
    """Bytes for people: `1.4 MB` (powers of ten, as disks and networks are sold)."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000 or unit == "GB":  # noqa: PLR2004
            break
        value /= 1000
    return f"{count} B" if unit == "B" else f"{value:.1f} {unit}"


def common(function: Function) -> Function:
    """Adds the options that every command has: `--json`, `--workspace`, `--debug`."""
    # --debug is read from the arguments by `main`; it stands here so that help shows it.
    for option in (
        click.option("--debug", is_flag=True, expose_value=False, help="Show tracebacks."),
        click.option(
            "--workspace",
            metavar="LOCATION",
            default=None,
            envvar="FIELDPOST_WORKSPACE",
            help="Folder or postgresql:// URL. Default: $FIELDPOST_WORKSPACE, else ~/.fieldpost.",
        ),
        click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
    ):
        function = option(function)
    return function


def changes(function: Function) -> Function:
    """Adds `--dry-run` to a command that changes something."""
    return click.option(
        "--dry-run", is_flag=True, help="Say what would be done, and change nothing."
    )(function)


def pairs(values: Iterable[str], option: str) -> dict[str, str]:
    """Parses repeated `key=value` options.

    Raises:
        click.BadParameter: One has no `=` or no key.
    """
    result = {}
    for value in values:
        key, separator, rest = value.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"'{value}' is not of the form key=value.", param_hint=option)
        result[key] = rest
    return result
