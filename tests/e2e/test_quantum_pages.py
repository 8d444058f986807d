"""The pages on quantum classifiers: their programs run as they are written."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from serve import Workspace

pytest.importorskip("sklearn")
pytest.importorskip("onnx")
pytestmark = pytest.mark.timeout(300)

DOCS = Path(__file__).parents[2] / "docs"
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)


@pytest.mark.parametrize("page", ["tutorial/wine.md", "how-to/train-a-quantum-classifier.md"])
def test_the_programs_of_a_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FIELDPOST_WORKSPACE", str(tmp_path / "workspace"))
    names: dict[str, Any] = {}
    blocks = BLOCK.findall((DOCS / page).read_text(encoding="utf-8"))
    assert len(blocks) > 1
    for block in blocks:
        exec(compile(block, page, "exec"), names)
    if "search" in names:
        with Workspace() as workspace:
            assert workspace.models.get("wine").format == "circuit"
        assert names["search"].best_score_ > 0.9
    else:
        assert (tmp_path / "wine.circuit.json").is_file()
        assert names["clf"].evaluate(names["X"], names["y"]).misses < 5
