"""The Role that deploying needs: valid, in one namespace, and without what nobody asks for."""

from __future__ import annotations

import subprocess
import sys

import kubernetes_validate
import pytest
import yaml

from serve.targets.kubernetes.objects import render
from serve.targets.kubernetes.rbac import allowed, objects
from tests.support.kubernetes_objects import VERSIONS, deployable

MAIN = "from serve.cli.main import main; main()"


@pytest.mark.parametrize("version", VERSIONS)
def test_the_schemas_take_it(version: str) -> None:
    for each in objects("models"):
        kubernetes_validate.validate(each, version, strict=True)


def test_it_covers_every_kind_that_is_rendered() -> None:
    covered = {
        f"{each.group}/{plural}"
        for each in allowed()
        for plural in each.resources
        if {"create", "patch", "delete", "get"} <= set(each.verbs)
    }
    every = [
        *render(deployable(max_replicas=9, gateway="g", env__A="b")),
        *render(deployable(max_replicas=9, ingress_class="n", scaler="keda")),
    ]
    for each in every:
        group = each["apiVersion"].rpartition("/")[0]
        plural = each["kind"].lower().removesuffix("y") + (
            "ies" if each["kind"].endswith("y") else "es" if each["kind"].endswith("s") else "s"
        )
        assert f"{group}/{plural}" in covered


def test_nothing_is_allowed_beyond_a_namespace_or_by_a_star() -> None:
    account, role, binding = objects("models", "deployer")
    assert (role["kind"], binding["kind"]) == ("Role", "RoleBinding")
    assert {each["metadata"]["namespace"] for each in (account, role, binding)} == {"models"}
    for rule in role["rules"]:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]
        assert not {"escalate", "bind", "impersonate"} & set(rule["verbs"])
        assert not {"pods/exec", "roles", "rolebindings", "serviceaccounts/token"} & set(
            rule["resources"]
        )


def test_the_command_prints_what_kubectl_applies() -> None:
    command = [sys.executable, "-c", MAIN, "target", "kubernetes", "rbac", "--namespace", "models"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert list(yaml.safe_load_all(done.stdout)) == list(objects("models"))
    command[-1] = "Not A Name"
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 2
    assert "namespace" in refused.stderr
