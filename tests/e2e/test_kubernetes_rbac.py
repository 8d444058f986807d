"""The Role that `fieldpost target kubernetes rbac` prints is enough, and no more than that.

The stand-in for a cluster refuses what the Role does not allow, and everything is done under it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scoring.errors import DeploymentFailedError
from serve.targets.kubernetes.rbac import allowed
from tests.support.kubernetes_double.controllers import Outcome
from tests.support.kubernetes_yard import ClusterYard, double_yard

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

RIGHTS = {(plural, verb) for each in allowed() for plural in each.resources for verb in each.verbs}
# To apply what is not there yet is to create, which a request does not show.
NOT_SEEN = {"create"}


class Watched:
    """What was asked for, and refused where the Role does not allow it."""

    def __init__(self) -> None:
        self.asked: set[tuple[str, str]] = set()

    def denied(self, _user: str, verb: str, resource: str, _namespace: str) -> bool:
        self.asked.add((resource, verb))
        return (resource, verb) not in RIGHTS


@pytest.fixture
def watched() -> Watched:
    return Watched()


@pytest.fixture
def yard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watched: Watched
) -> Iterator[ClusterYard]:
    with double_yard(tmp_path, monkeypatch) as found:
        assert found.double is not None
        found.double.api.denied = watched.denied
        yield found


def test_a_deployment_needs_nothing_but_the_role(yard: ClusterYard, watched: Watched) -> None:
    crash = Outcome("crash", exit_code=3, log=("no such colour",))
    yard.deploy("iris", yard.package(1), env__TOKEN="x", max_replicas=5)
    yard.deploy("iris", yard.package(2), ingress_class="nginx")
    with pytest.raises(DeploymentFailedError):
        yard.deploy("iris", yard.package("bad", crash), ready_timeout_s=5)
    assert yard.view("iris").state == "running"
    assert list(yard.workspace.deployments.logs("iris"))
    yard.workspace.deployments.rollback("iris", to=1)
    yard.workspace.deployments.stop("iris")
    yard.workspace.deployments.start("iris")
    yard.workspace.deployments.stop("iris")
    yard.workspace.deployments.delete("iris")
    assert watched.asked <= RIGHTS
    for each in ("deployments", "services", "configmaps", "secrets", "networkpolicies"):
        unused = {(each, verb) for plural, verb in RIGHTS if plural == each} - watched.asked
        assert {verb for _, verb in unused} <= NOT_SEEN, unused
    for right in (("pods", "watch"), ("pods/log", "get"), ("replicasets", "list")):
        assert right in watched.asked


def test_without_a_right_the_command_that_gives_it_is_named(
    yard: ClusterYard, watched: Watched
) -> None:
    assert yard.double is not None
    yard.double.api.denied = lambda _user, verb, resource, _space: (
        (resource, verb)
        == (
            "services",
            "patch",
        )
    )
    with pytest.raises(Exception, match="services") as caught:
        yard.deploy("iris", yard.package(1))
    assert "fieldpost target kubernetes rbac" in str(getattr(caught.value, "hint", ""))
