"""Commands of the fleet where its packages are not installed."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from edge.cli.demo import demo
from edge.cli.needs import require_fleet
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
