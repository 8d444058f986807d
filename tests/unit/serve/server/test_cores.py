"""Shares of cores and threads: pure sums, the control groups' files, and real processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serve.server import cores
from serve.server.cores import THREAD_VARIABLES, by_neighbourhood, quota, share, thread_share

ROOT = Path(__file__).parents[4]
needs_affinity = pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity"), reason="no affinity on this system"
)


@given(st.integers(1, 64), st.integers(1, 80))
def test_shares_use_every_core_and_do_not_overlap(count: int, workers: int) -> None:
    all_cores = list(range(0, count * 2, 2))
    shares = [share(all_cores, slot, workers) for slot in range(workers)]
    if workers > count:
        assert all(each == all_cores for each in shares)
    else:
        assert sorted(core for each in shares for core in each) == all_cores
        sizes = [len(each) for each in shares]
        assert min(sizes) >= 1
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("cores", "mine", "count", "limit", "threads"),
    [
        (8, 8, 1, None, 8),
        (8, 4, 2, None, 4),
        (2, 2, 4, None, 1),
        (64, 64, 1, 2.0, 2),
        (64, 16, 4, 8.0, 2),
        (64, 16, 4, 2.0, 1),
        (8, 8, 1, 0.5, 1),
        (3, 2, 2, None, 2),
    ],
)
def test_threads_keep_to_the_share_and_the_quota(
    cores: int, mine: int, count: int, limit: float | None, threads: int
) -> None:
    assert thread_share(cores, mine, count, limit) == threads


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_a_quota_of_the_second_version_is_the_lowest_on_the_way_up(tmp_path: Path) -> None:
    write(tmp_path / "cgroup", "0::/a/b\n")
    groups = tmp_path / "fs"
    write(groups / "a/b/cpu.max", "max 100000\n")
    assert quota(groups, tmp_path / "cgroup") is None
    write(groups / "a/cpu.max", "150000 100000\n")
    assert quota(groups, tmp_path / "cgroup") == 1.5
    write(groups / "a/b/cpu.max", "300000 100000\n")
    assert quota(groups, tmp_path / "cgroup") == 1.5


def test_a_container_sees_its_own_group_at_the_mount(tmp_path: Path) -> None:
    write(tmp_path / "cgroup", "0::/../../other\n")
    write(tmp_path / "fs/cpu.max", "200000 100000\n")
    assert quota(tmp_path / "fs", tmp_path / "cgroup") == 2.0


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_the_first_version(tmp_path: Path, mount: str) -> None:
    write(tmp_path / "cgroup", f"3:memory:/m\n2:{mount}:/docker/1\n")
    folder = tmp_path / "fs" / mount
    write(folder / "cpu.cfs_period_us", "100000\n")
    write(folder / "cpu.cfs_quota_us", "-1\n")
    assert quota(tmp_path / "fs", tmp_path / "cgroup") is None
    write(folder / "docker/1/cpu.cfs_period_us", "100000\n")
    write(folder / "docker/1/cpu.cfs_quota_us", "50000\n")
    assert quota(tmp_path / "fs", tmp_path / "cgroup") == 0.5


@pytest.mark.parametrize("text", ["", "nonsense", "max", "-5 0", "100000 0", "1 x"])
def test_a_quota_that_says_nothing_is_none(tmp_path: Path, text: str) -> None:
    write(tmp_path / "cgroup", "0::/\n")
    write(tmp_path / "fs/cpu.max", text)
    assert quota(tmp_path / "fs", tmp_path / "cgroup") is None


def test_this_machine_has_a_quota_or_none() -> None:
    limit = quota()
    assert limit is None or limit > 0


def test_neighbours_stay_together(tmp_path: Path) -> None:
    for core, (package, part) in enumerate([(0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1)]):
        write(tmp_path / f"cpu{core}/topology/physical_package_id", f"{package}\n")
        write(tmp_path / f"cpu{core}/topology/core_id", f"{part}\n")
    assert by_neighbourhood([0, 1, 2, 3, 4, 5], tmp_path) == [0, 4, 1, 5, 2, 3]


def test_cores_of_which_nothing_is_known_keep_their_order(tmp_path: Path) -> None:
    assert by_neighbourhood([5, 1, 3], tmp_path) == [1, 3, 5]


def take(slot: int, count: int, *, pin: bool, **environment: str) -> dict[str, object]:
    """What `take_share` does to a process of its own."""
    code = (
        "import json, os; from serve.server.cores import take_share\n"
        f"threads = take_share({slot}, {count}, pin={pin})\n"
        "from scoring.runtimes.threads import threads as given\n"
        "os.environ['SOME_THREADS'] = '0'; os.environ['MANY_THREADS'] = '900'\n"
        "print(json.dumps({'threads': threads, 'cores': sorted(os.sched_getaffinity(0)),\n"
        " 'zero': given('SOME_THREADS'), 'many': given('MANY_THREADS'), 'none': given('NO'),\n"
        " 'env': dict(os.environ)}))"
    )
    base = {name: text for name, text in os.environ.items() if name not in THREAD_VARIABLES}
    run = subprocess.run(
        [sys.executable, "-c", code],
        env={**base, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(json.loads(run.stdout))


@needs_affinity
def test_workers_stay_on_cores_of_their_own() -> None:
    mine = sorted(os.sched_getaffinity(0))
    if len(mine) < 2:
        pytest.skip("one core")
    found = [take(slot, 2, pin=True, OMP_NUM_THREADS="7" if slot else "") for slot in range(2)]
    sets = [set(each["cores"]) for each in found]  # type: ignore[call-overload]
    assert not sets[0] & sets[1]
    assert sets[0] | sets[1] == set(mine)
    for slot, each in enumerate(found):
        assert each["zero"] == each["many"] == each["threads"]
        assert each["none"] == 1
        env = each["env"]
        assert isinstance(env, dict)
        assert env["OPENBLAS_NUM_THREADS"] == str(each["threads"])
        assert env["OMP_NUM_THREADS"] == ("7" if slot else str(each["threads"]))


@needs_affinity
def test_pinning_can_be_off_and_threads_keep_to_their_share() -> None:
    mine = sorted(os.sched_getaffinity(0))
    found = take(1, len(mine) + 1, pin=False)
    assert found["cores"] == mine
    assert found["threads"] == 1


@needs_affinity
def test_one_worker_keeps_everything() -> None:
    found = take(0, 1, pin=True)
    assert found["cores"] == sorted(os.sched_getaffinity(0))


def test_cores_that_may_not_be_chosen_are_no_error(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(cores, "allowed_cores", lambda: [100_000, 100_001])
    monkeypatch.setattr(cores, "set_share", lambda _count: None)
    assert cores.take_share(0, 2, environment={}) == 1
    assert "not kept on its cores" in caplog.text
