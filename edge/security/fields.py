"""What our metadata says beyond TUF's own fields, and how large each document may be."""

from __future__ import annotations

import datetime as dt
from typing import Annotated, Final

import msgspec
from tuf.api.metadata import Signed, TargetFile, Targets

from scoring import digest as digests
from scoring.errors import VerificationError

DIRECTOR: Final = "director"
"""The delegation whose keys sign wishes and commands. Its metadata is never asked for: it has no
paths, so that it vouches for no package, to us as to any other TUF client."""

SIGNED_AT: Final = "x-fieldpost-signed-at"
"""In timestamp metadata: seconds since the epoch. No clock of a device is before that."""

FLOORS: Final = "x-fieldpost-floors"
"""In targets metadata: name to the lowest release that may still run."""

TOP_LEVEL: Final = ("root", "timestamp", "snapshot", "targets")

MOST_BYTES: Final[dict[str, int]] = {
    "root": 512 * 1024,
    "timestamp": 16 * 1024,
    "snapshot": 256 * 1024,
    "targets": 4 * 1024 * 1024,
}
"""Of metadata whose length nothing signed has named yet."""

MOST_ROOTS: Final = 256
"""How many rotations are walked through in one refresh."""


class Release(msgspec.Struct, frozen=True, kw_only=True):
    """What signed metadata says about a package.

    Attributes:
        name: Of the line that it is a release of.
        release: Its counter in that line.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=255)]
    release: Annotated[int, msgspec.Meta(ge=1)]


def path_of(package: str) -> str:
    """The target that a package's manifest is.

    Raises:
        InvalidNameError: It is no digest.
    """
    return f"packages/{digests.parse(package)}"


def release_of(target: TargetFile, package: str) -> Release:
    """What a target says.

    Raises:
        VerificationError: It names no release, or other bytes than the package's manifest.
    """
    if target.hashes.get("sha256") != digests.parse(package):
        raise VerificationError(f"Signed metadata has another digest under the name of {package}.")
    try:
        return msgspec.convert(target.custom, Release)
    except msgspec.ValidationError as error:
        raise VerificationError(
            f"Signed metadata names no release of {package}: {error}."
        ) from None


def floors_of(targets: Targets) -> dict[str, int]:
    """Name to the lowest release that may run."""
    value = targets.unrecognized_fields.get(FLOORS, {})
    try:
        return msgspec.convert(value, dict[str, int])
    except msgspec.ValidationError as error:
        raise _wrong_form(FLOORS, error) from None


def signed_at(timestamp: Signed) -> float:
    """When timestamp metadata was signed, by its own account; 0 where it has none."""
    value = timestamp.unrecognized_fields.get(SIGNED_AT, 0)
    try:
        return float(msgspec.convert(value, int))
    except msgspec.ValidationError as error:
        raise _wrong_form(SIGNED_AT, error) from None


def _wrong_form(name: str, error: Exception) -> VerificationError:
    return VerificationError(f"Signed metadata has a field {name} of a wrong form: {error}.")


def moment(seconds: float) -> dt.datetime:
    """Seconds since the epoch as tuf takes them; what is out of its range, at the nearest end."""
    return dt.datetime.fromtimestamp(min(max(seconds, 0.0), 250_000_000_000.0), dt.UTC)
