"""A real agent, killed at each step of its journal, on full disks and with damaged files.

What holds every time: it answers with a verified version and with no mixture, and in the end with
the one that is wished for, or it says why not.
"""

from __future__ import annotations

import contextlib
import random
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edge.agent.config import Config
from tests.faults.harness import LONG
from tests.support.blob_source import BlobSource, Made, cut, send
from tests.support.edge_agents import AgentProcess, answers, require_verified, watching
from tests.support.edge_site import EdgeSite, stamped
from tests.support.server import until

SAMPLE = 5
_MOST_STEPS = 40


@pytest.fixture
def site(tmp_path: Path) -> Iterator[EdgeSite]:
    with EdgeSite(tmp_path).open() as site:
        yield site


@pytest.fixture
def config(site: EdgeSite, tmp_path: Path) -> Config:
    return site.enrol(tmp_path / "device")


@pytest.fixture
def started() -> Iterator[Callable[[Config], AgentProcess]]:
    """Agents that are ended whatever happens."""
    made: list[AgentProcess] = []

    def start(config: Config) -> AgentProcess:
        made.append(AgentProcess(config))
        return made[-1]

    yield start
    for agent in made:
        agent.end()


Started = Callable[[Config], AgentProcess]


def first(site: EdgeSite, agent: AgentProcess) -> int:
    """Brings the first version up; its port."""
    agent.start()
    made = stamped("v0")
    site.wish(made)
    return site.wait_for("good", made).port


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_each_step_of_its_journal(
    site: EdgeSite, config: Config, started: Started
) -> None:
    """Each update is killed once, at another of its saves; then the next one goes on from there."""
    agent = started(config)
    known = [stamped("v0")]
    port = first(site, agent)
    agent.end()
    saves = range(1, _MOST_STEPS)
    steps = [(save, when) for save in saves for when in ("before", "after")]
    if not LONG:
        steps = sorted(random.Random(16).sample(steps[:16], SAMPLE))
    for number, (save, when) in enumerate(steps, 1):
        known.append(stamped(f"v{number}"))
        with watching(port) as seen:
            agent.start_to_die(save, when)
            site.wish(known[-1])
            until(lambda: agent.died or answers(port, f"v{number}"), 30)  # noqa: B023
            came_to_its_end = False
            if not agent.died:  # as good as there: the last saves come with the soak
                site.wait(lambda: agent.died or _is_good(site, known[-1]), 30)
                came_to_its_end = not agent.died
            agent.kill()
            agent.start()
            site.wait_for("good", known[-1], 60)
            until(lambda: answers(port, f"v{number}"), 20)  # noqa: B023
        assert seen <= {f"v{number - 1}", f"v{number}"}, (save, when)
        agent.end()
        if came_to_its_end:
            break
    require_verified(agent.state, known)


def _is_good(site: EdgeSite, made: Made) -> bool:
    main = site.reports[-1].modules.get("main")
    return main is not None and main.phase == "good" and main.package == made.digest


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("mount is not installed")
    mount = ["mount", "-t", "tmpfs", "-o", "size=160m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting is not permitted here")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_keeps_the_version_and_says_why_until_there_is_room(
    small_disk: Path, site: EdgeSite, started: Started
) -> None:
    agent = started(site.enrol(small_disk / "device"))
    port = first(site, agent)
    filler = small_disk / "recordings"
    _fill(filler, shutil.disk_usage(small_disk).free - (6 << 20))  # less than the device keeps
    made = stamped("v1")
    with watching(port) as seen:
        site.wish(made, timeout_s=3.0)
        state = site.wait_for("failed")
        assert state.failure is not None
        assert state.failure.code == "storage_full"
        assert answers(port, "v0")
    agent.kill()
    _fill(filler, 1 << 30)  # not a byte is left, and it is started anew
    agent.start()
    until(lambda: answers(port, "v0"), 20)
    filler.unlink()
    site.wait_for("good", made, 90)
    until(lambda: answers(port, "v1"), 20)
    assert seen <= {"v0"}
    agent.end()
    require_verified(agent.state, [stamped("v0"), made])


def _fill(path: Path, size: int) -> None:
    """As far as there is room."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        for _ in range(0, size, 65_536):
            file.write(bytes(65_536))


def test_bits_that_flip_on_the_disk_are_mended_from_the_sources(
    site: EdgeSite, config: Config, started: Started
) -> None:
    agent = started(config)
    port = first(site, agent)
    agent.kill()
    chance = random.Random(7)
    blobs = [path for path in (agent.state / "blobs").rglob("*") if path.is_file()]
    assert blobs
    for path in blobs:
        _flip(path, chance)
    for path in (agent.state / "packages").rglob("behaviour.json"):
        path.chmod(0o644)
        path.write_bytes(b"{")
    agent.start()
    until(lambda: answers(port, "v0"), 60)
    made = stamped("v1")
    site.wish(made)
    site.wait_for("good", made)
    until(lambda: answers(port, "v1"), 20)
    agent.end()
    require_verified(agent.state, [stamped("v0"), made])


def _flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    if data:
        at = chance.randrange(len(data))
        data[at] ^= 1 << chance.randrange(8)
        path.chmod(0o600)
        path.write_bytes(bytes(data))


def test_a_mirror_that_cuts_lies_and_swaps_files(
    site: EdgeSite, config: Config, started: Started
) -> None:
    """Each answer is bad in another way; what is signed comes from the source behind it."""
    agent = started(config)
    port = first(site, agent)
    evil = stamped("evil")
    made = stamped("v1")
    faults = (
        cut(10),
        send(200, evil.layers[-1].packed),
        cut(100, claim=10**6),
        send(206, b"", {"content-range": "bytes 5-9/10"}),
        send(404),
        send(200, bytes(50)),
    )
    with BlobSource(made) as mirror:
        for fault in faults:
            mirror.on("GET", "blobs", fault)
        with watching(port) as seen:
            site.wish(made, mirrors=[mirror.source])
            site.wait_for("good", made, 90)
            until(lambda: answers(port, "v1"), 20)
        assert len(mirror.asked("GET", "blobs")) > 1
    assert seen <= {"v0", "v1"}
    agent.end()
    require_verified(agent.state, [stamped("v0"), made])


def test_a_registry_that_serves_nothing_but_lies_changes_nothing(
    site: EdgeSite, config: Config, started: Started
) -> None:
    agent = started(config)
    port = first(site, agent)
    made = stamped("v1")
    site.source.on("GET", "blobs", send(200, stamped("evil").blobs[stamped("evil").digest]), 99)
    with watching(port) as seen:
        site.wish(made, timeout_s=5.0)
        state = site.wait_for("failed")
    assert state.failure is not None
    assert state.failure.code == "digest_mismatch"
    assert seen == {"v0"}
    agent.end()
    require_verified(agent.state, [stamped("v0"), made])
