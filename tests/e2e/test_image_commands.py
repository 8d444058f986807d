"""`package build`, `export` and `pull` as a user types them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from serve.cli.main import run
from serve.packaging.images.bases import open_local
from serve.packaging.images.basestore import BaseStore
from tests.e2e.test_images import save_model
from tests.support import registry
from tests.support.smallbases import archive, system

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a model, a base and a workspace that has a package."""
    folder = tmp_path_factory.mktemp("commands")
    save_model(folder / "twice.onnx")
    (folder / "base.tar").write_bytes(archive(system()))
    for command in (
        ["model", "register", "twice", f"{folder}/twice.onnx"],
        ["package", "build", "twice", "--platform", "linux/amd64"],
    ):
        assert run([*command, "--workspace", f"{folder}/ws", "--json"]) == 0
    return folder


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run([*arguments, "--json"]) == status
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def test_export_and_pull(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = ["package", "export", "twice", f"{tmp_path}/out:v1", "--format", "oci"]
    options = ["--base", f"rootfs:{place}/base.tar", "--workspace", f"{place}/ws"]
    plan = said(capsys, *export, *options, "--dry-run")
    assert not (tmp_path / "out").exists()
    done = said(capsys, *export, *options)
    assert done["digest"] == plan["digest"]
    pull = ["package", "pull", f"oci:{tmp_path}/out:v1", "--workspace", f"{tmp_path}/other"]
    assert said(capsys, *pull)["package"]["digest"] == done["package"]
    show = said(capsys, "package", "show", done["package"], "--workspace", f"{tmp_path}/other")
    assert show["platforms"] == {"linux/amd64": done["package"]}


@pytest.mark.skipif(shutil.which("skopeo") is None, reason="skopeo is not installed")
def test_a_package_comes_back_from_a_copy_by_another_tool(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Skopeo takes the image alone, without what stands beside it."""
    export = ["package", "export", "twice", f"oci:{tmp_path}/out:v1"]
    base = ["--base", f"rootfs:{place}/base.tar", "--workspace", f"{place}/ws"]
    done = said(capsys, *export, *base)
    copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false", f"oci:{tmp_path}/out:v1"]
    places = [f"oci:{tmp_path}/copy:v1", f"oci-archive:{tmp_path}/copy.tar:v1"]
    with registry.running(tmp_path / "registry") as there:
        reference = f"{there.host}/copied/twice:1"
        for number, wanted in enumerate([*places, reference]):
            target = wanted if wanted in places else f"docker://{wanted}"
            subprocess.run([*copy, target], check=True, timeout=60)
            workspace = ["--workspace", f"{tmp_path}/ws{number}"]
            if wanted == reference:
                plan = said(capsys, "package", "pull", wanted, "--dry-run", *workspace)
                assert plan["package"] == done["package"]
            found = said(capsys, "package", "pull", wanted, *workspace)
            assert found["package"]["digest"] == done["package"]
            assert run(["package", "verify", done["package"], *workspace]) == 0


def test_a_base_of_this_machine_at_build_is_kept(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    moved = tmp_path / "moved.tar"
    moved.write_bytes((place / "base.tar").read_bytes())
    wanted = open_local(f"rootfs:{moved}", "linux/amd64", BaseStore(tmp_path / "bases")).digest
    workspace = ["--workspace", f"{place}/ws"]
    platform = ["--platform", "linux/amd64"]
    package = said(
        capsys, "package", "build", "twice", *platform, "--base", f"rootfs:{moved}", *workspace
    )
    moved.unlink()
    plan = said(
        capsys, "package", "export", package["digest"], f"oci:{tmp_path}/o", *workspace, "--dry-run"
    )
    assert plan["bases"] == [wanted]


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["zip:out.zip"], 2, "usage"),
        (["oci:out", "--base", "rootfs:nothing.tar"], 1, "not_found"),
        (["oci:out", "--base", "localhost:5000/UPPER"], 2, "invalid_name"),
        (["oci:out", "--platform", "linux/arm64"], 1, "packaging"),
    ],
)
def test_mistakes(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], status: int, code: str
) -> None:
    command = ["package", "export", "twice", *arguments, "--workspace", f"{place}/ws"]
    assert said(capsys, *command, status=status)["error"]["code"] == code
