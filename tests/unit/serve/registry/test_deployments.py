from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from scoring.errors import InUseError, InvalidNameError, NotFoundError, UsageError
from serve.registry.records import ModelVersion, Package, Revision

if TYPE_CHECKING:
    from serve.registry import Registry

Build = Callable[..., Package]
Register = Callable[..., ModelVersion]


@pytest.fixture
def deploy(registry: Registry, package: Build) -> Callable[..., Revision]:
    built = package()

    def deploy(name: str = "web", **values: object) -> Revision:
        arguments = {"target": "local", "package": built.digest, "by": "ann"} | values
        return registry.deployments.create_revision(name, **arguments)  # type: ignore[arg-type]

    return deploy


Deploy = Callable[..., Revision]


def test_a_first_deployment(registry: Registry, deploy: Deploy) -> None:
    revision = deploy(settings={"workers": "2", "env.X": "ü"})
    assert (revision.number, revision.state, revision.created_by) == (1, "pending", "ann")
    pending = registry.deployments.get("web")
    assert (pending.active, pending.active_revision, pending.desired) == (None, None, "stopped")
    assert pending.settings == {"workers": "2", "env.X": "ü"}
    active = registry.deployments.activate("web", 1)
    assert (active.active, active.desired) == (1, "running")
    assert active.active_revision == active.revision(1)
    assert active.revision(2) is None
    assert active.active_revision is not None
    assert active.active_revision.state == "active"
    assert registry.deployments.activate("web", 1) == active
    registry.deployments.set_address("web", "http://127.0.0.1:1")
    assert registry.deployments.list() == (registry.deployments.get("web"),)
    assert registry.deployments.get("web").address == "http://127.0.0.1:1"


def test_a_second_revision_takes_over(registry: Registry, deploy: Deploy) -> None:
    deploy(settings={"workers": "1"})
    registry.deployments.activate("web", 1)
    assert deploy(settings={"workers": "9"}, rollback_of=1).rollback_of == 1
    before = registry.deployments.get("web")
    assert (before.active, before.settings) == (1, {"workers": "1"})
    after = registry.deployments.activate("web", 2)
    assert [each.state for each in after.revisions] == ["superseded", "active"]
    assert (after.active, after.settings) == (2, {"workers": "9"})
    with pytest.raises(UsageError, match="superseded"):
        registry.deployments.activate("web", 1)


def test_a_revision_that_fails_leaves_the_active_one(registry: Registry, deploy: Deploy) -> None:
    deploy()
    registry.deployments.activate("web", 1)
    deploy()
    failed = registry.deployments.fail("web", 2, "init failed", "Traceback\0 \udcff ü")
    assert failed.active == 1
    assert failed.desired == "running"
    assert failed.revisions[1].state == "failed"
    assert failed.revisions[1].reason == "init failed"
    assert failed.revisions[1].detail == "Traceback\ufffd ? ü"
    with pytest.raises(UsageError, match="failed"):
        registry.deployments.activate("web", 2)
    with pytest.raises(UsageError, match="active"):
        registry.deployments.fail("web", 1, "no")


def test_a_long_traceback_keeps_its_end(registry: Registry, deploy: Deploy) -> None:
    deploy()
    detail = (
        registry.deployments.fail("web", 1, "r", "x" * 2_000_000 + "the end").revisions[0].detail
    )
    assert detail.endswith("the end")
    assert len(detail) == 1 << 20


def test_one_command_at_a_time(registry: Registry, deploy: Deploy) -> None:
    deploy()
    with pytest.raises(InUseError, match="Another command"):
        deploy()
    with pytest.raises(InUseError, match="Another command"):
        registry.deployments.delete("web")
    deploy("other")


def test_a_killed_command_blocks_nobody(registry: Registry, place: str, deploy: Deploy) -> None:
    version = registry.models.get("iris:1")
    package = registry.packages.get("iris").digest
    code = (
        "import sys; from serve.registry import Registry\n"
        "r = Registry(sys.argv[1])\n"
        "r.deployments.create_revision('web', target='local', package=sys.argv[2])\n"
        "import os; os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, place, package], check=False)
    assert registry.deployments.get("web").revisions[0].state == "pending"
    assert registry.models.used_by(version) == []
    assert deploy().number == 2
    first = registry.deployments.get("web").revisions[0]
    assert first.state == "abandoned"
    assert "went away" in first.reason
    with pytest.raises(UsageError, match="abandoned"):
        registry.deployments.activate("web", 1)


def test_stop_start_and_delete(registry: Registry, deploy: Deploy) -> None:
    deploy()
    with pytest.raises(UsageError, match="ever became active"):
        registry.deployments.start("web")
    registry.deployments.activate("web", 1)
    with pytest.raises(InUseError, match="running"):
        registry.deployments.delete("web")
    assert registry.deployments.stop("web").desired == "stopped"
    assert registry.deployments.uses("iris", 1) == []
    assert registry.deployments.start("web").desired == "running"
    assert registry.deployments.uses("iris", 1) == ["web"]
    registry.deployments.stop("web")
    registry.deployments.delete("web")
    assert registry.deployments.list() == ()
    assert deploy().number == 2  # logs of the old revision 1 may still be there


def test_a_deployment_stays_on_its_target_while_it_runs(registry: Registry, deploy: Deploy) -> None:
    deploy()
    registry.deployments.activate("web", 1)
    with pytest.raises(UsageError, match="'local'"):
        deploy(target="docker")
    registry.deployments.set_address("web", "http://old")
    registry.deployments.stop("web")
    deploy(target="docker")
    moved = registry.deployments.get("web")
    assert (moved.target, moved.address) == ("docker", "")


def test_a_superseded_revision_keeps_no_model(
    registry: Registry, register: Register, package: Build, deploy: Deploy
) -> None:
    deploy()
    registry.deployments.activate("web", 1)
    deploy(package=package(register(), b"new").digest)
    assert registry.deployments.uses("iris", 1) == ["web"]
    assert registry.deployments.uses("iris", 2) == ["web"]
    registry.deployments.activate("web", 2)
    assert registry.deployments.uses("iris", 1) == []


def test_what_names_nothing(registry: Registry, deploy: Deploy) -> None:
    for call in (
        registry.deployments.get,
        registry.deployments.stop,
        registry.deployments.start,
        registry.deployments.delete,
        lambda name: registry.deployments.activate(name, 1),
        lambda name: registry.deployments.fail(name, 1, ""),
        lambda name: registry.deployments.set_address(name, ""),
    ):
        with pytest.raises(NotFoundError, match="no deployment 'none'"):
            call("none")
    deploy()
    with pytest.raises(NotFoundError, match="no revision 2"):
        registry.deployments.activate("web", 2)
    with pytest.raises(NotFoundError, match="no package"):
        deploy("new", package="sha256:" + "0" * 64)
    with pytest.raises(NotFoundError):
        registry.deployments.get("new")  # nothing was made
    with pytest.raises(InvalidNameError):
        deploy("No Name")
