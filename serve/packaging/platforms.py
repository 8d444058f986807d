"""Platforms and Python versions that packages are built for."""

from __future__ import annotations

import re

import msgspec

from scoring.errors import UsageError

# manylinux_2_28 is the oldest glibc that current wheels of numpy, onnxruntime and torch support,
# and older than that of any base image in question (Debian 11, RHEL 8, Ubuntu 20.04).
_TRIPLES = {
    "linux/amd64": "x86_64-manylinux_2_28",
    "linux/arm64": "aarch64-manylinux_2_28",
}
PLATFORMS = tuple(_TRIPLES)
PYTHONS = ("3.11", "3.12", "3.13", "3.14")


class Target(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an environment is resolved for.

    Attributes:
        platform: `linux/amd64` or `linux/arm64`.
        python: Major and minor version, `3.11`.
    """

    platform: str = "linux/amd64"
    python: str = "3.11"

    def __post_init__(self) -> None:
        if self.platform not in _TRIPLES:
            raise UsageError(
                f"Packages cannot be built for the platform {self.platform!r}.",
                hint=f"Use one of: {', '.join(PLATFORMS)}.",
            )
        if not re.fullmatch(r"3\.[0-9]{1,2}", self.python) or int(self.python[2:]) < 11:  # noqa: PLR2004
            raise UsageError(
                f"Packages cannot be built for Python {self.python!r}.",
                hint=f"Use 3.11 or newer, such as one of: {', '.join(PYTHONS)}.",
            )

    @property
    def architecture(self) -> str:
        """As OCI names it: `amd64`."""
        return self.platform.removeprefix("linux/")

    def uv_arguments(self) -> list[str]:
        """The arguments that make uv resolve and install for it, from wheels only."""
        return [
            *("--python-platform", _TRIPLES[self.platform]),
            *("--python-version", self.python),
            *("--only-binary", ":all:"),
        ]
