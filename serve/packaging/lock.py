"""Locks: every package of an environment with its version and the hash of the one wheel for it.

A lock names exactly one wheel for each package, where uv's own output names all of a version's
files: that list grows when a maintainer uploads another file, and the lock's hash would with it.
"""

from __future__ import annotations

import hashlib
import re

import msgspec

from scoring.errors import EnvironmentResolutionError
from serve.packaging.platforms import Target

_LINE = re.compile(
    r"(?P<name>[a-z0-9]([a-z0-9-]*[a-z0-9])?)(==(?P<version>[^\s;@]+)| @ (?P<url>\S+))"
    r" --hash=sha256:(?P<sha256>[0-9a-f]{64})"
)


class LockedPackage(msgspec.Struct, frozen=True, order=True):
    """One package of a lock.

    Attributes:
        name: Normalised (PEP 503).
        version: Empty for a package from a URL.
        sha256: Of the wheel, in hexadecimal.
        url: Empty for a package from an index.
    """

    name: str
    version: str
    sha256: str
    url: str = ""

    def requirement(self) -> str:
        """Exactly this version, as PEP 508 writes it."""
        return f"{self.name} @ {self.url}" if self.url else f"{self.name}=={self.version}"

    def line(self) -> str:
        """As one line of a requirements file."""
        return f"{self.requirement()} --hash=sha256:{self.sha256}"


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A resolved environment.

    Attributes:
        text: A requirements file: one line for each package, sorted, with its hash.
        target: What it was resolved for.
        exclude_newer: Files that were uploaded later were left out; empty for no such limit.
        options: Index options of the source (`--extra-index-url ...`), needed again to install.
    """

    text: str
    target: Target = Target()
    exclude_newer: str = ""
    options: tuple[str, ...] = ()

    @property
    def hash(self) -> str:
        """`sha256:...` over what decides the installed bytes: packages, platform and Python."""
        head = f"fieldpost-lock 1\n{self.target.platform}\n{self.target.python}\n"
        return "sha256:" + hashlib.sha256((head + self.text).encode()).hexdigest()

    @property
    def packages(self) -> tuple[LockedPackage, ...]:
        """The packages, sorted by name."""
        return parse_lock(self.text)

    def version_of(self, name: str) -> str:
        """The locked version of a package; empty where it is absent."""
        return next((package.version for package in self.packages if package.name == name), "")


def format_lock(packages: tuple[LockedPackage, ...]) -> str:
    """The text of a lock: the same for the same packages in any order."""
    return "".join(package.line() + "\n" for package in sorted(packages))


def parse_lock(text: str) -> tuple[LockedPackage, ...]:
    """Reads what `format_lock` wrote; comments and empty lines are skipped.

    Raises:
        EnvironmentResolutionError: A line is not of that form.
    """
    packages = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line or line.startswith("#"):
            continue
        match = _LINE.fullmatch(line)
        if match is None:
            raise EnvironmentResolutionError(
                f"The lock has a line that is no locked package: {line[:100]!r}.",
                where=f"line {number}",
            )
        packages.append(
            LockedPackage(
                match["name"], match["version"] or "", match["sha256"], match["url"] or ""
            )
        )
    return tuple(sorted(packages))
