"""What a user's environment file asks for, whatever its kind, with the line of each request."""

from __future__ import annotations

from typing import Literal

import msgspec

SourceKind = Literal["requirements", "pyproject", "uv.lock", "conda"]


class RequestedPackage(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One requirement of a user.

    Attributes:
        text: As PEP 508 writes it: `numpy>=2 ; sys_platform == "linux"`.
        path: The file that it stands in, as the user named it.
        line: Its line there, from 1.
        sha256: The only wheels that are allowed, in hexadecimal; empty for any.
    """

    text: str
    path: str
    line: int
    sha256: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Normalised (PEP 503)."""
        from packaging.requirements import Requirement  # noqa: PLC0415 - heavy
        from packaging.utils import canonicalize_name  # noqa: PLC0415

        return canonicalize_name(Requirement(self.text).name)

    @property
    def where(self) -> str:
        """`FILE:LINE`."""
        return f"{self.path}:{self.line}"


class EnvironmentSource(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True
):
    """A user's environment before it is resolved.

    Attributes:
        kind: The kind of file.
        path: The file, as the user named it.
        packages: What is asked for.
        constraints: Versions that are allowed if something asks for the package.
        python: The Python version that the file asks for, `3.11`; empty for any.
        python_where: `FILE:LINE` of it.
        python_range: `>=3.10`: versions that the file allows; empty for any.
        options: Index options for uv, such as `--extra-index-url URL`.
    """

    kind: SourceKind
    path: str
    packages: tuple[RequestedPackage, ...] = ()
    constraints: tuple[RequestedPackage, ...] = ()
    python: str = ""
    python_where: str = ""
    python_range: str = ""
    options: tuple[str, ...] = ()
