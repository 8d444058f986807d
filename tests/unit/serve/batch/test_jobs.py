"""The Job of a run, judged by the cluster's own schemas."""

from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import msgspec
import pytest
import yaml

from scoring.batch.pod import VARIABLE, Work
from scoring.batch.records import Options
from scoring.errors import UsageError
from serve.batch.jobs import Job, render
from serve.batch.kubernetes import as_yaml
from serve.targets.kubernetes.deployable import PackageFacts

IMAGE = "registry.example/team/iris@sha256:" + "a" * 64
PACKAGE = PackageFacts(digest="sha256:" + "b" * 64, model="iris", version="3", script=False)
VERSIONS = ("1.34", "1.35", "1.36")


def job(
    source: str = "s3://data/rows/*.parquet", output: str = "s3://data/out", **settings: str
) -> Job:
    return render(PACKAGE, IMAGE, Options(input=source, output=output), settings)


def spec(**settings: str) -> dict[str, Any]:
    found: dict[str, Any] = job(**settings).objects[-1]["spec"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"workers": "8", "tasks": "50", "attempts": "2", "timeout_s": "600", "keep_s": "60"},
        {"env.TOKEN": "secret", "env_secret": "s3-login", "gpus": "1", "cpu": "2"},
        {"volumes": "data:/data,more:/more:ro", "namespace": "team", "pull_secret": "login"},
        {"node_selector": "pool=batch", "tolerations": "spot:NoSchedule", "user": "image"},
    ],
)
def test_objects_are_what_the_api_takes(version: str, settings: dict[str, str]) -> None:
    for item in job(**settings).objects:
        available = kubernetes_validate.latest_version()
        if tuple(map(int, version.split("."))) > tuple(map(int, available.split(".")[:2])):
            pytest.skip(f"kubernetes-validate has no schemas of {version}")
        kubernetes_validate.validate(item, version, strict=True)


def test_it_is_an_indexed_job_that_tries_each_index_by_itself() -> None:
    found = spec(workers="3", attempts="5")
    assert found["completionMode"] == "Indexed"
    assert (found["parallelism"], found["completions"]) == (3, 12)
    assert found["backoffLimitPerIndex"] == 4
    assert "backoffLimit" not in found
    rules = found["podFailurePolicy"]["rules"]
    assert [rule["action"] for rule in rules] == ["FailJob", "FailIndex", "Ignore", "Ignore"]
    assert rules[3]["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert found["podReplacementPolicy"] == "Failed"
    assert found["template"]["spec"]["restartPolicy"] == "Never"


def test_pods_run_the_package_and_no_server() -> None:
    pod = spec()["template"]["spec"]
    (container,) = pod["containers"]
    assert container["image"] == IMAGE
    assert container["args"] == ["batch"]
    assert "command" not in container
    assert not {"ports", "readinessProbe", "livenessProbe", "lifecycle"} & set(container)
    (variable,) = container["env"]
    assert variable["name"] == VARIABLE
    options = Options(input="s3://data/rows/*.parquet", output="s3://data/out")
    work = msgspec.json.decode(variable["value"], type=Work)
    assert work == Work(PACKAGE.digest, options, tasks=8)


def test_pods_have_no_rights() -> None:
    pod = spec()["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in pod
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]


def test_labels_say_what_runs_and_select_no_service() -> None:
    item = job().objects[-1]
    labels = item["metadata"]["labels"]
    assert labels["fieldpost.dev/batch"] == item["metadata"]["name"]
    assert (labels["fieldpost.dev/model"], labels["fieldpost.dev/version"]) == ("iris", "3")
    assert labels["app.kubernetes.io/name"] == "fieldpost-batch"
    assert "fieldpost.dev/deployment" not in labels
    assert item["spec"]["template"]["metadata"]["labels"] == labels


def test_the_same_run_has_the_same_name_and_another_another() -> None:
    assert job().name == job(workers="9").name
    assert job().name != job(output="s3://data/other").name
    assert job().name.startswith("batch-iris-")
    long = named("a-model-with-a-name-that-is-far-too-long-for-a-label-of-kubernetes")
    name = render(long, IMAGE, Options(input="s3://a", output="s3://b"), {}).name
    assert len(name) <= 46


def named(model: str) -> PackageFacts:
    return PackageFacts(digest=PACKAGE.digest, model=model)


def test_secrets_stand_in_a_secret_alone() -> None:
    made = job(**{"env.TOKEN": "hush"})
    assert [item["kind"] for item in made.objects] == ["Secret", "Job"]
    assert "hush" not in json.dumps(made.objects[1])
    (source,) = made.objects[1]["spec"]["template"]["spec"]["containers"][0]["envFrom"]
    assert source["secretRef"]["name"] == made.objects[0]["metadata"]["name"]


@pytest.mark.parametrize(
    ("source", "output", "settings"),
    [
        ("rows.csv", "s3://b/out", {}),
        ("s3://b/rows", "/data/out", {}),
        ("/data/rows.csv", "out", {"volumes": "claim:/data"}),
    ],
)
def test_places_that_no_pod_sees_are_refused(
    source: str, output: str, settings: dict[str, str]
) -> None:
    with pytest.raises(UsageError, match="no pod sees") as caught:
        job(source, output, **settings)
    assert "volumes=CLAIM:/data" in caught.value.hint


@pytest.mark.parametrize(
    "settings", [{"workers": "0"}, {"tasks": "x"}, {"nothing": "1"}, {"attempts": "0"}]
)
def test_wrong_settings_are_named(settings: dict[str, str]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        job(**settings)


def test_as_yaml_it_reads_back_the_same() -> None:
    made = job(volumes="data:/data")
    assert list(yaml.safe_load_all(as_yaml(list(made.objects)))) == list(made.objects)
