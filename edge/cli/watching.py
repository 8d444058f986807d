"""Tables that go on: `--watch`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click

from scoring.commands.output import show, write_line

Function = TypeVar("Function", bound=Callable[..., Any])
Look = Callable[[], tuple[Any, str]]
"""What there is now: as a document, and as text."""

POLL_S: Final = 1.0
_CLEAR: Final = "\x1b[H\x1b[2J\x1b[3J"


def watchable(function: Function) -> Function:
    """Adds `--watch`."""
    option = click.option(
        "--watch", "watching", is_flag=True, help="Go on, and show what changes. Ctrl-C ends it."
    )
    return option(function)


def print_out(look: Look, *, watching: bool, as_json: bool) -> None:
    """Prints what there is, once, or again and again until somebody ends it.

    A terminal is written anew every second. Anything else gets what there is whenever that is
    another: text with an empty line behind it, or with `--json` one document in each line.
    """
    if not watching:
        document, text = look()
        show(document, text, as_json=as_json)
        return
    before: Any = None
    try:
        while True:
            document, text = look()
            if as_json:
                _line(document, before)
            elif sys.stdout.isatty():
                write_line(f"{_CLEAR}{text}")
            elif document != before:
                write_line(f"{text}\n")
            before = document
            sys.stdout.flush()
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        return


def _line(document: Any, before: Any) -> None:
    import msgspec

    if document != before:
        write_line(msgspec.json.encode(document).decode())
