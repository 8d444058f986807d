"""Endpoints on a cluster: the double over HTTP, and a real one where there is one."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from scoring.errors import (
    AlreadyExistsError,
    FieldpostError,
    ScoringFailedError,
    TargetError,
    UsageError,
)
from serve.client import Client
from serve.endpoints.kubernetes import Clusters
from serve.endpoints.podmetrics import counts_of
from serve.endpoints.promotion import Plan
from serve.endpoints.traffic import Traffic, parse
from serve.server.access import keyfile, keys
from serve.targets.kubernetes.rollout import is_ready
from tests.support.kubernetes_yard import (
    REAL_TIMEOUT_S,
    ClusterYard,
    double_yard,
    real_base,
    real_yard,
)
from tests.support.local import eventually
from tests.support.pod_servers import PodServers
from tests.support.server import ANSWER, Sums

REAL = pytest.param("real", marks=pytest.mark.timeout(REAL_TIMEOUT_S))


@pytest.fixture(params=["double", REAL])
def yard(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[ClusterYard]:
    if request.param == "double":
        with double_yard(tmp_path, monkeypatch) as found:
            yield found
        return
    with real_yard(tmp_path, monkeypatch, real_base(request)) as found:
        yield found


pytestmark = pytest.mark.timeout(300)


def two(yard: ClusterYard, **settings: Any) -> None:
    for name in ("blue", "green"):
        yard.deploy(name, yard.package(name), **settings)


def deployment(yard: ClusterYard, name: str) -> dict[str, Any]:
    return yard.cluster.get("Deployment", name)


def shares(yard: ClusterYard) -> dict[str, tuple[int, bool]]:
    """Of each deployment: its pods, and whether they are behind the endpoint."""
    return {
        name: (
            item["spec"]["replicas"],
            "fieldpost.dev/endpoint.ep" in item["spec"]["template"]["metadata"]["labels"],
        )
        for name, item in ((name, deployment(yard, name)) for name in ("blue", "green"))
    }


def test_one_service_spreads_requests_by_the_number_of_pods(yard: ClusterYard) -> None:
    two(yard)
    endpoints = yard.workspace.endpoints
    view = endpoints.create(
        "ep", Traffic(weights={"blue": 75, "green": 25}), settings={"replicas": "4"}
    )
    assert (view.target, view.url) == ("kubernetes", f"http://ep.{yard.namespace}.svc")
    assert shares(yard) == {"blue": (3, True), "green": (1, True)}
    service = yard.cluster.get("Service", "ep")
    assert service["spec"]["selector"] == {"fieldpost.dev/endpoint.ep": "true"}

    def settled() -> bool:
        found = endpoints.get("ep")
        percent = {each.deployment: each.percent for each in found.backends}
        return (found.state, percent) == ("running", {"blue": 75.0, "green": 25.0})

    eventually(settled, 60)
    endpoints.set_traffic("ep", Traffic(weights={"green": 1}))
    assert shares(yard) == {"blue": (3, False), "green": (4, True)}
    # A new revision keeps its place behind the endpoint.
    yard.deploy("green", yard.package("newer"))
    assert shares(yard)["green"][1]
    endpoints.delete("ep")
    assert yard.cluster.find("Service", "ep") is None
    assert not any(member for _, member in shares(yard).values())
    assert endpoints.list() == []


def test_a_route_has_weights_headers_and_mirrors(yard: ClusterYard) -> None:
    if yard.double:
        yard.double.store.extend()
    if not yard.cluster.has("HTTPRoute"):
        pytest.skip("the cluster does not have the Gateway API")
    two(yard)
    yard.deploy("red", yard.package("red"))
    traffic = parse(["blue=90", "green=10"], headers=["x-canary=always:green"], shadows=["red=20"])
    settings = {"gateway": "infra/public", "hostname": "score.example"}
    view = yard.workspace.endpoints.create("ep", traffic, settings=settings)
    assert view.url == "http://score.example"
    assert view.state == "starting"  # there is no such gateway
    route = yard.cluster.get("HTTPRoute", "ep")
    canary, others = route["spec"]["rules"]
    assert canary["matches"][0]["headers"][0]["value"] == "always"
    assert [each["name"] for each in canary["backendRefs"]] == ["green"]
    assert [(each["name"], each["weight"]) for each in others["backendRefs"]] == [
        ("blue", 90), ("green", 10),
    ]  # fmt: skip
    assert others["filters"][0]["requestMirror"]["percent"] == 20
    yard.workspace.endpoints.set_traffic("ep", Traffic(weights={"green": 1}))
    (only,) = yard.cluster.get("HTTPRoute", "ep")["spec"]["rules"]
    assert [each["name"] for each in only["backendRefs"]] == ["green"]
    yard.workspace.endpoints.delete("ep")
    assert yard.cluster.find("HTTPRoute", "ep") is None


@pytest.mark.parametrize(
    ("given", "settings", "word"),
    [
        ({"headers": ["x-a=1:green"]}, {}, "header"),
        ({"shadows": ["green"]}, {}, "shadow"),
        ({"sticky": "x-user"}, {}, "Sticky"),
        ({}, {"replicas": "none"}, "replicas"),
        ({}, {"workers": "2"}, "workers"),
    ],
)
def test_what_a_service_cannot_do_is_said_before_anything_is_made(
    yard: ClusterYard, given: dict[str, Any], settings: dict[str, str], word: str
) -> None:
    two(yard)
    with pytest.raises(UsageError, match=word):
        yard.workspace.endpoints.create("ep", parse(["blue"], **given), settings=settings)
    assert yard.workspace.endpoints.list() == []
    assert yard.cluster.find("Service", "ep") is None


def test_a_gateway_needs_the_gateway_api(yard: ClusterYard) -> None:
    if yard.cluster.has("HTTPRoute"):
        pytest.skip("the cluster has the Gateway API")
    two(yard)
    traffic = Traffic(weights={"blue": 1})
    with pytest.raises(TargetError, match="Gateway API"):
        yard.workspace.endpoints.create("ep", traffic, settings={"gateway": "public"})


def test_what_is_somebody_elses_stays(yard: ClusterYard) -> None:
    two(yard)
    with pytest.raises(AlreadyExistsError, match="Service green"):
        yard.workspace.endpoints.create("green", Traffic(weights={"blue": 1}))
    assert yard.cluster.get("Service", "green")


def test_an_autoscaler_and_a_share_do_not_go_together(yard: ClusterYard) -> None:
    two(yard, max_replicas=4)
    with pytest.raises(UsageError, match="autoscaler"):
        yard.workspace.endpoints.create("ep", Traffic(weights={"blue": 1}))


METRICS = """
# TYPE fieldpost_requests_total counter
fieldpost_requests_total{{model="",version="",protocol="http",code="200"}} 999
fieldpost_requests_total{{model="m",version="1",protocol="score",code="200"}} {good}
fieldpost_requests_total{{model="m",version="1",protocol="grpc",code="INTERNAL"}} {bad}
fieldpost_request_duration_seconds_bucket{{model="m",version="1",protocol="score",le="0.01"}} {good}
fieldpost_request_duration_seconds_bucket{{model="m",version="1",protocol="score",le="+Inf"}} {good}
"""


def test_metrics_of_our_server_are_understood() -> None:
    counts = counts_of(METRICS.format(good=7, bad=3).splitlines())
    assert (counts.requests, counts.successes) == (10, 7)
    assert counts.quantile_s(0.95) == pytest.approx(0.011, abs=0.004)


def failing(name: str) -> Sums:
    """A model that answers wherever it is, but for `green`."""
    made = Sums()
    made.error = RuntimeError("no") if name == "green" else None
    return made


def ready_pods(yard: ClusterYard, name: str) -> int:
    """How many answer, those that leave among them."""
    found = yard.cluster.list("Pod", labels={"fieldpost.dev/deployment": name}).items
    return sum(is_ready(each) for each in found)


def behind_service(yard: ClusterYard) -> set[str]:
    """The deployments whose pods get the endpoint's requests."""
    selector = yard.cluster.get("Service", "ep")["spec"]["selector"]
    found = yard.cluster.list("Pod", labels=selector).items
    labels = [each["metadata"]["labels"] for each in found if is_ready(each)]
    return {each["fieldpost.dev/deployment"] for each in labels}


def requests(yard: ClusterYard, count: int) -> None:
    """Sends requests through the endpoint's own Service."""
    with yard.workspace.endpoints.reach("ep") as route, Client(route.scoring) as client:
        for _ in range(count):
            with contextlib.suppress(ScoringFailedError):
                client.score({"data": [[1, 2, 3]]})


@pytest.mark.parametrize(
    ("model", "phase", "behind"),
    [(lambda _name: Sums(), "done", {"green"}), (failing, "halted", {"blue"})],
)
def test_a_promotion_is_led_by_its_command(
    yard: ClusterYard, model: Callable[[str], Sums], phase: str, behind: set[str]
) -> None:
    if yard.double is None:
        pytest.skip("nobody sends requests to the pods of a real cluster here")
    two(yard)
    endpoints = yard.workspace.endpoints
    with PodServers(yard.double, model):
        endpoints.create("ep", Traffic(weights={"blue": 1}), settings={"replicas": "2"})
        requests(yard, 5)
        endpoints.promote("ep", Plan(to="green", steps=(50.0, 100.0), soak_s=0.0, min_requests=5))
        assert shares(yard) == {"blue": (1, True), "green": (1, True)}
        eventually(lambda: all(each.up for each in endpoints.get("ep").backends), 60)
        view = endpoints.lead("ep", wait=lambda _seconds: requests(yard, 10))
        assert view.promotion is not None
        assert view.promotion.phase == phase
        assert {name for name, (_, member) in shares(yard).items() if member} == behind
        eventually(lambda: endpoints.get("ep").state == "running", 60)
        eventually(lambda: behind_service(yard) == behind, 60)  # pods that leave have left
        with endpoints.reach("ep") as route, Client(route.scoring) as client:
            assert client.score({"data": [[1, 2, 3]]}) == ANSWER


def test_who_halts_a_promotion_at_the_moment_of_a_step_is_followed(
    yard: ClusterYard, monkeypatch: pytest.MonkeyPatch
) -> None:
    if yard.double is None:
        pytest.skip("nobody sends requests to the pods of a real cluster here")
    two(yard)
    endpoints = yard.workspace.endpoints
    with PodServers(yard.double):
        endpoints.create("ep", Traffic(weights={"blue": 1}), settings={"replicas": "2"})
        endpoints.promote("ep", Plan(to="green", steps=(50.0, 100.0), soak_s=0.0, min_requests=0))
        looks, look = itertools.count(), Clusters.reports

        def halting(self: Clusters, *given: Any) -> Any:
            if next(looks) == 1:  # the first look begins the window of `lead`
                endpoints.halt("ep")
            return look(self, *given)

        monkeypatch.setattr(Clusters, "reports", halting)
        view = endpoints.lead("ep", wait=lambda _seconds: None)
    assert view.promotion is not None
    assert view.promotion.phase == "cancelled"
    assert {name for name, (_, member) in shares(yard).items() if member} == {"blue"}


def test_a_pod_that_leaves_between_two_looks_ends_no_promotion(yard: ClusterYard) -> None:
    if yard.double is None:
        pytest.skip("the pods of a real cluster do not leave when told")
    two(yard)
    endpoints = yard.workspace.endpoints
    endpoints.create("ep", Traffic(weights={"blue": 1}))
    record = yard.workspace.registry.endpoints.get("ep")
    with PodServers(yard.double) as servers:
        pods = yard.cluster.get("Deployment", "blue")["spec"]["replicas"]
        eventually(lambda: endpoints.get("ep").state == "running", 60)
        eventually(lambda: ready_pods(yard, "blue") == pods, 60)  # of the revision before none
        gone: list[str] = []

        def place(pod: dict[str, Any]) -> str:
            uid = pod["metadata"]["uid"]
            gone[:] = gone or [uid]
            return "127.0.0.1:1" if uid in gone else servers.place(pod)

        yard.double.proxying.behind = place
        reports = Clusters(yard.workspace.registry).reports(record, ["blue"])
        assert len(reports) == pods - 1
        assert all(each.up["blue"] for each in reports)
        yard.double.proxying.behind = lambda _pod: None
        (report,) = Clusters(yard.workspace.registry).reports(record, ["blue"])
        assert not report.up["blue"]


def test_pods_with_keys_show_their_counts_to_a_key(
    yard: ClusterYard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if yard.double is None:
        pytest.skip("the pods of a real cluster have no keys here")
    yard.deploy("blue", yard.package("blue"))
    yard.workspace.endpoints.create("ep", Traffic(weights={"blue": 1}))
    record = yard.workspace.registry.endpoints.get("ep")
    key, shown = keys.make("promoter", scopes=("metrics",))
    keyfile.write(tmp_path / "keys", keys.KeyFile((key,)))
    clusters = Clusters(yard.workspace.registry)
    with PodServers(yard.double, api_keys=str(tmp_path / "keys")):
        eventually(lambda: yard.workspace.endpoints.get("ep").state == "running", 60)
        with pytest.raises(TargetError, match="does not show its metrics") as caught:
            clusters.reports(record, ["blue"])
        assert "FIELDPOST_API_KEY" in caught.value.hint
        monkeypatch.setenv("FIELDPOST_API_KEY", shown)
        assert all(each.up["blue"] for each in clusters.reports(record, ["blue"]))


def test_a_cluster_that_went_away_is_told_and_comes_back(yard: ClusterYard) -> None:
    if yard.double is None:
        pytest.skip("a real cluster is not taken away")
    two(yard)
    endpoints = yard.workspace.endpoints
    endpoints.create("ep", Traffic(weights={"blue": 1}))

    def refuse(_ask: object) -> str:
        return "drop"

    from serve.targets.kubernetes import client

    yard.double.fault = refuse
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "PATIENCE_S", 0.2)
        patch.setattr(client.Cluster.__init__, "__kwdefaults__", {
            "namespace": None, "patience_s": 0.2, "warn": None,
        })  # fmt: skip
        assert endpoints.get("ep").state == "down"
        with pytest.raises((TargetError, FieldpostError)):
            endpoints.set_traffic("ep", Traffic(weights={"green": 1}))
    yard.double.fault = lambda _ask: None
    assert endpoints.get("ep").backends[0].deployment == "blue"
    endpoints.set_traffic("ep", Traffic(weights={"green": 1}))
    assert endpoints.start("ep").backends[0].deployment == "green"
