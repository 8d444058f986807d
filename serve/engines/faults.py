"""What an engine's client raises, as our errors: one place for all of it."""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

from scoring.errors import FieldpostError, NotFoundError, TargetError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_FOUND, _CONFLICT = 404, 409
_TAKEN = re.compile(r"port is already allocated|address already in use", re.IGNORECASE)
_FULL = re.compile(r"no space left on device", re.IGNORECASE)
# Podman answers 500 where Docker answers 409.
_NAMED = re.compile(r"name \S+ is already in use|name is already in use", re.IGNORECASE)
_GPU = re.compile(r"could not select device driver|unresolvable CDI devices", re.IGNORECASE)
_NETWORK = re.compile(r"network (?:\S+ )?not found", re.IGNORECASE)
_LONGEST = 2000


class PortTakenError(TargetError):
    """Another process or container has the port that was to be published."""


class ConflictError(TargetError):
    """The engine has something of that name, or does it already."""


@contextlib.contextmanager
def translated(what: str, where: str) -> Iterator[None]:
    """Errors of the engine and of the way to it, as ours.

    Args:
        what: What the engine was to do, as of `The engine cannot WHAT`.
        where: The engine, for messages.

    Raises:
        UnreachableError: It does not answer (any more).
        NotFoundError: What it was asked about is not there.
        TargetError: It cannot or does not want to.
    """
    from docker import errors as docker_errors  # noqa: PLC0415 - heavy
    from requests import exceptions as requests_errors  # noqa: PLC0415
    from urllib3 import exceptions as urllib3_errors  # noqa: PLC0415

    try:
        yield
    except FieldpostError:
        raise
    except docker_errors.APIError as error:
        raise _refusal(error.response.status_code, _said(error), what, where) from error
    except (requests_errors.RequestException, urllib3_errors.HTTPError, OSError) as error:
        raise UnreachableError(
            f"{where} does not answer any more: {_short(str(error))}.",
            hint="Look whether the engine runs, then run the command again.",
        ) from error
    except docker_errors.DockerException as error:
        raise TargetError(f"{where} cannot {what}: {_short(str(error))}.") from error


def refusal(said: str, what: str, where: str) -> TargetError:
    """The error for what an engine answers in the middle of a stream."""
    found = _refusal(0, said, what, where)
    assert isinstance(found, TargetError)
    return found


def _refusal(status: int, said: str, what: str, where: str) -> FieldpostError:
    text = f"{where} cannot {what}: {_short(said)}."
    if _TAKEN.search(said):
        return PortTakenError(text, hint="Choose another port, or end what has it.")
    if _FULL.search(said):
        return TargetError(text, hint="Make room for the engine's data ('docker system df').")
    if _GPU.search(said):
        return TargetError(text, hint="Install the NVIDIA container toolkit for this engine.")
    if _NETWORK.search(said):
        return TargetError(text, hint="Create it ('docker network create NAME').", where="network")
    if status == _NOT_FOUND:
        return NotFoundError(text)
    if status == _CONFLICT or _NAMED.search(said):
        return ConflictError(text)
    return TargetError(text)


def _said(error: object) -> str:
    explanation = getattr(error, "explanation", None)
    text = explanation.decode(errors="replace") if isinstance(explanation, bytes) else explanation
    return str(text or error)


def _short(text: str) -> str:
    return " ".join(text.split()).rstrip(".")[:_LONGEST]
