"""What a real device tells, through a real broker, into the store of a real controller."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.support.whole_fleet import Built, WholeFleet, score, until

pytest.importorskip("duckdb")

_HOLES = (
    "SELECT epoch, max(seq) + 1 - count(*) AS missing FROM records GROUP BY epoch "
    "HAVING missing <> 0"
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    return Built.make(tmp_path_factory.mktemp("packages"))


@pytest.fixture
def fleet(built: Built, tmp_path: Path) -> Iterator[WholeFleet]:
    with WholeFleet(tmp_path, built.copied(tmp_path / "ws")).open() as made:
        for package in (built.good, built.bad):
            made.sign(package)
        yield made


def rows(count: int = 1) -> list[list[float]]:
    found: list[list[float]] = np.random.default_rng(1).normal(size=(count, 4)).tolist()
    return found


def test_each_record_is_stored_once_also_after_the_link_was_cut(
    fleet: WholeFleet, built: Built
) -> None:
    agent = fleet.join("cam")
    fleet.deploy(built.good, "--soak", "1s", "--set", "env.FIELDPOST_SERVER_INPUTS=on")
    fleet.until_rollout("complete")
    port = fleet.port("cam")

    def told() -> float:
        (found,) = fleet.query(
            "SELECT coalesce(sum(CAST(data->>'$.requests' AS DOUBLE)), 0) AS n "
            "FROM records WHERE kind = 'requests'"
        )
        return float(found["n"])

    assert score(port, rows(3), 40) == [200] * 40
    until(lambda: told() >= 40, "the first requests were told")
    agent.relay.cut()
    assert score(port, rows(3), 30) == [200] * 30
    agent.stop(signal.SIGKILL)  # what it had seen is on its disk, or counted anew by the worker
    agent.start()
    until(lambda: _answers(port), "the module answers again")
    assert score(port, rows(3), 20) == [200] * 20
    fleet.stop_controller(signal.SIGKILL)
    agent.relay.mend()
    fleet.start_controller()
    until(lambda: told() >= 60, "what was told while the link was cut")
    agent.stop()
    agent.start()
    (counts,) = until(
        lambda: [one for one in fleet.query(
            "SELECT count(*) AS n, count(DISTINCT epoch || '/' || seq) AS different, "
            "count(DISTINCT epoch) AS epochs FROM records"
        ) if one["epochs"] == 3], "the third epoch",
    )  # fmt: skip
    assert counts["n"] == counts["different"]
    # Records of different classes overtake each other: what is missing is on its way.
    until(lambda: not fleet.query(_HOLES), "all numbers of all epochs")
    assert 60 <= told() <= 90
    sample = fleet.folder / "train.csv"
    lines = [",".join(f"{value}" for value in row) for row in rows(300)]
    sample.write_text("\n".join(["a,b,c,d", *lines]))
    drift = fleet("fleet", "telemetry", "drift", "main", "--sample", sample)
    assert set(drift) == {"fleet", "cam"}
    assert {one["device"] for one in fleet("fleet", "telemetry", "devices")} == {"cam"}
    kinds = {one["kind"] for one in fleet("fleet", "telemetry", "list", "-n", 500)}
    assert {"requests", "inputs", "resources", "module"} <= kinds


def test_a_version_that_fails_a_third_of_requests_halts_its_wave(
    fleet: WholeFleet, built: Built
) -> None:
    good, bad = built.good, built.bad
    for name in ("cam-1", "cam-2"):
        fleet.join(name)
    fleet.deploy(good, "--soak", "1s", "--waves", "100%")
    fleet.until_rollout("complete")
    page = fleet.metrics().text
    assert 'fieldpost_fleet_devices{state="online"} 2' in page
    assert 'fieldpost_fleet_rollouts{state="complete"} 1' in page
    assert "fieldpost_fleet_leader 1" in page

    judged = ("--most-errors", "0.1", "--observe", "20s", "--soak", "1s", "--waves", "1,100%")
    fleet.deploy(bad, *judged)
    (first,) = until(
        lambda: [one["device"] for one in fleet.rollout()["devices"] if one["state"] == "good"],
        "the first device runs it",
    )
    statuses = score(fleet.port(first), rows(), 60)
    assert statuses.count(200) == 40
    halted = fleet.until_rollout("halted", "complete")
    assert halted["state"] == "halted"
    assert "33.3% of 60 requests failed" in halted["note"]
    assert first in halted["note"]
    (second,) = {"cam-1", "cam-2"} - {first}
    assert fleet("device", "show", second)["modules"]["main"]["package"] == good
    series = f'{{site="hall",device="{first}",module="main",package="{bad}"}}'
    assert f"fieldpost_fleet_errors_total{series} 20" in fleet.metrics().text
    # It goes on where a person says so; what was told until then is forgiven.
    fleet("rollout", "resume", "iris")
    assert fleet.rollout()["state"] == "running"


def _answers(port: int) -> bool:
    try:
        return score(port, rows()) == [200]
    except OSError:
        return False
    except Exception as error:
        if "connect" in type(error).__name__.lower():
            return False
        raise


def test_a_revoked_device_is_put_out_and_stays_out(fleet: WholeFleet) -> None:
    fleet.join("cam")
    until(lambda: fleet("device", "show", "cam")["online"], "the device is there")
    assert fleet.broker.config is not None
    fleet("device", "revoke", "cam", "--broker", fleet.broker.config.parent)
    fleet.broker.reload()
    until(lambda: not fleet("device", "show", "cam")["online"], "its connection was ended")
    until(lambda: "certificate verify failed" in fleet.broker.log(), "it is not let in again")
    assert not fleet("device", "show", "cam")["online"]
