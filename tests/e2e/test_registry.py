"""A package to a registry and back, by the commands that users type."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from serve.workspace import Workspace
from tests.support.registry import DockerRegistry, is_installed, running

if TYPE_CHECKING:
    from collections.abc import Iterator

SCRIPT = "def init():\n    pass\n\n\ndef run(data):\n    return {answer}\n"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerRegistry]:
    if not is_installed():
        pytest.skip("docker-registry is not installed")
    with running(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a workspace with a package is: `echo`."""
    place = tmp_path_factory.mktemp("workspaces")
    build(place, "data")
    return place


def build(folder: Path, answer: str) -> str:
    script = folder / "echo.py"
    script.write_text(SCRIPT.format(answer=answer))
    with Workspace(folder / "one") as workspace:
        return workspace.packages.build(script=script).digest


def command(*arguments: str, status: int = 0) -> dict[str, Any]:
    done = subprocess.run(
        [str(Path(sys.executable).with_name("fieldpost")), "package", *arguments, "--json"],
        capture_output=True,
        check=False,
        env=os.environ | {"FIELDPOST_BASE": ""},
    )
    assert done.returncode == status, done.stderr.decode()
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def test_a_package_comes_back_as_it_went(
    registry: DockerRegistry, folder: Path, base_rootfs: Path
) -> None:
    one, two = ("--workspace", str(folder / "one")), ("--workspace", str(folder / "two"))
    place, base = f"{registry.host}/team/echo:1", ("--base", f"rootfs:{base_rootfs}")
    plan = command("push", "echo", place, *base, *one, "--dry-run")
    assert plan["existing"] == 0
    pushed = command("push", "echo", place, *base, *one)
    assert pushed["digest"] == plan["digest"] != pushed["package"]
    assert pushed["blobs_sent"] + pushed["mounted"] == len(plan["missing"])
    assert not pushed["warning"]
    again = command("push", "echo", place, *base, *one)
    assert (again["bytes_sent"], again["blobs_sent"], again["mounted"]) == (0, 0, 0)
    would = command("pull", place, *two, "--dry-run")
    assert (would["package"], would["existing"]) == (pushed["package"], 0)
    pulled = command("pull", place, *two)
    assert pulled["blobs_fetched"] == len(would["missing"])
    assert pulled["digest"] == pushed["digest"]
    assert pulled["package"]["digest"] == pushed["package"]
    assert pulled["package"]["model"] == "echo"
    # The base stays where it is.
    assert pulled["blobs_fetched"] < pushed["blobs_sent"] + pushed["mounted"]
    with Workspace(folder / "two") as workspace:
        workspace.packages.verify(pushed["package"])


def test_a_changed_script_is_all_that_is_sent(
    registry: DockerRegistry, folder: Path, base_rootfs: Path
) -> None:
    base = f"rootfs:{base_rootfs}"
    with Workspace(folder / "one") as workspace:
        place, copy = f"{registry.host}/team/change:1", f"{registry.host}/team/copy:1"
        push = partial(workspace.packages.push, base=base, attach=False)
        before = push("echo", place)
        changed = build(folder, "[data]")
        after = push(changed, place)
        assert after.digest != before.digest
        assert after.bytes_sent < 20_000
        other = push(changed, copy)
        assert (other.digest, other.blobs_sent, other.existing) == (after.digest, 0, 0)


def test_a_package_without_a_base(registry: DockerRegistry, folder: Path) -> None:
    one, two = ("--workspace", str(folder / "one")), ("--workspace", str(folder / "three"))
    place = f"{registry.host}/team/bare:1"
    pushed = command("push", "echo", place, "--no-base", *one)
    assert pushed["digest"] == pushed["package"]
    assert command("pull", place, *two)["package"]["digest"] == pushed["package"]


def test_an_image_of_something_else_is_no_package(
    registry: DockerRegistry, folder: Path, tmp_path: Path
) -> None:
    from serve.distribution.pushing import push
    from serve.distribution.reference import parse_reference
    from tests.support import oci

    image = oci.make_image(oci.make_store(tmp_path / "store"), [b"layer"])
    place = f"{registry.host}/team/other:1"
    push(image.root, image.content, parse_reference(place))
    found = command("pull", place, "--workspace", str(folder / "four"), status=1)
    assert found["error"]["code"] == "packaging"
    assert "no package of Fieldpost" in found["error"]["message"]


@pytest.mark.parametrize(
    ("place", "code", "status"),
    [
        ("127.0.0.1:1/team/echo:1", "unreachable", 1),
        ("127.0.0.1:1/Team/echo:1", "invalid_name", 2),
        ("https://127.0.0.1/echo", "invalid_name", 2),
    ],
)
def test_what_goes_wrong_is_said(folder: Path, place: str, code: str, status: int) -> None:
    one = ("--workspace", str(folder / "one"))
    found = command("push", "echo", place, "--no-base", *one, status=status)
    assert found["error"]["code"] == code
    assert found["error"]["hint"]


def test_a_cache_that_the_workspace_knows(registry: DockerRegistry, folder: Path) -> None:
    repository = f"{registry.host}/team/cache"
    with Workspace(folder / "one") as workspace:
        workspace.packages.cache = repository
        first = build(folder, "data")
        layer = workspace.packages.describe(workspace.packages.get(first)).layers[0]
        workspace.packages.cache = ""
        assert workspace.packages.cache == ""
    assert layer.digest in registry.blobs()
    with Workspace(folder / "fresh") as workspace:
        script = folder / "echo.py"
        package = workspace.packages.build(script=script, cache=repository)
        assert package.digest == first
