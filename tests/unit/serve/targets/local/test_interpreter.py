from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

import pytest

from scoring.errors import PackagingError, TargetError
from serve.targets.local import interpreter

if TYPE_CHECKING:
    from pathlib import Path

HERE = f"{sys.version_info.major}.{sys.version_info.minor}"


def make_root(folder: Path, python: str) -> Path:
    (folder / "env").mkdir()
    (folder / "env" / "environment.json").write_text(json.dumps({"python": python}))
    return folder


def test_the_running_interpreter_is_used_where_it_fits(tmp_path: Path) -> None:
    command = interpreter.worker_command(make_root(tmp_path, HERE))
    assert command[0] == sys.executable
    assert command[1:3] == ["-I", "-S"]
    assert command[-2:] == [str(tmp_path / "runtime/scoring/boot.py"), str(tmp_path)]


def test_a_version_that_is_not_there_says_what_to_install() -> None:
    with pytest.raises(TargetError, match=r"needs Python 3\.99") as caught:
        interpreter.find_interpreter("3.99")
    assert "uv python install 3.99" in caught.value.hint


def test_a_root_without_an_environment_is_no_package(tmp_path: Path) -> None:
    with pytest.raises(PackagingError, match="holds no package"):
        interpreter.worker_command(tmp_path)


def test_a_worker_does_not_get_the_callers_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    monkeypatch.setenv("FIELDPOST_WORKSPACE", "postgresql://u:s3cret@h/d")
    monkeypatch.setenv("HOME", "/home/x")
    found = interpreter.base_environment()
    assert found["HOME"] == "/home/x"
    assert not {"PYTHONPATH", "FIELDPOST_WORKSPACE"} & set(found)
