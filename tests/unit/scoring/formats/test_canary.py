"""A process of its own takes the crash."""

from __future__ import annotations

from pathlib import Path

import pytest

from scoring.errors import CorruptModelError
from scoring.formats import canary
from scoring.formats.base import Detection


def test_a_crash_is_a_damaged_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(canary, "_CHILD", "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    with pytest.raises(CorruptModelError, match="crashes over it"):
        canary.require_survivable(Detection("xgboost", "xgboost", tmp_path / "m.ubj"))


def test_an_endless_load_is_stopped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(canary, "_CHILD", "import signal; signal.pause()")
    monkeypatch.setattr(canary, "TIMEOUT_S", 0.3)
    with pytest.raises(CorruptModelError):
        canary.require_survivable(Detection("lightgbm", "lightgbm", tmp_path / "m.txt"))


def test_an_ordinary_error_is_left_to_this_process(tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_text("tree\nversion=v4\n")
    canary.require_survivable(Detection("lightgbm", "lightgbm", path))
