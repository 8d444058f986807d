"""A training under `kill -9`: it goes on from its checkpoint and ends as it would have."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

LIFE = """
import os, signal, sys
from sklearn.datasets import load_breast_cancer
from scoring.quantum import SequentialClassifier
from scoring.quantum.training import checkpoint
checkpoint_path, out, kill_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
save, rounds = checkpoint.save, 0
def counted(*given):
    global rounds
    rounds += 1
    if rounds == kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    save(*given)
checkpoint.save = counted
X, y = load_breast_cancer(return_X_y=True)
model = SequentialClassifier(
    encoding="standard constant:1", starts=2, epochs=6, random_state=3,
    checkpoint=checkpoint_path or None,
)
model.fit(X[:200], y[:200]).save(out)
"""


def live(checkpoint: str, out: Path, kill_at: int) -> int:
    command = [sys.executable, "-c", LIFE, checkpoint, str(out), str(kill_at)]
    return subprocess.run(command, check=False, timeout=120).returncode


@pytest.mark.timeout(170)
def test_killed_again_and_again_it_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    assert live("", tmp_path / "whole", 0) == 0
    path = tmp_path / "half.json"
    for kill_at in (1, 2, 3):
        assert live(str(path), tmp_path / "half", kill_at) == -signal.SIGKILL
        assert not (tmp_path / "half").exists()
        assert path.exists() == (kill_at > 1)
    assert live(str(path), tmp_path / "half", 0) == 0
    assert (tmp_path / "half").read_bytes() == (tmp_path / "whole").read_bytes()
    assert not path.exists()
