"""The Dockerfile of a package: the same layers and the same way to run, for builders.

What a container runs is read from the package's own image configuration, so that an image that a
builder makes differs from a composed one in nothing that it does.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import msgspec

from scoring.errors import PackagingError
from scoring.packages.documents import PACKAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from scoring.packages.reading import Package

MARK = "# Written by Fieldpost from a package; written anew, it is replaced."
SCRATCH = "scratch"
_BASE_LABELS = ("org.opencontainers.image.base.name", "org.opencontainers.image.base.digest")
_SECOND_NS = 1_000_000_000
_MILLISECOND_NS = 1_000_000


class Healthcheck(msgspec.Struct, frozen=True, rename="pascal"):
    """How an engine asks whether a container works; times are nanoseconds, 0 the engine's own."""

    test: tuple[str, ...] = ()
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    retries: int = 0


class RunConfig(msgspec.Struct, frozen=True, rename="pascal"):
    """The part `config` of an image configuration."""

    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    exposed_ports: dict[str, dict[str, str]] = {}
    labels: dict[str, str] = {}
    stop_signal: str = ""
    user: str = ""
    working_dir: str = ""
    healthcheck: Healthcheck | None = None


class DockerfileBase(msgspec.Struct, frozen=True):
    """What an image is built on: an image's name, or an archive beside the Dockerfile.

    Attributes:
        name: The image as builders find it, where there is no archive.
        archive: The file name of a root filesystem.
        digest: Of the base's manifest, where it is known.
    """

    name: str = ""
    archive: str = ""
    digest: str = ""


class _Document(msgspec.Struct, frozen=True):
    config: RunConfig = RunConfig()


def read_run_config(content: bytes) -> RunConfig:
    """How containers of an image run, from its configuration.

    Raises:
        PackagingError: It is no image configuration.
    """
    try:
        return msgspec.json.decode(content, type=_Document).config
    except msgspec.DecodeError as error:
        raise PackagingError(f"The package's image configuration is broken: {error}.") from error


def archive_name(layer: str) -> str:
    """What a layer is called in the build context."""
    return f"{layer}.tar.gz"


def dockerfile(package: Package, run: RunConfig, base: DockerfileBase) -> str:
    """The text of a Dockerfile; its layers lie beside it under `archive_name`.

    Args:
        package: What is built.
        run: How its containers run.
        base: What it is built on.

    Raises:
        PackagingError: A value cannot be written into a Dockerfile: one with line ends, say.
    """
    lines = [
        MARK,
        f"# {_plain(package.digest)} for {_plain(package.platform)}",
        "#",
        "# Each archive is a layer of the package. A builder unpacks it and writes a layer of its",
        "# own from the same files. Build with: docker build . (or podman, or buildah)",
        *_from(package, base),
        "",
        *(f"ADD {archive_name(_plain(layer.name))} /" for layer in package.layers),
        "",
        *_environment(run.env),
        *_labels(run.labels, package.digest, base),
        *_container(run),
    ]
    return "\n".join(lines) + "\n"


def _from(package: Package, base: DockerfileBase) -> Iterator[str]:
    if base.archive:
        yield f"FROM {SCRATCH}"
        yield f"ADD {_plain(base.archive)} /"
        return
    yield f"ARG BASE={_plain(base.name)}"
    # A base for several platforms has to be the one that the layers are made for.
    yield f"FROM --platform={_plain(package.platform)} ${{BASE}}"
    yield "ARG BASE"  # known below, too


def _environment(variables: Iterable[str]) -> Iterator[str]:
    pairs = []
    for variable in variables:
        name, _, value = variable.partition("=")
        if name == "PATH":  # the base knows where its Python is
            pairs.append(f'PATH="${{PATH:-{_plain(value)}}}"')
        else:
            pairs.append(f"{_plain(name)}={_quoted(value)}")
    yield from _instruction("ENV", pairs)


def _labels(own: Mapping[str, str], digest: str, base: DockerfileBase) -> Iterator[str]:
    """The package's labels and its name, and what the image really stands on."""
    kept = {key: value for key, value in own.items() if key not in _BASE_LABELS}
    kept[PACKAGE] = digest
    pairs = [f"{_quoted(key)}={_quoted(kept[key])}" for key in sorted(kept)]
    if base.archive and base.digest:
        pairs.append(f"{_quoted(_BASE_LABELS[1])}={_quoted(base.digest)}")
    elif not base.archive:
        pairs.append(f'{_quoted(_BASE_LABELS[0])}="${{BASE}}"')
    yield from _instruction("LABEL", pairs)


def _instruction(word: str, pairs: list[str]) -> Iterator[str]:
    """One instruction over several lines: each one is a step of the builder's."""
    if pairs:
        yield f"{word} " + " \\\n    ".join(pairs)


def _container(run: RunConfig) -> Iterator[str]:
    yield from (f"EXPOSE {_plain(port)}" for port in sorted(run.exposed_ports))
    if run.working_dir:
        yield f"WORKDIR {_plain(run.working_dir)}"
    if run.stop_signal:
        yield f"STOPSIGNAL {_plain(run.stop_signal)}"
    yield _healthcheck(run.healthcheck)
    if run.user:
        yield f"USER {_plain(run.user)}"
    yield f"ENTRYPOINT {_words(run.entrypoint)}"
    yield f"CMD {_words(run.cmd)}"  # never the base's


def _healthcheck(check: Healthcheck | None) -> str:
    if check is None or check.test in {(), ("NONE",)}:
        return "HEALTHCHECK NONE"  # the base's would ask something else
    if check.test[0] != "CMD":
        raise PackagingError(f"The package has a health check of a kind unknown: {check.test[0]!r}")
    options = [
        f"--{name}={_duration(value)}"
        for name, value in (
            ("interval", check.interval),
            ("timeout", check.timeout),
            ("start-period", check.start_period),
        )
        if value
    ]
    if check.retries:
        options.append(f"--retries={check.retries}")
    return " ".join(["HEALTHCHECK", *options, "CMD", _words(check.test[1:])])


def _duration(nanoseconds: int) -> str:
    if nanoseconds % _SECOND_NS == 0:
        return f"{nanoseconds // _SECOND_NS}s"
    return f"{nanoseconds // _MILLISECOND_NS}ms"


def _words(words: Iterable[str]) -> str:
    """The exec form, in which nothing is expanded."""
    return json.dumps(list(map(_line, words)), ensure_ascii=False)


def _quoted(text: str) -> str:
    """A value in double quotes, in which builders expand `$` and read backslashes."""
    escaped = _line(text).replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$")
    return f'"{escaped}"'


def _plain(text: str) -> str:
    """A word that needs no quotes, or none at all: a package is not always one's own."""
    if not text.isascii() or not text or not all(x.isalnum() or x in "-._/:@+" for x in text):
        raise PackagingError(
            f"{text[:200]!r} cannot stand in a Dockerfile.",
            hint="Export the package without one: 'fieldpost package export'.",
        )
    return text


def _line(text: str) -> str:
    """One line: another one would be an instruction of whoever wrote the text."""
    if not text.isprintable():
        raise PackagingError(
            f"The package's {text[:200]!r} has control characters, which a Dockerfile cannot hold.",
            hint="Export the package without one: 'fieldpost package export'.",
        )
    return text
