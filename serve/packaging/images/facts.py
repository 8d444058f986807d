"""What the names in a base tell about it: its Python versions, its C library, its processor."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from scoring.errors import IncompatibleEnvironmentError, PackagingError

if TYPE_CHECKING:
    from collections.abc import Iterable

_PYTHON = re.compile(r"(?:[^/]+/){0,4}bin/python(3\.[0-9]{1,2})")
_MUSL = re.compile(r"(?:usr/)?lib/ld-musl-[^/]+")
_GLIBC = re.compile(r"(?:usr/)?lib(?:64|/[^/]+)?/ld-linux-[^/]+")
# ELF: offset 18 of a file's head is the machine that it is compiled for.
_MACHINES = {0x3E: "linux/amd64", 0xB7: "linux/arm64"}
ELF_HEAD = 20


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known of a base.

    Attributes:
        pythons: Versions of the interpreters in it: `("3.11",)`.
        musl: It has the C library musl and no other, for which our wheels are not made.
        platform: What its programs are compiled for; empty where none was looked at.
    """

    pythons: tuple[str, ...] = ()
    musl: bool = False
    platform: str = ""


def from_names(names: Iterable[str], platform: str = "") -> Facts:
    """The facts that the paths of all files of a base tell (`usr/bin/python3.11`)."""
    pythons, musl, glibc = set(), False, False
    for name in names:
        if match := _PYTHON.fullmatch(name):
            pythons.add(match[1])
        musl = musl or _MUSL.fullmatch(name) is not None
        glibc = glibc or _GLIBC.fullmatch(name) is not None
    return Facts(pythons=tuple(sorted(pythons)), musl=musl and not glibc, platform=platform)


def is_telling(name: str) -> bool:
    """Whether `from_names` learns something from a name."""
    return any(form.fullmatch(name) for form in (_PYTHON, _MUSL, _GLIBC))


def elf_platform(head: bytes) -> str:
    """The platform of a program by its first bytes; empty for anything else."""
    if len(head) < ELF_HEAD or not head.startswith(b"\x7fELF\x02\x01"):
        return ""
    return _MACHINES.get(int.from_bytes(head[18:20], "little"), "another processor")


def require_suitable(facts: Facts, *, platform: str, python: str, what: str) -> None:
    """Compares a base with what a package needs.

    Raises:
        PackagingError: It is for another platform.
        IncompatibleEnvironmentError: It lacks the Python version, or has another C library.
    """
    if facts.platform and facts.platform != platform:
        raise PackagingError(
            f"{what} is for {facts.platform}, and the package for {platform}.",
            hint="Choose a base for the package's platform.",
        )
    if facts.musl:
        raise IncompatibleEnvironmentError(
            f"{what} has the C library musl, for which the package's wheels are not made.",
            hint="Choose a base with glibc: Debian, Ubuntu, UBI, Wolfi or a distroless one.",
        )
    if python not in facts.pythons:
        found = f"only {' and '.join(facts.pythons)}" if facts.pythons else "none at all"
        raise IncompatibleEnvironmentError(
            f"{what} has no Python {python}, which the package is built for; it has {found}.",
            hint=f"Choose a base with python{python}, or build the package again with --python.",
        )
