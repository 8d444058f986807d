"""Reads requirements files the way pip does, and remembers the line of everything."""

from __future__ import annotations

import codecs
import re
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

import msgspec
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import InvalidWheelFilename, parse_wheel_filename

from scoring.errors import EnvironmentResolutionError
from serve.packaging.sources import RequestedPackage

if TYPE_CHECKING:
    from collections.abc import Iterator

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),  # what `pip freeze > FILE` writes in PowerShell
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_COMMENT = re.compile(r"(^|\s+)#.*$")
_SHORT = {"-r": "--requirement", "-c": "--constraint", "-e": "--editable", "-i": "--index-url"}
_SHORT |= {"-f": "--find-links"}
_PASSED_ON = frozenset({"--index-url", "--extra-index-url", "--find-links"})
_IGNORED_WITH_VALUE = frozenset({"--only-binary", "--use-feature", "--progress-bar"})
_IGNORED = frozenset({"--prefer-binary", "--require-hashes"})
_SDIST = re.compile(r"\.(zip|tar\.gz|tgz|tar\.bz2|tar\.xz)$", re.IGNORECASE)
_LOCAL_PATH = re.compile(r"(\.{0,2}/|\.{1,2}$|~|file:|[A-Za-z]:\\)")
_FILES = 64


class Requirements(msgspec.Struct):
    """What a file and those that it includes ask for, while they are read."""

    packages: list[RequestedPackage] = []
    constraints: list[RequestedPackage] = []
    options: list[str] = []


class _Line(msgspec.Struct, frozen=True):
    text: str
    path: str
    number: int

    @property
    def where(self) -> str:
        return f"{self.path}:{self.number}"

    def wrong(self, message: str, hint: str = "") -> EnvironmentResolutionError:
        return EnvironmentResolutionError(message, hint=hint, where=self.where)


def read_requirement_lines(path: Path) -> Requirements:
    """Reads a requirements file with everything that it includes.

    Raises:
        EnvironmentResolutionError: A line is not one that a package can be built from.
    """
    found = Requirements(packages=[], constraints=[], options=[])
    _read_file(path, found, found.packages, seen=set(), where="")
    return found


def parse_requirement(text: str, path: str, line: int) -> RequestedPackage:
    """One line of a list of requirements, such as conda's pip section.

    Raises:
        EnvironmentResolutionError: It is no requirement that a package can be built from.
    """
    return _parse_package(_Line(text.strip(), path, line))


def read_text(path: Path, where: str = "") -> str:
    """The text of an environment file, in whatever Unicode encoding its first bytes announce.

    Raises:
        EnvironmentResolutionError: It cannot be read.
    """
    try:
        content = path.read_bytes()
        encoding = next((name for mark, name in _MARKS if content.startswith(mark)), "utf-8")
        return content.decode(encoding)
    except OSError as error:
        raise EnvironmentResolutionError(
            f"The environment file {str(path)!r} cannot be read: {error.strerror}.",
            hint="Check the path.",
            where=where,
        ) from error
    except UnicodeDecodeError as error:
        raise EnvironmentResolutionError(
            f"The environment file {str(path)!r} is not text.", where=where
        ) from error


def _read_file(
    path: Path, found: Requirements, into: list[RequestedPackage], seen: set[Path], where: str
) -> None:
    real = path.resolve()
    if real in seen:
        return
    if len(seen) >= _FILES:
        raise EnvironmentResolutionError("Too many files include each other.", where=where)
    seen.add(real)
    for line in _logical_lines(read_text(path, where), str(path)):
        if line.text.startswith("-"):
            _apply_option(line, path, found, into, seen)
        else:
            into.append(_parse_package(line))


def _logical_lines(text: str, path: str) -> Iterator[_Line]:
    """Lines without comments, with continued lines joined and numbered by their first."""
    joined, start = "", 0
    for number, raw in enumerate(text.splitlines(), 1):
        start = start or number
        stripped = _COMMENT.sub("", raw)
        if stripped.endswith("\\"):
            joined += stripped[:-1]
            continue
        joined += stripped
        if joined.strip():
            yield _Line(joined.strip(), path, start)
        joined, start = "", 0
    if joined.strip():
        yield _Line(joined.strip(), path, start)


def _apply_option(
    line: _Line, path: Path, found: Requirements, into: list[RequestedPackage], seen: set[Path]
) -> None:
    name, value = _split_option(line)
    if name == "--requirement":
        _read_file(_included(line, path, value), found, into, seen, line.where)
    elif name == "--constraint":
        _read_file(_included(line, path, value), found, found.constraints, seen, line.where)
    elif name in _PASSED_ON and value:
        found.options += [name, _anchored(value, path) if name == "--find-links" else value]
    elif name == "--no-index":
        found.options.append(name)
    elif name == "--pre":
        found.options += ["--prerelease", "allow"]
    elif name == "--trusted-host" and value:
        found.options += ["--allow-insecure-host", value]
    elif name == "--editable":
        raise line.wrong(
            f"An editable install cannot be part of a package: {value!r}.",
            "Put that code into the folder given by --source, or name a released version.",
        )
    elif name not in _IGNORED and name not in _IGNORED_WITH_VALUE:
        raise line.wrong(f"The option {name} cannot be used for a package.", "Remove it.")


def _split_option(line: _Line) -> tuple[str, str]:
    head, _, rest = line.text.partition(" ")
    if head.startswith("--"):
        name, equals, value = head.partition("=")
        return name, value if equals else rest.strip()
    return _SHORT.get(head[:2], head[:2]), (head[2:] + " " + rest).strip().removeprefix("=")


def _included(line: _Line, path: Path, value: str) -> Path:
    if not value or "://" in value:
        raise line.wrong(f"{line.text!r} does not name a file.", "Include files by their path.")
    return path.parent / value


def _anchored(value: str, path: Path) -> str:
    """A folder of wheels is named relative to the file that names it."""
    return value if "://" in value else str((path.parent / value).absolute())


def _parse_package(line: _Line) -> RequestedPackage:
    text, hashes = _split_hashes(line)
    _refuse_unbuildable(line, text)
    if re.match(r"https?://", text):
        text = _named_url(line, text)
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        reason = str(error).splitlines()[0]
        raise line.wrong(
            f"{text!r} is no requirement: {reason}.".replace("..", "."),
            "Write it as NAME==VERSION.",
        ) from error
    if requirement.url:
        _refuse_unbuildable(line, requirement.url)
        _refuse_sdist(line, requirement.url)
    return RequestedPackage(text=str(requirement), path=line.path, line=line.number, sha256=hashes)


def _split_hashes(line: _Line) -> tuple[str, tuple[str, ...]]:
    """The requirement without its options, and the hashes among them."""
    text, *options = re.split(r"\s--(?=[a-z])", line.text)
    hashes: list[str] = []
    other: list[str] = []
    for option in options:
        match = re.fullmatch(r"hash[= ]\s*([a-z0-9]+):([0-9A-Fa-f]+)\s*", option)
        if match is None:
            raise line.wrong(f"The option --{option.strip()} cannot be used.", "Remove it.")
        (hashes if match[1] == "sha256" else other).append(match[2].lower())
    if other and not hashes:
        raise line.wrong("The line has hashes, and none of them is a sha256.", "Add sha256 hashes.")
    return text.strip(), tuple(hashes)


def _refuse_unbuildable(line: _Line, text: str) -> None:
    if _LOCAL_PATH.match(text) or (text.endswith(".whl") and "://" not in text):
        raise line.wrong(
            f"A local path cannot be part of a package: {text!r}.",
            "Name a released version (NAME==VERSION), or put the code into --source.",
        )
    if re.match(r"(git|hg|svn|bzr)(\+|:)", text):
        raise line.wrong(
            f"A version control address has no wheel to install: {text!r}.",
            "Name a released version (NAME==VERSION) or the URL of a wheel.",
        )


def _refuse_sdist(line: _Line, url: str) -> None:
    if _SDIST.search(urlsplit(url).path):
        raise line.wrong(
            f"A source archive would have to be built on the target: {url!r}.",
            "Give the URL of a wheel, or a released version.",
        )


def _named_url(line: _Line, text: str) -> str:
    url, _, marker = text.partition(" ;")
    _refuse_sdist(line, url)
    try:
        name = parse_wheel_filename(unquote(PurePosixPath(urlsplit(url).path).name))[0]
    except InvalidWheelFilename as error:
        raise line.wrong(f"{url!r} is not the URL of a wheel.") from error
    return f"{name} @ {url}" + (f" ; {marker}" if marker else "")
