from __future__ import annotations

from typing import Any

import pytest

from scoring.errors import NotFoundError, TargetError, UnreachableError
from serve.targets.kubernetes import faults
from serve.targets.kubernetes.faults import Asked

ASKED = Asked("apply Deployment iris", "The cluster of the context 'one'", "team")


def _refusal(status: int, message: str, **given: Any) -> Any:
    return faults.refusal(status, {"message": message, **given}, ASKED)


def test_a_login_that_is_not_accepted() -> None:
    error = _refusal(401, "Unauthorized")
    assert isinstance(error, faults.DeniedError)
    assert error.status == 401
    assert "expired (401)" in error.message


def test_a_verb_that_is_not_allowed_names_all_that_an_administrator_needs() -> None:
    error = _refusal(
        403,
        'deployments.apps "iris" is forbidden: User "system:serviceaccount:ci:bot" cannot patch '
        'resource "deployments" in API group "apps" in the namespace "team"',
        reason="Forbidden",
    )
    assert isinstance(error, faults.DeniedError)
    assert (
        "'system:serviceaccount:ci:bot' to patch deployments.apps in the namespace 'team' (403)"
        in error.message
    )
    assert "fieldpost target kubernetes rbac --namespace team" in error.hint


def test_a_login_that_shows_nothing_is_no_question_of_rights() -> None:
    error = _refusal(
        403,
        'services "iris" is forbidden: User "system:anonymous" cannot get resource "services" in '
        'API group "" in the namespace "team"',
    )
    assert isinstance(error, faults.DeniedError)
    assert "does not accept the login" in error.message
    assert "rbac" not in error.hint


def test_core_resources_have_no_group() -> None:
    error = _refusal(
        403,
        'secrets is forbidden: User "me" cannot list resource "secrets" in API group "" in the '
        'namespace "team"',
    )
    assert "to list secrets in the namespace" in error.message


@pytest.mark.parametrize(
    ("status", "said", "words"),
    [
        (
            403,
            'admission webhook "policy.example" denied the request: needs an owner',
            "webhook 'policy.example' refuses it: needs an owner",
        ),
        (
            422,
            (
                "deployments.apps \"iris\" is forbidden: ValidatingAdmissionPolicy 'limits' with "
                "binding 'b' denied request: too many"
            ),
            "policy 'limits' refuses it: too many",
        ),
        (403, 'pods "x" is forbidden: exceeded quota: team, requested: pods=1', "exceeded quota"),
        (403, 'pods "x" is forbidden: violates PodSecurity "restricted:latest"', "PodSecurity"),
        (403, "something of its own", "something of its own"),
    ],
)
def test_the_cluster_s_own_rules(status: int, said: str, words: str) -> None:
    error = _refusal(status, said)
    assert isinstance(error, faults.ClusterError)
    assert words in error.message


def test_a_namespace_that_goes() -> None:
    cause = {"reason": "NamespaceTerminating", "field": "metadata.namespace"}
    error = _refusal(403, "unable to create new content", details={"causes": [cause]})
    assert isinstance(error, faults.TerminatingError)
    assert "'team' is being deleted" in error.message


def test_what_is_not_there() -> None:
    space = _refusal(
        404, 'namespaces "team" not found', details={"kind": "namespaces", "name": "team"}
    )
    assert isinstance(space, NotFoundError)
    assert "has no namespace 'team'" in space.message
    other = _refusal(404, 'configmaps "one" not found')
    assert isinstance(other, faults.MissingError)
    for said in ("404 page not found", "the server could not find the requested resource"):
        assert "does not know that kind" in _refusal(404, said).message


@pytest.mark.parametrize(
    ("message", "manager"),
    [
        ('conflict with "gitops"', "gitops"),
        ('conflict with "kubectl" using apps/v1', "kubectl"),
        (
            'conflict with "kube-controller-manager" with subresource "scale" using apps/v1',
            "kube-controller-manager",
        ),
        ("in words of the future", "in words of the future"),
    ],
)
def test_conflicts_name_fields_and_managers(message: str, manager: str) -> None:
    cause = {"reason": "FieldManagerConflict", "message": message, "field": ".spec.replicas"}
    error = _refusal(409, "Apply failed with 1 conflict", details={"causes": [cause]})
    assert isinstance(error, faults.FieldConflictError)
    assert (error.fields, error.managers) == ((".spec.replicas",), (manager,))
    assert "--force-conflicts" in error.hint


def test_other_conflicts() -> None:
    assert isinstance(_refusal(409, "the object has been modified"), faults.ChangedError)
    assert isinstance(_refusal(410, "too old resource version"), faults.GoneError)


def test_what_may_pass_is_retryable() -> None:
    for status in (429, 500, 503, 504):
        error = _refusal(status, "etcdserver: request timed out")
        assert isinstance(error, UnreachableError)
        assert error.retryable
    told = _refusal(429, "too many", details={"retryAfterSeconds": 7})
    assert told.wait_s == 7.0


def test_a_field_that_is_wrong_is_named() -> None:
    cause = {"field": "spec.replicas", "message": "Invalid value: -1"}
    error = _refusal(422, "Deployment is invalid", details={"causes": [cause]})
    assert isinstance(error, TargetError)
    assert error.where == "spec.replicas"


def test_an_answer_without_a_document() -> None:
    error = faults.refusal(418, {}, ASKED)
    assert "HTTP status 418" in error.message
