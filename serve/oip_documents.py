"""Requests as they are written for `/score`, as the inputs of an inference server. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from scoring.errors import InputError, MalformedPayloadError, WrongShapeError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import ArrayLike, NDArray

_ROWS = ("data", "instances", "inputs")


def inputs_of(document: Any, names: Sequence[str]) -> dict[str, ArrayLike]:
    """The arrays of a request.

    Args:
        document: `{"inputs": {name: values}}`, the protocol's own `{"inputs": [{"name": ..}]}`, or
            rows for a model of one input: `{"data": rows}`, `{"instances": rows}` or a list.
        names: Of the model's inputs.

    Raises:
        InputError: It is none of these, or the model has more inputs than rows can be for.
    """
    if isinstance(document, list):
        return _rows(document, names)
    given = [key for key in _ROWS if isinstance(document, dict) and key in document]
    if len(given) != 1:
        raise MalformedPayloadError(
            "The request has no inputs, or more than one kind of them.",
            hint='Send {"inputs": {name: values}} or {"data": rows}.',
        )
    value = document[given[0]]
    if isinstance(value, dict):
        return dict(value)
    if given == ["inputs"] and value and all(isinstance(each, dict) for each in value):
        return dict(_tensor(number, tensor) for number, tensor in enumerate(value))
    return _rows(value, names)


def _rows(rows: Any, names: Sequence[str]) -> dict[str, ArrayLike]:
    if len(names) != 1:
        raise InputError(
            f"The model has {len(names)} inputs, and rows are for a model of one.",
            hint=f'Send {{"inputs": {{name: values}}}} with {", ".join(names)}.',
        )
    return {names[0]: rows}


def _tensor(number: int, tensor: Mapping[str, Any]) -> tuple[str, NDArray[Any]]:
    where = f"inputs[{number}]"
    if "name" not in tensor or "data" not in tensor:
        raise MalformedPayloadError(
            f"{where} has no name or no data.", hint="An input has both.", where=where
        )
    try:
        array = np.asarray(tensor["data"])
        shaped = array.reshape(tensor["shape"]) if "shape" in tensor else array
    except (ValueError, TypeError) as error:
        raise WrongShapeError(f"{where}: {error}.", where=f"{where}.shape") from None
    return str(tensor["name"]), shaped


def document_of(outputs: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """The answer as JSON has it: `{"outputs": {name: values}}`."""
    return {"outputs": {name: array.tolist() for name, array in outputs.items()}}
