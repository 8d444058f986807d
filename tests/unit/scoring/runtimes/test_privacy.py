"""Nothing that a model's library would send to its maker leaves the machine."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

_LOAD = """
import os, sys
from scoring.runtimes.ort import onnxruntime
onnxruntime.SessionOptions()
print(os.environ["ORT_DISABLE_TELEMETRY"])
print(len(os.listdir("/proc/self/task")))
"""


def _loaded(home: Path, **variables: str) -> list[str]:
    environment = {k: v for k, v in os.environ.items() if k not in {"ORT_DISABLE_TELEMETRY", "CI"}}
    # One thread of OpenBLAS, so that those of onnxruntime can be counted.
    environment |= {"HOME": str(home), "OPENBLAS_NUM_THREADS": "1", **variables}
    done = subprocess.run(
        [sys.executable, "-c", _LOAD], env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it asks the system")
def test_onnxruntime_keeps_no_identifier_and_starts_no_sender(tmp_path: Path) -> None:
    assert _loaded(tmp_path) == ["1", "1"]
    assert not list(tmp_path.rglob("*"))


def test_what_the_user_has_set_stays(tmp_path: Path) -> None:
    assert _loaded(tmp_path, ORT_DISABLE_TELEMETRY="true")[0] == "true"
