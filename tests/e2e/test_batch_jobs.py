"""A run's pods for real: Podman runs the Job's own pods, whose numbers a cluster would give them.

`kube play` knows no Jobs; all else of the pod is as the cluster gets it, but for the volume, which
is a folder here. Half a minute, most of it the image's.
"""

from __future__ import annotations

import copy
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from scoring.batch.pod import BAD_ROW, BAD_RUN, INDEX
from scoring.batch.records import Options
from scoring.batch.results import Result
from serve import Workspace
from serve.batch.jobs import render
from serve.targets.kubernetes.deployable import facts_of
from tests.e2e.test_images import save_model
from tests.support.batching import rows_of
from tests.support.engines import RunningEngine

pytestmark = pytest.mark.timeout(600)

IMAGE = "localhost/fieldpost-test/batch:1"
ROWS = 3000


class Site:
    """A package whose image Podman has, and a folder that its pods see as `/data`."""

    def __init__(self, folder: Path, base: str, engine: RunningEngine) -> None:
        self.folder, self.engine = folder, engine
        self.data = folder / "data"
        self.data.mkdir()
        self.data.chmod(0o777)
        save_model(folder / "twice.onnx")
        with Workspace(folder / "ws") as workspace:
            model = workspace.models.register("twice", folder / "twice.onnx")
            package = workspace.packages.build(model, platform="linux/amd64")
            archive = folder / "image.tar"
            workspace.packages.export(package, f"docker-archive:{archive}:{IMAGE}", base=base)
            self.facts = facts_of(package.digest, workspace.registry.blobs)
        engine.run("load", "-i", str(archive), timeout_s=120)

    def pod(self, number: int, options: Options, tasks: int = 2) -> Path:
        """The pod of one number, as a file for `kube play`."""
        image = f"registry.example/twice@{self.facts.digest}"
        settings = {"volumes": "data:/data", "tasks": str(tasks)}
        job = render(self.facts, image, options, settings)
        spec = copy.deepcopy(job.objects[-1]["spec"]["template"]["spec"])
        (container,) = spec["containers"]
        container["image"] = IMAGE
        container["env"].append({"name": INDEX, "value": str(number)})
        for volume in spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                volume.pop("persistentVolumeClaim")
                volume["hostPath"] = {"path": str(self.data), "type": "Directory"}
        name = f"{Path(options.output).name}-{number}".replace(".", "-")
        path = self.folder / f"{name}.yaml"
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
        path.write_text(yaml.safe_dump(pod))
        return path

    def play(self, path: Path) -> None:
        self.engine.run("kube", "play", str(path), timeout_s=120)

    def wait(self, path: Path) -> int:
        """The status that a pod's container left with; then takes the pod away."""
        name = f"{path.stem}-batch"
        status = int(self.engine.run("wait", name, timeout_s=120))
        said = subprocess.run(
            [*self.engine.cli, "logs", name], capture_output=True, text=True, check=True, timeout=30
        )
        self.log = said.stdout + said.stderr
        self.engine.run("kube", "play", "--down", str(path), timeout_s=60)
        return status

    def run(self, number: int, options: Options, tasks: int = 2) -> int:
        path = self.pod(number, options, tasks)
        self.play(path)
        return self.wait(path)


@pytest.fixture(scope="module")
def site(
    tmp_path_factory: pytest.TempPathFactory, base_rootfs: Path, podman_engine: RunningEngine
) -> Site:
    return Site(tmp_path_factory.mktemp("jobs"), f"rootfs:{base_rootfs}", podman_engine)


def options(name: str, **more: Any) -> Options:
    return Options(input="/data/rows.csv", output=f"/data/{name}", shard_rows=250, **more)


def write(site: Site, rows: int = ROWS, last: str = "") -> None:
    text = "n,a,b\n" + "".join(f"{n},{n},0.5\n" for n in range(rows)) + last
    (site.data / "rows.csv").write_text(text)


def test_pods_score_what_is_theirs_and_the_last_joins_it(site: Site) -> None:
    write(site)
    chosen = options("whole.csv", keep=("n",), columns=("a", "b"))
    assert site.run(0, chosen) == 0, site.log
    result = Result(str(site.data / "whole.csv"))
    plan = result.plan()
    assert plan is not None
    assert result.marks(plan) == {0, 2, 4, 6, 8, 10}
    assert not (site.data / "whole.csv").exists()
    assert site.run(1, chosen) == 0, site.log
    found = rows_of(site.data / "whole.csv")
    assert [(int(r["n"]), float(r["prediction_0"]), float(r["prediction_1"])) for r in found] == [
        (n, 2.0 * n, 1.0) for n in range(ROWS)
    ]
    assert site.run(1, chosen) == 0  # once more changes nothing


def test_a_killed_pod_is_gone_on_with(site: Site) -> None:
    write(site, 60_000)
    chosen = options("killed", keep=("n",), columns=("a", "b"), call_rows=50)
    path = site.pod(0, chosen, tasks=1)
    done = site.data / "killed" / "_fieldpost" / "done"
    site.play(path)
    deadline = time.monotonic() + 60
    while not (done.is_dir() and any(done.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.02)
    site.engine.run("kill", "--signal", "KILL", f"{path.stem}-batch")
    assert site.wait(path) == 137
    before = len(list(done.iterdir()))
    assert 0 < before < 240
    assert site.run(0, chosen, tasks=1) == 0, site.log
    found = rows_of(site.data / "killed")
    assert [int(row["n"]) for row in found] == list(range(60_000))
    summary = Result(str(site.data / "killed")).summary()
    assert summary is not None
    assert summary.rows == 60_000


def test_what_no_other_pod_would_do_better_is_told_by_the_status(site: Site) -> None:
    write(site, 2000, last="x,1\n")
    assert site.run(0, options("bad.csv", columns=("a", "b")), tasks=1) == BAD_ROW
    assert "rows.csv, line 2002: The line has 2 cells; the header has 3" in site.log
    assert site.run(0, options("worse.csv", columns=("a", "c")), tasks=1) == BAD_RUN
    assert "missing column 'c'" in site.log
    assert site.run(0, options("skip.csv", columns=("a", "b"), on_error="skip"), tasks=1) == 0
    rejects = (site.data / "skip.csv.rejects.jsonl").read_text().splitlines()
    assert [json.loads(line)["line"] for line in rejects] == [2002]


def test_parquet_needs_pyarrow_in_the_package(site: Site) -> None:
    (site.data / "rows.parquet").write_bytes(b"PAR1")
    chosen = Options(input="/data/rows.parquet", output="/data/p.csv")
    assert site.run(0, chosen, tasks=1) == BAD_RUN
    assert "needs pyarrow, which is not installed here" in site.log
    assert "environment" in site.log
