"""Settings of a deployment: `--set key=value`, checked against what the target takes.

Secrets may stand in `env.*`: whoever shows settings shows `mask_settings` of them.
"""

from __future__ import annotations

import difflib
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar, get_type_hints

import msgspec

from scoring.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

ENV_PREFIX = "env."
SERVER_PREFIX = "server."
MASK = "***"
_GROUPS = {"env", "server"}

S = TypeVar("S", bound=msgspec.Struct)


def parse_settings(kind: type[S], settings: Mapping[str, Any]) -> S:
    """The settings as the target's own type.

    Args:
        kind: A struct whose fields are the known keys; a field `env` takes all `env.KEY`, a field
            `server` all `server.KEY` that are no field themselves.
        settings: Values may be texts, as a command line gives them, or of the field's type.

    Raises:
        UsageError: An unknown key, or a value of the wrong type; the hint lists what there is.
    """
    values: dict[str, Any] = {}
    for key, value in settings.items():
        _place(kind, values, key, value)
    for key, value in values.items():
        _check_value(kind, key, value)
    return msgspec.convert(values, kind, strict=False)


def mask_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """A copy that may be shown: the values of environment variables are masked."""
    return {key: MASK if key.startswith(ENV_PREFIX) else value for key, value in settings.items()}


def describe_settings(kind: type[msgspec.Struct]) -> list[str]:
    """One `key=type` for each setting, with its default where it has one."""
    return [_describe(field) for field in msgspec.structs.fields(kind)]


def _place(kind: type[msgspec.Struct], values: dict[str, Any], key: str, value: Any) -> None:
    known = set(_fields(kind))
    if key.startswith(ENV_PREFIX) and "env" in known:
        name = key.removeprefix(ENV_PREFIX)
        if not name or "=" in name or "\0" in name + str(value):
            raise UsageError(f"{key!r} does not name an environment variable.")
        values.setdefault("env", {})[name] = str(value)
    elif key.startswith(SERVER_PREFIX) and "server" in known:
        name = key.removeprefix(SERVER_PREFIX)
        if name in known - _GROUPS:
            values[name] = value
        else:
            values.setdefault("server", {})[name] = str(value)
    elif key in known - _GROUPS:
        values[key] = value
    else:
        close = difflib.get_close_matches(key, _spelled(known), 1)
        guess = f" Did you mean {close[0]!r}?" if close else ""
        raise UsageError(
            f"There is no setting {key!r}.{guess}",
            hint=f"Known settings: {', '.join(describe_settings(kind))}.",
            where=key,
        )


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    """The fields of a kind of settings, by their keys; to ask for them anew takes milliseconds."""
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


@cache
def _types(kind: type[msgspec.Struct]) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


def _spelled(known: set[str]) -> list[str]:
    """The keys as a user writes them."""
    return [f"{key}.NAME" if key in _GROUPS else key for key in sorted(known)]


def _check_value(kind: type[msgspec.Struct], key: str, value: Any) -> None:
    expected = _types(kind)[key]
    try:
        msgspec.convert(value, expected, strict=False)
    except msgspec.ValidationError as error:
        field = _fields(kind)[key]
        raise UsageError(
            f"The setting {key!r} cannot be {value!r}: {str(error).lower()}.",
            hint=f"Write {_describe(field)}.",
            where=key,
        ) from error


def _describe(field: msgspec.structs.FieldInfo) -> str:
    if field.encode_name in _GROUPS:
        return f"{field.encode_name}.NAME=text"
    text = f"{field.encode_name}={_type_name(msgspec.inspect.type_info(field.type))}"
    if field.default not in (msgspec.NODEFAULT, None):
        text += f" (default {field.default})"
    return text


def _type_name(kind: msgspec.inspect.Type) -> str:
    if isinstance(kind, msgspec.inspect.UnionType):
        return _type_name(kind.types[0])
    if isinstance(kind, msgspec.inspect.LiteralType):
        return "|".join(str(value) for value in kind.values)
    if isinstance(kind, msgspec.inspect.BoolType):
        return "true|false"
    if isinstance(kind, msgspec.inspect.IntType):
        return "integer"
    return "number" if isinstance(kind, msgspec.inspect.FloatType) else "text"
