from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from scoring.errors import ModelNotFoundError, PackagingError, UsageError
from serve.packaging.code import collect_code

if TYPE_CHECKING:
    from pathlib import Path


def _tree(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    return folder


def _paths(source: Path, script: str = "score.py") -> list[str]:
    return [file.path for file in collect_code(source / script, source)]


def test_the_script_alone(tmp_path: Path) -> None:
    _tree(tmp_path, "score.py", "other.py")
    (file,) = collect_code(tmp_path / "score.py")
    assert (file.path, file.size, file.executable) == ("score.py", 8, False)
    assert file.source.is_absolute()


def test_the_folder_without_what_no_server_needs(tmp_path: Path) -> None:
    source = _tree(
        tmp_path,
        *("score.py", "lib/util.py", "data/.keep", "run.sh", "lib/deep/x.json"),
        *(".git/config", "lib/__pycache__/util.cpython-311.pyc", ".venv/bin/python", "x.pyc"),
        *(".env", ".ipynb_checkpoints/a.ipynb", "mine.egg-info/PKG-INFO", ".DS_Store"),
    )
    (source / "run.sh").chmod(0o755)
    files = {file.path: file for file in collect_code(source / "score.py", source)}
    assert sorted(files) == ["data/.keep", "lib/deep/x.json", "lib/util.py", "run.sh", "score.py"]
    assert [path for path, file in files.items() if file.executable] == ["run.sh"]


IGNORE = """\
# comment
*.csv
!keep.csv
/notes.txt
build/
docs/**/*.md
data/raw?.bin
[ab].tmp
**/secret
\\#odd
trailing/**
"""
NAMES = (
    *("a.csv", "lib/b.csv", "keep.csv", "lib/keep.csv", "notes.txt", "lib/notes.txt"),
    *("build/x", "lib/build/y", "docs/a.md", "docs/b/c.md", "docs/b/c.txt", "data/raw1.bin"),
    *("data/raw12.bin", "a.tmp", "c.tmp", "secret", "lib/secret/x", "#odd", "trailing/a/b"),
    *("lib/trailing/a", "score.py"),
)


@pytest.mark.parametrize("name", [".fieldpostignore", ".amlignore", ".dockerignore"])
def test_ignore_files_are_read_as_git_reads_them(tmp_path: Path, name: str) -> None:
    source = _tree(tmp_path / "source", *NAMES)
    (source / name).write_text(IGNORE)
    checked = _tree(tmp_path / "checked", *NAMES)
    (checked / ".gitignore").write_text(IGNORE)
    subprocess.run(["git", "init", "-q", checked], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "--others", "--exclude-standard", "-z"],
        cwd=checked,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split("\0")
    wanted = sorted(path for path in listed if path and path != ".gitignore")
    assert sorted(set(_paths(source)) - {".amlignore"}) == wanted
    assert "keep.csv" in wanted


def test_links_inside_become_what_they_lead_to(tmp_path: Path) -> None:
    source = _tree(tmp_path / "source", "score.py", "lib/a.py")
    (source / "again").symlink_to("lib")
    (source / "b.py").symlink_to("lib/a.py")
    assert _paths(source) == ["again/a.py", "b.py", "lib/a.py", "score.py"]


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside", "missing", "..", "."])
def test_links_that_lead_elsewhere_are_refused(tmp_path: Path, target: str) -> None:
    source = _tree(tmp_path / "source", "score.py")
    _tree(tmp_path, "outside")
    (source / "link").symlink_to(target)
    with pytest.raises(PackagingError):
        _paths(source)


def test_other_kinds_of_files_are_refused(tmp_path: Path) -> None:
    source = _tree(tmp_path, "score.py")
    os.mkfifo(source / "pipe")
    with pytest.raises(PackagingError, match="neither a file nor a folder"):
        _paths(source)


def test_the_script_has_to_be_there_and_in_the_folder(tmp_path: Path) -> None:
    source = _tree(tmp_path / "source", "score.py")
    _tree(tmp_path, "other.py")
    _tree(tmp_path / "source-evil", "score.py")
    with pytest.raises(ModelNotFoundError):
        collect_code(source / "missing.py", source)
    with pytest.raises(ModelNotFoundError):
        collect_code(source / "score.py", tmp_path / "missing")
    for outside in (tmp_path / "other.py", tmp_path / "source-evil" / "score.py"):
        with pytest.raises(UsageError, match="not in the source folder"):
            collect_code(outside, source)


def test_an_ignored_script_is_an_error(tmp_path: Path) -> None:
    source = _tree(tmp_path, "score.py")
    (source / ".fieldpostignore").write_text("*.py\n")
    with pytest.raises(PackagingError, match="ignored"):
        _paths(source)
