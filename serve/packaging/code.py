"""The files of a scoring script's source folder, as the code layer takes them."""

from __future__ import annotations

import os
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from scoring.errors import ModelNotFoundError, PackagingError, UsageError
from serve.packaging.plan import CodeFile

if TYPE_CHECKING:
    from collections.abc import Callable

# What no server needs, and what differs between two checkouts of the same source.
IGNORED = (
    *(".git/", ".hg/", ".svn/", "__pycache__/", "*.pyc", "*.pyo", ".venv/", "venv/", ".env"),
    *(".mypy_cache/", ".ruff_cache/", ".pytest_cache/", ".ipynb_checkpoints/", ".DS_Store"),
    *(".tox/", ".nox/", ".idea/", ".vscode/", "*.egg-info/", ".fieldpostignore", ".dockerignore"),
)
IGNORE_FILES = (".fieldpostignore", ".amlignore", ".dockerignore")


def collect_code(script: Path, source: Path | None = None) -> tuple[CodeFile, ...]:
    """The files of a script's code layer: the folder that it stands in, or the script alone.

    The first of `.fieldpostignore`, `.amlignore` and `.dockerignore` in the folder adds to what
    is ignored, in the syntax of `.gitignore`.

    Args:
        script: The scoring script.
        source: A folder that holds it, packed whole; None for the script alone.

    Raises:
        ModelNotFoundError: The script or the folder does not exist.
        UsageError: The script is not in the folder.
        PackagingError: The script is ignored, or a link in the folder leads out of it.
    """
    if not script.is_file():
        raise ModelNotFoundError(f"There is no script {str(script)!r}.", hint="Check the path.")
    if source is None:
        return (_code_file(script.name, script),)
    if not source.is_dir():
        raise ModelNotFoundError(f"There is no folder {str(source)!r}.", hint="Check --source.")
    root, real = source.resolve(), script.resolve()
    if not real.is_relative_to(root):
        raise UsageError(
            f"The script {script.name} is not in the source folder {source}.",
            hint="Give a --source folder that contains the script.",
        )
    files = tuple(_walk(root, root, _ignore_rules(root), ()))
    entry = real.relative_to(root).as_posix()
    if entry not in {file.path for file in files}:
        raise PackagingError(
            f"The script {entry} is ignored by the rules of its own folder.",
            hint=f"Change {' or '.join(IGNORE_FILES)} there.",
        )
    return files


def _code_file(path: str, source: Path) -> CodeFile:
    status = source.stat()
    return CodeFile(
        path=path,
        source=source.absolute(),
        size=status.st_size,
        executable=bool(status.st_mode & 0o100),
    )


def _walk(
    folder: Path, root: Path, ignored: Callable[[str, bool], bool], above: tuple[Path, ...]
) -> list[CodeFile]:
    """Every file that is not ignored; links inside of the folder become what they lead to."""
    real = folder.resolve()
    if real in above:
        raise PackagingError(f"The link {folder} leads back to a folder that it is in.")
    files = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        path = Path(entry.path)
        relative = path.relative_to(root).as_posix()
        if ignored(relative, entry.is_dir()):
            continue
        if entry.is_symlink():
            _require_inside(path, root)
        if entry.is_dir():
            files += _walk(path, root, ignored, (*above, real))
        elif entry.is_file():
            files.append(_code_file(relative, path))
        else:
            raise PackagingError(f"{path} is neither a file nor a folder.", hint="Remove it.")
    return files


def _require_inside(link: Path, root: Path) -> None:
    target = link.resolve()
    if not target.is_relative_to(root) or not target.exists():
        raise PackagingError(
            f"The link {link} leads to nothing, or out of the source folder.",
            hint="Replace it with a copy of the file, or add it to .fieldpostignore.",
        )


def _ignore_rules(root: Path) -> Callable[[str, bool], bool]:
    lines = list(IGNORED)
    for name in IGNORE_FILES:
        if (root / name).is_file():
            lines += (root / name).read_text(encoding="utf-8-sig").splitlines()
            break
    rules = [rule for rule in map(_parse_rule, lines) if rule]

    def ignored(path: str, is_folder: bool) -> bool:
        answer = False
        for pattern, negated, folders_only in rules:
            if (is_folder or not folders_only) and pattern.fullmatch(path):
                answer = not negated
        return answer

    return ignored


def _parse_rule(line: str) -> tuple[re.Pattern[str], bool, bool] | None:
    text = line.rstrip()
    if not text or text.startswith("#"):
        return None
    negated = text.startswith("!")
    text = text.removeprefix("!").removeprefix("\\")
    folders_only = text.endswith("/")
    text = text.rstrip("/")
    anchored = "/" in text
    pattern = _pattern(text.removeprefix("/"))
    return re.compile(pattern if anchored else f"(.*/)?{pattern}"), negated, folders_only


@cache
def _pattern(glob: str) -> str:
    """A `.gitignore` glob as a regular expression."""
    out, rest = "", glob
    while rest:
        if rest.startswith("**/"):
            out, rest = out + "(.*/)?", rest[3:]
        elif rest.startswith("/**") and len(rest) == 3:  # noqa: PLR2004
            out, rest = out + "/.*", ""
        elif rest.startswith("**"):
            out, rest = out + ".*", rest[2:]
        elif rest[0] == "*":
            out, rest = out + "[^/]*", rest[1:]
        elif rest[0] == "?":
            out, rest = out + "[^/]", rest[1:]
        elif match := re.match(r"\[!?\]?[^\]/]*\]", rest):
            out, rest = out + match[0].replace("[!", "[^", 1), rest[match.end() :]
        else:
            out, rest = out + re.escape(rest[0]), rest[1:]
    return out
