"""One simulated device: the agent's rules in made-up time."""

from __future__ import annotations

import itertools

import pytest

from edge.agent.windows import local
from edge.protocol.messages import Command, Window
from edge.protocol.topics import Kind
from edge.simulator.faults import Broken, FailingPhase
from scoring.errors import UnreachableError
from tests.unit.edge.simulator.conftest import Bench

HOUR_S = 3600.0


def test_a_version_goes_through_all_phases(bench: Bench) -> None:
    device = bench.device(step_s=1.0)  # each is reported: reports come twice a second at most
    module = bench.module("one")
    device.came("desired", bench.wish(module))
    bench.time.pass_(30)
    assert bench.heard.phases == [
        "fetching",
        "verifying",
        "staging",
        "probing",
        "switching",
        "soaking",
        "good",
    ]
    last = bench.heard.reports[-1].modules["main"]
    assert (last.package, last.healthy, last.port) == (module.package, True, 20_000)
    assert device.settled


def test_reports_count_up_and_come_twice_a_second_at_most(bench: Bench) -> None:
    device = bench.device(step_s=0.01)
    device.came("desired", bench.wish(bench.module("one")))
    bench.time.pass_(30)
    found = bench.heard.reports
    assert [one.seq for one in found] == list(range(1, len(found) + 1))
    assert all(b.at - a.at >= 0.499 for a, b in itertools.pairwise(found))
    assert found[-1].facts["simulated"] is True


@pytest.mark.parametrize("phase", ["staging", "probing"])
def test_what_fails_before_the_switch_leaves_the_old_version(
    phase: FailingPhase, bench: Bench
) -> None:
    old, new = bench.module("old"), bench.module("new")
    device = bench.device(broken=(Broken(package=new.package, phase=phase),))
    device.came("desired", bench.wish(old))
    bench.time.pass_(20)
    device.came("desired", bench.wish(new))
    bench.time.pass_(20)
    last = bench.heard.reports[-1].modules["main"]
    assert (last.phase, last.package, last.wanted) == ("failed", old.package, new.package)
    assert last.failure is not None
    assert last.failure.phase == phase


def test_what_fails_after_the_switch_goes_back(bench: Bench) -> None:
    old, new = bench.module("old"), bench.module("new")
    device = bench.device(broken=(Broken(package=new.package),), step_s=1.0)
    device.came("desired", bench.wish(old))
    bench.time.pass_(30)
    device.came("desired", bench.wish(new))
    bench.time.pass_(30)
    assert bench.heard.phases[-3:] == ["soaking", "reverting", "reverted"]
    last = bench.heard.reports[-1].modules["main"]
    assert (last.package, last.healthy) == (old.package, True)
    assert last.failure is not None
    assert "50.0%" in last.failure.message


def test_a_failed_fetch_is_tried_again_for_ever(bench: Bench) -> None:
    module = bench.module("one")
    device = bench.device(broken=(Broken(package=module.package, phase="fetching"),))
    device.came("desired", bench.wish(module))
    bench.time.pass_(6 * HOUR_S)
    track = device.state.tracks["main"]
    assert track.failures > 5
    assert track.retry
    assert not device.settled


def test_what_nobody_permits_is_refused(bench: Bench) -> None:
    module = bench.module("one")
    device = bench.device()
    data = bench.wish(bench.module("two", package=f"sha256:{'0' * 64}"))
    device.came("desired", data)
    bench.time.pass_(5)
    refused = bench.heard.reports[-1].refused
    assert refused is not None
    assert refused.code == "verification_failed"
    device.came("desired", bench.wish(module))
    bench.time.pass_(20)
    assert bench.heard.reports[-1].refused is None
    assert bench.heard.reports[-1].modules["main"].phase == "good"


def test_without_metadata_it_is_asked_for_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = True

    def fetch(name: str, most_bytes: int) -> bytes | None:
        if gone:
            raise UnreachableError("Nobody answers.")
        return bench.fleet.fetch(name, most_bytes)

    monkeypatch.setattr(bench, "fetch", fetch)
    device = bench.device()
    device.came("desired", bench.wish(bench.module("one")))
    bench.time.pass_(30)
    assert bench.heard.reports[-1].refused is not None
    gone = False
    bench.time.pass_(120)
    assert bench.heard.reports[-1].modules["main"].phase == "good"


def test_a_window_is_kept_to_offline(bench: Bench) -> None:
    device = bench.device()
    now = local(bench.time.wall())
    minute = (now.minute + 120) % 1440
    window = Window(begins=minute, ends=(minute + 30) % 1440)
    device.came("desired", bench.wish(bench.module("one"), window=window))
    bench.time.pass_(HOUR_S)
    assert bench.heard.phases[-1:] == ["waiting"]
    bench.time.pass_(2 * HOUR_S)
    assert bench.heard.phases[-1:] == ["good"]


@pytest.mark.parametrize("seconds", [0.3, 0.7, 1.2, 2.0, 3.5, 6.0])
def test_a_power_cut_at_any_moment_ends_well(seconds: float, bench: Bench) -> None:
    device = bench.device(step_s=0.6)
    module = bench.module("one")
    device.came("desired", bench.wish(module))
    bench.time.pass_(seconds)
    device.cut_power()
    boot = device.boot
    bench.time.pass_(60)
    assert not device.state.tracks.get("main") or device.boot == 2
    device.begin()
    bench.time.pass_(60)
    last = bench.heard.reports[-1]
    assert last.boot == boot == 2
    assert (last.modules["main"].phase, last.modules["main"].healthy) == ("good", True)
    assert last.seq < 20  # counted anew


def test_a_command_is_done_once(bench: Bench) -> None:
    device = bench.device()
    device.came("desired", bench.wish(bench.module("one")))
    bench.time.pass_(20)
    command = Command(
        site="hall", device="camera", id="1", key="k", deadline=bench.time.wall() + 60,
        verb="restart", arguments={"module": "main"},
    )  # fmt: skip
    for _ in range(2):
        device.came("cmd/req", bench.fleet.director.sign(command))
    bench.time.pass_(5)
    assert [one.ok for one in bench.heard.results] == [True, True]
    assert bench.heard.reports[-1].modules["main"].restarts == 1


def test_a_log_is_not_to_be_had(bench: Bench) -> None:
    device = bench.device()
    command = Command(
        site="hall", device="camera", id="1", key="k", deadline=bench.time.wall() + 60,
        verb="logs", arguments={"module": "main"},
    )  # fmt: skip
    device.came("cmd/req", bench.fleet.director.sign(command))
    assert bench.heard.results[0].ok is False
    assert bench.heard.results[0].failure is not None
    assert bench.heard.results[0].failure.code == "not_found"


def test_nonsense_changes_nothing(bench: Bench) -> None:
    device = bench.device()
    kinds: tuple[Kind, ...] = ("desired", "cmd/req", "ack")
    for kind in kinds:
        for data in (b"", b"{}", b"\xff" * 100):
            device.came(kind, data)
    bench.time.pass_(5)
    assert not device.state.tracks


def test_three_days_without_a_word_cost_nothing(bench: Bench) -> None:
    device = bench.device()
    module = bench.module("one")
    device.came("desired", bench.wish(module))
    bench.time.pass_(72 * HOUR_S)
    assert bench.heard.phases[-1] == "good"
    assert len(bench.heard.reports) < 20
