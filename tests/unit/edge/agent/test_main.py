from __future__ import annotations

import json
import sys
from io import StringIO
from pathlib import Path

import pytest

from edge.agent.journal import Journal
from edge.agent.main import main
from edge.agent.states import DeviceState, Track
from edge.protocol.messages import Desired, Module

PACKAGE = f"sha256:{'a' * 64}"


def test_status_reads_a_journal_that_an_agent_has_open(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    desired = Desired(site="hall", device="camera", generation=3, issued_at=0.0)
    track = Track(phase="good", good=Module(package=PACKAGE))
    with Journal(tmp_path) as journal:
        journal.save(DeviceState(desired=desired, tracks={"main": track}))
        assert main(["status", "--state", str(tmp_path)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["generation"] == 3
    assert found["modules"]["main"]["good"]["package"] == PACKAGE


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["status"], 2, "no agent's folder"),
        (["run"], 1, "no identity yet"),
        (["run", "--config", "/no/such.toml"], 2, "cannot be read"),
        (["join", "--url", "https://x", "--token-file", "/no/such"], 2, "cannot be read"),
    ],
)
def test_errors_are_one_line_and_a_status(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
    said: str,
) -> None:
    assert main([*arguments, "--state", str(tmp_path)]) == status
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error


def test_a_token_comes_from_standard_input_and_is_not_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("fpe1_secret\n"))
    arguments = ["join", "--url", "https://localhost:1", "--token-file", "-"]
    assert main([*arguments, "--state", str(tmp_path)]) in {1, 2}
    assert "fpe1_secret" not in capsys.readouterr().err
