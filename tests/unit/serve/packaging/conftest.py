"""A package that is built once, for all tests of packages."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pytest

from scoring.bundle import Bundle
from scoring.schema import ModelSchema, TensorSpec
from serve.packaging.build import BuiltPackage, build_package
from serve.packaging.cache import LayerCache
from serve.packaging.defaults import default_lock
from serve.packaging.plan import BuildPlan, ModelFile
from serve.packaging.requirements import target_for
from serve.registry.blobs import BlobStore

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Built:
    """A package of a small ONNX model with the default environment, and where it is."""

    package: BuiltPackage
    plan: BuildPlan
    blobs: BlobStore
    cache: LayerCache
    model: bytes


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return make_store(tmp_path / "store")


@pytest.fixture
def cache(tmp_path: Path) -> LayerCache:
    return LayerCache(tmp_path / "cache" / "layers")


def make_store(folder: Path) -> BlobStore:
    store = BlobStore(folder)
    store.create()
    return store


@pytest.fixture(scope="session")
def onnx_model() -> bytes:
    """A logistic regression on two features, compiled."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from skl2onnx import to_onnx
        from sklearn.linear_model import LogisticRegression

        rows = np.array([[0.0, 0.1], [1.0, 0.9], [0.2, 0.0], [0.8, 1.0]], dtype=np.float32)
        model = LogisticRegression().fit(rows, [0, 1, 0, 1])
        return bytes(to_onnx(model, rows, options={"zipmap": False}).SerializeToString())


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory, onnx_model: bytes) -> Built:
    folder = tmp_path_factory.mktemp("built")
    blobs, cache = make_store(folder / "store"), LayerCache(folder / "cache" / "layers")
    plan = plan_for(onnx_model, blobs)
    return Built(build_package(plan, blobs, cache), plan, blobs, cache, onnx_model)


def plan_for(model: bytes, blobs: BlobStore) -> BuildPlan:
    stored = blobs.put_bytes(model)
    schema = ModelSchema(inputs=(TensorSpec("X", "float32", (None, 2)),), outputs=())
    return BuildPlan(
        bundle=Bundle(
            name="iris",
            model_version=3,
            runtime="onnx",
            format="sklearn-joblib",
            model_path="compiled/model.onnx",
            schema=schema,
        ),
        lock=default_lock("onnx", target_for(None)),
        model_files=(ModelFile("compiled/model.onnx", stored.digest, stored.size),),
        model_digest=stored.digest,
    )
