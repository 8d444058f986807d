"""What the fleet's commands print, and how they read what people write."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

if TYPE_CHECKING:
    from edge.controller.records import Fleet
    from edge.workspace import Workspace

Function = TypeVar("Function", bound=Callable[..., Any])

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)?", re.ASCII)
_SECONDS: Final = {"ms": 0.001, "": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES: Final = re.compile(r"(\d+(?:\.\d+)?)\s*([kMG]?)B?(?:/s)?", re.ASCII)
_POWERS: Final = {"": 1, "k": 1000, "M": 1000**2, "G": 1000**3}


def common(function: Function) -> Function:
    """Adds the options that all commands have."""
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


@contextmanager
def opened(workspace: str | None) -> Iterator[tuple[Workspace, Fleet]]:
    """The workspace and the records of its fleet."""
    from edge.controller.records import Fleet
    from edge.workspace import open_workspace

    with open_workspace(workspace) as found:
        yield found, Fleet(found.registry.database)


def print_out(document: Any, text: str, *, as_json: bool) -> None:
    """Prints the document where `--json` was given, else the text."""
    if as_json:
        import msgspec

        data = msgspec.json.encode(document, enc_hook=str, order="deterministic")
        text = msgspec.json.format(data, indent=2).decode()
    if text:
        click.echo(text)


def note(sentence: str) -> None:
    """Tells the user what happens now: on stderr, so that stdout stays the answer's."""
    click.echo(sentence, err=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Columns of text, aligned; empty cells show as `-`."""
    lines = [[*headings], *([str(x) if x not in {None, ""} else "-" for x in row] for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


def fields(pairs: Iterable[tuple[str, object]]) -> str:
    """`name: value` lines, aligned, without those whose value is empty."""
    kept = [(name, str(value)) for name, value in pairs if value not in (None, "", (), [], {})]
    width = max((len(name) for name, _ in kept), default=0)
    return "\n".join(f"{name}:".ljust(width + 2) + value for name, value in kept)


def ago(seconds: float, now: float | None = None) -> str:
    """How long ago a moment was: `3m`; empty for never."""
    if not seconds:
        return ""
    passed = max(0.0, (time.time() if now is None else now) - seconds)
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if passed >= 2 * size:
            return f"{passed / size:.0f}{unit}"
    return f"{passed:.0f}s"


def tags(values: Iterable[str], option: str) -> dict[str, str]:
    """Reads repeated `key=value` options; raises click.BadParameter."""
    found = {}
    for value in values:
        key, separator, rest = value.partition("=")
        if not separator or not key:
            raise click.BadParameter(f"'{value}' is not of the form key=value.", param_hint=option)
        found[key] = rest
    return found


class Duration(click.ParamType):  # type: ignore[type-arg]
    """`90s`, `30m`, `2h`, `1d`; a number alone is in seconds."""

    name = "duration"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Seconds."""
        if isinstance(value, int | float):
            return float(value)
        match = _DURATION.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"'{value}' is no duration: write 90s, 30m, 2h or 1d.", param, ctx)
        return float(match[1]) * _SECONDS[match[2] or ""]


class Rate(click.ParamType):  # type: ignore[type-arg]
    """`500k`, `2M`, in bytes a second."""

    name = "rate"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> int:
        """Bytes a second."""
        match = _BYTES.fullmatch(str(value).strip())
        if match is None:
            self.fail(f"'{value}' is no rate: write 500k or 2M (bytes a second).", param, ctx)
        return int(float(match[1]) * _POWERS[match[2]])


DURATION: Final = Duration()
RATE: Final = Rate()
