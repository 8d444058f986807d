"""Fetching from Debian's registry, which is killed, frozen and started again in the middle."""

from __future__ import annotations

import base64
import json
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.agent import fetch
from edge.agent.blobs import DeviceBlobs
from edge.agent.throttle import Stop, StoppedError, Throttle
from edge.agent.transfer import Wishes
from edge.agent.web import Web
from edge.protocol.messages import Source
from tests.support.blob_source import QUICK, Made, digest_of, make_package, noise
from tests.support.registry import DockerRegistry, is_installed, running

PACKAGE = make_package(env=noise(500_000, 1), model=noise(4_000_000, 2))
LIMITS = QUICK._replace(read_s=1, longest_wait_s=0.2)
USERS = {"device": "secret"}


def send(registry: DockerRegistry, method: str, url: str, data: bytes, kind: str) -> dict[str, str]:
    login = base64.b64encode(b"device:secret").decode()
    headers = {"Content-Type": kind, "Authorization": f"Basic {login}"}
    if url.startswith("/"):
        url = registry.url + url
    request = urllib.request.Request(url, data, headers, method=method)
    with urllib.request.urlopen(request, timeout=20) as answer:
        return dict(answer.headers.items())


def upload(registry: DockerRegistry, package: Made) -> None:
    """As the distribution specification has it, by other means than ours."""
    binary = "application/octet-stream"
    manifest = json.loads(package.blobs[package.digest])
    for each in [manifest["config"], *manifest["layers"]]:
        begun = send(registry, "POST", "/v2/team/iris/blobs/uploads/", b"", binary)
        place = f"{begun['Location']}&digest={each['digest']}"
        send(registry, "PUT", place, package.blobs[each["digest"]], binary)
    kind = "application/vnd.oci.image.manifest.v1+json"
    body = package.blobs[package.digest]
    send(registry, "PUT", f"/v2/team/iris/manifests/{package.digest}", body, kind)


def typed(package: Made) -> Made:
    """The package with the types that a registry wants in its manifest."""
    manifest = json.loads(package.blobs[package.digest])
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
    manifest["config"]["mediaType"] = "application/vnd.oci.image.config.v1+json"
    for layer in manifest["layers"]:
        layer["mediaType"] = "application/vnd.oci.image.layer.v1.tar+gzip"
    body = json.dumps(manifest).encode()
    digest = digest_of(body)
    blobs = {key: data for key, data in package.blobs.items() if key != package.digest}
    return Made(digest, blobs | {digest: body}, package.layers)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    if not is_installed():
        pytest.skip("docker-registry is not installed")
    with running(tmp_path_factory.mktemp("registry"), users=USERS) as found:
        upload(found, typed(PACKAGE))
        yield found


@pytest.fixture
def web(registry: DockerRegistry) -> Iterator[Web]:
    made = Web(limits=LIMITS, logins={registry.host: ("device", "secret")})
    yield made
    made.close()


def wishes(registry: DockerRegistry, web: Web, rate: int = 0, stop: Stop | None = None) -> Wishes:
    source = Source(url=f"{registry.url}/v2/team/iris", kind="registry")
    return Wishes([source], web, Throttle(rate), stop or Stop())


def require_whole(blobs: DeviceBlobs) -> None:
    package = fetch.read(typed(PACKAGE).digest, blobs)
    for layer in package.layers:
        blobs.verify(layer.blob.digest)


def test_a_package_from_a_real_registry(registry: DockerRegistry, web: Web, tmp_path: Path) -> None:
    blobs = DeviceBlobs(tmp_path)
    result = fetch.fetch(typed(PACKAGE).digest, blobs, wishes(registry, web))
    require_whole(blobs)
    assert result.received == sum(map(len, typed(PACKAGE).blobs.values()))


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_a_registry_that_goes_away_in_the_middle(
    registry: DockerRegistry, web: Web, tmp_path: Path, how: str
) -> None:
    blobs = DeviceBlobs(tmp_path)
    disturbed: list[threading.Timer] = []
    come = [0]

    def disturb(count: int) -> None:
        come[0] += count
        if come[0] < 1_500_000 * (len(disturbed) + 1) or len(disturbed) == 2:
            return
        for timer in disturbed:
            timer.join()  # it may answer before it is said to have started
        if how == "killed":
            registry.kill()
        else:
            registry.pause()
        back = registry.start if how == "killed" else registry.resume
        disturbed.append(threading.Timer(0.3 if how == "killed" else 1.5, back))
        disturbed[-1].start()

    asked = wishes(registry, web)._replace(told=disturb)
    result = fetch.fetch(typed(PACKAGE).digest, blobs, asked)
    for timer in disturbed:
        timer.join()
    assert len(disturbed) == 2
    require_whole(blobs)
    # What had come was not fetched again, but for what was under way in the sockets.
    assert result.received < sum(map(len, typed(PACKAGE).blobs.values())) + 100_000


def test_stopped_and_begun_again_at_many_places(
    registry: DockerRegistry, web: Web, tmp_path: Path
) -> None:
    """As an agent that is restarted again and again: in the end it is there, and came once."""
    received = 0
    for _ in range(100):
        stop = Stop()
        left = [300_000]

        def told(count: int, stop: Stop = stop, left: list[int] = left) -> None:
            left[0] -= count
            if left[0] <= 0:
                stop.set()

        blobs = DeviceBlobs(tmp_path)
        asked = wishes(registry, web, stop=stop)._replace(told=told)
        try:
            fetch.fetch(typed(PACKAGE).digest, blobs, asked)
        except StoppedError:
            received += 300_000 - left[0]
        else:
            break
    require_whole(DeviceBlobs(tmp_path))
    assert received <= sum(map(len, typed(PACKAGE).blobs.values()))
