"""Which browser origins may call: `AML_CORS_ORIGINS`, read as Flask-CORS does."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from scoring.errors import EntryScriptError

if TYPE_CHECKING:
    from scoring.http import Request

METHODS = ("GET", "POST")
_PATTERN_CHARACTERS = frozenset("*\\]?$^[]()")

Headers = list[tuple[str, str]]


class CorsPolicy:
    """The origins that may call.

    Args:
        origins: Comma-separated; `*` is any. One with a character of regular expressions in it
            is one, matched from the start.

    Raises:
        EntryScriptError: One of them is not a valid regular expression.
    """

    def __init__(self, origins: str) -> None:
        names = [origin.strip() for origin in origins.split(",")]
        self._any = "*" in names
        self._literals = sorted(n for n in names if not _PATTERN_CHARACTERS & set(n))
        self._patterns = [_compile(n) for n in names if _PATTERN_CHARACTERS & set(n)]
        self._varies = len(names) > 1 or bool(self._patterns)

    def headers(self, request: Request) -> Headers:
        """The headers to add to the answer to a request."""
        allowed = self._allowed(request.header("origin"))
        if not allowed:
            return []
        headers: Headers = [("Access-Control-Allow-Origin", allowed)]
        private = request.header("access-control-request-private-network")
        if private == "true":
            headers.append(("Access-Control-Allow-Private-Network", "false"))
        if request.method == "OPTIONS":
            headers += _preflight(request)
        if allowed != "*" and self._varies:
            headers.append(("Vary", "Origin"))
        return headers

    def _allowed(self, origin: str) -> str:
        """The origin to name in the answer; empty for none."""
        if not origin:
            # Flask-CORS names one even to callers that are no browsers.
            return "*" if self._any else next(iter(self._literals), "")
        folded = origin.casefold()
        matches = any(folded == name.casefold() for name in self._literals)
        return origin if matches or any(p.match(origin) for p in self._patterns) else ""


def _compile(origin: str) -> re.Pattern[str]:
    try:
        return re.compile(".*" if origin == "*" else origin, re.IGNORECASE)
    except re.error as error:
        raise EntryScriptError(
            f"The CORS origin {origin!r} is not a valid regular expression: {error}.",
            hint="Set AML_CORS_ORIGINS to origins such as https://example.com, or to *.",
            where="AML_CORS_ORIGINS",
        ) from error


def _preflight(request: Request) -> Headers:
    method = request.header("access-control-request-method").upper()
    if not method or method not in ", ".join(METHODS):
        return []
    wanted = request.header("access-control-request-headers")
    names = ", ".join(sorted(name.strip() for name in wanted.split(",")))
    headers: Headers = [("Access-Control-Allow-Headers", names)] if wanted else []
    return [*headers, ("Access-Control-Allow-Methods", ", ".join(METHODS))]
