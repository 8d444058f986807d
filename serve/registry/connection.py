"""What the collections see of a database: statements go in, rows come out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from typing import Any

Row = dict[str, Any]
"""A row: column to value."""


class Connection:
    """One transaction on either driver.

    Args:
        raw: The driver's connection, whose rows are dictionaries.
        translate: Brings a statement to the form of the driver's parameters.
    """

    def __init__(self, raw: Any, translate: Callable[[str], str]) -> None:
        self._raw = raw
        self._translate = translate

    def execute(self, statement: str, /, **values: object) -> list[Row]:
        """Runs a statement and returns all rows that it answers.

        Args:
            statement: SQL that both databases take, with parameters as `:name`.
            values: The parameters' values.
        """
        with closing(self._raw.cursor()) as cursor:
            cursor.execute(self._translate(statement), values)
            # Only a statement that answers rows has a description of their columns.
            rows: list[Row] = cursor.fetchall() if cursor.description else []
            return rows

    def execute_many(self, statement: str, rows: Iterable[Mapping[str, object]]) -> None:
        """Runs a statement once for each set of values."""
        with closing(self._raw.cursor()) as cursor:
            cursor.executemany(self._translate(statement), [*rows])
