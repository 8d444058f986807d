"""Models that BentoML has saved; the files are made by BentoML itself where that is possible."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from scoring.errors import CorruptModelError, ModelFileError, NotFoundError, UsageError
from serve.bento.importing import opened, read
from serve.bento.places import is_bento, is_bento_place

DESCRIPTION = """\
name: iris
version: v1
module: bentoml.sklearn
labels: {team: green}
metadata: {accuracy: 0.97, notes: [1, 2], checked: true}
context:
  framework_versions: {scikit-learn: 1.5.0}
  bentoml_version: 1.4.0
signatures: {predict: {}, predict_proba: {}}
"""
# BentoML keeps its settings for the life of a process.
SAVE = """\
import sys
import bentoml
from sklearn.linear_model import LogisticRegression
model = LogisticRegression().fit([[0.0], [1.0], [2.0], [3.0]], [0, 0, 1, 1])
saved = bentoml.sklearn.save_model("steps", model, labels={"team": "green"})
print(bentoml.models.export_model(str(saved.tag), sys.argv[1]))
print(saved.tag)
"""


def model_folder(folder: Path, files: dict[str, bytes], description: str = DESCRIPTION) -> Path:
    folder.mkdir(parents=True)
    (folder / "model.yaml").write_text(description)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def archive(path: Path, members: list[tuple[tarfile.TarInfo, bytes]]) -> Path:
    with tarfile.open(path, "w:xz") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def test_the_models_own_file_is_found_with_bentomls_words(tmp_path: Path) -> None:
    folder = model_folder(
        tmp_path / "m", {"saved_model.pkl": b"x", "custom_objects.pkl": b"y", "extra.txt": b""}
    )
    found = read(folder)
    assert (found.tag, found.path) == ("iris:v1", folder / "saved_model.pkl")
    assert found.tags == {
        "team": "green",
        "bentoml/tag": "iris:v1",
        "bentoml/module": "bentoml.sklearn",
        "bentoml/framework": "scikit-learn 1.5.0",
        "bentoml/signatures": "predict predict_proba",
        "bentoml/metadata/accuracy": "0.97",
        "bentoml/metadata/checked": "True",
    }


def test_several_files_are_a_folder(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", {"config.json": b"{}", "weights.h5": b""})
    assert read(folder).path == folder


@pytest.mark.parametrize(
    "description", ["", "[1, 2]", "name: 3\nversion: {}", "name: a", "{", "name: \x00"]
)
def test_a_description_that_is_none(tmp_path: Path, description: str) -> None:
    folder = model_folder(tmp_path / "m", {"saved_model.pkl": b""}, description)
    with pytest.raises(CorruptModelError, match=r"model\.yaml"):
        read(folder)


def test_a_description_alone_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(CorruptModelError, match="holds no model"):
        read(model_folder(tmp_path / "m", {}))


def test_what_is_bentomls(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "m", {"saved_model.pkl": b""})
    (tmp_path / "a.bentomodel").touch()
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.yaml").write_text("name: of something else")
    assert is_bento("bentoml:iris")
    assert is_bento(folder)
    assert is_bento(tmp_path / "a.bentomodel")
    assert not is_bento(other)
    assert not is_bento(tmp_path / "missing.bento")
    assert not is_bento(tmp_path / "iris.onnx")
    assert is_bento_place("bento:x", None)
    assert is_bento_place("x", "bentoml")
    assert not is_bento_place("oci:x", None)


def bento(folder: Path, models: int) -> Path:
    folder.mkdir()
    (folder / "bento.yaml").write_text("name: b")
    for number in range(models):
        model_folder(folder / "models" / f"m{number}" / "v1", {"saved_model.onnx": b"x"})
    return folder


def test_a_bento_with_one_model(tmp_path: Path) -> None:
    folder = bento(tmp_path / "b", 1)
    with opened(folder) as found:
        assert found.path == folder / "models" / "m0" / "v1" / "saved_model.onnx"


@pytest.mark.parametrize(("models", "words"), [(0, "no model"), (2, "m0/v1, m1/v1")])
def test_a_bento_with_none_or_several(tmp_path: Path, models: int, words: str) -> None:
    with pytest.raises(UsageError, match=words), opened(bento(tmp_path / "b", models)):
        """Never."""


@pytest.mark.parametrize("name", ["../outside", "/outside"])
def test_an_archive_that_would_write_elsewhere(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "a.bentomodel", [(tarfile.TarInfo(name), b"x")])
    with pytest.raises(CorruptModelError), opened(path):
        """Never."""
    assert not (tmp_path / "outside").exists()


def test_an_archive_with_a_link(tmp_path: Path) -> None:
    link = tarfile.TarInfo("saved_model.pkl")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    with (
        pytest.raises(CorruptModelError, match="neither a file nor a folder"),
        opened(archive(tmp_path / "a.bentomodel", [(link, b"")])),
    ):
        """Never."""


@pytest.mark.parametrize("content", [b"", b"nothing", b"\xfd7zXZ\x00 cut off"])
def test_what_is_no_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.bentomodel"
    path.write_bytes(content)
    with pytest.raises(ModelFileError), opened(path):
        """Never."""


def test_an_archive_of_something_else(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.bento", [(tarfile.TarInfo("readme.txt"), b"x")])
    with pytest.raises(CorruptModelError, match="BentoML has not written this"), opened(path):
        """Never."""


def test_what_bentoml_saves_and_keeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("bentoml")
    home = {"BENTOML_HOME": str(tmp_path / "home"), "BENTOML_DO_NOT_TRACK": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SAVE, str(tmp_path)],
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        check=True,
    )
    exported, tag = done.stdout.split()[-2:]
    asked = (
        "from serve.bento.importing import *; import sys\n"
        "with opened(sys.argv[1]) as m: print(m.tag, m.path.name, m.tags['team'])"
    )
    for source in (exported, f"bentoml:{tag}", "bentoml:steps"):
        told = subprocess.run(
            [sys.executable, "-c", asked, source],
            env={**os.environ, **home},
            capture_output=True,
            text=True,
            check=True,
        )
        assert told.stdout.split() == [tag, "saved_model.pkl", "green"]


@pytest.mark.parametrize(("tag", "kind"), [("nobody", NotFoundError), ("a b!", UsageError)])
def test_a_tag_that_the_store_does_not_have(tag: str, kind: type[Exception]) -> None:
    pytest.importorskip("bentoml")
    with pytest.raises(kind), opened(f"bentoml:{tag}"):
        """Never."""
