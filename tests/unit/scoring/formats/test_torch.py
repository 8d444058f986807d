"""PyTorch programs: exported ones tell their schema, TorchScript is asked."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring.errors import (
    CorruptModelError,
    ScoringFailedError,
    UnknownInputError,
    UnsupportedModelError,
    UntrustedModelError,
)
from scoring.formats.base import LoadedModel, Trust
from scoring.formats.detect import detect
from scoring.formats.load import load_original
from scoring.schema import TensorSpec

torch = pytest.importorskip("torch")


def net() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Dropout(), torch.nn.Linear(8, 3)
    ).eval()


def picture_net() -> Any:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    ).eval()


class Two(torch.nn.Module):  # type: ignore[misc, name-defined]
    def forward(self, left: Any, right: Any) -> dict[str, Any]:
        return {"sum": left + right, "rows": right.sum(1).to(torch.bfloat16)}


def export(
    folder: Path, module: Any, args: tuple[Any, ...], name: str = "model.bin", **more: Any
) -> Path:
    program = torch.export.export(module, args, **more)
    torch.export.save(program, folder / "model.pt2")
    (folder / "model.pt2").rename(folder / name)
    return folder / name


@pytest.fixture
def script(tmp_path: Path) -> Callable[..., LoadedModel]:
    def save_and_load(module: Any, sample: Any | None = None) -> LoadedModel:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.jit.script(module).save(tmp_path / "model.bin")
        return load_original(detect(tmp_path / "model.bin"), Trust(), sample)

    return save_and_load


def test_an_exported_program_tells_its_schema(tmp_path: Path) -> None:
    module = net()
    path = export(
        tmp_path, module, (torch.randn(2, 4),), dynamic_shapes=({0: torch.export.Dim("rows")},)
    )
    detection = detect(path)
    assert (detection.format, detection.runs_code) == ("torch-export", False)
    loaded = load_original(detection, Trust())
    assert loaded.schema.inputs == (TensorSpec("input", "float32", (None, 4)),)
    assert loaded.schema.outputs == (TensorSpec("output", "float32", (None, 3)),)
    data = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    data.flags.writeable = False  # as arrays over a request's bytes are
    expected = module(torch.tensor(data)).detach().numpy()
    np.testing.assert_allclose(
        loaded.predictor.predict({"input": data})["output"], expected, rtol=1e-6
    )
    assert f"torch=={torch.__version__.split('+')[0]}" in loaded.requirements
    with pytest.raises(ScoringFailedError, match="model failed"):
        loaded.predictor.predict({"input": data[:, :3]})


def test_names_of_a_dict_and_fixed_sizes(tmp_path: Path) -> None:
    path = export(tmp_path, Two(), (torch.ones(2, 3), torch.ones(2, 3)))
    loaded = load_original(detect(path), Trust())
    assert [spec.shape for spec in loaded.schema.inputs] == [(2, 3), (2, 3)]
    assert loaded.schema.outputs == (
        TensorSpec("sum", "float32", (2, 3)),
        TensorSpec("rows", "float32", (2,)),
    )
    one = np.ones((2, 3), np.float32)
    answer = loaded.predictor.predict({"left": one, "right": one})
    assert answer["rows"].tolist() == [3, 3]
    assert answer["rows"].dtype == np.float32


class Evil:
    def __reduce__(self) -> Any:
        return os.system, ("true",)


def test_a_pickle_inside_an_exported_program_needs_trust(tmp_path: Path) -> None:
    path = export(tmp_path, net(), (torch.randn(2, 4),))
    evil = tmp_path / "evil.pt2"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(evil, "w") as target:
        for name in source.namelist():
            content = source.read(name)
            if name.endswith("sample_inputs/model.pt"):
                torch.save(Evil(), tmp_path / "payload")
                content = (tmp_path / "payload").read_bytes()
            target.writestr(name, content)
    detection = detect(evil)
    assert detection.runs_code
    with pytest.raises(UntrustedModelError, match="pickle"):
        load_original(detection, Trust())


def test_torchscript_is_asked_for_its_shape(script: Any) -> None:
    loaded = script(net())
    assert loaded.detection.format == "torchscript"
    assert loaded.schema.inputs == (TensorSpec("input", "float32", (None, 4)),)
    assert loaded.schema.outputs == (TensorSpec("output", "float32", (None, 3)),)
    assert loaded.predictor.predict({"input": np.zeros((1, 4), np.float32)})["output"].shape == (
        1,
        3,
    )


def test_pictures_of_any_size_and_of_one_size(script: Any) -> None:
    assert script(picture_net()).schema.inputs[0].shape == (None, 3, None, None)
    fixed = torch.nn.Sequential(
        torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(2 * 26 * 26, 2)
    )
    assert script(fixed).schema.inputs[0].shape == (None, 3, 28, 28)


def test_a_sample_tells_what_the_module_does_not(script: Any) -> None:
    class Plain(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, x: torch.Tensor) -> torch.Tensor:  # type: ignore[name-defined]
            return x.sum(dim=1)

    with pytest.raises(UnsupportedModelError, match="does not record") as caught:
        script(Plain())
    assert "--sample" in caught.value.hint
    loaded = script(Plain(), [[1.0, 2.0], [3.0, 4.0]])
    assert loaded.schema.inputs[0].dtype == "float32"
    assert loaded.schema.inputs[0].shape[0] is None
    with pytest.raises(UnsupportedModelError, match="fails on the sample"):
        script(net(), np.zeros((2, 7)))


def test_several_inputs_need_a_sample_with_names(script: Any) -> None:
    class Add(torch.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:  # type: ignore[name-defined]
            return a + b

    with pytest.raises(UnknownInputError, match="a, b"):
        script(Add(), [[1.0]])
    loaded = script(Add(), {"a": [[1.0]], "b": [[2.0]]})
    assert [spec.name for spec in loaded.schema.inputs] == ["a", "b"]


@pytest.mark.parametrize("legacy", [False, True])
def test_what_torch_save_writes_is_refused(tmp_path: Path, legacy: bool) -> None:
    options = {"_use_new_zipfile_serialization": not legacy}
    torch.save(net().state_dict(), tmp_path / "weights", **options)
    with pytest.raises(UnsupportedModelError, match="weights") as caught:
        detect(tmp_path / "weights")
    assert "torch.export.save" in caught.value.hint
    torch.save(net(), tmp_path / "module")
    with pytest.raises(UnsupportedModelError, match="pickled PyTorch module"):
        detect(tmp_path / "module")


def test_damaged_programs(tmp_path: Path) -> None:
    path = export(tmp_path, net(), (torch.randn(2, 4),))
    content = path.read_bytes()
    path.write_bytes(content.replace(b'"graph_module"', b'"graph_nodule"'))
    with pytest.raises(CorruptModelError, match="cannot read"):
        load_original(detect(path), Trust())
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(CorruptModelError, match="cut off"):
        detect(path)
