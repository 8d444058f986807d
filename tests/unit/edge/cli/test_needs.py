"""Commands of the fleet where its packages are not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from edge.cli.demo import demo
from edge.cli.needs import not_installed, require_fleet
from edge.cli.simulate import simulate
from scoring.errors import MissingDependencyError


def test_all_is_here() -> None:
    require_fleet()


@pytest.mark.parametrize("arguments", [[], ["--broker", "mqtt://127.0.0.1:1"]])
def test_what_is_missing_is_named(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "edge.cli.needs.util.find_spec", lambda name: None if name == "paho" else object()
    )
    command = simulate if arguments else demo
    done = CliRunner().invoke(command, arguments)
    assert isinstance(done.exception, MissingDependencyError)
    assert "paho" in done.exception.message
    assert "fieldpost[fleet]" in done.exception.hint


_ALONE = """
import sys
class Lacks:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"cryptography", "paho", "tuf", "securesystemslib"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Lacks())
from importlib import import_module
sys.exit(getattr(import_module(sys.argv[1]), sys.argv[2])(sys.argv[3:]))
"""


@pytest.mark.parametrize(
    ("program", "extra"),
    [
        (["serve.cli.main", "run", "fleet", "trust", "init", "--keys", "keys"], "fleet"),
        (["serve.cli.main", "run", "device", "claim", "camera", "--site", "hall"], "fleet"),
        (
            ["serve.cli.main", "run", "deploy", "x", "--package", "y", "--target", "edge"],
            "fleet",
        ),
        (["edge.agent.main", "main", "run", "--state", "agent"], "agent"),
    ],
)
def test_commands_of_a_core_install_name_the_extra(
    program: list[str], extra: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDPOST_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.chdir(tmp_path)
    command = [sys.executable, "-c", _ALONE, *program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert f"pip install 'fieldpost[{extra}]'" in done.stderr
    assert "Traceback" not in done.stderr
    assert "defect" not in done.stderr


def test_a_module_of_our_own_that_is_missing_stays_a_defect() -> None:
    error = ModuleNotFoundError("No module named 'edge.gone'", name="edge.gone")
    assert not_installed(error, extra="fleet") is error
