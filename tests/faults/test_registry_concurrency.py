"""Commands that run at the same moment, as processes of their own, on both databases."""

from __future__ import annotations

import json
import os
import traceback
import warnings
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from scoring.errors import FieldpostError, InUseError
from serve.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PROCESSES, EACH = 5, 4


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return str(tmp_path / "workspace")
    url: str = request.getfixturevalue("postgresql").url(tmp_path / "blobs")
    return url


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model"
    path.write_bytes(b"the same bytes in all of them" * 10_000)
    return path


def at_once(work: Callable[[int], Any], count: int) -> list[Any]:
    """Runs a function in processes that begin together; what it answered in each."""
    gate, opened = os.pipe()
    children = [_child(work, number, gate, opened) for number in range(count)]
    os.close(gate)
    os.close(opened)  # the gate: all of them read its end
    answers = []
    for child, pipe in children:
        with os.fdopen(pipe) as answer:
            text = answer.read()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, text
        answers.append(json.loads(text))
    return answers


def _child(work: Callable[[int], Any], number: int, gate: int, opened: int) -> tuple[int, int]:
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads
        child = os.fork()
    if child == 0:
        os.close(opened)
        os.read(gate, 1)
        _answer(work, number, writing)
    os.close(writing)
    return child, reading


def _answer(work: Callable[[int], Any], number: int, pipe: int) -> NoReturn:
    code = 1
    try:
        os.write(pipe, json.dumps(work(number)).encode())
        code = 0
    except BaseException:
        os.write(pipe, traceback.format_exc().encode())
        raise
    finally:
        os._exit(code)


@pytest.mark.parametrize("existing", [False, True])
def test_every_registration_gets_a_version_of_its_own(
    place: str, source: Path, existing: bool
) -> None:
    if existing:
        Registry(place).close()

    def register(number: int) -> list[int]:
        with Registry(place) as registry:
            return [
                registry.models.register(
                    "iris", source, prepared={}, tags={"n": str(number)}
                ).version
                for _ in range(EACH)
            ]

    answers = at_once(register, PROCESSES)
    given = sorted(version for answer in answers for version in answer)
    assert given == list(range(1, PROCESSES * EACH + 1))
    with Registry(place) as registry:
        assert len(registry.models.list("iris", tags={"n": "0"})) == EACH
        assert len(registry.blobs.digests()) == 1


def test_sweeping_never_takes_bytes_that_another_command_stores(place: str, source: Path) -> None:
    def churn(number: int) -> list[int]:
        kept = []
        with Registry(place) as registry:
            for turn in range(8):
                if number == 0:
                    registry.gc()
                    continue
                version = registry.models.register(f"m{number}", source, prepared={})
                registry.blobs.verify(version.files[0].digest)
                if turn % 2:
                    registry.models.delete(version.ref)
                else:
                    kept.append(version.version)
        return kept

    answers = at_once(churn, 4)
    with Registry(place) as registry:
        for number, kept in enumerate(answers):
            found = registry.models.list(f"m{number}")
            assert sorted(version.version for version in found) == kept
            for version in found:
                registry.blobs.verify(version.files[0].digest)


def add_package(registry: Registry, model: str | None = None) -> str:
    version = 1 if model else None
    return registry.packages.register(
        b"{}", [], model=model, model_version=version, environment=None, platform="p"
    ).digest


def test_of_deployments_at_once_each_waits_or_is_refused(place: str) -> None:
    with Registry(place) as registry:
        package = add_package(registry)

    def deploy(number: int) -> int | None:
        with Registry(place) as registry:
            try:
                revision = registry.deployments.create_revision(
                    "web", target="local", package=package
                )
            except InUseError:
                return None
            registry.deployments.activate("web", revision.number)
            return revision.number

    given = sorted(number for number in at_once(deploy, PROCESSES) if number is not None)
    with Registry(place) as registry:
        found = registry.deployments.get("web")
    assert given
    assert given == [revision.number for revision in found.revisions]
    assert found.active == given[-1]
    assert [revision.state for revision in found.revisions] == [
        *["superseded"] * (len(given) - 1),
        "active",
    ]


def test_a_model_is_deleted_or_deployed_but_never_both(place: str, source: Path) -> None:
    with Registry(place) as registry:
        registry.models.register("iris", source, prepared={})
        package = add_package(registry, "iris")

    def delete_or_deploy(number: int) -> str:
        with Registry(place) as registry:
            try:
                if number % 2:
                    registry.models.delete("iris:1")
                    return "deleted"
                name = f"d{number}"
                registry.deployments.create_revision(name, target="local", package=package)
                registry.deployments.activate(name, 1)
            except FieldpostError as error:
                return error.code
            return "deployed"

    answers = at_once(delete_or_deploy, 4)
    with Registry(place) as registry:
        deployed, left = registry.deployments.list(), registry.models.list()
        assert ("deleted" in answers) == (not left)
        assert ("deployed" in answers) == bool(deployed)
        assert bool(deployed) == bool(left)
        for deployment in deployed:
            assert registry.packages.manifest(deployment.revisions[0].package) == b"{}"
