"""The table of faults names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[3]
PAGE = ROOT / "docs" / "explanation" / "fleet-faults.md"


def test_every_test_that_is_named_is_there() -> None:
    named = re.findall(r"`(tests/[\w/.-]+?)(?:::(\w+))?`", PAGE.read_text())
    assert len(named) > 40
    for path, test in named:
        file = ROOT / path
        assert file.exists(), path
        assert not test or f"def {test}(" in file.read_text(), f"{path}::{test}"
