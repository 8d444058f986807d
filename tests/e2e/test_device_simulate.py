"""`fieldpost device simulate` beside a controller, as an operator runs both."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support import brokers
from tests.support.controllers import eventually

FIELDPOST = str(Path(sys.executable).with_name("fieldpost"))


class Operator:
    """Whoever types commands."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder = folder
        self._environment = {
            **os.environ,
            "FIELDPOST_WORKSPACE": str(folder / "workspace"),
            **environment,
        }

    def run(self, *arguments: str, status: int = 0) -> Any:
        done = subprocess.run(
            [FIELDPOST, *arguments, "--json"],
            env=self._environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=90,
        )
        assert done.returncode == status, done.stdout + done.stderr
        return json.loads(done.stdout)

    @contextmanager
    def running(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        with (self.folder / f"{arguments[1]}.log").open("wb") as log:
            process = subprocess.Popen(
                [FIELDPOST, *arguments],
                env=self._environment,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def online(self) -> list[str]:
        return [one["name"] for one in self.run("device", "list") if one["online"]]


@pytest.fixture
def operator(tmp_path: Path) -> Operator:
    brokers.require()
    found = Operator(tmp_path)
    found.run("fleet", "trust", "init", "--keys", str(tmp_path / "offline"))
    return found


@contextmanager
def tls_broker(operator: Operator) -> Iterator[brokers.Mosquitto]:
    """As `fleet broker-config` sets it up."""
    folder, port = operator.folder / "broker", brokers.free_port()
    operator.run(
        "fleet", "broker-config", str(folder), "--host", "127.0.0.1", "--port", str(port),
        "--address", "127.0.0.1", "--user", "root",
    )  # fmt: skip
    broker = brokers.Mosquitto(folder, port=port, config=folder / "mosquitto.conf")
    broker.start()
    try:
        yield broker
    finally:
        broker.kill()


def test_devices_with_certificates_come_and_go(operator: Operator) -> None:
    with tls_broker(operator) as broker:
        url = f"mqtts://127.0.0.1:{broker.port}"
        listen = f"127.0.0.1:{brokers.free_port()}"
        with operator.running("fleet", "controller", "--broker", url, "--listen", listen):
            simulate = ("device", "simulate", "--broker", url, "-n", "5", "--name", "press")
            with operator.running(*simulate, "--tag", "line=2", "--json") as process:
                eventually(lambda: len(operator.online()) == 5)
                found = operator.run("device", "list", "--where", "tags.line == '2'")
                assert [one["name"] for one in found] == [f"press-000{n}" for n in range(1, 6)]
                assert all(one["facts"]["simulated"] for one in found)
                process.send_signal(signal.SIGINT)
                out, _ = process.communicate(timeout=30)
            assert process.returncode == 0
            told = json.loads(out)
            assert (told["devices"], told["connected"], told["settled"]) == (5, 5, 5)
            eventually(lambda: not operator.online())
            # They come back as themselves, and go for good.
            told = operator.run(*simulate, "--for", "3s", "--remove")
            assert told["connected"] == 5
        assert operator.run("device", "list") == []


def test_a_dry_run_changes_nothing(operator: Operator) -> None:
    told = operator.run(
        "device", "simulate", "--broker", "mqtt://127.0.0.1:1", "-n", "2", "--dry-run"
    )
    assert told == {"devices": ["sim-0001", "sim-0002"], "dry_run": True}
    assert operator.run("device", "list") == []


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("--broker", "http://x"), 2, "mqtt://HOST"),
        (("--broker", "mqtt://127.0.0.1:1", "--broken", "@"), 2, "DIGEST@PHASE"),
        (("--broker", "mqtt://127.0.0.1:1", "--broken", "ab=cam-1"), 2, "no 'cam-1'"),
        (("--broker", "mqtt://127.0.0.1:1", "--name", "a/b"), 2, "name"),
        (("--broker", "mqtt://127.0.0.1:1", "--failing", "110%"), 2, "--failing"),
        (("--broker", "mqtt://127.0.0.1:1", "--offline", "100%"), 2, "--offline"),
    ],
)
def test_what_makes_no_sense_is_refused(
    operator: Operator, arguments: tuple[str, ...], status: int, said: str
) -> None:
    told = operator.run("device", "simulate", *arguments, status=status)
    assert said in json.dumps(told)


def test_a_fleet_without_keys_is_told_so(tmp_path: Path) -> None:
    operator = Operator(tmp_path)
    told = operator.run("device", "simulate", "--broker", "mqtt://127.0.0.1:1", status=1)
    assert "trust init" in json.dumps(told)
    assert operator.run("device", "list") == []
