from __future__ import annotations

import datetime as dt
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from serve.registry import provenance

if TYPE_CHECKING:
    from pathlib import Path


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    done = subprocess.run(
        ["git", *identity, "-C", str(folder), *arguments],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_CONFIG_NOSYSTEM": "1"},
    )
    return done.stdout.strip()


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    git(folder, "init", "-q")
    (folder / "train.py").write_text("x = 1\n")
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "first")
    return folder


def test_the_commit_of_the_folder_that_a_file_is_in(repository: Path) -> None:
    (repository / "out").mkdir()
    model = repository / "out" / "model.onnx"
    model.write_bytes(b"untracked files do not make it dirty")
    commit = git(repository, "rev-parse", "HEAD")
    assert provenance.git_source(model) == (commit, False)
    assert provenance.git_source(repository) == (commit, False)
    (repository / "train.py").write_text("x = 2\n")
    assert provenance.git_source(model) == (commit, True)


def test_there_is_none_outside_of_a_repository(tmp_path: Path, repository: Path) -> None:
    assert provenance.git_source(tmp_path) == (None, None)
    assert provenance.git_source(tmp_path / "gone") == (None, None)
    empty = tmp_path / "empty"
    empty.mkdir()
    git(empty, "init", "-q")
    assert provenance.git_source(empty) == (None, None)


def test_a_hook_s_variables_name_no_other_repository(
    tmp_path: Path, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(repository / ".git"))
    assert provenance.git_source(tmp_path) == (None, None)


def test_the_repository_runs_no_program_of_its_own(repository: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap.sh"
    trap.write_text(f"#!/bin/sh\ntouch {tmp_path}/sprung\n")
    trap.chmod(0o755)
    git(repository, "config", "core.fsmonitor", str(trap))
    assert provenance.git_source(repository)[0]
    assert not (tmp_path / "sprung").exists()


def test_without_git_there_is_no_commit(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert provenance.git_source(repository) == (None, None)


def test_time_is_utc_and_sorts_as_text() -> None:
    first, second = provenance.now(), provenance.now()
    assert first <= second
    assert dt.datetime.fromisoformat(first).utcoffset() == dt.timedelta(0)
    assert len(first) == 32


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("getpass.getuser", lambda: (_ for _ in ()).throw(KeyError("uid")))
    assert provenance.user() == str(os.getuid())
