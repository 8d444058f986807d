from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec
import numpy as np
import pytest

from scoring import digest as digests
from scoring.compilation import Compilation
from scoring.errors import (
    AlreadyExistsError,
    DigestMismatchError,
    InUseError,
    InvalidNameError,
    ModelFileError,
    ModelNotFoundError,
    NotFoundError,
    UsageError,
)
from scoring.schema import ModelSchema, TensorSpec
from serve.registry import Registry, files
from serve.registry.records import ModelVersion, Package
from tests.folders import names_in

if TYPE_CHECKING:
    from pathlib import Path

Register = Callable[..., ModelVersion]

PREPARED = {
    "format": "sklearn-joblib",
    "runtime": "onnx",
    "serves": "compiled",
    "primary": "model.onnx",
    "schema": {
        "inputs": [{"name": "x", "dtype": "float32", "shape": [None, 4]}],
        "outputs": [{"name": "label", "dtype": "int64", "shape": [None]}],
    },
    "made_with": {"scikit-learn": "1.7.2"},
    "requirements": ["onnxruntime==1.23.0"],
    "native_requirements": ["scikit-learn==1.7.2"],
    "pickle_trusted": True,
    "trusted_types": ["a.B"],
    "compilation": {"served": True, "reason": "It agrees."},
    "something_newer": {"kept": True},
}


def test_a_version_holds_all_that_was_said(registry: Registry, tmp_path: Path) -> None:
    source, compiled = tmp_path / "model.onnx", tmp_path / "compiled.onnx"
    source.write_bytes(b"original")
    compiled.write_bytes(b"compiled!")
    version = registry.models.register(
        "iris",
        source,
        prepared=PREPARED,
        compiled=compiled,
        tags={"stage": "tést 📚"},
        description="Two\nlines",
        metrics={"accuracy": 0.97, "per_class": [1, 2]},
        created_by="ann",
    )
    assert version == registry.models.get("iris:1") == registry.models.get("iris")
    assert (version.name, version.version, version.ref) == ("iris", 1, "iris:1")
    assert [(file.path, file.digest, file.size) for file in version.files] == [
        ("model.onnx", digests.of_bytes(b"original"), 8)
    ]
    assert version.compiled is not None
    assert registry.blobs.read_bytes(version.compiled.digest) == b"compiled!"
    assert version.schema == ModelSchema(
        inputs=(TensorSpec("x", "float32", (None, 4)),),
        outputs=(TensorSpec("label", "int64", (None,)),),
    )
    assert version.compilation == Compilation(served=True, reason="It agrees.")
    assert version.requirements == ("onnxruntime==1.23.0",)
    assert version.native_requirements == ("scikit-learn==1.7.2",)
    assert version.made_with == {"scikit-learn": "1.7.2"}
    assert (version.pickle_trusted, version.trusted_types) == (True, ("a.B",))
    assert version.tags == {"stage": "tést 📚"}
    assert version.metrics == {"accuracy": 0.97, "per_class": [1, 2]}
    assert (version.description, version.created_by, version.size) == ("Two\nlines", "ann", 8)
    assert json.loads(registry.models.document("iris")) == PREPARED
    assert json.loads(msgspec.json.encode(version))["schema"]["inputs"][0]["name"] == "x"
    assert version.to_dict()["files"][0]["path"] == "model.onnx"


def test_versions_count_up_and_none_is_given_twice(registry: Registry, register: Register) -> None:
    assert [register().version for _ in range(3)] == [1, 2, 3]
    assert register("other").version == 1
    registry.models.delete("iris:3")
    assert registry.models.get("iris").version == 2
    assert register().version == 4
    for number in (1, 2, 4):
        registry.models.delete(f"iris:{number}")
    assert register().version == 5


def test_the_digest_is_of_the_files_alone(registry: Registry, register: Register) -> None:
    first, same = register(tags={"a": "b"}), register("other", prepared={"format": "x"})
    assert first.digest == same.digest
    assert register(content=b"else").digest != first.digest
    assert len(registry.blobs.digests()) == 2


def test_a_document_may_be_json(registry: Registry, register: Register) -> None:
    assert register(prepared=json.dumps(PREPARED).encode()).runtime == "onnx"


@pytest.mark.parametrize(
    "prepared", [b"[]", b"{", b"1", {"schema": 1}, {"schema": {"inputs": []}}, {"x": object()}]
)
def test_a_document_that_is_none(register: Register, prepared: object) -> None:
    with pytest.raises(UsageError, match="description of the model"):
        register(prepared=prepared)


def test_numbers_of_numpy_are_metrics(register: Register) -> None:
    metrics = {"f1": np.float32(0.5), "confusion": np.eye(2, dtype=np.int64)}
    assert register(metrics=metrics).metrics == {"f1": 0.5, "confusion": [[1, 0], [0, 1]]}


@pytest.mark.parametrize("metrics", [{"x": object()}, {"x": {1, object()}}])
def test_metrics_that_are_no_json(register: Register, metrics: object) -> None:
    with pytest.raises(UsageError, match="metrics"):
        register(metrics=metrics)


@pytest.mark.parametrize(
    "values",
    [
        {"name": "Iris"},
        {"name": "../iris"},
        {"tags": {"a b": "c"}},
        {"tags": {"a": "\0"}},
        {"description": "\0"},
        {"description": "x" * 100_000},
    ],
)
def test_what_has_not_the_right_form_changes_nothing(
    registry: Registry, register: Register, values: dict[str, object]
) -> None:
    with pytest.raises(InvalidNameError):
        register(**values)
    assert registry.models.list() == ()
    assert registry.blobs.digests() == []


def test_a_folder_comes_back_as_it_was(registry: Registry, tmp_path: Path) -> None:
    folder = tmp_path / "saved model"
    (folder / "assets").mkdir(parents=True)
    (folder / "b" / "c").mkdir(parents=True)
    contents = {"ü\nx": b"1", "b/c/d e": b"2", "empty": b"", "same": b"2"}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    version = registry.models.register("m", folder, prepared={"primary": "b/c/d e"})
    assert version.primary == "saved model/b/c/d e"
    assert version.folders == ("saved model/assets/",)
    registry.models.download("m", tmp_path / "deep" / "out")
    out = tmp_path / "deep" / "out" / "saved model"
    assert {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*") if p.is_file()} == (
        contents
    )
    assert (out / "assets").is_dir()
    assert os.access(out / "empty", os.W_OK)


def test_files_by_name(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    version = registry.models.register(
        "m", {"a/b": tmp_path / "x", "c/": tmp_path, "d": tmp_path / "x"}, prepared={}
    )
    assert [file.path for file in version.files] == ["a/b", "d"]
    assert version.folders == ("c/",)
    for bad in ({}, {"../x": tmp_path / "x"}, {"/x": tmp_path / "x"}):
        with pytest.raises(UsageError):  # InvalidNameError is one
            registry.models.register("m", bad, prepared={})


def test_a_file_that_changed_since_it_was_looked_at(registry: Registry, tmp_path: Path) -> None:
    source = tmp_path / "model"
    source.write_bytes(b"before")
    (tmp_path / "another").write_bytes(b"first")
    looked = {"a": files.collect(tmp_path / "another")["another"]}
    looked |= {"b": files.collect(source)["model"]}
    source.write_bytes(b"afterwards")
    with pytest.raises(ModelFileError, match="changed"):
        registry.models.register("m", looked, prepared={})
    assert registry.models.list() == ()
    assert registry.blobs.digests() == []


def test_a_file_that_is_not_there(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError):
        registry.models.register("m", tmp_path / "none", prepared={})


def test_the_commit_that_the_files_came_from(registry: Registry, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", tmp_path / "r"], check=True)
    identity = ["-c", "user.name=A", "-c", "user.email=a@b"]
    (tmp_path / "r" / "model").write_bytes(b"x")
    outside = registry.models.register("m", tmp_path / "r" / "model", prepared={})
    assert (outside.source_commit, outside.source_dirty) == (None, None)
    run = ["git", *identity, "-C", str(tmp_path / "r")]
    subprocess.run([*run, "add", "."], check=True)
    subprocess.run([*run, "commit", "-qm", "x"], check=True)
    inside = registry.models.register("m", tmp_path / "r" / "model", prepared={})
    assert inside.source_commit is not None
    assert len(inside.source_commit) == 40
    assert inside.source_dirty is False


def test_references_that_name_nothing(registry: Registry, register: Register) -> None:
    with pytest.raises(NotFoundError, match="no model 'iris'") as caught:
        registry.models.get("iris")
    assert "register" in caught.value.hint
    register()
    register()
    with pytest.raises(NotFoundError, match="no version 7") as caught:
        registry.models.get("iris:7")
    assert "iris:2, iris:1" in caught.value.hint
    with pytest.raises(NotFoundError):
        registry.models.get("iris:999999999999999999")
    with pytest.raises(InvalidNameError):
        registry.models.get("iris:zero")
    assert registry.models.get("iris:latest").version == 2


def test_listing_by_name_and_tag(registry: Registry, register: Register) -> None:
    register("b", tags={"stage": "prod", "team": "x"})
    register("b", tags={"stage": "dev"})
    register("a", tags={"stage": "prod"})

    def refs(*args: str, **values: object) -> list[str]:
        return [each.ref for each in registry.models.list(*args, **values)]  # type: ignore[arg-type]

    assert refs() == ["a:1", "b:2", "b:1"]
    assert refs("b") == ["b:2", "b:1"]
    assert refs("none") == []
    assert refs(tags={"stage": "prod"}) == ["a:1", "b:1"]
    assert refs(tags={"stage": "prod", "team": "x"}) == ["b:1"]
    assert refs("b", tags={"stage": None}) == ["b:2", "b:1"]
    assert refs(tags={"team": None}) == ["b:1"]
    assert refs(tags={"stage": "%"}) == []
    listed = registry.models.list(tags={"team": "x"})[0]
    assert listed.tags == {"stage": "prod", "team": "x"}
    assert len(listed.files) == 1


def test_tags_are_set_and_removed(registry: Registry, register: Register) -> None:
    register(tags={"a": "1", "b": "2"})
    register()
    changed = registry.models.tag("iris:1", set={"b": "3", "c": "ü"}, remove=["a", "none"])
    assert changed.tags == {"b": "3", "c": "ü"}
    assert registry.models.get("iris:1") == changed
    assert registry.models.get("iris:2").tags == {}
    assert registry.models.tag("iris", {"x": "y"}).ref == "iris:2"
    with pytest.raises(UsageError, match="at once"):
        registry.models.tag("iris", {"x": "y"}, ["x"])
    with pytest.raises(NotFoundError):
        registry.models.tag("none", {"x": "y"})


def test_differences(registry: Registry, register: Register) -> None:
    register(tags={"a": "1"}, prepared=PREPARED)
    same = registry.models.diff("iris:1", "iris:1")
    assert same.identical
    assert "identical" in same.to_text()
    register(content=b"other", prepared=PREPARED | {"serves": "original"})
    found = registry.models.diff("iris:1", "iris:2")
    assert not found.identical
    assert found.files_changed["model.onnx"].after.size == 5
    assert found.fields["serves"].before == "compiled"
    assert (found.tags["a"].before, found.tags["a"].after) == ("1", None)
    assert '~ tags.a  "1" -> none' in found.to_text()
    assert found.to_dict()["fields"]["serves"]["after"] == "original"


def test_a_download_is_all_or_nothing(
    registry: Registry, register: Register, tmp_path: Path
) -> None:
    version = register(content=b"model")
    dest = tmp_path / "out"
    registry.models.download("iris", dest)
    assert (dest / "model.onnx").read_bytes() == b"model"
    with pytest.raises(AlreadyExistsError):
        registry.models.download("iris", dest)
    (dest / "mine").write_bytes(b"")
    registry.models.download("iris", dest, replace=True)
    assert names_in(dest) == ["model.onnx"]
    blob = registry.blobs.path(version.files[0].digest)
    blob.chmod(0o644)
    blob.write_bytes(b"modem")
    with pytest.raises(DigestMismatchError):
        registry.models.download("iris", dest, replace=True)
    assert (dest / "model.onnx").read_bytes() == b"model"
    with pytest.raises(DigestMismatchError):
        registry.models.download("iris", tmp_path / "new")
    blob.unlink()
    with pytest.raises(NotFoundError, match="missing"):
        registry.models.download("iris", tmp_path / "new")
    assert not any(path.name.startswith((".fieldpost", "new")) for path in tmp_path.iterdir())


@pytest.mark.parametrize("kind", ["file", "link", "empty folder"])
def test_a_download_overwrites_nothing_unasked(
    registry: Registry, register: Register, tmp_path: Path, kind: str
) -> None:
    register()
    dest = tmp_path / "out"
    if kind == "file":
        dest.write_bytes(b"")
    elif kind == "link":
        dest.symlink_to(tmp_path / "nowhere")
    else:
        dest.mkdir()
    with pytest.raises(AlreadyExistsError):
        registry.models.download("iris", dest)
    registry.models.download("iris", dest, replace=True)
    assert (dest / "model.onnx").is_file()
    assert not (tmp_path / "nowhere").exists()


def test_deleting_frees_what_nothing_else_needs(registry: Registry, register: Register) -> None:
    register(content=b"shared")
    register(content=b"shared")
    register(content=b"single")
    assert registry.models.delete("iris:3").to_dict() == {"blobs": 1, "size": 6, "packages": ()}
    assert registry.models.delete("iris:2").blobs == 0
    assert registry.blobs.read_bytes(digests.of_bytes(b"shared")) == b"shared"
    assert registry.models.delete("iris").size == 6
    assert registry.blobs.digests() == []
    with pytest.raises(NotFoundError):
        registry.models.delete("iris:1")


def test_a_version_in_use_is_not_deleted(
    registry: Registry, register: Register, package: Callable[..., Package]
) -> None:
    version = register()
    built = package(version)
    revision = registry.deployments.create_revision("web", target="local", package=built.digest)
    with pytest.raises(InUseError, match="web"):
        registry.models.delete("iris:1")  # pending
    registry.deployments.activate("web", revision.number)
    with pytest.raises(InUseError, match="web") as caught:
        registry.models.delete("iris:1")
    assert "deployment stop web" in caught.value.hint
    assert registry.models.used_by(version) == ["web"] == registry.deployments.uses("iris", 1)
    registry.deployments.stop("web")
    freed = registry.models.delete("iris:1")
    assert freed.packages == ()  # the stopped deployment can still be started
    assert registry.blobs.verify(built.blobs[0].digest) == built.blobs[0]
    assert registry.packages.get(built.digest) == built
    assert registry.gc().packages == ()
    registry.deployments.delete("web")
    assert registry.gc().packages == (built.digest,)
    assert registry.blobs.digests() == []


def test_packages_go_with_their_version(
    registry: Registry, register: Register, package: Callable[..., Package]
) -> None:
    built = package(register())
    assert registry.models.delete("iris:1").packages == (built.digest,)
    assert registry.packages.list() == ()
    assert registry.blobs.digests() == []


def test_a_sweep_removes_only_what_nothing_references(
    registry: Registry, register: Register, package: Callable[..., Package]
) -> None:
    package(register())
    registry.environments.register(
        "e", b"lock", hash="h", source_kind="conda", platform="p", python="3.11"
    )
    kept = registry.blobs.digests()
    stray = registry.blobs.put_bytes(b"stray")
    assert registry.gc().to_dict() == {"blobs": 1, "size": 5, "packages": ()}
    assert not registry.blobs.has(stray.digest)
    assert registry.blobs.digests() == kept
    assert registry.gc().blobs == 0
