"""From the start of an agent that was killed to the first right answer of its model."""

from __future__ import annotations

import http.client
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.edge.place import BenchError, until
from benchmarks.models import make_iris
from benchmarks.results import Row
from edge.agent.config import Config
from edge.agent.device import Device
from scoring.packages import reading
from serve import Workspace
from tests.support.blob_source import Made
from tests.support.edge_site import EdgeSite

AGENT = str(Path(sys.executable).with_name("fieldpost-agent"))
_WITHIN_S = 2.0
_BODY = json.dumps({"data": [[5.1, 3.5, 1.4, 0.2]]})
_PORT_FILE = "agent.toml"


def rows(folder: Path, *, quick: bool) -> list[Row]:
    """A real package of a model in ONNX, with its own numpy and onnxruntime."""
    folder.mkdir(exist_ok=True)
    with Workspace(folder / "workspace") as workspace:
        version = workspace.models.register("iris", make_iris(folder))
        package = workspace.packages.build(version)
        made = _made(workspace, package.digest)
    (folder / "site").mkdir()
    with EdgeSite(folder / "site").open() as site:
        config = site.enrol(folder / "device")
        port = _deployed(site, config, made)
        seconds = [_restart(config, port) for _ in range(2 if quick else 7)]
    middle = statistics.median(seconds)
    return [
        Row(
            work="agent restart to first answered request",
            unit="s",
            ours=middle,
            target=f"under {_WITHIN_S:g} s",
            reached=middle < _WITHIN_S,
            notes="From the start of the process after SIGKILL to a right answer over HTTP; iris "
            f"in ONNX; the middle of {len(seconds)}: "
            + ", ".join(f"{one:.2f}" for one in sorted(seconds)) + ".",
        )
    ]  # fmt: skip


def _made(workspace: Workspace, digest: str) -> Made:
    """A package of the workspace, as the test's source has it."""
    blobs = workspace.registry.blobs
    found = reading.read_package(digest, blobs)
    names = [digest, found.config.digest, *(layer.digest for layer in found.layers)]
    return Made(digest, {name: blobs.read_bytes(name) for name in names}, ())


def _deployed(site: EdgeSite, config: Config, made: Made) -> int:
    """Brings the package to the device, by an agent that then ends; the port."""
    with Device(config):
        site.wish(made, timeout_s=120.0)
        port = site.wait_for("good", made, 180).port
        until("it answers", lambda: _answers(port), 30)
    lines = [f"{name} = {json.dumps(value)}" for name, value in _settings(config).items()]
    (Path(config.state) / _PORT_FILE).write_text("\n".join(lines) + "\n")
    return port


def _settings(config: Config) -> dict[str, Any]:
    return {
        "broker": config.broker,
        "controller": config.controller,
        "keepalive_s": config.keepalive_s,
        "drain_s": config.drain_s,
    }


def _restart(config: Config, port: int) -> float:
    """Starts it, waits for an answer, and kills it; the seconds."""
    log = Path(config.state).parent / "agent.log"
    with log.open("wb") as out:
        begun = time.perf_counter()
        agent = subprocess.Popen([AGENT, "run", "--state", config.state], stdout=out, stderr=out)
        try:
            until("it answers", lambda: _answers(port), 60, 0.005)
            return time.perf_counter() - begun
        except BenchError as error:
            raise BenchError(f"{error}: {log.read_text()[-2000:]}") from error
        finally:
            agent.kill()
            agent.wait()
            until("its workers are gone", lambda: not _answers(port), 30)


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    try:
        connection.request("POST", "/score", _BODY, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status == 200 and b"0" in answer.read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
