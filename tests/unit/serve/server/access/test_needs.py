"""What targets ask for: told from decoded paths, and never less than what a route does."""

from __future__ import annotations

import pytest

from scoring.errors import ForbiddenError
from serve.server.access.needs import OPEN, Need, need_of
from serve.server.access.principal import ADMIN, ANONYMOUS, INFER, METRICS, Principal


@pytest.mark.parametrize(
    "target",
    [
        *(b"/", b"/health", b"/health/live", b"/health/ready", b"/health/startup", b"/ping"),
        *(b"/v2/health/live", b"/v2/health/ready", b"/v2/health/ready?verbose=1"),
        b"/inference.GRPCInferenceService/ServerLive",
        b"/v2/health/live/",
        b"/grpc.health.v1.Health/Check",
    ],
)
def test_probes_are_open(target: bytes) -> None:
    assert need_of(target) == OPEN


@pytest.mark.parametrize(
    ("target", "need"),
    [
        (b"/score", Need(INFER, "")),
        (b"/score?x=1", Need(INFER, "")),
        (b"/invocations", Need(INFER, "")),
        (b"/openapi.json", Need(INFER, "")),
        (b"/v2/models/iris/infer", Need(INFER, "iris")),
        (b"/v2/models/iris/versions/2/infer", Need(INFER, "iris")),
        (b"/v2/models/iris", Need(INFER, "iris")),
        (b"/v2/models/%69ris/infer", Need(INFER, "iris")),
        (b"http://host/v2/models/iris/infer", Need(INFER, "iris")),
        (b"/v2//models/iris/infer", Need(INFER, "iris")),
        (b"//v2/models//iris/infer/", Need(INFER, "iris")),
        (b"/v2//repository/models/iris/load", Need(ADMIN, "iris")),
        (b"/v2/repository//models/iris/unload/", Need(ADMIN, "iris")),
        (b"/v1/models/iris:predict", Need(INFER, "iris")),
        (b"/v1/models/iris", Need(INFER, "iris")),
        (b"/v1/models/iris/versions/1:predict", Need(INFER, "iris")),
        (b"/v1/models", Need(INFER)),
        (b"/v2", Need(INFER)),
        (b"/v2/repository/index", Need(INFER, instead=ADMIN)),
        (b"/v2/repository/models/iris/load", Need(ADMIN, "iris")),
        (b"/v2/repository/models/iris/unload", Need(ADMIN, "iris")),
        (b"/metrics", Need(METRICS, instead=ADMIN)),
        (b"/metrics/", Need(METRICS, instead=ADMIN)),
        (b"/jobs/1", Need(INFER)),
        (b"/elsewhere", Need(INFER)),
        (b"/health/../score", Need(INFER)),
        (b"/health/live/x", Need(INFER)),
        (b"/inference.GRPCInferenceService/ModelInfer", Need(INFER)),
        (b"/inference.GRPCInferenceService/RepositoryModelLoad", Need(ADMIN)),
    ],
)
def test_targets_ask_for_scopes_and_models(target: bytes, need: Need) -> None:
    assert need_of(target) == need


def holder(**grants: frozenset[str] | None) -> Principal:
    return Principal("key:1", "ci", grants)


def test_a_scope_is_needed() -> None:
    holder(infer=None).require(Need(INFER, "iris"))
    with pytest.raises(ForbiddenError, match="lacks the scope 'admin'") as refused:
        holder(infer=None).require(Need(ADMIN, "iris"))
    assert refused.value.where == "admin"
    with pytest.raises(ForbiddenError):
        holder(admin=None).require(Need(INFER, "iris"))


def test_a_scope_may_be_for_some_models() -> None:
    some = holder(infer=frozenset({"iris"}))
    some.require(Need(INFER, "iris"))
    some.require(Need(INFER))
    some.require(Need(INFER, ""), "iris")
    some.require_model("iris")
    for need, default in ((Need(INFER, "digits"), "iris"), (Need(INFER, ""), "digits")):
        with pytest.raises(ForbiddenError, match="not for the model 'digits'"):
            some.require(need, default)
    with pytest.raises(ForbiddenError):
        some.require(Need(INFER, ""))
    with pytest.raises(ForbiddenError):
        some.require_model("digits")


def test_who_administers_may_read_metrics() -> None:
    holder(admin=None).require(need_of(b"/metrics"))
    holder(metrics=None).require(need_of(b"/metrics"))
    with pytest.raises(ForbiddenError, match="metrics"):
        holder(infer=None).require(need_of(b"/metrics"))


def test_who_administers_may_list_models() -> None:
    for target in (b"/v2/repository/index", b"/inference.GRPCInferenceService/RepositoryIndex"):
        holder(admin=None).require(need_of(target))
        holder(infer=None).require(need_of(target))
        with pytest.raises(ForbiddenError, match="infer"):
            holder(metrics=None).require(need_of(target))
    with pytest.raises(ForbiddenError, match="infer"):
        holder(admin=None).require(need_of(b"/v2/models"))


def test_everyone_may_do_what_nobody_guards() -> None:
    for scope in (INFER, METRICS, ADMIN):
        ANONYMOUS.require(Need(scope, "iris"))


def test_remembered_targets_are_bounded() -> None:
    some = holder(infer=None)
    for number in range(5000):
        some.admit(b"/score?%d" % number)
    assert len(some.admitted) <= 512
    assert b"/score?4999" in some.admitted
