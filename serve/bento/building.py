"""`python -m serve.bento.building`: builds one Bento, in a process of its own.

BentoML imports the service that it builds, reads its settings once, and logs as it likes. The job
comes as JSON on stdin; what was made goes as JSON to stdout.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import msgspec

from serve.bento.library import bentoml


class Job(msgspec.Struct):
    """What is built.

    Attributes:
        context: The folder with the service and the package.
        name: Of the Bento.
        version: Of the Bento.
        python: The version of Python that the package needs.
        labels: Of the Bento.
        description: Of the Bento, in Markdown.
        to: Where it is exported to; empty: it stays in the store.
        format: Of BentoML's exports.
    """

    context: str
    name: str
    version: str
    python: str
    labels: dict[str, str]
    description: str
    to: str = ""
    format: str = "folder"


class Built(msgspec.Struct):
    """What was built.

    Attributes:
        tag: NAME:VERSION.
        path: Of the file or folder; in the store where nothing was exported.
        missing: A file of the context that BentoML has left out; empty: all are there.
    """

    tag: str
    path: str
    missing: str = ""


def build(job: Job) -> Built:
    """Builds, compares with the context, and exports."""
    library = bentoml()
    tag = f"{job.name}:{job.version}"
    bento = _present(library, tag) or library.build(
        "service:Package",
        name=job.name,
        version=job.version,
        labels=job.labels,
        description=job.description,
        include=["*"],
        docker={"python_version": job.python},
        python={"lock_packages": False},
        build_ctx=job.context,
    )
    made = Path(bento.path)
    missing = _first_missing(Path(job.context), made / "src")
    if missing:
        library.bentos.delete(tag)
        return Built(tag, "", missing)
    if job.to:
        return Built(tag, library.export_bento(tag, job.to, job.format))
    return Built(tag, str(made))


def _present(library: Any, tag: str) -> Any:
    """The Bento that the store has already: a package's digest is in its version."""
    try:
        return library.get(tag)
    except library.exceptions.NotFound:
        return None


def _first_missing(context: Path, made: Path) -> str:
    for path in sorted(context.rglob("*")):
        inside = path.relative_to(context)
        if path.is_file() and not (made / inside).is_file():
            return inside.as_posix()
    return ""


def main() -> None:
    """See above."""
    job = msgspec.json.decode(sys.stdin.buffer.read(), type=Job)
    sys.stdout.buffer.write(msgspec.json.encode(build(job)) + b"\n")


if __name__ == "__main__":
    main()
