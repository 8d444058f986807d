"""`Model.get_model_path`, as scripts written for azureml-core call it."""

from __future__ import annotations

from pathlib import Path

import pytest

from scoring.azureml.aml_model import Model


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Several models: `AZUREML_MODEL_DIR` is the folder of all of them."""
    root = tmp_path / "azureml-models"
    for file in (
        "ridge/1/ridge.pkl",
        "ridge/2/ridge.pkl",
        "ridge/10/ridge.pkl",
        "net/3/graph.bin",
        "net/3/labels.txt",
        "tree/1/folder/a.bin",
        "tree/1/folder/b.bin",
        "plain/model.pkl",
        "lone.onnx",
    ):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).touch()
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(root))
    return root


@pytest.mark.parametrize(
    ("name", "version", "path"),
    [
        ("ridge", None, "ridge/10/ridge.pkl"),
        ("ridge", 2, "ridge/2/ridge.pkl"),
        ("net", None, "net/3"),
        ("tree", None, "tree/1/folder"),
        ("plain", None, "plain"),
        ("lone.onnx", None, "lone.onnx"),
    ],
)
def test_a_model_is_found_by_its_name(
    name: str, version: int | None, path: str, models: Path
) -> None:
    assert Model.get_model_path(model_name=name, version=version) == str(models / path)


@pytest.mark.parametrize(("name", "version"), [("other", None), ("ridge", 3)])
def test_a_model_that_is_not_deployed_is_named(
    name: str, version: int | None, models: Path
) -> None:
    with pytest.raises(FileNotFoundError, match=name) as caught:
        Model.get_model_path(name, version)
    assert caught.value.filename == str(models)


def test_the_only_model_has_its_own_folder(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZUREML_MODEL_DIR", str(models / "ridge/2"))
    expected = str(models / "ridge/2/ridge.pkl")
    assert Model.get_model_path("ridge") == expected
    assert Model.get_model_path("ridge", 2) == expected
    assert Model.get_model_path("ridge.pkl") == expected
    assert Model.get_model_path("registered-under-another-name") == expected
    with pytest.raises(FileNotFoundError):
        Model.get_model_path("ridge", 3)


def test_without_the_variable_the_working_directory_is_searched(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZUREML_MODEL_DIR")
    monkeypatch.chdir(models.parent)
    assert Model.get_model_path("ridge", 1) == "azureml-models/ridge/1/ridge.pkl"
    monkeypatch.chdir(models)
    with pytest.raises(FileNotFoundError):
        Model.get_model_path("ridge")
