"""Requests to deployments and endpoints of a cluster, with nothing but a kubeconfig."""

from __future__ import annotations

import contextlib
import json
import os
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import (
    FieldpostError,
    OverloadedError,
    ScoringFailedError,
    UnauthorizedError,
    UnreachableError,
    UsageError,
    WrongShapeError,
)
from serve.cli.main import run
from serve.client import Client
from serve.endpoints.kubernetes import Clusters
from serve.endpoints.traffic import Traffic
from serve.server.access import keyfile, keys
from serve.targets.kubernetes.rbac import allowed
from serve.workspace.reaching import reach
from tests.support.kubernetes_double.server import KubernetesDouble
from tests.support.kubernetes_yard import TEST_KUBECONFIG, ClusterYard, double_yard, real_yard
from tests.support.local import eventually
from tests.support.pod_servers import PodServers
from tests.support.server import ANSWER, Sums

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

DATA = {"data": [[1.0, 2.0, 3.0]]}


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterYard]:
    with double_yard(tmp_path, monkeypatch) as found:
        yield found


@pytest.fixture
def double(yard: ClusterYard) -> KubernetesDouble:
    assert yard.double is not None
    return yard.double


def ask(yard: ClusterYard, name: str, document: object = DATA, **options: Any) -> Any:
    with (
        reach(yard.workspace, name) as found,
        Client(found.route.scoring, retry_s=0.2, **options) as c,
    ):
        return c.score(document)


def test_a_deployment_answers_by_its_name(
    yard: ClusterYard, double: KubernetesDouble, capsys: pytest.CaptureFixture[str]
) -> None:
    rights = {
        (plural, verb) for each in allowed() for plural in each.resources for verb in each.verbs
    }
    double.api.denied = lambda _user, verb, resource, _space: (resource, verb) not in rights
    deployment = yard.deploy("iris", yard.package("x"))
    assert deployment.url == "http://iris.default.svc"
    with PodServers(double):
        assert deployment.score(DATA) == ANSWER
        assert "6.0" in json.dumps(deployment.score(DATA, protocol="v2"))
        place = yard.folder / "workspace"
        given = ["score", "iris", "-d", json.dumps(DATA), "--workspace", str(place)]
        assert run(given) == 0
        assert json.loads(capsys.readouterr().out) == ANSWER
        with pytest.raises(UsageError, match="gRPC"):
            deployment.score(DATA, protocol="grpc")


def test_what_the_model_refuses_is_told_as_anywhere(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    yard.deploy("iris", yard.package("x"))
    failing = Sums()
    failing.error = RuntimeError("no")
    with PodServers(double, lambda _name: failing):
        with pytest.raises(WrongShapeError, match="takes 3"):
            ask(yard, "iris", {"data": [[1.0]]})
        with pytest.raises(ScoringFailedError):
            ask(yard, "iris")


def test_keys_reach_the_server_behind_the_login(
    yard: ClusterYard, double: KubernetesDouble, tmp_path: Path
) -> None:
    yard.deploy("iris", yard.package("x"))
    key, shown = keys.make("me")
    keyfile.write(tmp_path / "keys", keys.KeyFile((key,)))
    with PodServers(double, api_keys=str(tmp_path / "keys")):
        with pytest.raises(UnauthorizedError, match="who asks"):
            ask(yard, "iris")
        headers = {"authorization": f"Bearer {shown}"}
        assert ask(yard, "iris", headers=headers) == ANSWER


def test_an_answer_that_takes_its_time_is_fetched_as_a_job(
    yard: ClusterYard, double: KubernetesDouble, tmp_path: Path
) -> None:
    deployment = yard.deploy("iris", yard.package("x"))
    with PodServers(double, jobs_dir=str(tmp_path / "jobs")):
        assert deployment.score(DATA, later=True) == ANSWER


def test_what_the_cluster_says_is_not_taken_for_the_models_word(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    yard.deploy("iris", yard.package("x"))
    with pytest.raises(UnreachableError, match="refused") as caught:
        ask(yard, "iris")
    assert "deployment show" in caught.value.hint
    double.api.denied = lambda _user, _verb, resource, _space: resource == "services/proxy"
    with pytest.raises(FieldpostError, match="services/proxy") as refused:
        ask(yard, "iris")
    assert "fieldpost target kubernetes rbac" in refused.value.hint
    double.api.denied = lambda *_: False
    yard.workspace.deployments.stop("iris")
    with pytest.raises(UnreachableError, match="no endpoints available") as caught:
        ask(yard, "iris")
    double.hang_up()
    with pytest.raises(UnreachableError, match="does not answer"):
        ask(yard, "iris")
    double.listen()


def test_a_server_without_room_is_not_the_cluster(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    yard.deploy("iris", yard.package("x"))
    with listening(Odd) as place:
        double.proxying.behind = lambda _pod: place
        with pytest.raises(OverloadedError, match="full"):
            ask(yard, "iris", {"status": 503})


def test_bodies_headers_and_pieces_go_through_as_they_are(
    yard: ClusterYard, double: KubernetesDouble
) -> None:
    yard.deploy("iris", yard.package("x"))
    with listening(Odd) as place:
        double.proxying.behind = lambda _pod: place
        with reach(yard.workspace, "iris") as found:
            url = found.route.url
            odd = urllib.request.Request(
                f"{url}/a%2Fb/c?x=1%202&y=%C3%A9", b"\x00\xff" * 300_000, {"X-Odd": "a, b"}
            )
            with urllib.request.urlopen(odd) as answer:
                told = json.loads(answer.read())
            assert told == {
                "path": "/a%2Fb/c?x=1%202&y=%C3%A9", "bytes": 600_000, "odd": "a, b",
                "authorization": None,
            }  # fmt: skip
            with urllib.request.urlopen(f"{url}/pieces") as answer:
                first = answer.read1(100)
                Odd.go.set()
                assert first + answer.read() == b"firstlast"
            outside = url.rpartition("/")[0]
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{outside}/guess/score")
            with caught.value as refused:
                assert refused.code == 404
    assert not any("guess" in each for each in double.requests)


def test_an_endpoint_answers_by_its_name(yard: ClusterYard, double: KubernetesDouble) -> None:
    for name in ("blue", "green"):
        yard.deploy(name, yard.package(name))
    yard.workspace.endpoints.create("ep", Traffic(weights={"blue": 1, "green": 1}))
    with PodServers(double):
        assert ask(yard, "ep") == ANSWER
    assert "POST /api/v1/namespaces/default/services/ep:80/proxy/score" in double.requests


@pytest.mark.timeout(900)
def test_the_pods_of_a_real_cluster_answer_by_their_names(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not os.environ.get(TEST_KUBECONFIG):
        pytest.skip(f"{TEST_KUBECONFIG} names no cluster")
    base = f"rootfs:{request.getfixturevalue('base_rootfs')}"
    with real_yard(tmp_path, monkeypatch, base) as yard:
        deployment = yard.deploy("iris", yard.package("here"), replicas=1)
        assert deployment.score(DATA) == "here"
        with reach(yard.workspace, "iris") as found:
            with urllib.request.urlopen(f"{found.route.url}/v2/health/ready") as answer:
                assert answer.status == 200
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{found.route.url}/nothing/here")
            with caught.value as refused:
                assert refused.code == 404
        endpoints = yard.workspace.endpoints
        endpoints.create("ep", Traffic(weights={"iris": 1}), settings={"replicas": "1"})
        eventually(lambda: endpoints.get("ep").state == "running", 300)
        assert ask(yard, "ep", timeout_s=30) == "here"
        record = yard.workspace.registry.endpoints.get("ep")
        reports = Clusters(yard.workspace.registry).reports(record, ["iris"])
        assert all(each.up["iris"] for each in reports)
        endpoints.delete("ep")
        yard.workspace.deployments.stop("iris")
        with pytest.raises(UnreachableError):
            ask(yard, "iris")


class Odd(BaseHTTPRequestHandler):
    """Tells what it got, and answers in pieces."""

    protocol_version = "HTTP/1.1"
    go = threading.Event()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nfirst\r\n")
        self.go.wait(10)
        self.wfile.write(b"4\r\nlast\r\n0\r\n\r\n")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        status, told = 200, {
            "path": self.path, "bytes": len(body), "odd": self.headers["x-odd"],
            "authorization": self.headers["authorization"],
        }  # fmt: skip
        if body.startswith(b"{"):
            status, told = json.loads(body)["status"], {"error": {"message": "It is full."}}
        data = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextlib.contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
