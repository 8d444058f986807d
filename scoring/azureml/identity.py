"""The headers that follow a request through logs: request IDs and the trace."""

from __future__ import annotations

import logging
import os
import random
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

LIMIT = 100
"""Longest ID, in characters."""

logger = logging.getLogger("azmlinfsrv")

_PICKED = frozenset(
    {
        "x-request-id",
        "x-ms-request-id",
        "x-ms-client-request-id",
        "traceid",
        "content-type",
        "origin",
    }
)


# What a UUID has fixed: its version, 4, and its variant, the bits 10.
_FIXED = 4 << 76 | 2 << 62
_FREE = ~(15 << 76 | 3 << 62)
# Not the module's own generator: a script may seed that one. Nobody has to be kept from guessing.
_random = random.Random()  # noqa: S311
os.register_at_fork(after_in_child=_random.seed)


class Identity(msgspec.Struct, frozen=True, gc=False):
    """What the answer's headers say about the request.

    Attributes:
        headers: To be set in the answer.
        fault: Why the request is refused with 431; empty when it is not.
    """

    headers: list[tuple[str, str]]
    fault: str


def pick(headers: list[tuple[str, str]]) -> dict[str, str]:
    """The few headers that every request is asked for; repeated ones joined with commas."""
    picked: dict[str, str] = {}
    for name, value in headers:
        if name in _PICKED:
            picked[name] = f"{picked[name]},{value}" if name in picked else value
    return picked


def identify(picked: Mapping[str, str], *, strict: bool) -> Identity:
    """The IDs to answer with; `x-ms-request-id` is deprecated and stands in for the client's."""
    request_id = picked.get("x-request-id")
    if request_id is None or not (request_id or strict):
        request_id = _new_id()
    if len(request_id) > LIMIT:
        fault = f"x-request-id must not exceed {LIMIT} characters"
        return Identity(_headers("", "", "", picked), fault)
    client_id = picked.get("x-ms-client-request-id", "")
    legacy_id = picked.get("x-ms-request-id", "")
    if legacy_id:
        logger.warning(
            "x-ms-request-id header has been deprecated and will be removed from future versions "
            "of the server. Please use x-ms-client-request-id."
        )
        client_id = client_id or legacy_id
    else:
        legacy_id = client_id or request_id
    if max(len(legacy_id), len(client_id)) > LIMIT:
        fault = f"x-ms-request-id and x-ms-client-request-id must not exceed {LIMIT} characters"
        return Identity(_headers(request_id, "", "", picked), fault)
    return Identity(_headers(request_id, legacy_id, client_id, picked), "")


def _new_id() -> str:
    """A random UUID (RFC 9562, version 4), at a fifth of what `uuid.uuid4` costs."""
    digits = f"{_random.getrandbits(128) & _FREE | _FIXED:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def _headers(
    request_id: str, legacy_id: str, client_id: str, picked: Mapping[str, str]
) -> list[tuple[str, str]]:
    headers = []
    if request_id:
        headers.append(("x-request-id", request_id))
    if legacy_id:
        headers.append(("x-ms-request-id", legacy_id))
    if client_id:
        headers.append(("x-ms-client-request-id", client_id))
    if "traceid" in picked:
        headers.append(("TraceId", picked["traceid"]))
    return headers
