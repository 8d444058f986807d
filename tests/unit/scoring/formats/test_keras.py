"""Keras models load without running code from their file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring.errors import (
    CorruptModelError,
    InputError,
    MissingDependencyError,
    UnsupportedModelError,
)
from scoring.formats.base import LoadedModel, Trust
from scoring.formats.detect import detect
from scoring.formats.load import load_original
from scoring.runtimes import keras as runtime
from scoring.schema import TensorSpec

pytest.importorskip("torch")
os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras")
# Keras's own, on its PyTorch backend under NumPy 2.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def load(folder: Path, model: Any) -> LoadedModel:
    model.save(folder / "model.keras")
    path = (folder / "model.keras").rename(folder / "model.bin")
    return load_original(detect(path), Trust())


def test_a_sequential_model(tmp_path: Path) -> None:
    model = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(3, activation="softmax")]
    )
    loaded = load(tmp_path, model)
    assert loaded.schema.inputs == (TensorSpec("X", "float32", (None, 4)),)
    assert loaded.schema.outputs == (TensorSpec("output", "float32", (None, 3)),)
    assert loaded.detection.made_with == {"keras": keras.__version__}
    data = np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32)
    np.testing.assert_allclose(
        loaded.predictor.predict({"X": data})["output"], model.predict(data, verbose=0), rtol=1e-5
    )
    assert {name.split("==")[0] for name in loaded.requirements} == {"numpy", "keras", "torch"}


def test_several_inputs_and_outputs_by_name(tmp_path: Path) -> None:
    left, right = keras.Input((2,), name="left"), keras.Input((3,), name="right")
    joined = keras.layers.Concatenate()([left, right])
    outputs = {"score": keras.layers.Dense(1)(joined), "classes": keras.layers.Dense(4)(joined)}
    for inputs in ([left, right], {"left": left, "right": right}):
        loaded = load(tmp_path, keras.Model(inputs, outputs))
        assert [(s.name, s.shape) for s in loaded.schema.inputs] == [
            ("left", (None, 2)),
            ("right", (None, 3)),
        ]
        assert {s.name: s.shape for s in loaded.schema.outputs} == {
            "score": (None, 1),
            "classes": (None, 4),
        }
        batch = {"left": np.zeros((2, 2), np.float32), "right": np.zeros((2, 3), np.float32)}
        assert loaded.predictor.predict(batch)["classes"].shape == (2, 4)


def test_code_in_the_file_never_runs(tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Lambda(lambda x: x * 2)])
    with pytest.raises(UnsupportedModelError, match="Lambda"):
        load(tmp_path, model)


def test_classes_of_the_users_own(tmp_path: Path) -> None:
    class Doubled(keras.layers.Layer):  # type: ignore[misc, name-defined]
        def call(self, x: Any) -> Any:
            return x * 2

    with pytest.raises(UnsupportedModelError, match="Doubled"):
        load(tmp_path, keras.Sequential([keras.layers.Input((4,)), Doubled()]))


@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_a_model_that_was_not_built(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="before it was built"):
        load(tmp_path, keras.Sequential([keras.layers.Dense(3)]))


def test_a_damaged_archive(tmp_path: Path) -> None:
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(3)])
    model.save(tmp_path / "model.keras")
    content = (tmp_path / "model.keras").read_bytes()
    path = tmp_path / "broken.keras"
    path.write_bytes(content.replace(b"\x89HDF\r\n\x1a\n", b"\x89XXX\r\n\x1a\n"))
    with pytest.raises(CorruptModelError, match="cannot be loaded"):
        load_original(detect(path), Trust())


def test_no_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match="torch, jax or tensorflow"):
        runtime.backend()
    monkeypatch.setattr(runtime, "find_spec", lambda name: object())
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    assert runtime.backend() == "jax"


def test_what_the_model_refuses_is_the_senders_to_mend(tmp_path: Path) -> None:
    layers = [keras.layers.Input((2,)), keras.layers.Embedding(4, 3), keras.layers.Flatten()]
    predictor = load(tmp_path, keras.Sequential(layers)).predictor
    rows = np.array([[0, 3], [1, 2], [9, 0]], np.float32)
    assert predictor.predict({"X": rows[:2]})["output"].shape == (2, 6)
    with pytest.raises(InputError, match="first in row 2") as caught:
        predictor.predict({"X": rows})
    assert "\x1b" not in caught.value.message
