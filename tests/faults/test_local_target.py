"""The local target under kill -9, races, crash loops and a full disk."""

from __future__ import annotations

import concurrent.futures
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from scoring.errors import DeploymentFailedError, FieldpostError, InUseError, TargetError
from serve.targets.local import control, processes
from serve.targets.local.launch import port_of
from tests.support import load, local
from tests.support.load import Load

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serve.targets.local.state import SavedState
    from tests.support.local import Site

# Not the seed of the test run: every run of this suite kills at the same points.
KILL_AFTER_S = [round(0.03 + 1.2 * random.Random(7 + n).random(), 3) for n in range(4)]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with local.site(tmp_path) as opened:
        yield opened


def are_gone(saved: SavedState) -> bool:
    return not any(processes.is_alive(each) for each in (saved.supervisor, *saved.workers))


def is_settled(site: Site) -> bool:
    """Whether nothing comes or goes, and what answers is what the registry has."""
    status = site.status("iris")
    revisions = {worker.revision for worker in status.workers if worker.state == "ready"}
    return len(status.workers) == 1 and revisions == {site.get("iris").active}


def command(site: Site, name: str, behaviour: dict[str, object]) -> subprocess.Popen[bytes]:
    """A deploy as a command of its own, which can be killed."""
    arguments = [str(site.folder), name, json.dumps(behaviour)]
    return subprocess.Popen(
        [sys.executable, "-m", "tests.support.local", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=local.WORKER.parents[2],
    )


def test_a_killed_supervisor_takes_its_workers_along_and_start_brings_all_back(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}, {"workers": "2"}).url
    saved = site.saved("iris")
    local.kill(saved.supervisor.pid)
    local.eventually(lambda: are_gone(saved))
    status = site.status("iris")
    assert status.state == "down"
    assert f"process {saved.supervisor.pid}) was killed" in status.note
    assert "deployment start iris" in status.note
    assert site.start("iris").url == url
    assert local.get(url).startswith("one ")
    assert site.status("iris").state == "running"


def test_a_deploy_after_a_killed_supervisor_has_the_same_port(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}).url
    local.kill(site.saved("iris").supervisor.pid)
    assert site.deploy("iris", {"answer": "two"}).url == url
    assert local.get(url).startswith("two ")


def test_workers_that_outlive_their_supervisor_do_not_keep_the_port(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}).url
    saved = site.saved("iris")
    (worker,) = saved.workers
    os.kill(worker.pid, signal.SIGSTOP)  # it cannot see its lifeline end
    local.kill(saved.supervisor.pid)
    local.eventually(lambda: not processes.is_alive(saved.supervisor))
    assert processes.is_alive(worker)
    assert site.start("iris").url == url
    assert not processes.is_alive(worker)
    assert local.get(url).startswith("one ")


def test_a_machine_restart_is_told_and_start_works(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}).url
    saved = site.saved("iris")
    local.kill(saved.supervisor.pid)
    local.eventually(lambda: are_gone(saved))
    path = site.run_dir / "iris" / "state.json"
    document = json.loads(path.read_bytes())
    # Another boot, in which the numbers of our processes belong to others: to this test.
    document |= {"boot": "another", "supervisor": {"pid": os.getpid(), "started": "1"}}
    path.write_text(json.dumps(document))
    status = site.status("iris")
    assert status.state == "down"
    assert "restarted" in status.note
    assert site.start("iris").url == url
    assert local.get(url).startswith("one ")


def test_a_worker_that_is_killed_is_replaced(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}, {"workers": "2"}).url
    victim = site.status("iris").workers[0].pid
    assert victim
    local.kill(victim)
    for _ in range(20):
        assert local.get(url).startswith("one ")
    local.eventually(lambda: site.status("iris").state == "running")
    status = site.status("iris")
    assert status.restarts == 1
    assert status.last_error is not None
    assert "SIGKILL" in status.last_error["message"]
    assert victim not in [worker.pid for worker in status.workers]


def test_a_crash_loop_ends_in_failed_with_its_reason_and_a_prompt_503(site: Site) -> None:
    url = site.deploy("iris", {"crash_after": 0.05}, {"max_restarts": "1"}).url
    local.eventually(lambda: site.status("iris").state == "failed")
    status = site.status("iris")
    assert "SIGKILL" in status.note
    assert status.workers[0].state == "failed"
    local.eventually(lambda: local.exchange(url)[0] == 503)
    code, body = local.exchange(url)
    assert (code, json.loads(body)["error"]["code"]) == (503, "deployment_failed")
    assert "died too often" in site.log("iris")
    assert site.deploy("iris", {"answer": "repaired"}).url == url
    assert local.get(url).startswith("repaired ")
    assert site.status("iris").state == "running"


def test_a_start_gives_a_failed_deployment_new_workers(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}, {"max_restarts": "0", "workers": "2"}).url
    for worker in site.saved("iris").workers:
        os.kill(worker.pid, signal.SIGKILL)
    local.eventually(lambda: site.status("iris").state == "failed")
    assert "deployment start iris" in site.status("iris").note
    assert site.start("iris").url == url
    assert local.get(url).startswith("one ")
    status = site.status("iris")
    assert (status.state, status.revision, status.note) == ("running", 1, "")
    assert [worker.state for worker in status.workers] == ["ready", "ready"]


def test_a_broken_deploy_over_a_failed_revision_changes_nothing(site: Site) -> None:
    url = site.deploy("iris", {"crash_after": 0.05}, {"max_restarts": "0"}).url
    local.eventually(lambda: site.status("iris").state == "failed")
    with pytest.raises(DeploymentFailedError):
        site.deploy("iris", {"fail": "boom"})
    assert local.exchange(url)[0] == 503
    assert site.get("iris").active == 1


@pytest.mark.parametrize("after_s", KILL_AFTER_S)
def test_a_killed_command_leaves_the_old_revision_or_the_new(site: Site, after_s: float) -> None:
    url = site.deploy("iris", {"answer": "old"}).url
    with command(site, "iris", {"answer": "new", "slow_start": 0.2}) as process:
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.kill()
    assert local.get(url).split()[0] in {"old", "new"}
    # Whatever is under way comes to its end: then record and process say the same.
    local.eventually(lambda: is_settled(site))
    answer = {1: "old", 2: "new"}[site.get("iris").active or 0]
    assert local.get(url).startswith(f"{answer} ")
    status = site.status("iris")
    assert (status.state, status.revision) == ("running", site.get("iris").active)
    site.deploy("iris", {"answer": "after"})
    assert local.get(url).startswith("after ")


@pytest.mark.parametrize("after_s", KILL_AFTER_S[:2])
def test_a_first_deploy_that_is_killed_can_be_repeated(site: Site, after_s: float) -> None:
    with command(site, "iris", {"answer": "first", "slow_start": 0.2}) as process:
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.kill()
    url = site.deploy("iris", {"answer": "second"}).url
    assert local.get(url).startswith("second ")


def test_a_supervisor_killed_during_a_deploy_fails_it_and_the_old_one_comes_back(
    site: Site,
) -> None:
    url = site.deploy("iris", {"answer": "old"}).url
    supervisor = site.saved("iris").supervisor
    request = site.request("iris", {"answer": "new", "hang": True})
    with concurrent.futures.ThreadPoolExecutor() as pool:
        deploying = pool.submit(site.target.deploy, request)
        local.eventually(lambda: len(site.saved("iris").workers) == 2)
        local.kill(supervisor.pid)
        with pytest.raises(DeploymentFailedError, match="supervisor of 'iris' ended"):
            deploying.result()
    assert [each.state for each in site.get("iris").revisions] == ["active", "failed"]
    assert local.get(url).startswith("old "), "what was active was brought back"
    assert site.status("iris").revision == 1


def test_a_broken_deploy_after_a_killed_supervisor_brings_the_old_one_back(site: Site) -> None:
    url = site.deploy("iris", {"answer": "old"}).url
    saved = site.saved("iris")
    local.kill(saved.supervisor.pid)
    local.eventually(lambda: are_gone(saved))
    with pytest.raises(DeploymentFailedError, match="boom"):
        site.deploy("iris", {"fail": "boom"})
    assert local.get(url).startswith("old ")
    assert site.status("iris").revision == 1


def test_two_deploys_at_once_are_refused_or_done_in_turn(site: Site) -> None:
    site.deploy("iris", {"answer": "zero"})

    def attempt(number: int) -> str:
        try:
            site.deploy("iris", {"answer": f"n{number}", "slow_start": 0.1})
        except InUseError:
            return "refused"
        return f"n{number}"

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        done = list(pool.map(attempt, range(4)))
    assert set(done) - {"refused"}
    record = site.get("iris")
    status = site.status("iris")
    assert status.revision == record.active
    assert local.get(status.url).split()[0] in done


def test_launches_that_arrive_at_once_are_done_in_turn(site: Site) -> None:
    """Whatever the registry refuses, the supervisor itself keeps the order."""
    site.deploy("iris", {"answer": "zero"})
    request = site.request("iris", {"answer": "one", "slow_start": 0.2})
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = list(pool.map(lambda _: site.target.deploy(request), range(3)))
    assert {result.revision for result in results} == {2}
    assert len(site.status("iris").workers) == 1


def test_many_starts_at_once_make_one_supervisor(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}).url
    site.stop("iris")
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        results = list(pool.map(lambda _: site.start("iris"), range(4)))
    assert {result.url for result in results} == {url}
    assert local.get(url).startswith("one ")
    running = [pid for pid in _daemons() if pid == site.saved("iris").supervisor.pid]
    assert running
    assert len(_daemons_of(site)) == 1


def test_a_stop_during_a_deploy_ends_both(site: Site) -> None:
    site.deploy("iris", {"answer": "old"})
    request = site.request("iris", {"hang": True})
    with concurrent.futures.ThreadPoolExecutor() as pool:
        deploying = pool.submit(site.target.deploy, request)
        local.eventually(lambda: len(site.saved("iris").workers) == 2)
        saved = site.saved("iris")
        site.stop("iris")
        with pytest.raises(FieldpostError, match="stopped"):
            deploying.result()
    assert are_gone(saved)
    assert site.status("iris").state == "stopped"


def test_sigterm_ends_a_supervisor_in_good_order(site: Site) -> None:
    site.deploy("iris", {"answer": "one"})
    saved = site.saved("iris")
    os.kill(saved.supervisor.pid, signal.SIGTERM)
    local.eventually(lambda: are_gone(saved))
    assert site.status("iris").state == "down"
    assert site.saved("iris").ended


def test_a_supervisor_that_hangs_is_told_and_not_waited_for(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serve.targets.local.target._STATUS_S", 0.2)
    url = site.deploy("iris", {"answer": "one"}).url
    monkeypatch.setattr("serve.targets.local.target._SILENCE_S", 0.2)
    saved = site.saved("iris")
    os.kill(saved.supervisor.pid, signal.SIGSTOP)
    status = site.status("iris")
    assert (status.state, status.revision) == ("degraded", 1)
    assert "silent" in status.note
    assert local.get(url).startswith("one ")
    site.stop("iris")
    assert are_gone(saved)
    assert site.status("iris").state == "stopped"


def test_a_port_that_is_lost_meanwhile_is_named(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}).url
    site.stop("iris")
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port = urlsplit(url).port
        other.bind(("127.0.0.1", port))
        other.listen()
        with pytest.raises(TargetError, match=f"Port {port} on 127.0.0.1"):
            site.start("iris")
    assert site.start("iris").url == url


def test_logs_that_cannot_be_written_do_not_stop_scoring(site: Site) -> None:
    logs = site.run_dir / "iris" / "logs"
    logs.parent.mkdir(parents=True)
    logs.write_text("a file where the folder should be: every write fails")
    url = site.deploy("iris", {"answer": "one", "noise": ["lost"]}).url
    for _ in range(10):
        assert local.get(url, "/print/lost-too").startswith("one ")
    assert site.deploy("iris", {"answer": "two"}).url == url
    assert local.get(url).startswith("two ")
    logs.unlink()
    local.get(url, "/print/found")
    local.eventually(lambda: "found" in site.log("iris"))
    assert "lines were lost" in site.log("iris")


def test_a_registry_that_refuses_the_switch_leaves_the_old_one_answering(site: Site) -> None:
    url = site.deploy("iris", {"answer": "old"}).url
    request = site.request("iris", {"answer": "new"})
    site.registry.deployments.fail("iris", request.revision, "given up meanwhile")
    with pytest.raises(FieldpostError, match="cannot become active"):
        site.target.deploy(request)
    assert local.get(url).startswith("old ")
    assert site.status("iris").revision == 1
    assert [worker.revision for worker in site.status("iris").workers] == [1]


def test_a_deployment_of_which_all_workers_are_given_up_tells_everyone(site: Site) -> None:
    settings = {"max_restarts": "0", "workers": "3"}
    url = site.deploy("iris", {"crash_after": 0.05}, settings).url
    local.eventually(lambda: site.status("iris").state == "failed")
    local.eventually(lambda: local.exchange(url)[0] == 503)
    codes = {local.exchange(url)[0] for _ in range(30)}
    assert codes == {503}, "whichever socket a connection comes to"
    assert site.deploy("iris", {"answer": "well"}, {"workers": "2"}).url == url
    assert {local.get(url).split()[0] for _ in range(20)} == {"well"}


def test_every_connection_is_answered_while_one_worker_is_given_up(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}, {"max_restarts": "0", "workers": "2"}).url
    victim = site.status("iris").workers[0].pid
    assert victim
    local.kill(victim)
    local.eventually(lambda: site.status("iris").workers[0].state == "failed")
    assert site.status("iris").state == "degraded"
    assert {local.get(url).split()[0] for _ in range(60)} == {"one"}


def test_nothing_is_lost_while_the_number_of_workers_changes(site: Site) -> None:
    url = site.deploy("iris", {"answer": "n4"}, {"workers": "4"}).url
    with Load(port_of(url), load.get("/"), clients=24) as clients:
        for workers in (2, 3, 1, 4):
            local.eventually(clients.went_on())
            with pytest.raises(DeploymentFailedError):
                site.deploy("iris", {"fail": "boom"}, {"workers": "6"})
            assert site.deploy("iris", {"answer": f"n{workers}"}, {"workers": str(workers)}).url
            pids = {local.get(url) for _ in range(60)}
            assert {text.split()[0] for text in pids} == {f"n{workers}"}
            assert len(pids) == workers, "all of them are reached, and no other"
        local.eventually(clients.went_on())
    assert clients.failures == []
    assert clients.answers > 1000


def test_the_status_says_how_much_memory_each_worker_holds(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}, {"workers": "2", "worker_max_mib": "4000"}).url
    local.get(url, "/leak/200")
    held = [worker.rss_bytes or 0 for worker in site.status("iris").workers]
    assert max(held) > 200 << 20 > 100 << 20 > min(held)


def test_counters_are_shared_in_the_run_folder_until_the_deployment_stops(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}).url
    folder = site.run_dir / "iris" / "metrics"
    env = json.loads(local.get(url, "/env"))
    assert env["FIELDPOST_SERVER_METRICS_DIR"] == str(folder)
    assert (env["FIELDPOST_WORKER_SLOT"], env["FIELDPOST_WORKER_COUNT"]) == ("0", "1")
    folder.mkdir()
    (folder / "w0.cells").write_text("counted")
    site.deploy("iris", {"answer": "two"})
    assert (folder / "w0.cells").exists(), "a new revision counts on"
    site.stop("iris")
    assert not folder.exists()
    named = {"env.FIELDPOST_SERVER_METRICS_DIR": "/elsewhere"}
    url = site.deploy("iris", {"answer": "three"}, named).url
    assert json.loads(local.get(url, "/env"))["FIELDPOST_SERVER_METRICS_DIR"] == "/elsewhere"


NONSENSE = [
    *(b"\n", b"{\n", b"[]\n", b"\xff\n", b'{"op":"what"}\n', b'{"op":"launch"}\n'),
    b'{"op":"launch","launch":{"revision":"x"}}\n',
]


def test_nonsense_on_the_control_socket_does_no_harm(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}).url
    for line in NONSENSE:
        with control.connect(site.run_dir / "iris", 5) as connection:
            connection.sendall(line)
            assert b'"failed"' in connection.makefile("rb").readline(), line
    assert local.get(url).startswith("one ")
    assert site.status("iris").state == "running"


def _daemons() -> list[int]:
    found = subprocess.run(
        ["ps", "-eo", "pid=,args="], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    return [int(line.split()[0]) for line in found if "serve.targets.local.daemon" in line]


def _daemons_of(site: Site) -> list[int]:
    """The supervisors that have this site's lock open."""
    lock = site.run_dir / "iris" / "lock"
    inode = lock.stat().st_ino
    deadline = time.monotonic() + 5
    while True:
        mine = [pid for pid in _daemons() if _has_open(pid, inode)]
        if len(mine) == 1 or time.monotonic() > deadline:
            return mine


def _has_open(pid: int, inode: int) -> bool:
    for number in range(16):
        try:
            if Path(f"/proc/{pid}/fd/{number}").stat().st_ino == inode:
                return True
        except OSError:
            continue
    return False
