"""References to images, `REGISTRY/NAME[:TAG][@DIGEST]`, with the grammar that engines use."""

from __future__ import annotations

import re

import msgspec

from scoring import digest as digests
from scoring.errors import InvalidNameError

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
MAX_REPOSITORY = 255
MAX_TAG = 128

_OFFICIAL = "library/"
_ALIASES = frozenset({"index.docker.io", "registry-1.docker.io"})
_HUB_HOST = "registry-1.docker.io"
_SHOWN = 100

_LABEL = r"[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
_REGISTRY = re.compile(
    rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]{{1,5}})?", re.ASCII
)
_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REPOSITORY = re.compile(rf"{_PART}(?:/{_PART})*", re.ASCII)
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", re.ASCII)
_DIGEST = re.compile(
    r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}", re.ASCII
)
_IDENTIFIER = re.compile(r"[a-f0-9]{64}", re.ASCII)
# What skopeo and 'package export' call places that are no registries. A host may be called so.
_ELSEWHERE = re.compile(
    r"(?:dir|docker-archive|docker-daemon|oci|oci-archive|rootfs):(?![0-9]{1,5}/).*", re.DOTALL
)


class Reference(msgspec.Struct, frozen=True):
    """Where an image is, or goes.

    Attributes:
        registry: Host and port as they were written, `docker.io` where none was.
        repository: The name below it, `library/` included.
        tag: Empty for none.
        digest: Empty for none; it decides where both are given.
    """

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def host(self) -> str:
        """What to connect to: Docker Hub answers under another name than its own."""
        return _HUB_HOST if self.registry == DEFAULT_REGISTRY else self.registry

    @property
    def name(self) -> str:
        """Registry and repository, without tag and digest."""
        return f"{self.registry}/{self.repository}"

    @property
    def target(self) -> str:
        """What a manifest is asked for by: the digest, else the tag, else `latest`."""
        return self.digest or self.tag or DEFAULT_TAG

    def tagged(self, tag: str) -> Reference:
        """The same repository at a tag."""
        return msgspec.structs.replace(self, tag=tag, digest="")

    def at(self, digest: str) -> Reference:
        """The same repository at a digest."""
        return msgspec.structs.replace(self, tag="", digest=digest)

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.name}{tag}{digest}"


def parse_reference(text: str) -> Reference:
    """The reference that a user wrote.

    Raises:
        InvalidNameError: It has not the form of one; the message says which part.
    """
    _require_plain(text)
    rest, at, digest = text.partition("@")
    if at:
        _require_digest(text, digest)
    registry, path = _split_registry(rest)
    repository, colon, tag = path.partition(":")
    if colon:
        check_tag(tag, where=text)
    _require_registry(text, registry)
    if registry == DEFAULT_REGISTRY and repository and "/" not in repository:
        repository = _OFFICIAL + repository
    _require_repository(text, repository)
    return Reference(registry=registry, repository=repository, tag=tag, digest=digest)


def check_tag(tag: str, *, where: str = "") -> str:
    """The tag, if it may be one.

    Raises:
        InvalidNameError: It is empty, too long, or has other characters.
    """
    if len(tag) > MAX_TAG:
        raise _invalid(where, f"The tag is {len(tag)} characters long; {MAX_TAG} are allowed.")
    if not _TAG.fullmatch(tag):
        raise _invalid(
            where,
            f"{tag!a} is not a tag.",
            "A tag has letters, digits, '_', '.' and '-', and begins with none of the last two.",
        )
    return tag


def _split_registry(text: str) -> tuple[str, str]:
    """The first part is a registry where it looks like a host, as Docker decides it."""
    first, slash, rest = text.partition("/")
    if not slash or not (
        first == "localhost" or "." in first or ":" in first or first != first.lower()
    ):
        return DEFAULT_REGISTRY, text
    return (DEFAULT_REGISTRY if first in _ALIASES else first), rest


def _require_plain(text: str) -> None:
    if not text:
        raise _invalid(text, "The reference is empty.", "Write REGISTRY/NAME:TAG.")
    if "://" in text:
        raise _invalid(
            text,
            f"{text[:_SHOWN]!a} is a URL, not a reference.",
            "Write REGISTRY/NAME:TAG, without the scheme.",
        )
    if _ELSEWHERE.fullmatch(text):
        raise _invalid(
            text,
            f"{text[:_SHOWN]!a} is no place in a registry.",
            "'package export' writes to oci:, oci-archive:, docker-archive:, docker-daemon: and "
            "podman:, 'package pull' reads the first two; a registry is REGISTRY/NAME:TAG.",
        )
    if _IDENTIFIER.fullmatch(text):
        raise _invalid(
            text,
            f"{text} is the bare number of an image, which no registry is asked for.",
            "Write REGISTRY/NAME@sha256:… with it.",
        )


def _require_digest(text: str, digest: str) -> None:
    if digests.is_digest(digest):
        return
    if _DIGEST.fullmatch(digest) and not digest.startswith("sha256:"):
        raise _invalid(
            text,
            f"{digest[:_SHOWN]!a} is no SHA-256 digest, and Fieldpost takes no others.",
            "Name the image by its tag.",
        )
    raise _invalid(
        text,
        f"{digest[:_SHOWN]!a} is not a digest.",
        "A digest is 'sha256:' followed by 64 hexadecimal digits in lower case.",
    )


def _require_registry(text: str, registry: str) -> None:
    if not _REGISTRY.fullmatch(registry):
        raise _invalid(
            text,
            f"{registry[:_SHOWN]!a} is not the name of a registry.",
            "Write HOST or HOST:PORT.",
        )
    port = registry.rpartition(":")[2] if not registry.endswith("]") else ""
    if ":" in registry and port.isdigit() and not 0 < int(port) <= 65535:  # noqa: PLR2004
        raise _invalid(text, f"{port} is not a port.", "Ports are 1 to 65535.")


def _require_repository(text: str, repository: str) -> None:
    if repository != repository.lower():
        raise _invalid(
            text,
            f"The repository {repository[:_SHOWN]!a} has upper-case letters.",
            f"Write it in lower case: {repository.lower()[:_SHOWN]}.",
        )
    if not _REPOSITORY.fullmatch(repository):
        raise _invalid(
            text,
            f"{repository[:_SHOWN]!a} is not the name of a repository.",
            "Its parts, between '/', have lower-case letters and digits, with '.', '_', '__' or "
            "'-' between them.",
        )
    if len(repository) > MAX_REPOSITORY:
        raise _invalid(
            text,
            f"The repository's name is {len(repository)} characters long; {MAX_REPOSITORY} are "
            "allowed.",
        )


def _invalid(where: str, message: str, hint: str = "") -> InvalidNameError:
    return InvalidNameError(message, hint=hint or "Choose a shorter one.", where=where[:_SHOWN])
