"""What scripts import as `azureml.contrib.services.aml_response`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from flask import Response

from scoring.azureml import outputs, state

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["AMLResponse"]

# A comma is part of these values, never a separator.
_WHOLE_VALUES = frozenset(
    {
        "content-disposition",
        "content-type",
        "date",
        "expires",
        "last-modified",
        "location",
        "retry-after",
        "set-cookie",
        "www-authenticate",
    }
)


class AMLResponse(Response):  # type: ignore[misc]  # Flask is untyped here
    """An answer with its own status and headers.

    Args:
        message: Bytes, text or an iterable of them (sent chunk by chunk); with `json_str`
            anything that JSON can hold. None becomes an empty JSON object.
        status_code: The HTTP status.
        response_headers: Values with commas become repeated headers.
        json_str: Encode the message as JSON.
        run_function_failed: The header `x-ms-run-function-failed`.
    """

    def __init__(
        self,
        message: Any,
        status_code: int,
        response_headers: Mapping[str, str] | None = None,
        json_str: bool = False,
        run_function_failed: bool = False,
    ) -> None:
        given = response_headers or {}
        encoded = message is None or json_str
        if encoded:
            body = _dumps(message)
            super().__init__(body, status=status_code, mimetype="application/json")
        else:
            super().__init__(message, status=status_code)
        # Azure's leaves the JSON type in and sends the header twice.
        own_type = "Content-Type" in given if state.strict else _names_type(given)
        if own_type and not (encoded and state.strict):
            self.headers.remove("Content-Type")
        self.headers["x-ms-run-function-failed"] = str(run_function_failed)
        for name, value in given.items():
            for part in _parts(name, value):
                self.headers.add(name, part)


def _dumps(message: Any) -> bytes:
    return outputs.dumper(strict=state.strict)(message)


def _names_type(headers: Iterable[str]) -> bool:
    return any(name.lower() == "content-type" for name in headers)


def _parts(name: str, value: str) -> list[str]:
    if not state.strict and name.lower() in _WHOLE_VALUES:
        return [value]
    return [part.strip() for part in str(value).split(",")]
