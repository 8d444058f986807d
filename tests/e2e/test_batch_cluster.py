"""Jobs of batch runs against a cluster's API: the double, and a real one where there is one.

`FIELDPOST_TEST_KUBECONFIG` names the real one, which checks the objects and stores nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from scoring.errors import InUseError, TargetError
from serve import Workspace
from serve.batch.jobs import render
from serve.batch.local import Nobody
from serve.registry.records import Package
from serve.targets.kubernetes.client import Cluster
from serve.targets.kubernetes.deployable import facts_of
from tests.support.kubernetes_double.server import KubernetesDouble
from tests.support.small_packages import small_package

MAIN = "from serve.cli.main import main; main()"
IMAGE = "registry.example/team/iris@sha256:" + "a" * 64
GIVEN = {"image": IMAGE, "volumes": "data:/data"}
SOURCE = "/data/rows.csv"


@pytest.fixture
def double(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[KubernetesDouble]:
    with KubernetesDouble() as running:
        monkeypatch.setenv("KUBECONFIG", str(running.kubeconfig(tmp_path / "kubeconfig")))
        yield running


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with Workspace(tmp_path / "ws") as opened:
        yield opened


@pytest.fixture
def package(workspace: Workspace, tmp_path: Path) -> Package:
    return small_package(workspace, tmp_path)


def submit(workspace: Workspace, package: Package, **more: Any) -> str:
    record, _ = workspace.batch.submit(
        package.digest, SOURCE, "/data/out", settings={**GIVEN, **more}
    )
    return record.name


def become(double: KubernetesDouble, name: str, **status: Any) -> None:
    """What a cluster's own controller would say of a Job."""
    kind = double.store.kinds["jobs.batch"]
    with double.store.lock:
        double.store.set_status(kind, "default", name, status)


def ended(kind: str, message: str = "") -> list[dict[str, str]]:
    return [{"type": kind, "status": "True", "message": message}]


def test_a_run_is_a_job_that_is_followed_to_its_end(
    double: KubernetesDouble, workspace: Workspace, package: Package
) -> None:
    name = submit(workspace, package, tasks="4")
    (job,) = double.items("jobs.batch").values()
    assert job["metadata"]["name"] == name
    assert workspace.batch.show(name).state == "running"
    told: list[tuple[int, int]] = []

    class Counting(Nobody):
        def counted(self, done: int, whole: int) -> None:
            told.append((done, whole))
            status = {"succeeded": 4, "conditions": ended("Complete")}
            become(double, name, **status)

    from serve.batch import kubernetes

    become(double, name, active=2, succeeded=2)
    following = threading.Thread(target=kubernetes.follow, args=(name, GIVEN, Counting()))
    following.start()
    following.join(20)
    assert told == [(2, 4)]
    view = workspace.batch.show(name)
    assert (view.state, view.done, view.shards) == ("finished", 4, 4)
    assert submit(workspace, package, tasks="4") == name  # it is done: nothing to do


def test_a_failed_run_says_why_and_begins_again_by_the_same_command(
    double: KubernetesDouble, workspace: Workspace, package: Package
) -> None:
    name = submit(workspace, package)
    first = double.items("jobs.batch")[name]["metadata"]["uid"]
    become(double, name, failedIndexes="1,3", conditions=ended("Failed", "Job has failed indexes"))
    view = workspace.batch.show(name)
    assert view.state == "failed"
    assert view.note == "Job has failed indexes; failed: 1,3"
    assert submit(workspace, package) == name
    assert double.items("jobs.batch")[name]["metadata"]["uid"] != first
    assert workspace.batch.show(name).state == "running"


def test_the_reason_of_a_pod_is_told(
    double: KubernetesDouble, workspace: Workspace, package: Package
) -> None:
    name = submit(workspace, package)
    state = {"waiting": {"reason": "ImagePullBackOff", "message": "no such image"}}
    with double.store.lock:
        double.store.put(
            double.store.kinds["pods"],
            {
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": "one",
                    "namespace": "default",
                    "uid": "1",
                    "labels": {"fieldpost.dev/batch": name},
                },
                "spec": {"containers": [{"name": "batch", "image": IMAGE}]},
                "status": {"containerStatuses": [{"name": "batch", "state": state}]},
            },
            "ADDED",
        )
        double.controllers.paused.set()
    assert workspace.batch.show(name).note == "ImagePullBackOff: no such image"


def test_a_run_is_cancelled(
    double: KubernetesDouble, workspace: Workspace, package: Package
) -> None:
    name = submit(workspace, package)
    assert workspace.batch.cancel(name).state == "cancelled"
    assert not double.items("jobs.batch")
    assert [view.state for view in workspace.batch.list()] == ["cancelled"]


def test_other_settings_wait_for_the_run_that_is_under_way(
    double: KubernetesDouble, workspace: Workspace, package: Package
) -> None:
    name = submit(workspace, package)
    with pytest.raises(InUseError, match="under way with other settings") as caught:
        submit(workspace, package, memory="3Gi")
    assert f"batch cancel {name}" in caught.value.hint
    workspace.batch.cancel(name)
    assert submit(workspace, package, memory="3Gi") == name


def test_variables_go_with_their_job(
    double: KubernetesDouble, workspace: Workspace, package: Package
) -> None:
    name = submit(workspace, package, **{"env.TOKEN": "open sesame"})
    (secret,) = double.items("secrets").values()
    job = double.items("jobs.batch")[name]
    assert secret["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": job["metadata"]["uid"]}
    ]
    record = (workspace.registry.location.blobs / "batch" / f"{name}.json").read_text()
    assert "open sesame" not in record


def test_a_run_is_found_where_it_was_started(
    double: KubernetesDouble,
    workspace: Workspace,
    package: Package,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name = submit(workspace, package)
    with KubernetesDouble() as other:
        both = yaml.safe_load((tmp_path / "kubeconfig").read_text())
        theirs = yaml.safe_load(other.kubeconfig(tmp_path / "other").read_text())
        theirs["clusters"][0]["name"] = theirs["contexts"][0]["name"] = "other"
        theirs["contexts"][0]["context"]["cluster"] = "other"
        for key in ("clusters", "contexts"):
            both[key] += theirs[key]
        both["current-context"] = "other"
        (tmp_path / "kubeconfig").write_text(yaml.safe_dump(both))
        assert workspace.batch.show(name).state == "running"
        assert workspace.batch.cancel(name).state == "cancelled"
    assert not double.items("jobs.batch")


def test_runs_of_a_cluster_that_does_not_answer_are_listed_all_the_same(
    double: KubernetesDouble, workspace: Workspace, package: Package
) -> None:
    name = submit(workspace, package)
    double.hang_up()
    began = time.monotonic()
    (view,) = workspace.batch.list()
    assert (view.name, view.state) == (name, "unknown")
    assert "does not answer" in view.note
    assert time.monotonic() - began < 15
    double.listen()
    assert workspace.batch.show(name).state == "running"


def test_a_suspended_run_is_told(
    double: KubernetesDouble, workspace: Workspace, package: Package
) -> None:
    name = submit(workspace, package)
    with Cluster.connect() as cluster:
        cluster.patch("Job", name, {"spec": {"suspend": True}})
    assert "suspended" in workspace.batch.show(name).note


def test_an_api_that_goes_away_is_waited_for(
    double: KubernetesDouble, workspace: Workspace, package: Package
) -> None:
    double.hang_up()
    back = threading.Timer(1.0, double.listen)
    back.start()
    name = submit(workspace, package)
    back.join()
    assert name in double.items("jobs.batch")


def test_a_cluster_that_refuses_is_told(
    double: KubernetesDouble, workspace: Workspace, package: Package
) -> None:
    double.tokens.clear()
    with pytest.raises(TargetError):
        submit(workspace, package)


def test_the_commands_of_a_run(double: KubernetesDouble, package: Package, tmp_path: Path) -> None:
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", MAIN, *arguments],
            env=os.environ | {"FIELDPOST_WORKSPACE": str(tmp_path / "ws")},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    sets = [f"--set={key}={value}" for key, value in GIVEN.items()]
    call = ("batch", "score", package.digest, SOURCE, "/data/out", "--target", "kubernetes", *sets)
    dry = command(*call, "--dry-run", "--workers", "3")
    assert dry.returncode == 0, dry.stderr
    assert "completionMode: Indexed" in dry.stdout
    assert "parallelism: 3" in dry.stdout
    assert not double.items("jobs.batch")
    done = command(*call, "--detach", "--json")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert (shown["state"], shown["target"]) == ("running", "kubernetes")
    assert shown["name"] in command("batch", "list").stdout
    assert command(*call, "--overwrite").returncode == 2
    wrong = command(*call[:3], "rows.csv", *call[4:])
    assert wrong.returncode == 2
    assert "no pod sees" in wrong.stderr
    attached = subprocess.Popen(
        [sys.executable, "-c", MAIN, *call],
        env=os.environ | {"FIELDPOST_WORKSPACE": str(tmp_path / "ws")},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    deadline = time.monotonic() + 60
    # A Job that had failed before the command came is made anew by it, and has to fail again.
    while attached.poll() is None and time.monotonic() < deadline:
        if shown["name"] in double.items("jobs.batch"):
            become(double, shown["name"], conditions=ended("Failed", "no luck"))
        time.sleep(0.1)
    said, _ = attached.communicate(timeout=10)
    assert attached.returncode == 1
    assert "no luck" in said


def test_a_real_cluster_takes_the_objects(
    workspace: Workspace, package: Package, monkeypatch: pytest.MonkeyPatch
) -> None:
    kubeconfig = os.environ.get("FIELDPOST_TEST_KUBECONFIG")
    if not kubeconfig:
        pytest.skip("FIELDPOST_TEST_KUBECONFIG names no cluster")
    monkeypatch.setenv("KUBECONFIG", kubeconfig)
    from scoring.batch.records import Options

    facts = facts_of(package.digest, workspace.registry.blobs)
    chosen = Options(input=SOURCE, output="/data/out")
    given = {key: text for key, text in GIVEN.items() if key != "image"}
    with Cluster.connect() as cluster:
        for item in render(facts, IMAGE, chosen, {**given, "env.A": "b"}).objects:
            taken = cluster.apply(item, dry_run=True)
            assert taken["metadata"]["name"] == item["metadata"]["name"]
