"""What `fieldpost deploy` says when it is interrupted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serve import Workspace
from serve.cli.deployment import _interruptible, outlook

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("pending", "goes on without this command"),
        ("failed", "was given up, and what ran before goes on"),
        ("abandoned", "was given up"),
        ("active", "was over, or had not begun"),
    ],
)
def test_the_state_tells_what_is_left(state: str, said: str) -> None:
    assert said in outlook("iris", state)
    assert "'fieldpost deployment show iris'" in outlook("iris", state)


def test_nothing_is_said_of_what_was_never_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with (
        Workspace(tmp_path / "ws") as opened,
        pytest.raises(KeyboardInterrupt),
        _interruptible(opened, "iris"),
    ):
        raise KeyboardInterrupt
    assert capsys.readouterr().err == ""
