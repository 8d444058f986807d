"""What a registry asks for with 401: the header `WWW-Authenticate` (RFC 9110, section 11.6.1)."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105 - a part of a grammar
_QUOTED = r'"((?:[^"\\]|\\.)*)"'
_PARAMETER = re.compile(rf"\s*({_TOKEN})\s*=\s*(?:{_QUOTED}|({_TOKEN}))\s*(?:,|$)")
_SCHEME = re.compile(rf"[\s,]*({_TOKEN})(?:\s+(?!=)|(?=,)|$)")
_REST = re.compile(r"[^,]*,")  # a form that we do not read, such as the one of Negotiate
_ESCAPED = re.compile(r"\\(.)")
_MAX_BYTES = 8192


class Challenge(msgspec.Struct, frozen=True):
    """One way to authenticate.

    Attributes:
        scheme: In lower case: `basic`, `bearer`.
        parameters: With their names in lower case.
    """

    scheme: str
    parameters: dict[str, str] = {}

    def get(self, name: str) -> str:
        """A parameter; empty for none."""
        return self.parameters.get(name, "")


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """The challenges of a header, as far as it can be read; none where it is no such header."""
    return tuple(_challenges(header[:_MAX_BYTES]))


def choose(header: str) -> Challenge | None:
    """The challenge to answer: a token where one is offered, else a password."""
    found = {each.scheme: each for each in reversed(parse_challenges(header))}
    return found.get("bearer") or found.get("basic")


def _challenges(text: str) -> Iterator[Challenge]:
    position = 0
    while position < len(text):
        match = _SCHEME.match(text, position)
        if match is None:
            skipped = _REST.match(text, position)
            position = skipped.end() if skipped else len(text)
            continue
        position = match.end()
        parameters: dict[str, str] = {}
        while found := _PARAMETER.match(text, position):
            name, quoted, bare = found.groups()
            value = _ESCAPED.sub(r"\1", quoted) if quoted is not None else bare
            parameters.setdefault(name.lower(), value)
            position = found.end()
        yield Challenge(scheme=match.group(1).lower(), parameters=parameters)
