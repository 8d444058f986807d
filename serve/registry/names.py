"""The forms of names, references, tags and texts, checked before anything is stored."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from scoring.errors import InvalidNameError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

MAX_NAME = 128
MAX_TEXT = 64 * 1024
LATEST = "latest"

_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]*[a-z0-9])?", re.ASCII)
_TAG_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]*[A-Za-z0-9])?", re.ASCII)
_VERSION = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_RESERVED = frozenset({"sha256", LATEST})


class Reference(NamedTuple):
    """`NAME` or `NAME:VERSION`, as a user writes it.

    Attributes:
        name: A valid name.
        version: None for the latest.
    """

    name: str
    version: int | None


def check_name(name: str, what: str = "model") -> str:
    """The name itself, where it is a valid one.

    Raises:
        InvalidNameError: It is not; the message says what a name looks like.
    """
    if len(name) > MAX_NAME or not _NAME.fullmatch(name):
        raise InvalidNameError(
            f"{_shown(name)} is not a valid {what} name.",
            hint=f"A name has 1 to {MAX_NAME} lower-case letters, digits, '.', '_' and '-', and "
            f"begins and ends with a letter or a digit{_suggestion(name)}.",
        )
    if name in _RESERVED:
        raise InvalidNameError(
            f"{name!r} cannot name a {what}: it has a meaning of its own in references.",
            hint="Choose another name.",
        )
    return name


def parse_reference(text: str, what: str = "model") -> Reference:
    """Parses `iris`, `iris:3` or `iris:latest`.

    Raises:
        InvalidNameError: The text has none of these forms.
    """
    name, colon, version = text.partition(":")
    check_name(name, what)
    if not colon or version == LATEST:
        return Reference(name, None)
    if not _VERSION.fullmatch(version):
        raise InvalidNameError(
            f"{_shown(text)} is not a valid reference to a {what}: "
            f"{_shown(version)} is not a version.",
            hint=f"Write {name}, {name}:latest or {name}:3 (versions count up from 1).",
        )
    return Reference(name, int(version))


def is_reference(text: str) -> bool:
    """Whether `parse_reference` takes the text."""
    try:
        parse_reference(text)
    except InvalidNameError:
        return False
    return True


def check_text(text: str, what: str, *, max_length: int = MAX_TEXT) -> str:
    """The text itself, where a database can hold it.

    Raises:
        InvalidNameError: It is too long, or has a NUL or a lone surrogate.
    """
    if len(text) > max_length:
        raise InvalidNameError(f"{what} is longer than {max_length} characters.")
    if "\0" in text or not _is_unicode(text):
        raise InvalidNameError(
            f"{what} holds a NUL or bytes that are not text: {_shown(text)}.",
            hint="Use valid Unicode text.",
        )
    return text


def check_tags(tags: Mapping[str, str]) -> dict[str, str]:
    """A copy of the tags, where all are valid.

    Raises:
        InvalidNameError: A key or a value is not; the message names it.
    """
    for key, value in tags.items():
        check_tag_key(key)
        check_text(value, f"The value of tag {key!r}")
    return dict(tags)


def check_tag_key(key: str) -> str:
    """The key itself; raises `InvalidNameError` where it is not one."""
    if len(key) > MAX_NAME or not _TAG_KEY.fullmatch(key):
        raise InvalidNameError(
            f"{_shown(key)} is not a valid tag.",
            hint=f"A tag's key has 1 to {MAX_NAME} letters, digits, '.', '_', '/' and '-', and "
            "begins and ends with a letter or a digit; write key=value.",
        )
    return key


def check_tag_changes(changes: Mapping[str, str], removed: Iterable[str]) -> None:
    """Refuses a key that is to be both set and removed (`UsageError`)."""
    both = sorted(set(changes) & {check_tag_key(key) for key in removed})
    if both:
        raise UsageError(f"Tag {both[0]!r} is to be set and removed at once.", hint="Do one.")


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(text: str) -> str:
    return ascii(text if len(text) <= MAX_NAME else text[:MAX_NAME] + "...")


def _suggestion(name: str) -> str:
    wanted = re.sub(r"[^a-z0-9._-]+", "-", name.lower()[:MAX_NAME]).strip("._-")
    return f", for example {wanted!r}" if _NAME.fullmatch(wanted) else ""
