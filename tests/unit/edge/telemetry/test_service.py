"""All of it beside a controller, and what people ask of it from the command line."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edge.cli.telemetry import telemetry
from edge.protocol.messages import Record, encode_compressed
from edge.protocol.messages import Telemetry as Message
from edge.protocol.topics import topic
from edge.telemetry.service import TelemetryService
from scoring.profiles import of_rows

pytest.importorskip("duckdb")


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    source = random.Random(1)
    with TelemetryService(tmp_path / "ws") as service:
        for device, mean in (("cam-1", 0.0), ("cam-2", 5.0)):
            rows = ({"x[0]": source.gauss(mean, 1), "x[1]": source.gauss(0, 1)} for _ in range(300))
            data = {"module": "iris", "package": "p", **of_rows(rows).to_dict()}
            records = (
                Record(seq=0, at=1.7e9, kind="inputs", data=data),
                Record(seq=1, at=1.7e9, kind="requests", data={"module": "iris", "requests": 5}),
            )
            message = Message(device=device, epoch="e", records=records, dropped={"debug": 2})
            where = topic("home", device, "tele/metric")
            assert service.take(where, encode_compressed(message)) is not None
        for upkeep in service.upkeep():
            upkeep.run()
        assert b'device="cam-1"' in service.page()
    return tmp_path / "ws"


def run(workspace: Path, *arguments: str) -> Any:
    call = [*arguments, "--workspace", str(workspace)]
    shown = CliRunner().invoke(telemetry, call, catch_exceptions=False)
    assert shown.exit_code == 0
    assert shown.stdout
    document = CliRunner().invoke(telemetry, [*call, "--json"], catch_exceptions=False)
    return json.loads(document.stdout)


def test_a_service_goes_on_where_it_was(workspace: Path) -> None:
    with TelemetryService(workspace) as service:
        assert service.live.traffic("cam-1", "iris").requests == 5


def test_telemetry_is_asked_from_the_command_line(workspace: Path) -> None:
    assert run(workspace, "query", "SELECT count(*) AS n, max(told_at) AS last FROM records") == [
        {"n": 4, "last": "2023-11-14T22:13:20"}
    ]
    assert len(run(workspace, "list", "--device", "cam-1")) == 2
    assert run(workspace, "list", "--kind", "requests")[0]["data"]["requests"] == 5
    found = run(workspace, "devices")
    assert [(one["device"], one["records"], one["dropped"]) for one in found] == [
        ("cam-1", 2, {"debug": 2}),
        ("cam-2", 2, {"debug": 2}),
    ]


def test_drift_is_asked_from_the_command_line(workspace: Path, tmp_path: Path) -> None:
    source = random.Random(2)
    sample = tmp_path / "train.csv"
    lines = [f"{source.gauss(0, 1)},{source.gauss(0, 1)}" for _ in range(200)]
    sample.write_text("\n".join(["width,height", *lines]))
    found = run(workspace, "drift", "iris", "--sample", str(sample))
    assert {name: each["verdict"] for name, each in found.items()} == {
        "fleet": "drifted", "cam-1": "steady", "cam-2": "drifted",
    }  # fmt: skip
    assert found["cam-2"]["columns"]["x[1]"]["verdict"] == "steady"


@pytest.mark.parametrize("is_gone", [True, False])
def test_a_controller_starts_whatever_became_of_its_files(workspace: Path, is_gone: bool) -> None:
    for file in (workspace / "telemetry" / "records").glob("*.parquet"):
        file.unlink() if is_gone else file.write_bytes(b"PAR1")
    with TelemetryService(workspace) as service:
        assert service.live.totals == {}
