"""What stored telemetry says of drift: profiles of inputs against a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from edge.telemetry.drift import LEAST_REFERENCE, Drift, compare
from edge.telemetry.received import told
from edge.telemetry.store import Store
from scoring.errors import NotFoundError, TrainingDataError
from scoring.profiles import Profile, from_dict, of_rows

_FIRST_ROWS = 1000


class Seen(NamedTuple):
    """What a module was asked.

    Attributes:
        device: Its name.
        package: That answered.
        profile: Of the inputs.
    """

    device: str
    package: str
    profile: Profile


def seen(
    store: Store, module: str, *, package: str = "", since: float = 0.0, most: int = 100_000
) -> list[Seen]:
    """The profiles that devices have told of a module, the oldest first."""
    found = store.query(
        "SELECT device, data FROM records WHERE kind = 'inputs' AND data->>'$.module' = ? "
        "AND (? = '' OR data->>'$.package' = ?) AND told_at >= make_timestamp(?::BIGINT) "
        "ORDER BY told_at LIMIT ?",
        [module, package, package, int(since * 1e6), most],
    )
    profiles = []
    for device, text in found.rows:
        data = told(text)
        if not isinstance(data, dict):
            continue
        profile = from_dict({key: data[key] for key in ("rows", "columns") if key in data})
        if profile is not None:
            profiles.append(Seen(device, str(data.get("package", "")), profile))
    return profiles


def total(parts: Sequence[Seen]) -> Profile:
    """All of them together."""
    found = Profile()
    for part in parts:
        found.merge(part.profile)
    return found


def first(parts: Sequence[Seen]) -> tuple[Profile, Sequence[Seen]]:
    """The first thousand rows as a reference, and what came after them."""
    found = Profile()
    for place, part in enumerate(parts):
        if found.rows >= _FIRST_ROWS:
            return found, parts[place:]
        found.merge(part.profile)
    return found, ()


def drift(
    store: Store,
    module: str,
    *,
    reference: Profile | None = None,
    package: str = "",
    since: float = 0.0,
) -> dict[str, Drift]:
    """How far the inputs of a module are from its reference: `fleet` in all, and each device.

    Args:
        store: The telemetry.
        module: Its name on the devices.
        reference: The training sample's; the first thousand rows that were told, by default.
        package: Of this package alone.
        since: That were told at this time or later, in seconds since the epoch.

    Raises:
        NotFoundError: Nobody has told of inputs of this module.
    """
    parts: Sequence[Seen] = seen(store, module, package=package, since=since)
    if not parts:
        raise NotFoundError(
            f"No device has told what {module!r} is asked.",
            hint="Let its server look at inputs: deploy it with --set server.inputs=on.",
        )
    if reference is None:
        reference, parts = first(parts)
    found = {"fleet": compare(reference, total(parts))}
    for device in sorted({part.device for part in parts}):
        found[device] = compare(reference, total([p for p in parts if p.device == device]))
    return found


def reference_of(
    rows: Sequence[Any] | Mapping[str, Sequence[Any]], columns: Sequence[str]
) -> Profile:
    """The profile of a training sample, with the columns as devices name them.

    Args:
        rows: Rows of values, records, or columns by name.
        columns: As the model's server names them; rows are taken to be in this order where the
            sample's own names are others.

    Raises:
        TrainingDataError: The sample has another number of columns, or too few rows.
    """
    table = _records(rows)
    width = len(table[0]) if table else 0
    if width != len(columns) or len(table) < LEAST_REFERENCE:
        raise TrainingDataError(
            f"The sample has {len(table)} rows of {width} columns, and the model is asked with "
            f"{len(columns)} columns.",
            hint=f"Give {LEAST_REFERENCE} rows or more, with the model's columns in their order.",
        )
    named = set(table[0]) == set(columns)
    return of_rows(row if named else dict(zip(columns, row.values(), strict=True)) for row in table)


def _records(rows: Sequence[Any] | Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    if isinstance(rows, Mapping):
        listed = zip(*(_plain(column) for column in rows.values()), strict=True)
        return [dict(zip(map(str, rows), values, strict=True)) for values in listed]
    plain = [_plain(row) for row in rows]
    return [
        dict(row) if isinstance(row, Mapping) else {str(at): value for at, value in enumerate(row)}
        for row in plain
    ]


def _plain(values: Any) -> Any:
    """An array of numpy's, without a need for numpy."""
    return values.tolist() if hasattr(values, "tolist") else values
