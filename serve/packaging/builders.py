"""Builders of images from Dockerfiles: `docker build`, `buildah build`, `podman build`."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec

from scoring.errors import PackagingError, UsageError
from scoring.packages.workfolder import work_folder
from serve.packaging.contexts import Context, fill, link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from scoring.packages.storage import Blobs
    from serve.packaging.images.finding import BaseFinder

BuilderName = Literal["docker", "buildah", "podman"]
BUILDERS: tuple[BuilderName, ...] = get_args(BuilderName)

_ID_FILE = "image-id"
_SHOWN_LINES = 12
_LINE_CHARACTERS = 500
_TAG_DIGITS = 12
# Health checks are no part of OCI's format, and `--timestamp` makes images that do not depend on
# the hour; `docker build` has neither option and needs neither.
_COMMANDS: dict[BuilderName, tuple[str, ...]] = {
    "docker": ("docker", "build"),
    "buildah": ("buildah", "build", "--format", "docker", "--layers", "--timestamp", "0"),
    "podman": ("podman", "build", "--format", "docker", "--timestamp", "0"),
}


class BuiltImage(msgspec.Struct, frozen=True):
    """An image that a builder made.

    Attributes:
        name: What it is called in the builder's store.
        id: The builder's name for its content.
        package: The digest of the package in it, which is also its label `dev.fieldpost.package`.
        builder: Who made it.
        base: What it was built on.
    """

    name: str
    id: str
    package: str
    builder: BuilderName
    base: str


def image_name(title: str, digest: str) -> str:
    """What an image of a package is called by default: `fieldpost/iris:0222daa3a500`."""
    word = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "package"
    return f"fieldpost/{word}:{digest.partition(':')[2][:_TAG_DIGITS]}"


def check_builder(name: str) -> BuilderName:
    """The builder of this name.

    Raises:
        UsageError: There is none, or its program is not installed.
    """
    for builder in BUILDERS:
        if builder == name:
            if shutil.which(builder) is None:
                raise UsageError(
                    f"The builder {name!r} is not installed: there is no program of that name.",
                    hint="Install it, or build without one: 'fieldpost package export' needs none.",
                )
            return builder
    raise UsageError(f"There is no builder {name!r}.", hint=f"Use one of: {', '.join(BUILDERS)}.")


def build_image(
    digest: str,
    blobs: Blobs,
    finder: BaseFinder,
    *,
    builder: str,
    name: str,
    work: Path,
    progress: Callable[[str], None],
) -> BuiltImage:
    """Builds a package's image through its Dockerfile.

    Args:
        digest: Of the package.
        blobs: The store that holds it.
        finder: Finds the base.
        builder: `docker`, `buildah` or `podman`.
        name: What the image is called.
        work: A folder for the build context, best on the file system of the store.
        progress: Called with each line that the builder writes.

    Raises:
        UsageError: The builder is not installed.
        PackagingError: The builder failed; its last lines are the detail.
    """
    program = check_builder(builder)
    with work_folder(work) as folder:
        (folder / "context").mkdir()
        context = fill(digest, blobs, finder, folder / "context", place=link)
        identifier = _run(program, context, name, folder / _ID_FILE, progress)
    return BuiltImage(name=name, id=identifier, package=digest, builder=program, base=context.base)


def _run(
    builder: BuilderName,
    context: Context,
    name: str,
    id_file: Path,
    progress: Callable[[str], None],
) -> str:
    """Runs a builder to its end, and returns the ID of the image."""
    command = [*_COMMANDS[builder], "--tag", name, "--iidfile", str(id_file), "."]
    last: deque[str] = deque(maxlen=_SHOWN_LINES)
    try:
        with subprocess.Popen(  # noqa: S603 - the words are ours, the name was checked
            command,
            cwd=context.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:
            try:
                for line in _lines(process):
                    last.append(line)
                    progress(line)
            except BaseException:
                process.terminate()  # nobody is there any more who wants the image
                raise
    except OSError as error:
        raise PackagingError(f"{builder} cannot be started: {error.strerror}.") from error
    if process.returncode != 0:
        raise _failure(builder, process.returncode, list(last))
    return id_file.read_text().strip()


def _lines(process: subprocess.Popen[bytes]) -> Iterator[str]:
    assert process.stdout is not None
    while line := process.stdout.readline(_LINE_CHARACTERS):
        text = "".join(x for x in line.decode(errors="replace").strip() if x.isprintable())
        if text:
            yield text


_HINTS = (
    ("permission denied", "Add yourself to the builder's group, or run as a user who may use it."),
    ("cannot connect to the docker daemon", "Start Docker, or set DOCKER_HOST to where it runs."),
    ("no space left", "Free space where the builder keeps its images, and run it again."),
    ("pull access denied", "Check the base's name, and log in to its registry."),
    ("no such host", "The base's registry cannot be found: check the name, or the network."),
    ("manifest unknown", "The registry has no such base: check its tag or digest."),
)
_OTHER_HINT = "Its last lines are above; 'fieldpost package dockerfile' writes what it was given."


def _failure(builder: str, status: int, lines: list[str]) -> PackagingError:
    text = "\n".join(lines).lower()
    hint = next((hint for words, hint in _HINTS if words in text), _OTHER_HINT)
    how = f"was ended by signal {-status}" if status < 0 else f"failed with status {status}"
    return PackagingError(f"{builder} {how}.", hint=hint, detail="\n".join(lines))
