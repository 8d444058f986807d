"""Which of the accepted forms a body has. Nothing is converted here.

| body | form |
|---|---|
| `{"data": [[…]]}`, `{"instances": …}`, `{"input_data": [[…]]}`, `[[…]]` | rows |
| the same with objects for rows, `{"dataframe_records": […]}` | records |
| `{"columns": …, "index": …, "data": …}`, below `dataframe_split` or `input_data` too | split |
| `{"inputs": {name: …}}`, `{"input_data": {name: …}}` | named |
| `{"inputs": [[…]]}` | rows, answered like named inputs |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from scoring.errors import MalformedPayloadError, UnknownInputError, WrongShapeError, WrongTypeError
from scoring.payload.places import listed
from scoring.payload.words import kind_of

Style = Literal["predictions", "outputs"]
Form = Literal["rows", "records", "named"]

_ROW_KEYS = ("data", "instances", "inputs", "input_data", "dataframe_split", "dataframe_records")
_SPLIT_KEYS = frozenset({"columns", "index", "data"})
# What other servers' clients send along, and what changes nothing here.
_IGNORED = frozenset({"id", "params", "parameters", "signature_name", "GlobalParameters"})
_FORMS = 'Send {"data": [[…], …]} or {"inputs": {name: […]}}.'


@dataclass(slots=True)
class Oriented:
    """A body's payload.

    Attributes:
        form: `rows` and `records` are lists; `named` is an object.
        value: The payload itself.
        path: Where it stands.
        style: How the answer is to look.
        columns: The names of the rows' columns, where the body gives them (split).
    """

    form: Form
    value: Any
    path: str
    style: Style = "predictions"
    columns: list[str] | None = None

    @property
    def columns_path(self) -> str:
        """Where the names of the columns stand."""
        return self.path.removesuffix("data") + "columns" if self.columns is not None else self.path


def orient(document: Any) -> Oriented:
    """Finds the payload in a parsed body.

    Raises:
        InputError: The body has none of the forms, or more than one.
    """
    if isinstance(document, list):
        return _rows(document, "")
    if not isinstance(document, dict):
        raise MalformedPayloadError(
            f"The body is {kind_of(document)}, not an object or a list.", hint=_FORMS
        )
    if "columns" in document and "data" in document:
        return _split(document, "")
    key = _payload_key(document)
    value = document[key]
    if key == "dataframe_split":
        return _split(value, key)
    if isinstance(value, list):
        found = _rows(value, key)
        if key == "inputs":
            found.style = "outputs"
        return found
    if isinstance(value, dict) and key in {"inputs", "input_data"}:
        if key == "input_data" and "columns" in value and "data" in value:
            return _split(value, key)
        return Oriented("named", value, key, "outputs" if key == "inputs" else "predictions")
    raise WrongTypeError(f"{key} is {kind_of(value)}, not a list.", hint=_FORMS, where=key)


def _payload_key(document: dict[str, Any]) -> str:
    keys = [key for key in _ROW_KEYS if key in document]
    if not keys:
        have = f"has the keys {listed(list(document))}" if document else "is an empty object"
        raise UnknownInputError(f"The body {have}, and none that holds the input.", hint=_FORMS)
    others = [key for key in document if key != keys[0] and key not in _IGNORED]
    if others:
        raise UnknownInputError(
            f"Beside {keys[0]!r} the body has {listed(others)}, which this model does not take.",
            hint=f"Send {keys[0]!r} alone.",
            where=others[0],
        )
    return keys[0]


def _rows(value: list[Any], path: str) -> Oriented:
    return Oriented("records" if value and isinstance(value[0], dict) else "rows", value, path)


def _split(value: Any, path: str) -> Oriented:
    if not isinstance(value, dict) or not {"columns", "data"} <= value.keys():
        raise WrongTypeError(
            f"{path or 'The body'} is not an object with 'columns' and 'data'.",
            hint='Send what DataFrame.to_dict("split") gives.',
            where=path,
        )
    others = [key for key in value if key not in _SPLIT_KEYS and (path or key not in _IGNORED)]
    if others:
        raise UnknownInputError(
            f"Beside 'columns', 'index' and 'data' there is {listed(others)}.", where=path
        )
    prefix = f"{path}." if path else ""
    data, index = value["data"], value.get("index")
    if not isinstance(data, list):
        raise WrongTypeError(f"{prefix}data is {kind_of(data)}, not a list.", where=f"{prefix}data")
    if isinstance(index, list) and len(index) != len(data):
        raise WrongShapeError(
            f"{prefix}index has {len(index)} entries and {prefix}data {len(data)} rows.",
            where=f"{prefix}index",
        )
    columns = _column_names(value["columns"], f"{prefix}columns")
    return Oriented("rows", data, f"{prefix}data", columns=columns)


def _column_names(columns: Any, path: str) -> list[str]:
    if not isinstance(columns, list):
        raise WrongTypeError(f"{path} is {kind_of(columns)}, not a list.", where=path)
    for number, name in enumerate(columns):
        if isinstance(name, list | dict | bool | float) or name is None:
            raise WrongTypeError(
                f"{path}[{number}] is {kind_of(name)}, not a name.", where=f"{path}[{number}]"
            )
    return [str(name) for name in columns]
