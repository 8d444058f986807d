"""The same tests on both databases."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from serve.registry import Registry
from serve.registry.records import ModelVersion, Package

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where a workspace may be: what `Registry` takes."""
    if request.param == "sqlite":
        return str(tmp_path / "workspace")
    url: str = request.getfixturevalue("postgresql").url(tmp_path / "blobs")
    return url


@pytest.fixture
def registry(place: str) -> Iterator[Registry]:
    with Registry(place) as opened:
        yield opened


Register = Callable[..., ModelVersion]


@pytest.fixture
def register(registry: Registry, tmp_path: Path) -> Register:
    """Registers a file with the given content."""

    def register(name: str = "iris", content: bytes = b"model", **values: object) -> ModelVersion:
        source = tmp_path / "model.onnx"
        source.write_bytes(content)
        arguments: dict[str, object] = {"prepared": {"format": "onnx"}} | values
        return registry.models.register(name, source, **arguments)  # type: ignore[arg-type]

    return register


@pytest.fixture
def package(registry: Registry, register: Register) -> Callable[..., Package]:
    """Records a package of a model version that is registered for it."""

    def package(model: ModelVersion | None = None, content: bytes = b"layer") -> Package:
        version = model or register()
        layer = registry.blobs.put_bytes(content)
        return registry.packages.register(
            b'{"layer": "%s"}' % layer.digest.encode(),
            [layer],
            model=version.name,
            model_version=version.version,
            environment="sha256:env",
            platform="linux/amd64",
        )

    return package
