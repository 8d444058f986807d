"""Token buckets: exact for one sender, shared by processes, bounded in memory."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.errors import RateLimitedError
from serve.server.access.rate import Bucket, Limits, Table, sender_of
from serve.server.settings import ServerSettings

if TYPE_CHECKING:
    from pathlib import Path


def test_a_burst_passes_and_then_the_rate() -> None:
    bucket = Bucket(Table(), "a", rate=10, burst=3)
    assert [bucket.try_take(100.0) for _ in range(3)] == [0, 0, 0]
    assert bucket.try_take(100.0) == pytest.approx(0.1, abs=0.001)
    assert bucket.try_take(100.05) == pytest.approx(0.05, abs=0.001)
    assert bucket.try_take(100.1) == 0
    assert bucket.try_take(100.1) > 0
    assert [bucket.try_take(200.0) for _ in range(3)] == [0, 0, 0]


@given(st.lists(st.floats(0, 5), max_size=200), st.floats(0.1, 1000), st.integers(1, 50))
def test_never_more_than_the_burst_and_the_rate(
    pauses: list[float], rate: float, burst: int
) -> None:
    bucket = Bucket(Table(slots=16), "a", rate, burst)
    now, taken = 1000.0, 0
    for pause in pauses:
        now += pause
        taken += bucket.try_take(now) == 0
        assert taken <= burst + (now - 1000.0) * rate + 1


def test_what_waits_as_told_passes() -> None:
    bucket = Bucket(Table(), "a", rate=3, burst=2)
    now = 50.0
    for _ in range(100):
        now += bucket.try_take(now) or 0
        assert bucket.try_take(now + 1) == 0
        now += 1


def test_senders_do_not_share() -> None:
    table = Table()
    first, second = Bucket(table, "a", 1, 1), Bucket(table, "b", 1, 1)
    assert first.try_take(1.0) == 0
    assert first.try_take(1.0) > 0
    assert second.try_take(1.0) == 0


def test_the_error_says_when_to_come_back() -> None:
    bucket = Bucket(Table(), "a", rate=0.1, burst=1)
    bucket.take()
    with pytest.raises(RateLimitedError, match=r"More than 0\.1 requests a second") as limited:
        bucket.take()
    assert limited.value.retry_after_s == 10


def test_a_crowd_forgets_no_one_who_is_near_the_limit() -> None:
    table = Table(slots=64)
    busy = Bucket(table, "busy", rate=1, burst=50)
    for _ in range(50):
        busy.try_take(10.0)
    for number in range(1000):
        Bucket(table, f"passer-{number}", rate=1000, burst=1).try_take(10.0)
    assert busy.try_take(10.0) > 0


def test_a_number_from_another_time_is_not_believed() -> None:
    table = Table()
    Bucket(table, "a", rate=1, burst=1).try_take(1e9)
    assert Bucket(table, "a", rate=1, burst=1).try_take(5.0) == 0


def test_workers_share_a_file(tmp_path: Path) -> None:
    path = tmp_path / "rates"
    code = (
        "import sys; from pathlib import Path; from serve.server.access.rate import Bucket, Table;"
        "bucket = Bucket(Table(Path(sys.argv[1])), 'a', 0.001, 5);"
        "print(sum(bucket.try_take(100.0) == 0 for _ in range(3)))"
    )
    run = [sys.executable, "-c", code, str(path)]
    counts = [int(subprocess.run(run, check=True, capture_output=True).stdout) for _ in range(3)]
    assert counts == [3, 2, 0]


def test_the_first_worker_makes_the_folder_that_all_share(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "metrics"
    limits = Limits.from_settings(ServerSettings(rate_limit=5, metrics_dir=str(folder)))
    assert limits.bucket("a") is not None
    assert folder.stat().st_mode & 0o777 == 0o700


def test_settings_and_keys_say_the_rate(tmp_path: Path) -> None:
    limits = Limits.from_settings(ServerSettings(rate_limit=5, metrics_dir=str(tmp_path)))
    assert (tmp_path / "rates").is_file()
    assert limits.bucket("a") is not None
    assert limits.bucket("a", 0) is None
    assert Limits.from_settings(ServerSettings()).bucket("a") is None
    assert Limits.from_settings(ServerSettings()).bucket("a", 2, 1) is not None


@pytest.mark.parametrize(
    ("address", "sender"),
    [
        ("10.0.0.1", "ip:10.0.0.1"),
        ("", "ip:"),
        ("::ffff:10.0.0.1", "ip:10.0.0.1"),
        ("no:address", "ip:no:address"),
    ],
)
def test_addresses_are_senders(address: str, sender: str) -> None:
    assert sender_of(address) == sender


def test_a_network_of_ipv6_is_one_sender() -> None:
    assert sender_of("2001:db8::1%eth0") == sender_of("2001:db8:0:0:ffff::2")
    assert sender_of("2001:db8::1") != sender_of("2001:db8:0:1::1")
