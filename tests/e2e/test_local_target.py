"""The local target from deploy to stop, with real supervisors, workers, sockets and registry."""

from __future__ import annotations

import http.client
import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from scoring.errors import DeploymentFailedError, InUseError, NotFoundError, TargetError
from serve.targets.local import processes
from tests.support import local

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.local import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with local.site(tmp_path) as opened:
        yield opened


def test_a_deployment_from_deploy_to_stop(site: Site) -> None:
    said: list[str] = []
    result = site.deploy("iris", {"answer": "one"}, {"workers": "2"}, said.append)
    assert result.revision == 1
    assert said
    assert local.get(result.url).startswith("one ")

    record = site.get("iris")
    assert (record.active, record.address, record.desired) == (1, result.url, "running")
    status = site.status("iris")
    assert (status.state, status.revision, status.url) == ("running", 1, result.url)
    assert [worker.state for worker in status.workers] == ["ready", "ready"]
    assert all(worker.pid and (worker.rss_bytes or 0) > 1 << 20 for worker in status.workers)

    saved = site.saved("iris")
    site.stop("iris")
    assert site.status("iris").state == "stopped"
    gone = [saved.supervisor, *saved.workers]
    assert len(gone) == 3
    assert not any(processes.is_alive(process) for process in gone)
    with pytest.raises(ConnectionRefusedError):
        local.get(result.url)


def test_stop_and_start_keep_the_url_and_do_no_harm_twice(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}).url
    assert site.start("iris").url == url
    site.stop("iris")
    site.stop("iris")
    assert site.start("iris").url == url
    assert site.get("iris").desired == "running"
    assert local.get(url).startswith("one ")
    assert site.status("iris").state == "running"


def test_every_revision_has_the_same_url(site: Site) -> None:
    first = site.deploy("iris", {"answer": "one"})
    second = site.deploy("iris", {"answer": "two"})
    assert first.url == second.url
    assert local.get(first.url).startswith("two ")


def test_the_port_can_be_chosen_and_changed(site: Site) -> None:
    free = []
    for _ in range(2):
        with local.free_port() as port:
            free.append(port)
    first = site.deploy("iris", {"answer": "one"}, {"port": str(free[0])})
    assert urlsplit(first.url).port == free[0]
    second = site.deploy("iris", {"answer": "two"}, {"port": str(free[1])})
    assert urlsplit(second.url).port == free[1]
    assert site.get("iris").address == second.url
    assert local.get(second.url).startswith("two ")
    with pytest.raises(ConnectionRefusedError):
        local.get(first.url)


def test_a_taken_port_is_refused_and_the_old_revision_answers(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}).url
    with local.free_port() as port:
        with pytest.raises(TargetError, match=f"Port {port} "):
            site.deploy("iris", {"answer": "two"}, {"port": str(port)})
        with pytest.raises(TargetError, match=f"Port {port} "):
            site.deploy("other", {"answer": "two"}, {"port": str(port)})
    assert local.get(url).startswith("one ")
    assert [revision.state for revision in site.get("iris").revisions] == ["active", "failed"]
    assert site.status("other").state == "stopped"


def test_a_broken_revision_leaves_the_old_one_answering(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}).url
    with pytest.raises(DeploymentFailedError, match="no such column") as caught:
        site.deploy("iris", {"fail": "no such column"}, {"workers": "2"})
    assert "Traceback" in caught.value.detail
    assert local.get(url).startswith("one ")
    record = site.get("iris")
    assert record.active == 1
    failed = record.revisions[1]
    assert failed.state == "failed"
    assert "no such column" in failed.reason
    assert "Traceback" in failed.detail
    status = site.status("iris")
    assert (status.state, status.revision) == ("running", 1)
    assert status.last_error is not None
    assert "no such column" in status.last_error["message"]


def test_a_first_revision_that_is_broken_leaves_no_process(site: Site) -> None:
    with pytest.raises(DeploymentFailedError):
        site.deploy("iris", {"fail": "boom"})
    supervisor = site.saved("iris").supervisor
    local.eventually(lambda: not processes.is_alive(supervisor))
    assert site.status("iris").state == "stopped"
    with pytest.raises(NotFoundError):
        site.start("iris")
    assert site.deploy("iris", {"answer": "better"}).revision == 2


def test_a_revision_that_is_never_ready_is_given_up(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}).url
    with pytest.raises(DeploymentFailedError, match="not ready within"):
        site.deploy("iris", {"hang": True}, {"ready_timeout_s": "0.5"})
    assert local.get(url).startswith("one ")


def test_logs_have_revision_and_worker_and_can_be_followed(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one", "noise": ["hello from one"]}).url
    lines = site.target.logs(site.get("iris"), follow=True)
    heard: list[str] = []
    enough = threading.Event()

    def listen() -> None:
        for line in lines:
            heard.append(line)
            if "last-word" in line:
                enough.set()
                return

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    local.get(url, "/print/from-a-request")
    site.deploy("iris", {"answer": "two", "noise": ["hello from two"]})
    local.get(url, "/print/last-word")
    assert enough.wait(10)
    thread.join()
    text = "\n".join(heard)
    for expected in (
        "r1/w0 hello from one",
        "r1/w0 from-a-request",
        "r2/w0 hello from two",
        "r2/w0 last-word",
    ):
        assert expected in text
    assert list(site.target.logs(site.get("iris"), tail=1)) == [heard[-1]]


def test_the_worker_gets_its_variables_and_nobody_sees_them(site: Site) -> None:
    url = site.deploy("iris", {"answer": "x"}, {"env.TOKEN": "s3cret", "threads": "3"}).url
    env = json.loads(local.get(url, "/env"))
    assert env["TOKEN"] == "s3cret"
    assert env["FIELDPOST_SERVER_THREADS"] == "3"
    assert "PYTHONPATH" not in env
    status = site.status("iris")
    assert "s3cret" not in repr(status)
    for path in (site.run_dir / "iris").rglob("*"):
        if path.is_file():
            assert b"s3cret" not in path.read_bytes(), path
    command = Path(f"/proc/{site.saved('iris').supervisor.pid}/cmdline").read_bytes()
    assert b"s3cret" not in command


def test_the_supervisor_does_not_keep_the_workspaces_url(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FIELDPOST_WORKSPACE", "postgresql://ann:s3cret@db/records")
    site.deploy("iris", {"answer": "x"})
    saved = site.saved("iris")
    for process in (saved.supervisor, *saved.workers):
        assert b"s3cret" not in Path(f"/proc/{process.pid}/environ").read_bytes()


def test_two_deployments_do_not_disturb_each_other(site: Site) -> None:
    one = site.deploy("one", {"answer": "one"})
    two = site.deploy("two", {"answer": "two"})
    assert one.url != two.url
    site.stop("one")
    assert local.get(two.url).startswith("two ")
    assert (site.status("one").state, site.status("two").state) == ("stopped", "running")


def test_only_what_is_stopped_can_be_removed(site: Site) -> None:
    site.deploy("iris", {"answer": "one"})
    with pytest.raises(InUseError, match="is running"):
        site.target.remove(site.get("iris"))
    site.stop("iris")
    site.target.remove(site.get("iris"))
    assert not (site.run_dir / "iris").exists()


def test_a_workspace_with_a_very_long_path_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    with local.site(deep) as site:
        url = site.deploy("iris", {"answer": "deep"}).url
        assert local.get(url).startswith("deep ")
        site.stop("iris")


def test_requests_under_way_are_answered_by_a_stop(site: Site) -> None:
    url = site.deploy("iris", {"answer": "one"}).url
    answers: list[str] = []
    slow = threading.Thread(target=lambda: answers.append(local.get(url, "/sleep/0.6")))
    slow.start()
    local.eventually(lambda: "begun" in site.log("iris") or local.get(url, "/print/begun"))
    site.stop("iris")
    slow.join()
    assert answers[0].startswith("one ")


class Client(threading.Thread):
    """Sends requests without a pause and keeps what went wrong."""

    def __init__(self, url: str, *, keep_alive: bool) -> None:
        super().__init__()
        parts = urlsplit(url)
        assert parts.hostname
        self.host, self.port = parts.hostname, parts.port
        self.keep_alive = keep_alive
        self.done = threading.Event()
        self.errors: list[str] = []
        self.answers: list[str] = []

    def run(self) -> None:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=10)
        while not self.done.is_set():
            try:
                connection.request("GET", "/")
                response = connection.getresponse()
                body = response.read().decode()
                assert response.status == 200, body
                self.answers.append(body.split()[0])
                if not self.keep_alive:
                    connection.close()
            except Exception as error:  # noqa: BLE001 - any error at all is what is looked for
                self.errors.append(repr(error))
                connection.close()
        connection.close()


def test_no_request_is_dropped_while_revisions_change(site: Site) -> None:
    url = site.deploy("iris", {"answer": "v1"}, {"workers": "2"}).url
    clients = [Client(url, keep_alive=keep) for keep in (True, True, False, False)]
    for client in clients:
        client.start()
    try:
        for number in range(2, 7):
            site.deploy("iris", {"answer": f"v{number}"}, {"workers": "2"})
            assert local.get(url).startswith(f"v{number} "), "after deploy only the new one answers"
        local.eventually(lambda: all(client.answers[-1] == "v6" for client in clients))
    finally:
        for client in clients:
            client.done.set()
        for client in clients:
            client.join()
    assert [error for client in clients for error in client.errors] == []
    for client in clients:
        assert len(client.answers) > 50
        assert {"v1", "v6"} <= set(client.answers)
