"""What a registry's answers mean for the user: from statuses and bodies to errors."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from scoring.errors import (
    FieldpostError,
    NotFoundError,
    RegistryBusyError,
    RegistryDeniedError,
    RegistryError,
    UnreachableError,
)

BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
MAX_BODY_BYTES = 64 << 10

_SHOWN = 300
# Compiled where it is needed: that takes as long as many a module, and most pushes need none of it.
_UNPRINTABLE = r"[^\x20-\x7e\u00a0-\ud7ff\ue000-\ufffd]+"
_MARKUP = re.compile(rb"\s*(?:<!doctype|<html|<\?xml|<head|<body)", re.IGNORECASE)


class Passing(Exception):  # noqa: N818 - no error of its own: it carries one
    """Something that may go well a little later.

    Args:
        error: What to raise when it does not.
        after_s: What the registry asks to wait; None for nothing said.
        silent: Whether nothing answered at all.
    """

    def __init__(
        self, error: FieldpostError, *, after_s: float | None = None, silent: bool = False
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.after_s = after_s
        self.silent = silent


def refusal(host: str, what: str, status: int, body: bytes, content_type: str) -> FieldpostError:
    """The error for a status that is not the one that was hoped for.

    Args:
        host: The registry.
        what: What was asked for or sent: "the manifest iris:1".
        status: HTTP's.
        body: The beginning of the answer.
        content_type: Of the answer.
    """
    said = words(body, content_type)
    because = f": {said}" if said else ""
    if status == 403:  # noqa: PLR2004
        return RegistryDeniedError(
            f"{host} refuses {what}{because}.",
            hint="This login has no right to it: log in as another user ('docker login "
            f"{host}'), or ask the registry's owner.",
        )
    if status == 404:  # noqa: PLR2004
        return NotFoundError(
            f"{host} has no {what.removeprefix('the ')}{because}.",
            hint="Check the name and the tag; some registries answer so to who may not see it, "
            f"too: 'docker login {host}'.",
        )
    if status == 429:  # noqa: PLR2004
        return RegistryBusyError(
            f"{host} takes no more requests for now{because}.",
            hint="Wait a while, or log in: many registries let known users ask more often.",
        )
    if status in BUSY:
        return RegistryBusyError(
            f"{host} fails with {status} at {what}{because}.",
            hint="Run the command again; it goes on where it was. If it stays so, ask the "
            "registry's owner.",
        )
    return _plain_refusal(host, what, status, because)


def _plain_refusal(host: str, what: str, status: int, because: str) -> RegistryError:
    if status == 405:  # noqa: PLR2004
        return RegistryError(
            f"{host} does not allow that for {what}{because}.",
            hint="A registry that mirrors another one takes no pushes, and deleting has to be "
            "allowed in a registry's settings.",
        )
    if status == 407:  # noqa: PLR2004
        return RegistryError(
            f"The proxy before {host} wants a login for {what}.",
            hint="Write it into HTTP_PROXY: http://USER:PASSWORD@HOST:PORT, escaped as in a URL.",
        )
    if status in {411, 413}:
        return RegistryError(
            f"{host} takes nothing as large as {what}{because}.",
            hint="A proxy before the registry may limit bodies (client_max_body_size in nginx).",
        )
    return RegistryError(
        f"{host} refuses {what} with {status}{because}.",
        hint="The registry says why; it or a proxy before it has to be told otherwise.",
    )


def no_document(host: str, what: str, body: bytes, content_type: str) -> RegistryError:
    """The error for an answer that should be JSON of the protocol and is not."""
    kind = "a web page" if _MARKUP.match(body) or "html" in content_type else "no such document"
    return RegistryError(
        f"{host} answers {kind} where {what} should be.",
        hint="Check the registry's address: a login page or a proxy may stand before it.",
    )


def unreachable(host: str, reason: str, beyond: str = "") -> UnreachableError:
    """The error for a registry that does not answer, or for where it has sent a request."""
    who = f"{printable(beyond)}, to which the registry {host} sends," if beyond else ""
    return UnreachableError(
        f"{who or f'The registry {host}'} does not answer: {reason}.",
        hint="Check its name and port, the network and the proxy's settings (HTTPS_PROXY, "
        "NO_PROXY), then run the command again; it goes on where it was.",
    )


def words(body: bytes, content_type: str) -> str:
    """What a registry says of a refusal; empty where it is a web page or nothing readable."""
    if _MARKUP.match(body) or "html" in content_type:
        return ""
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError):
        return ""
    errors = document.get("errors") if isinstance(document, dict) else None
    if not isinstance(errors, list):
        return ""
    said = [_sentence(each) for each in errors[:3] if isinstance(each, dict)]
    return printable("; ".join(each for each in said if each)).rstrip(".")


def _sentence(error: dict[str, Any]) -> str:
    parts = (error.get("code"), error.get("message"))
    return ": ".join(each for each in parts if isinstance(each, str) and each)


def printable(text: str) -> str:
    """Text of a stranger, without what would move a terminal, and short."""
    return re.sub(_UNPRINTABLE, " ", text)[:_SHOWN].strip()
