"""SQL as text, written once: parameters are `:name`, as SQLite's driver takes them."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

_TOKEN = re.compile(
    r"""
      '(?:[^']|'')*'             # a text, which may hold a colon
    | "(?:[^"]|"")*"             # a quoted name
    | --[^\n]*                   # a comment
    | ::                         # a cast of PostgreSQL
    | :(?P<name>[A-Za-z_]\w*)    # a parameter
    | %                          # a sign of psycopg's own
    """,
    re.VERBOSE | re.ASCII,
)


@lru_cache(maxsize=256)
def for_psycopg(statement: str) -> str:
    """The statement with its parameters as psycopg writes them: `%(name)s`."""
    return _TOKEN.sub(_for_psycopg, statement)


def _for_psycopg(token: re.Match[str]) -> str:
    name = token["name"]
    return f"%({name})s" if name else token[0].replace("%", "%%")


def insert(table: str, columns: Iterable[str]) -> str:
    """An `INSERT` of one row, each value a parameter named like its column.

    Args:
        table: A table of ours; the names are written as they are.
        columns: Columns of it.
    """
    names = [*columns]
    values = ", ".join(f":{name}" for name in names)
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({values})"  # noqa: S608 - ours


def assignments(columns: Iterable[str]) -> str:
    """What stands after `SET`, each value a parameter named like its column."""
    return ", ".join(f"{name} = :{name}" for name in columns)


def where(conditions: Iterable[str]) -> str:
    """A `WHERE` of all conditions; empty where there are none."""
    text = " AND ".join(conditions)
    return f" WHERE {text}" if text else ""
