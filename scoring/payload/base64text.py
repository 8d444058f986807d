"""`{"b64": "…"}` in a body: how TensorFlow Serving's clients send strings of bytes."""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from scoring.errors import WrongTypeError
from scoring.payload.places import key

if TYPE_CHECKING:
    from scoring.schema import ModelSchema

_KEY = "b64"
_DEEPEST = 64


def takes_text(schema: ModelSchema) -> bool:
    """Whether such values can stand in a model's requests: an input of that name would be one."""
    names = {spec.name for spec in schema.inputs} | set(schema.features)
    return _KEY not in names and any(spec.dtype == "string" for spec in schema.inputs)


def decoded(value: Any, path: str, depth: int = 0) -> Any:
    """A payload with strings in the place of such objects.

    Args:
        value: Lists and objects; what is nested too deep for any model is left as it is.
        path: Where it stands.
        depth: How deep.

    Raises:
        WrongTypeError: One does not hold base64 of UTF-8.
    """
    if depth > _DEEPEST:
        return value
    if isinstance(value, list):
        if not any(isinstance(inner, list | dict) for inner in value):
            return value
        return [
            decoded(inner, f"{path}[{number}]", depth + 1) for number, inner in enumerate(value)
        ]
    if isinstance(value, dict):
        if value.keys() == {_KEY}:
            return _text(value[_KEY], path)
        return {name: decoded(inner, path + key(name), depth + 1) for name, inner in value.items()}
    return value


def _text(value: Any, path: str) -> str:
    where = f"{path}.{_KEY}"
    if not isinstance(value, str):
        raise WrongTypeError(f"{where} is not a string of base64.", where=where)
    try:
        return base64.b64decode(value, validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise WrongTypeError(
            f"{where} is not base64 of UTF-8 text.",
            hint="The model takes text; encode its UTF-8 bytes, or send the text itself.",
            where=where,
        ) from None
