"""Which addresses need the way through the API, and what that way is called."""

from __future__ import annotations

import socket

import pytest

from scoring.errors import UsageError
from serve.targets.base import Route
from serve.targets.kubernetes.relay import Address, address_of, out_of_reach

INSIDE = "KUBERNETES_SERVICE_HOST"


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("http://iris.models.svc", "models/services/iris:80"),
        ("http://iris.models.svc:8080", "models/services/iris:8080"),
        ("https://iris.models.svc", "models/services/https:iris:443"),
    ],
)
def test_a_service_is_named_by_its_url(url: str, path: str) -> None:
    found = address_of(url)
    assert found is not None
    assert found.path == f"api/v1/namespaces/{path}/proxy"


@pytest.mark.parametrize(
    "url", ["http://score.example", "https://a.b.svc.example/iris", "http://127.0.0.1:80", ""]
)
def test_other_addresses_are_reached_as_they_are(url: str) -> None:
    assert address_of(url) is None
    assert out_of_reach(url) is None


def test_a_pod_reaches_the_services_that_it_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    url, wanted = "http://iris.models.svc", Address("models", "iris", 80)
    monkeypatch.delenv(INSIDE, raising=False)
    # A provider that finds every name is no cluster.
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_: [])
    assert out_of_reach(url) == wanted
    monkeypatch.setenv(INSIDE, "10.0.0.1")
    assert out_of_reach(url) is None

    def unknown(*_: object) -> None:
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert out_of_reach(url) == wanted  # a pod of another cluster


def test_a_route_is_told_by_what_it_stands_for() -> None:
    route = Route("http://127.0.0.1:1/secret", "https://cluster/api/proxy")
    assert route.scoring == "http://127.0.0.1:1/secret/score"
    assert (
        route.outside(f"{route.url}/jobs/1 is over") == "https://cluster/api/proxy/jobs/1 is over"
    )
    with pytest.raises(UsageError, match="gRPC"):
        route.require("grpc")
    Route("http://h/iris/", "http://h/iris/").require("grpc")
    assert Route("http://h/iris/", "http://h/iris/").scoring == "http://h/iris/score"
