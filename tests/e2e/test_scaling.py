"""`deployment scale` where a target has no way of its own: a new revision with so many workers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scoring.errors import UsageError
from serve import Workspace
from tests.support.crews import SCRIPT

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.timeout(300)


def test_workers_of_this_machine_become_more_and_fewer(tmp_path: Path) -> None:
    script = tmp_path / "score.py"
    script.write_text(SCRIPT.format(answer="1", init="pass"))
    with Workspace(tmp_path / "workspace") as workspace:
        package = workspace.packages.build(script=script)
        handle = workspace.deploy("iris", package, settings={"max_pending": "7"})
        try:
            assert workspace.deployments.scale("iris", 2).url == handle.url
            view = workspace.deployments.get("iris")
            assert (view.state, view.revision) == ("running", 2)
            assert view.settings == {"max_pending": "7", "workers": "2"}
            ready = [each for each in view.workers if each.state == "ready"]
            assert [each.revision for each in ready].count(2) == 2
            assert handle.score({}) == 1
        finally:
            workspace.deployments.stop("iris")
        with pytest.raises(UsageError, match="does not run"):
            workspace.deployments.scale("iris", 1)
