from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serve.targets.local.processes import ProcessId
from serve.targets.local.state import STATE_FILE, SavedState, read_state, write_state

if TYPE_CHECKING:
    from pathlib import Path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    state = SavedState(
        boot="b", supervisor=ProcessId(1, "2"), workers=(ProcessId(3, "4"),), revision=5, url="u"
    )
    write_state(tmp_path, state)
    assert read_state(tmp_path) == state


@pytest.mark.parametrize("content", [b"", b"{", b'{"boot":1}', b"\xff\xfe"])
def test_a_broken_state_is_none(tmp_path: Path, content: bytes) -> None:
    (tmp_path / STATE_FILE).write_bytes(content)
    assert read_state(tmp_path) is None
    assert read_state(tmp_path / "none") is None
