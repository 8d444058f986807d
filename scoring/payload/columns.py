"""Rows, records and named columns brought into a model's own order of columns."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from scoring.errors import UnknownInputError, WrongShapeError, WrongTypeError
from scoring.payload.places import listed
from scoring.payload.words import kind_of

if TYPE_CHECKING:
    from collections.abc import Sequence


def permutation(given: Sequence[str], wanted: Sequence[str], where: str) -> list[int]:
    """Where each wanted column stands among the given ones.

    The names "0", "1", … are those of a frame without names: its columns count by their order.

    Raises:
        UnknownInputError: A column is missing, unknown, or given twice.
    """
    if list(given) == list(wanted) or list(given) == [str(n) for n in range(len(wanted))]:
        return list(range(len(wanted)))
    require_names(given, wanted, where)
    places = {name: number for number, name in enumerate(given)}
    return [places[name] for name in wanted]


def require_names(
    given: Sequence[str], wanted: Sequence[str], where: str, kind: str = "column"
) -> None:
    """Compares names, whatever their order.

    Raises:
        UnknownInputError: One is missing, unknown, or given twice; the message names them.
    """
    faults = {
        "missing": [name for name in wanted if name not in set(given)],
        "unknown": [name for name in given if name not in set(wanted)],
        "given twice": [name for number, name in enumerate(given) if name in given[:number]]
        if len(set(given)) < len(given)
        else [],
    }
    found = [f"{word}: {listed(names)}" for word, names in faults.items() if names]
    if found:
        raise UnknownInputError(
            f"The {kind}s of {where or 'the body'} are not the model's ({'; '.join(found)}).",
            hint=f"The model takes {listed(list(wanted))}.",
            where=where,
        )


def reorder(rows: list[Any], order: Sequence[int], where: str) -> list[Any]:
    """Rows with their columns in another order.

    Raises:
        InputError: A row is not a list, or has another length than there are columns.
    """
    require_width(rows, len(order), where)
    if list(order) == list(range(len(order))):
        return rows
    return [[row[number] for number in order] for row in rows]


def require_width(rows: list[Any], width: int, where: str) -> None:
    """Every row has to be a list of as many values as there are columns.

    Raises:
        InputError: One is not; the message says which.
    """
    if not rows:
        raise _empty(where)
    for number, row in enumerate(rows):
        place = f"{where}[{number}]"
        if not isinstance(row, list):
            raise WrongTypeError(f"{place} is {kind_of(row)}, not a row.", where=place)
        if len(row) != width:
            raise WrongShapeError(
                f"{place} has {len(row)} {'value' if len(row) == 1 else 'values'}; "
                f"there are {width} columns.",
                where=place,
            )


def from_records(records: list[Any], wanted: Sequence[str], where: str) -> list[list[Any]]:
    """Rows in the model's order from one object for each row.

    Raises:
        InputError: A record is no object, or has other keys than the columns.
    """
    if not records:
        raise _empty(where)
    names = set(wanted)
    rows = []
    for number, record in enumerate(records):
        place = f"{where}[{number}]"
        if not isinstance(record, dict):
            raise WrongTypeError(f"{place} is {kind_of(record)}, not an object.", where=place)
        if record.keys() != names:
            require_names(list(record), wanted, place)
        rows.append([record[name] for name in wanted])
    return rows


def flat(value: Any) -> Any:
    """A column as a list of values, from that or from a list of rows of one value."""
    if isinstance(value, list) and all(type(v) is list and len(v) == 1 for v in value):
        return [inner[0] for inner in value]
    return value


def _empty(where: str) -> WrongShapeError:
    place = where or "the body"
    return WrongShapeError(f"{place} has no rows.", hint="Send at least one row.", where=place)
