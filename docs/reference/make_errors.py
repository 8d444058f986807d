"""Writes `errors.md` from the tree of errors: `python docs/reference/make_errors.py`."""

from __future__ import annotations

from pathlib import Path

from scoring.errors import FieldpostError
from serve.cli.exits import exit_status
from serve.server.status import STATUS

HEAD = """# Errors

Every error has a code that stays the same: as `error.code` in HTTP answers and in the JSON that a
command prints with `--json`. The message says what was wrong, `where` at which place of the input,
and `hint` what to do next. A command exits with 1 where something failed, and with 2 where other
arguments would have helped. Codes marked *retry* may go through later, unchanged.

| code | HTTP | exit | meaning |
|---|---|---|---|
"""


def table() -> str:
    """The page."""
    rows = {}
    for kind, status in STATUS.items():
        meaning = (kind.__doc__ or "").splitlines()[0].rstrip(".")
        retry = " *retry*" if kind.retryable else ""
        rows[kind.code] = f"| `{kind.code}`{retry} | {status} | {exit_status(kind)} | {meaning} |"
    rows.pop(FieldpostError.code, None)
    internal = "| `internal` | 500 | 1 | A defect of Fieldpost |"
    return HEAD + "\n".join([*(rows[code] for code in sorted(rows)), internal]) + "\n"


if __name__ == "__main__":
    Path(__file__).with_name("errors.md").write_text(table(), encoding="utf-8")
