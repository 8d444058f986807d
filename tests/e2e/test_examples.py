"""Each example, as its own script runs it, and the demo."""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.support import brokers, namespaces

EXAMPLES = Path(__file__).parents[2] / "examples"
NEEDS = {"pytorch-digits": "torch"}
HOSTS = {"edge-camera"}


def environment(tmp_path: Path) -> dict[str, str]:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "FIELDPOST_WORKSPACE": str(tmp_path / "workspace")}


def run(
    command: Sequence[str | Path], environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end, or takes all that it has started away with it."""
    with subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            out, err = process.communicate(timeout=250)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)  # scripts clean up after themselves
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, err)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", sorted(path.parent.name for path in EXAMPLES.glob("*/run.sh")))
def test_an_example_runs_to_its_end(name: str, tmp_path: Path) -> None:
    module = NEEDS.get(name)
    if module and importlib.util.find_spec(module) is None:
        pytest.skip(f"{name} needs {module}, which is not installed")
    if name in HOSTS:
        brokers.require()
        namespaces.require()
        namespaces.require_shaping()
    result = run([EXAMPLES / name / "run.sh"], environment(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert name not in HOSTS or "ended right" in result.stdout


@pytest.mark.timeout(300)
def test_the_demo_ends_with_equal_accuracies(tmp_path: Path) -> None:
    result = run([sys.executable, EXAMPLES / "demo.py"], environment(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    answer = json.loads(result.stdout.splitlines()[-1])
    assert set(answer) == {
        "accuracy_http",
        "accuracy_in_process",
        "requests",
        "requests_per_s",
        "package_digest",
    }
    assert answer["accuracy_http"] == answer["accuracy_in_process"] > 0.9
    assert answer["requests"] >= 450
    assert answer["package_digest"].startswith("sha256:")
