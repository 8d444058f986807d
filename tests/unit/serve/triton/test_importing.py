"""Models of Triton's repositories: which file is meant, and what is told where there is none."""

from __future__ import annotations

from pathlib import Path

import pytest

from scoring.errors import (
    CorruptModelError,
    ModelNotFoundError,
    UnsupportedModelError,
    UsageError,
)
from serve.triton.importing import find
from serve.triton.places import is_triton, is_triton_place

# As NVIDIA's own examples have it.
DENSENET = """\
name: "densenet_onnx"
platform: "onnxruntime_onnx"
max_batch_size : 0
input [
  {
    name: "data_0"
    data_type: TYPE_FP32
    format: FORMAT_NCHW
    dims: [ 3, 224, 224 ]
    reshape { shape: [ 1, 3, 224, 224 ] }
  }
]
output [
  { name: "fc6_1", data_type: TYPE_FP32, dims: [ 1000 ], label_filename: "densenet_labels.txt" }
]
"""


def fil(kind: str) -> str:
    return f'backend: "fil" parameters {{ key: "model_type" value {{ string_value: "{kind}" }} }}'


def repository(folder: Path, config: str | None, *files: str) -> Path:
    model = folder / "densenet_onnx"
    model.mkdir(parents=True)
    if config is not None:
        (model / "config.pbtxt").write_text(config)
    for name in files:
        (model / name).parent.mkdir(parents=True, exist_ok=True)
        (model / name).write_bytes(b"x")
    return model


def test_the_newest_version_of_a_model(tmp_path: Path) -> None:
    model = repository(tmp_path, DENSENET, "2/model.onnx", "10/model.onnx", "09/model.onnx")
    for source in (model, f"triton:{model}", f"triton:{tmp_path}"):
        found = find(source)
        assert found.path == model / "10/model.onnx"
    assert found.tags == {
        "triton/model": "densenet_onnx",
        "triton/version": "10",
        "triton/backend": "onnxruntime",
        "triton/inputs": "data_0",
        "triton/outputs": "fc6_1",
    }


def test_a_version_that_is_asked_for(tmp_path: Path) -> None:
    model = repository(tmp_path, DENSENET, "2/model.onnx", "10/model.onnx")
    assert find(f"triton:{model / '2'}").path == model / "2/model.onnx"
    with pytest.raises(ModelNotFoundError, match="3 is no folder"):
        find(f"triton:{model / '3'}")


def test_the_version_policy_chooses(tmp_path: Path) -> None:
    policy = DENSENET + "version_policy: { specific: { versions: [1, 2] } }"
    model = repository(tmp_path, policy, "1/model.onnx", "2/model.onnx", "3/model.onnx")
    assert find(model).tags["triton/version"] == "2"
    for number in ("1", "2"):
        (model / number / "model.onnx").unlink()
        (model / number).rmdir()
    with pytest.raises(ModelNotFoundError, match="no version of 1, 2"):
        find(model)


@pytest.mark.parametrize(
    ("config", "file"),
    [
        (None, "1/model.onnx"),
        (None, "1/model.pt"),
        ('backend: "onnxruntime"', "1/model.onnx"),
        ('backend: "pytorch"', "1/model.pt"),
        ('platform: "pytorch_libtorch"', "1/model.pt"),
        ('backend: "onnxruntime" default_model_filename: "net.onnx"', "1/net.onnx"),
        ('backend: "fil"', "1/xgboost.model"),
        (fil("xgboost_json"), "1/xgboost.json"),
        (fil("lightgbm"), "1/model.txt"),
        ('backend: "onnxruntime" a_newer_field { what: 1 }', "1/model.onnx"),
    ],
)
def test_files_of_backends(tmp_path: Path, config: str | None, file: str) -> None:
    model = repository(tmp_path, config, file)
    assert find(f"triton:{model}").path == model / file


@pytest.mark.parametrize(
    ("config", "backend"),
    [
        ('backend: "python"', "python"),
        ('platform: "tensorrt_plan"', "tensorrt_plan"),
        ('platform: "ensemble"', "ensemble"),
        (fil("treelite"), "fil .treelite."),
    ],
)
def test_backends_that_run_in_triton_alone(tmp_path: Path, config: str, backend: str) -> None:
    model = repository(tmp_path, config, "1/model.py")
    with pytest.raises(UnsupportedModelError, match=backend) as caught:
        find(model)
    assert "scoring script" in caught.value.hint


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "..", "a/b.onnx"])
def test_a_file_outside_the_version(tmp_path: Path, name: str) -> None:
    config = f'backend: "onnxruntime" default_model_filename: "{name}"'
    model = repository(tmp_path, config, "1/model.onnx")
    with pytest.raises(CorruptModelError, match="outside the version"):
        find(model)


@pytest.mark.parametrize("config", ["name: 3", "{", 'name: "a', "\0", "x" * (1 << 20) + "y"])
def test_descriptions_that_cannot_be_read(tmp_path: Path, config: str) -> None:
    model = repository(tmp_path, config, "1/model.onnx")
    with pytest.raises(CorruptModelError, match=r"config\.pbtxt cannot be read"):
        find(model)


def test_a_description_that_is_no_text(tmp_path: Path) -> None:
    model = repository(tmp_path, "", "1/model.onnx")
    (model / "config.pbtxt").write_bytes(b"\xff\xfe")
    with pytest.raises(CorruptModelError, match="cannot be read"):
        find(model)


def test_what_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="no folder"):
        find(f"triton:{tmp_path / 'nowhere'}")
    with pytest.raises(ModelNotFoundError, match="no model of Triton's"):
        find(f"triton:{tmp_path}")
    model = repository(tmp_path, DENSENET)
    with pytest.raises(ModelNotFoundError, match="no version at all"):
        find(model)
    (model / "1").mkdir()
    with pytest.raises(ModelNotFoundError, match=r"has no model\.onnx"):
        find(model)


def test_several_models_are_named(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name / "1").mkdir(parents=True)
    with pytest.raises(UsageError, match=r"2 models: a, b\.") as caught:
        find(f"triton:{tmp_path}")
    assert f"triton:{tmp_path}/a" in caught.value.hint


def test_names_that_mean_triton(tmp_path: Path) -> None:
    model = repository(tmp_path, DENSENET, "1/model.onnx")
    assert is_triton(model)
    assert is_triton("triton:anything")
    assert not is_triton(model / "1/model.onnx")
    assert not is_triton(tmp_path)
    assert is_triton_place("triton:dir", None)
    assert is_triton_place("dir", "triton")
    assert not is_triton_place("bento:dir", None)
