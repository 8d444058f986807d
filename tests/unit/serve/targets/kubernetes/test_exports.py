"""The forms of other tools: what is in the files, and what never is."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from scoring.errors import UsageError
from serve.registry.records import Deployment
from serve.targets.kubernetes.deployable import Deployable
from serve.targets.kubernetes.export import FORMS, export_files, ray_serve
from serve.targets.kubernetes.export.documents import stream, to_yaml
from serve.targets.kubernetes.export.ray_serve import copy_package
from serve.targets.kubernetes.export.source import carried
from serve.targets.kubernetes.export.source import deployable as found_deployable
from serve.targets.kubernetes.export.writing import next_steps, write_files
from serve.targets.kubernetes.objects import render
from tests.support.kubernetes_objects import DIGEST, IMAGE, by_kind, deployable

SECRET = "open sesame"


def exported(form: Any, **settings: Any) -> dict[str, bytes]:
    of = msgspec.structs.replace(deployable(**settings), outside=True, workspace="", namespace="")
    return export_files(of, form)


@pytest.mark.parametrize("form", FORMS)
def test_no_form_holds_a_secret_or_a_tag(form: str) -> None:
    files = exported(form, env__TOKEN=SECRET, max_replicas=5)
    content = b"\n".join(files.values())
    assert SECRET.encode() not in content
    assert b"b3BlbiBzZXNhbWU" not in content  # the same in base 64
    assert DIGEST.encode() in content
    if form != "ray":
        assert IMAGE.partition("@")[2].encode() in content
        assert b"kind: Secret" not in content
        assert b"iris-env" in content  # is named, for the user to make


def test_plain_yaml_is_what_is_rendered() -> None:
    of = msgspec.structs.replace(deployable(), outside=True)
    (content,) = export_files(of, "yaml").values()
    assert tuple(yaml.safe_load_all(content)) == render(of)
    assert b"managed-by: fieldpost" in content
    assert b"managed-by" not in exported("yaml")["iris.yaml"]


def test_a_kustomization_names_every_file_and_makes_the_config_map() -> None:
    files = exported("kustomize", rate_limit=5)
    kustomization = yaml.safe_load(files["kustomization.yaml"])
    assert set(kustomization["resources"]) == set(files) - {"kustomization.yaml"}
    (generator,) = kustomization["configMapGenerator"]
    assert "FIELDPOST_SERVER_RATE_LIMIT=5.0" in generator["literals"]
    (container,) = yaml.safe_load(files["deployment.yaml"])["spec"]["template"]["spec"][
        "containers"
    ]
    assert container["envFrom"] == [{"configMapRef": {"name": generator["name"]}}]


def test_the_values_of_a_chart_are_the_settings() -> None:
    files = exported("helm", rate_limit=5, replicas=7, env_secret="a", tls_secret="c")
    values = yaml.safe_load(files["values.yaml"])
    assert values["image"] == {
        "repository": "registry.example.org/team/iris",
        "digest": IMAGE.partition("@")[2],
    }
    assert values["settings"]["FIELDPOST_SERVER_RATE_LIMIT"] == "5.0"
    assert (values["replicas"], values["service"]["port"]) == (7, 443)
    assert values["envFrom"] == [{"secretRef": {"name": "a"}}]
    assert (values["autoscaling"]["enabled"], values["keda"]["enabled"]) == (False, False)
    chart = yaml.safe_load(files["Chart.yaml"])
    assert (chart["name"], chart["version"], chart["appVersion"]) == ("iris", "3.4.0", "3")
    schema = json.loads(files["values.schema.json"])
    assert set(schema["required"]) <= set(values)
    kinds = {each.split("/")[1].partition(".")[0] for each in files if each.startswith("templates")}
    assert {kind.lower() for kind in by_kind(render(deployable()))} <= kinds


def test_a_predictor_is_our_pod_with_its_environment_in_it() -> None:
    found = yaml.safe_load(exported("kserve", max_replicas=9, rate_limit=5)["iris.yaml"])
    predictor = found["spec"]["predictor"]
    (container,) = predictor["containers"]
    assert found["metadata"]["annotations"]["serving.kserve.io/deploymentMode"] == "RawDeployment"
    assert (container["name"], container["image"]) == ("kserve-container", IMAGE)
    assert {"name": "FIELDPOST_SERVER_RATE_LIMIT", "value": "5.0"} in container["env"]
    assert (predictor["minReplicas"], predictor["maxReplicas"]) == (2, 9)
    assert container["readinessProbe"]["httpGet"]["port"] == 5001
    assert "serviceAccountName" not in predictor


def test_ray_is_told_what_a_replica_needs() -> None:
    files = exported("ray", max_replicas=9, target_in_flight=4, gpus=1, tls_secret="c")
    (application,) = yaml.safe_load(files["serve.yaml"])["applications"]
    (deployment,) = application["deployments"]
    assert application["args"]["package"] == DIGEST
    assert deployment["autoscaling_config"] == {
        "min_replicas": 2,
        "max_replicas": 9,
        "target_ongoing_requests": 4.0,
    }
    assert deployment["ray_actor_options"]["num_gpus"] == 1
    settings = application["args"]["settings"]
    assert not {"FIELDPOST_SERVER_TLS_CERT", "FIELDPOST_SERVER_HOST"} & set(settings)
    compile(files["fieldpost_app.py"], "fieldpost_app.py", "exec")
    assert application["import_path"] == "fieldpost_app:app"


def test_a_copied_package_is_listed_file_by_file(tmp_path: Path) -> None:
    layer = tmp_path / "layer"
    layer.mkdir()
    (layer / "model.onnx").write_bytes(b"m")
    root = tmp_path / "root"
    root.mkdir()
    (root / "model").symlink_to(layer)
    folder = tmp_path / "out"
    folder.mkdir()
    for _ in range(2):  # an earlier export is replaced
        copy_package(root, folder, DIGEST)
    manifest = json.loads((folder / "package.json").read_bytes())
    assert manifest == {
        "package": DIGEST,
        "files": {"model/model.onnx": hashlib.sha256(b"m").hexdigest()},
    }
    assert not (folder / "package" / "model").is_symlink()
    assert sorted(path.name for path in folder.iterdir()) == ["package", "package.json"]


@pytest.mark.parametrize(
    "text", ["1e3", "017", "0x1F", "y", "N", "on", "1:30", "2026-11-21", "3", "~", "", "1_000"]
)
def test_texts_that_look_like_something_else_are_quoted(text: str) -> None:
    line = to_yaml({"a": text}).strip()
    assert line.removeprefix("a: ")[:1] in ("'", '"')
    assert yaml.safe_load(line) == {"a": text}


def test_a_comment_cannot_become_a_document() -> None:
    assert yaml.safe_load(stream([{"a": 1}], "one\nkind: Secret")) == {"a": 1}


def _record(target: str, **settings: str) -> Deployment:
    return Deployment(
        name="iris",
        target=target,
        desired="running",
        active=1,
        address="",
        settings={key.replace("__", "."): text for key, text in settings.items()},
        revisions=(),
        created_at="2026-01-01T00:00:00Z",
    )


def test_settings_of_another_target_go_along_where_they_mean_the_same() -> None:
    record = _record(
        "local",
        rate_limit="5",
        workers="4",
        port="8080",
        api_keys="/etc/keys.json",
        env__TOKEN=SECRET,
        server__max_depth="9",
        max_restarts="3",
    )
    kept, left_out = carried(record)
    assert kept == {"rate_limit": "5", "env.TOKEN": SECRET, "server.max_depth": "9"}
    assert left_out == ["api_keys", "max_restarts", "port", "workers"]
    assert carried(_record("kubernetes", replicas="4")) == ({"replicas": "4"}, [])
    assert carried(None) == ({}, [])


def test_an_export_has_to_know_where_the_image_will_be() -> None:
    blobs: Any = None
    with pytest.raises(UsageError, match="where the cluster finds the image") as caught:
        found_deployable("iris", DIGEST, {}, blobs, lambda _: DIGEST)
    assert "registry=" in caught.value.hint


def test_files_are_written_over_those_of_before(tmp_path: Path) -> None:
    (tmp_path / "other.txt").write_text("mine")
    for text in (b"1", b"2"):
        assert write_files({"b/c.yaml": text, "a.yaml": text}, tmp_path) == ["a.yaml", "b/c.yaml"]
    assert (tmp_path / "b" / "c.yaml").read_bytes() == b"2"
    assert (tmp_path / "other.txt").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        *("a.yaml", "c.yaml", "other.txt")
    ]
    with pytest.raises(UsageError, match="is a file"):
        write_files({"a": b""}, tmp_path / "other.txt")


def test_the_next_step_is_a_command() -> None:
    said = next_steps("helm", Path("chart"), "iris", {"TOKEN"}, "iris-env")
    assert said[0].startswith("kubectl create secret generic iris-env --from-literal=TOKEN=")
    assert said[1] == "helm install iris chart"
    assert SECRET not in str(said)


def test_the_next_step_is_in_the_namespace_of_the_objects() -> None:
    said = next_steps("helm", Path("my chart"), "iris", {"TOKEN"}, "iris-env", "models")
    assert said[0].startswith("kubectl create secret generic iris-env --namespace models --from")
    assert said[1] == "helm install iris 'my chart' --namespace models"


def test_ray_passes_on_the_variables_whose_values_are_in_no_file() -> None:
    of = msgspec.structs.replace(deployable(env__TOKEN=SECRET), outside=True)
    (application,) = yaml.safe_load(ray_serve.ray_files(of)["serve.yaml"])["applications"]
    assert application["args"]["variables"] == ["TOKEN"]
    assert SECRET not in str(application)


def test_only_a_digest_names_an_image() -> None:
    of = deployable()
    with pytest.raises(UsageError):
        Deployable(name="iris", image="r.io/x:latest", package=of.package, settings=of.settings)
