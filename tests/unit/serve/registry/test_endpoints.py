from __future__ import annotations

from collections.abc import Iterator

import pytest

from scoring.errors import AlreadyExistsError, InUseError, InvalidNameError, NotFoundError
from serve.registry import Registry
from serve.registry.records import Endpoint

TRAFFIC = {"weights": {"blue": 1}}


@pytest.fixture
def registry(place: str) -> Iterator[Registry]:
    """With two deployments, in each kind of database."""
    with Registry(place) as opened:
        package = opened.packages.register(
            b"{}", [], model=None, model_version=None, environment=None, platform="any"
        )
        for name in ("blue", "green"):
            opened.deployments.create_revision(name, target="local", package=package.digest)
            opened.deployments.activate(name, 1)
        yield opened


def create(registry: Registry, name: str = "ep") -> Endpoint:
    return registry.endpoints.create(name, target="front", traffic=TRAFFIC, backends=["blue"])


def test_an_endpoint_is_kept_as_it_was_written(registry: Registry) -> None:
    made = create(registry)
    assert (made.generation, made.desired, made.promotion) == (1, "running", None)
    assert registry.endpoints.get("ep") == made == registry.endpoints.list()[0]
    assert made.traffic == TRAFFIC
    with pytest.raises(AlreadyExistsError):
        create(registry)
    with pytest.raises(InvalidNameError):
        create(registry, "No!")
    assert registry.endpoints.set_address("ep", "http://x").address == "http://x"


def test_a_deployment_behind_an_endpoint_stays(registry: Registry) -> None:
    create(registry)
    registry.deployments.stop("blue")
    with pytest.raises(InUseError, match="endpoint 'ep' leads") as caught:
        registry.deployments.delete("blue")
    assert "endpoint traffic ep" in caught.value.hint
    assert registry.endpoints.leading_to("blue") == ["ep"]
    registry.endpoints.change("ep", traffic={"weights": {"green": 1}}, backends=["green"])
    registry.deployments.delete("blue")
    with pytest.raises(NotFoundError, match="deployment 'blue'"):
        registry.endpoints.change("ep", traffic=TRAFFIC, backends=["blue"])
    assert registry.endpoints.get("ep").traffic == {"weights": {"green": 1}}


def test_who_builds_on_what_has_changed_is_refused(registry: Registry) -> None:
    made = create(registry)
    first = registry.endpoints.change("ep", promotion={"step": 1}, expected=made.generation)
    assert (first.generation, first.promotion) == (2, {"step": 1})
    with pytest.raises(InUseError, match="changed meanwhile"):
        registry.endpoints.change("ep", promotion={"step": 2}, expected=made.generation)
    assert registry.endpoints.change("ep", promotion={}).promotion is None


def test_one_that_is_to_answer_is_not_forgotten(registry: Registry) -> None:
    create(registry)
    with pytest.raises(InUseError):
        registry.endpoints.delete("ep")
    registry.endpoints.stop("ep")
    registry.endpoints.delete("ep")
    with pytest.raises(NotFoundError):
        registry.endpoints.get("ep")
    registry.deployments.stop("blue")
    registry.deployments.delete("blue")
