"""`kill -9` at any write of a deployment's records leaves the old revision active, or the new one.

What kills do to processes is in `test_local_target.py`; here every write of the registry is one.
"""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from serve.registry import Registry
from tests.faults import harness

DEPLOY = """
import sys
from serve.registry import Registry
with Registry(sys.argv[1]) as registry:
    package = registry.packages.list()[0].digest
    revision = registry.deployments.create_revision("iris", target="local", package=package)
    registry.deployments.set_address("iris", "http://127.0.0.1:20001")
    registry.deployments.activate("iris", revision.number)
"""


@pytest.fixture
def fresh(tmp_path: Path) -> Callable[[], Path]:
    """Makes a workspace with one active revision, always at the same place."""
    template, place = tmp_path / "template", tmp_path / "workspace"
    with Registry(template) as registry:
        package = registry.packages.register(
            b"{}", [], model=None, model_version=None, environment=None, platform="linux/amd64"
        )
        revision = registry.deployments.create_revision(
            "iris", target="local", package=package.digest
        )
        registry.deployments.activate("iris", revision.number)

    def fresh() -> Path:
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(template, place)
        return place

    return fresh


def test_a_deploy_killed_at_any_write(fresh: Callable[[], Path], tmp_path: Path) -> None:
    harness.require_strace()

    def argv() -> list[str]:
        return [sys.executable, "-c", DEPLOY, str(fresh())]

    def check(step: harness.Step) -> None:
        with Registry(tmp_path / "workspace") as registry:
            found = registry.deployments.get("iris")
            states = [revision.state for revision in found.revisions]
            assert states in (["active"], ["active", "pending"], ["superseded", "active"])
            assert found.active == states.index("active") + 1
            assert found.desired == "running"
            again = registry.deployments.create_revision(
                "iris", target="local", package=found.revisions[0].package
            )
            assert again.number == len(states) + 1
            registry.deployments.activate("iris", again.number)
            after = registry.deployments.get("iris")
            assert after.active == again.number
            assert "pending" not in [revision.state for revision in after.revisions]

    assert len(harness.kill_at_each_write(argv, check)) >= 3
