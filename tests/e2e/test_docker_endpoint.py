"""One endpoint before a local deployment and one in Docker, of the same package: real, both.

Loading the first image into an engine takes five to fifteen seconds.
"""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from serve.endpoints.traffic import parse
from tests.support.crews import Clients, Yard
from tests.support.engines import RunningEngine
from tests.support.local import eventually

pytestmark = pytest.mark.timeout(300)


@pytest.fixture
def yard(tmp_path: Path, docker_engine: RunningEngine, base_rootfs: Path) -> Iterator[Yard]:
    found = Yard(tmp_path, docker_engine, f"rootfs:{base_rootfs}")
    yield found
    for view in found.workspace.endpoints.list():
        found.workspace.endpoints.delete(view.name)
    for name in ("here", "there"):
        found.remove(name)
    found.workspace.close()


def ask(url: str, **headers: str) -> tuple[object, str]:
    request = urllib.request.Request(
        f"{url}/score", b"{}", {"Content-Type": "application/json", **headers}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.load(answer), answer.headers["x-fieldpost-deployment"]


def test_docker_and_local_stand_behind_one_endpoint(yard: Yard) -> None:
    package = yard.package(42)
    yard.workspace.deploy("here", package)
    yard.deploy("there", package)
    traffic = parse(["here=1", "there=1"], headers=["x-to=docker:there", "x-to=local:here"])
    view = yard.workspace.endpoints.create("ep", traffic)
    assert ask(view.url, **{"X-To": "local"}) == (42, "here")
    assert ask(view.url, **{"X-To": "docker"}) == (42, "there")
    assert {ask(view.url)[1] for _ in range(40)} == {"here", "there"}
    with Clients(view.url) as clients:
        eventually(lambda: clients.seen(b"42"))
        yard.workspace.deployments.stop("there")  # nobody is dropped on the way
    assert (clients.errors, set(clients.answers)) == ([], {(200, b"42")})
    assert {ask(view.url)[1] for _ in range(20)} == {"here"}
