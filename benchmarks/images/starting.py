"""How long a container of an image takes to its first answer, beside what it has to import."""

from __future__ import annotations

import json
import statistics
import subprocess
import time
from urllib.error import URLError
from urllib.request import Request, urlopen

from benchmarks.images.contenders import Fieldpost
from benchmarks.images.place import Place
from benchmarks.results import Row

_IMAGE = "fieldpost-bench:1"
_WITHIN_S = 1.0
_ROUNDS = 7
_PATIENCE_S = 60.0
# What every answer of an ONNX model needs, with nothing of ours.
_IMPORTS = (
    "import sys; sys.path.append('/opt/fieldpost/env/site-packages'); import numpy, onnxruntime"
)


def measure(place: Place, ours: Fieldpost, columns: int) -> list[Row]:
    """Containers of the newest package, one after the other.

    Args:
        place: Its Docker.
        ours: Has built the package.
        columns: How many numbers the model wants.
    """
    row = Row(
        "container started, to the first answer", "s", float("nan"), "under 1 s", reached=False
    )
    if why := place.missing.get("docker"):
        row.missing = {"docker": why}
        return [row]
    ours.export(_IMAGE, place.docker)
    starts = [_start(place, columns) for _ in range(_ROUNDS)]
    imports = [_import(place) for _ in range(_ROUNDS)]
    row.ours = statistics.median(seconds for seconds, _ in starts)
    row.peers = {"docker run, importing numpy and onnxruntime alone": statistics.median(imports)}
    row.ratio = next(iter(row.peers.values())) / row.ours
    row.reached = row.ours < _WITHIN_S
    processor = statistics.median(used for _, used in starts)
    row.notes = (
        f"median of {_ROUNDS}, from 'docker run' to the answer of POST /score; of processor time "
        f"the container has {processor:.2f} s until then. Layers hold no byte code: every start "
        "compiles what it imports, as the peer's does"
    )
    return [row]


def _start(place: Place, columns: int) -> tuple[float, float]:
    """Seconds to the first answer, and processor seconds of the container to there."""
    begun = time.perf_counter()
    name = _docker(place, "run", "--detach", "--read-only", "--publish", "127.0.0.1::5001", _IMAGE)
    try:
        port = int(_docker(place, "port", name, "5001/tcp").rpartition(":")[2])
        _answer(f"http://127.0.0.1:{port}/score", columns)
        return time.perf_counter() - begun, _processor_s(place, name)
    finally:
        _docker(place, "rm", "--force", name)


def _answer(url: str, columns: int) -> None:
    """Waits for a row's answer."""
    body = json.dumps({"data": [[0.0] * columns]}).encode()
    asked = Request(url, data=body, headers={"Content-Type": "application/json"})
    deadline = time.monotonic() + _PATIENCE_S
    while time.monotonic() < deadline:
        try:
            with urlopen(asked, timeout=_PATIENCE_S) as answer:
                answer.read()
                return
        except (URLError, OSError):  # the server is not there yet, or has not loaded the model
            time.sleep(0.005)
    raise RuntimeError(f"{url} does not answer")


def _processor_s(place: Place, name: str) -> float:
    """What the kernel has counted for all processes of a container."""
    import docker

    with docker.APIClient(base_url=place.docker["DOCKER_HOST"]) as client:
        found = client.stats(name, stream=False)
    return int(found["cpu_stats"]["cpu_usage"]["total_usage"]) / 1e9


def _import(place: Place) -> float:
    begun = time.perf_counter()
    _docker(
        place,
        *("run", "--rm", "--read-only", "--entrypoint", "python3.11", _IMAGE),
        *("-I", "-S", "-c", _IMPORTS),
    )
    return time.perf_counter() - begun


def _docker(place: Place, *arguments: str) -> str:
    done = subprocess.run(
        [place.client, *arguments],
        env=dict(place.docker),
        capture_output=True,
        text=True,
        check=False,
        timeout=_PATIENCE_S,
    )
    if done.returncode != 0:
        raise RuntimeError(f"docker {arguments[0]}: {done.stderr[-500:]}")
    return done.stdout.strip()
