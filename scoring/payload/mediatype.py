"""Which content types JSON may arrive under. Pure."""

from __future__ import annotations

from scoring.errors import UnsupportedMediaTypeError

JSON_TYPES = frozenset(
    {
        b"",
        b"application/json",
        b"application/json; charset=utf-8",
        b"application/json;charset=utf-8",
        b"application/json; charset=UTF-8",
        b"application/x-www-form-urlencoded",  # what `curl -d` says of any body
    }
)
"""The content types under which JSON arrives most often, as they stand in requests."""

_OTHER_JSON_TYPES = frozenset({"text/plain", "text/json", "application/octet-stream"})
_UTF8 = frozenset({"", "utf-8", "utf8", "us-ascii", "ascii"})


def require_json(content_type: str) -> None:
    """Refuses a body that says of itself that it is something else than JSON.

    Raises:
        UnsupportedMediaTypeError: Another type, or another encoding than UTF-8.
    """
    if content_type.encode("latin-1") in JSON_TYPES:
        return
    kind, _, parameters = content_type.lower().partition(";")
    kind = kind.strip()
    known = kind.encode("latin-1") in JSON_TYPES or kind in _OTHER_JSON_TYPES
    if not known and not kind.endswith("+json"):
        raise UnsupportedMediaTypeError(
            f"This route takes JSON, not {kind or content_type!r}.",
            hint="Send the rows as application/json.",
            where="content-type",
        )
    for parameter in parameters.split(";"):
        name, _, value = parameter.strip().partition("=")
        if name.strip() == "charset" and value.strip(' "') not in _UTF8:
            raise UnsupportedMediaTypeError(
                f"JSON is UTF-8, not {value.strip()}.",
                hint="Encode the body as UTF-8.",
                where="content-type",
            )
