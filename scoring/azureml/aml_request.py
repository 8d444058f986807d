"""What scripts import as `azureml.contrib.services.aml_request`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from flask import Request

from scoring.azureml import state

__all__ = ["AMLRequest", "rawhttp"]

FunctionT = TypeVar("FunctionT", bound=Callable[..., object])


def rawhttp(function: FunctionT) -> FunctionT:
    """Marks the script: its `run()` gets the HTTP request itself.

    As with Azure's, the mark belongs to the process and not to the function.
    """
    state.raw_http = True
    return function


class AMLRequest(Request):  # type: ignore[misc]  # Flask is untyped here
    """The request that a raw `run()` gets, for scripts that name its type."""
