"""Where something stands in a body, as a sender reads it: `data[3][1]`, column names included."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

_IDENTIFIER = re.compile(r"[A-Za-z_]\w*\Z")
_LONGEST = 60

Index = tuple[int, ...]


class Place(Protocol):
    """Says where an element of an array stood in the body."""

    def at(self, index: Index) -> str:
        """The place of an element, row or value."""
        ...

    def name(self, index: Index) -> str:
        """The column of an element; empty where it has no name, or the place says it."""
        ...


@dataclass(frozen=True, slots=True)
class ArrayPlace:
    """The place of a nested list's elements.

    Attributes:
        path: Of the value that holds them; empty for the whole body.
        columns: Names of the second axis, where it has some.
    """

    path: str
    columns: Sequence[str] = ()

    def at(self, index: Index) -> str:
        """The place of an element, row or value."""
        return (self.path + brackets(index)) or "the body"

    def name(self, index: Index) -> str:
        """The column of an element; empty where it has no name."""
        return self.columns[index[1]] if len(index) > 1 and index[1] < len(self.columns) else ""


@dataclass(frozen=True, slots=True)
class CellPlace:
    """The place of one column's elements among rows: `data[ROW][3]` or `data[ROW].age`.

    Attributes:
        path: Of the rows.
        cell: What follows the row.
        column: The column's name; empty where `cell` says it.
    """

    path: str
    cell: str
    column: str = ""

    def at(self, index: Index) -> str:
        """The place of an element."""
        if not index:
            return self.path or "the body"
        return f"{self.path}[{index[0]}]{self.cell}{brackets(index[1:])}"

    def name(self, _index: Index) -> str:
        """The column."""
        return self.column


@dataclass(frozen=True, slots=True)
class MovedPlace:
    """The place of a matrix's elements whose columns stood in another order, or under names.

    Attributes:
        path: Of the rows.
        cells: For each column of the matrix, what follows the row in the body.
        columns: Their names, where `cells` does not say them.
    """

    path: str
    cells: Sequence[str]
    columns: Sequence[str] = ()

    def at(self, index: Index) -> str:
        """The place of an element or row."""
        cell = self.cells[index[1]] + brackets(index[2:]) if len(index) > 1 else ""
        return (self.path + brackets(index[:1]) + cell) or "the body"

    def name(self, index: Index) -> str:
        """The column of an element."""
        return self.columns[index[1]] if self.columns and len(index) > 1 else ""


def brackets(index: Index) -> str:
    """An index as a path: `[3][1]`."""
    return "".join(f"[{number}]" for number in index)


def key(name: str) -> str:
    """A key as a step of a path."""
    return f".{name}" if _IDENTIFIER.match(name) else f"[{quoted(name)}]"


def quoted(value: object) -> str:
    """A value from a body, short enough for a sentence."""
    text = repr(value)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"


def listed(names: Sequence[object]) -> str:
    """Names for a sentence: the first ten, and how many more."""
    most = 10
    shown = ", ".join(quoted(name) for name in names[:most])
    return shown if len(names) <= most else f"{shown} and {len(names) - most} more"
