"""Where a workspace is: a folder, or PostgreSQL with a folder of blobs.

A workspace folder holds `fieldpost.db` and is itself an OCI image layout (`oci-layout`,
`index.json`, `blobs/sha256/`). With PostgreSQL the blob folder alone is that layout.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, unquote_plus, urlencode, urlsplit

from scoring.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

WORKSPACE_VARIABLE = "FIELDPOST_WORKSPACE"
BLOBS_VARIABLE = "FIELDPOST_BLOBS"
DEFAULT_FOLDER = "~/.fieldpost"
DATABASE_FILE = "fieldpost.db"

_POSTGRESQL = frozenset({"postgresql", "postgres", "postgresql+psycopg"})
_MASK = "***"
_PASSWORD_OPTION = re.compile(r"(password=)[^&]*", re.IGNORECASE)


class Location(NamedTuple):
    """Where records and blobs are. Its `repr` and `str` mask passwords.

    Attributes:
        blobs: The folder of the OCI layout that holds the blobs.
        folder: The workspace's folder; None with PostgreSQL.
        secret_url: The PostgreSQL URL without the blob folder, password included; empty for none.
    """

    blobs: Path
    folder: Path | None
    secret_url: str = ""

    @property
    def database_file(self) -> Path | None:
        """The SQLite file; None with PostgreSQL."""
        return None if self.folder is None else self.folder / DATABASE_FILE

    def secret_text(self) -> str:
        """What `resolve` makes this location of: for the environment of a child process only."""
        if not self.secret_url:
            return str(self.blobs)
        joint = "&" if urlsplit(self.secret_url).query else "?"
        return f"{self.secret_url}{joint}blobs={quote(str(self.blobs))}"

    def masked(self, text: str) -> str:
        """The text with this location's passwords masked."""
        for secret in _secrets(self.secret_url):
            text = text.replace(secret, _MASK)
        return text

    def __str__(self) -> str:
        return str(self.folder) if self.folder else mask(self.secret_url)

    def __repr__(self) -> str:
        return f"Location({str(self)!r}, blobs={str(self.blobs)!r})"


def resolve(
    place: str | os.PathLike[str] | Location | None = None,
    environ: Mapping[str, str] | None = None,
) -> Location:
    """The location that a setting names.

    Args:
        place: A folder or a `postgresql://` URL; by default `FIELDPOST_WORKSPACE`, else
            `~/.fieldpost`.
        environ: The environment variables; those of the process by default.

    Raises:
        UsageError: Another kind of URL, or PostgreSQL without a blob folder.
    """
    if isinstance(place, Location):
        return place
    environ = os.environ if environ is None else environ
    text = os.fspath(place) if place is not None else environ.get(WORKSPACE_VARIABLE, "")
    text = text or DEFAULT_FOLDER
    scheme, separator, _ = text.partition("://")
    if separator and scheme.lower() in _POSTGRESQL:
        return _postgresql(text, environ.get(BLOBS_VARIABLE, ""))
    if separator:
        raise UsageError(
            f"A workspace cannot be at {mask(text)}.",
            hint="Give a folder or a postgresql://USER@HOST/DATABASE?blobs=/FOLDER URL.",
        )
    folder = _absolute(text)
    return Location(blobs=folder, folder=folder)


def _postgresql(text: str, blobs: str) -> Location:
    url = _split(text)
    options = parse_qsl(url.query, keep_blank_values=True)
    blobs = next((value for key, value in options if key == "blobs"), blobs)
    if not blobs or not Path(blobs).expanduser().is_absolute():
        raise UsageError(
            f"The workspace {mask(text)} needs a blob folder that all its users share.",
            hint=f"Add ?blobs=/FOLDER to the URL (an absolute path) or set {BLOBS_VARIABLE}.",
        )
    rest = urlencode([(key, value) for key, value in options if key != "blobs"], quote_via=quote)
    database = url._replace(scheme="postgresql", query=rest, fragment="").geturl()
    return Location(blobs=_absolute(blobs), folder=None, secret_url=database)


def _split(text: str) -> SplitResult:
    try:
        url = urlsplit(text)
        _ = url.port  # parsed on access
    except ValueError as error:
        raise UsageError(
            f"The workspace URL is malformed: {mask(text)}.",
            hint="Write postgresql://USER:PASSWORD@HOST:PORT/DATABASE?blobs=/FOLDER and encode "
            "special characters of the password as %XX.",
        ) from error
    return url


def _absolute(text: str) -> Path:
    try:
        return Path(text).expanduser().absolute()
    except RuntimeError as error:  # no home folder
        raise UsageError(
            f"The folder {text} cannot be found: this user has no home.",
            hint=f"Set {WORKSPACE_VARIABLE} to a folder.",
        ) from error


def mask(url: str) -> str:
    """The URL with its passwords masked, whether or not it is well formed."""
    scheme, separator, rest = url.partition("://")
    head, question, query = rest.partition("?")
    if "@" not in head and "@" in query:  # a bare ? in a password: rather mask too much
        head, question, query = rest, "", ""
    user, at, tail = head.rpartition("@")  # the last @: a bare one may be in the password
    if at and ":" in user:
        head = f"{user.partition(':')[0]}:{_MASK}@{tail}"
    return scheme + separator + head + question + _PASSWORD_OPTION.sub(rf"\1{_MASK}", query)


def _secrets(url: str) -> list[str]:
    """The passwords of a well-formed URL, as written and decoded, longest first."""
    split = urlsplit(url)
    options = (part.partition("=") for part in split.query.split("&"))
    found = {value for key, _, value in options if "password" in key.lower()}
    found.add(split.password or "")
    found |= {decoded(secret) for secret in found for decoded in (unquote, unquote_plus)}
    return sorted((secret for secret in found if secret), key=len, reverse=True)
