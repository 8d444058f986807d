"""Tables that go on."""

from __future__ import annotations

import json

import pytest

from edge.cli import watching


def looks(*states: str) -> watching.Look:
    """Each state is there for two looks; then somebody ends it."""
    left = [state for state in states for _ in "12"]

    def look() -> tuple[object, str]:
        if not left:
            raise KeyboardInterrupt
        state = left.pop(0)
        return {"state": state}, f"it is {state}, {len(left)} s ago"

    return look


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "POLL_S", 0.0)


def test_what_changes_is_written_again_and_nothing_else(
    capsys: pytest.CaptureFixture[str],
) -> None:
    watching.print_out(looks("on", "off", "on"), watching=True, as_json=False)
    assert capsys.readouterr().out == (
        "it is on, 5 s ago\n\nit is off, 3 s ago\n\nit is on, 1 s ago\n\n"
    )


def test_documents_stand_one_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    watching.print_out(looks("on", "off"), watching=True, as_json=True)
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [{"state": "on"}, {"state": "off"}]


def test_without_watch_it_is_written_once(capsys: pytest.CaptureFixture[str]) -> None:
    watching.print_out(looks("on", "off"), watching=False, as_json=False)
    assert capsys.readouterr().out == "it is on, 3 s ago\n"
