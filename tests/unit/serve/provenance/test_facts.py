"""What a build keeps of its layers is what anybody would read in them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from scoring.bundle import Bundle
from scoring.packages.reading import read_package
from serve.packaging.build import build_package
from serve.packaging.cache import LayerCache
from serve.packaging.contents import environment_entries
from serve.packaging.layers import write_layer
from serve.packaging.plan import BuildPlan, ModelFile
from serve.provenance import facts, layers, recording
from tests.support.small_packages import small_lock

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.serve.provenance.conftest import Made


def test_of_a_model(made: Made, tmp_path: Path) -> None:
    registry = made.workspace.registry
    blobs = [registry.blobs.put_bytes(data) for data in (b"two", b"one")]
    plan = BuildPlan(
        bundle=Bundle(name="iris", model_version=1, runtime="onnx", model_path="b/model.onnx"),
        lock=small_lock(),
        model_files=tuple(
            ModelFile(path, blob.digest, blob.size)
            for path, blob in zip(("b/model.onnx", "a.bin"), blobs, strict=True)
        ),
    )
    cache = LayerCache(tmp_path / "other-layers")
    cache.record(plan.environment_key, write_layer([], registry.blobs))
    built = build_package(plan, registry.blobs, cache)
    model = read_package(built.digest, registry.blobs).layers[-1]
    recording.keep_model(registry, plan, model.digest)
    kept = facts.find(facts.folder(registry.location.blobs), model.digest, facts.ModelFacts)
    assert kept == layers.read_model(model, registry.blobs)


def test_of_an_environment(made: Made, tmp_path: Path) -> None:
    registry = made.workspace.registry
    site = tmp_path / "installed"
    for name in ("b_pack-1.dist-info", "a_pack-2.dist-info"):
        (site / name).mkdir(parents=True)
        stem, version = name.removesuffix(".dist-info").split("-")
        text = f"Name: {stem}\nVersion: {version}\nLicense: MIT License\n"
        (site / name / "METADATA").write_text(text)
    (site / "a_pack" / "inner.dist-info").mkdir(parents=True)  # vendored: not installed
    (site / "a_pack" / "inner.dist-info" / "METADATA").write_text("Name: x\nVersion: 1\n")
    plan = BuildPlan(bundle=Bundle(name="iris", runtime="onnx"), lock=small_lock())
    layer = write_layer(environment_entries(plan.lock, site), registry.blobs)
    recording.keep_environment(registry, plan, layer.digest, site)
    kept = facts.find(facts.folder(registry.location.blobs), layer.digest, facts.EnvironmentFacts)
    package = read_package(made.package.digest, registry.blobs)
    read = type(package.layers[0])("env", layer.digest, layer.size, layer.diff_id)
    assert kept == layers.read_environment(read, registry.blobs)
    assert kept is not None
    assert [each.name for each in kept.distributions] == ["a-pack", "b-pack"]


def test_damaged_facts_are_none(tmp_path: Path) -> None:
    digest = f"sha256:{'a' * 64}"
    assert facts.find(tmp_path, digest, facts.ModelFacts) is None
    facts.keep(tmp_path, digest, facts.EnvironmentFacts("", ()))
    assert facts.find(tmp_path, digest, facts.EnvironmentFacts) is not None
    assert facts.find(tmp_path, digest, facts.ModelFacts) is None
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"")  # what a crash may leave of what nobody waited for
    assert facts.find(tmp_path, digest, facts.EnvironmentFacts) is None
