"""The documents, judged by the libraries of SPDX and CycloneDX."""

from __future__ import annotations

import hashlib
import json
import tarfile
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from scoring.errors import DigestMismatchError, NotFoundError
from scoring.packages.documents import canonical_json
from serve import Workspace
from serve.provenance import local, slsa
from serve.provenance.artifacts import Subject
from serve.provenance.inventory import BaseFact
from serve.provenance.licences import read_metadata
from tests.support.small_packages import small_package

if TYPE_CHECKING:
    from pathlib import Path

    from tests.unit.serve.provenance.conftest import Made

IMAGE = Subject("sha256:" + "ab" * 32, 1234)
BASE = BaseFact("docker.io/library/python:3.11-slim", "sha256:" + "cd" * 32)

TWO_LICENCES = "\n".join(
    f"Classifier: License :: OSI Approved :: {name}"
    for name in ("MIT License", "Apache Software License")
)


def documents_of(made: Made, *, image: bool) -> Any:
    return local.documents(
        made.workspace.registry,
        made.package.digest,
        image=IMAGE if image else None,
        base=BASE if image else None,
    )


@pytest.mark.parametrize("image", [False, True])
def test_the_spdx_document_is_valid(made: Made, tmp_path: Path, image: bool) -> None:
    parsing = pytest.importorskip("spdx_tools.spdx.parser.parse_anything")
    from spdx_tools.spdx.validation.document_validator import validate_full_spdx_document

    path = tmp_path / "sbom.spdx.json"
    path.write_bytes(documents_of(made, image=image).spdx)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        document = parsing.parse_file(str(path))
        assert validate_full_spdx_document(document) == []
    names = {each.name: each for each in document.packages}
    assert {"iris", "numpy", "tenacity", "torch-x", "fieldpost"} <= set(names)
    assert (BASE.name in names) is image
    assert ("compiled/model.onnx" in names) is not image  # its provenance has it
    assert str(names["numpy"].license_declared) == "BSD-3-Clause"
    assert str(names["tenacity"].license_declared) == "Apache-2.0"
    assert names["torch-x"].license_comment == "The wheel says: Our own terms"
    assert names["torch-x"].version == "1.0"
    assert names["numpy"].checksums[0].value == "0" * 64


@pytest.mark.parametrize("image", [False, True])
def test_the_cyclonedx_document_is_valid(made: Made, image: bool) -> None:
    pytest.importorskip("cyclonedx.validation.json")
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    content = documents_of(made, image=image).cyclonedx
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(content.decode()) is None
    document = json.loads(content)
    root = document["metadata"]["component"]
    layers = {each.name: each for each in made.workspace.packages.describe(made.package).layers}
    subject = layers["env"].digest if image else made.package.digest
    assert root["hashes"] == [{"alg": "SHA-256", "content": subject.removeprefix("sha256:")}]
    components = {each["name"]: each for each in document["components"]}
    assert components["numpy"]["purl"] == "pkg:pypi/numpy@2.3.1"
    assert components["torch-x"]["purl"].startswith("pkg:pypi/torch-x@1.0?download_url=https%3A")
    assert (BASE.name in components) is image
    if image:
        assert "iris" not in components  # the same document for other models
        return
    model = components["iris"]
    assert model["type"] == "machine-learning-model"
    assert [each["name"] for each in model["components"]] == ["compiled/model.onnx"]
    assert {"name": "fieldpost:format", "value": "onnx"} in model["properties"]


def sha256_of_the_lock(made: Made) -> str:
    """Of the file in the environment's layer, by nothing of ours."""
    layers = made.workspace.packages.describe(made.package).layers
    (digest,) = [each.digest for each in layers if each.name == "env"]
    with tarfile.open(made.workspace.registry.blobs.path(digest)) as archive:
        file = archive.extractfile("opt/fieldpost/env/requirements.lock")
        assert file is not None
        return hashlib.sha256(file.read()).hexdigest()


def test_the_provenance_names_what_it_was_built_from(made: Made) -> None:
    statement = json.loads(made.workspace.packages.provenance(made.package))
    assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    hexadecimal = made.package.digest.removeprefix("sha256:")
    assert statement["subject"] == [{"name": "iris:1", "digest": {"sha256": hexadecimal}}]
    definition = statement["predicate"]["buildDefinition"]
    assert definition["externalParameters"]["model"] == "iris:1"
    assert definition["externalParameters"]["platform"] == "linux/amd64"
    materials = {each["name"]: each["digest"] for each in definition["resolvedDependencies"]}
    assert materials["env/requirements.lock"] == {"sha256": sha256_of_the_lock(made)}
    assert "model/compiled/model.onnx" in materials
    details = statement["predicate"]["runDetails"]
    assert details["builder"]["id"].startswith("https://")
    times = details["metadata"]
    assert times["startedOn"].endswith("Z")
    assert times["startedOn"] <= times["finishedOn"]


def test_the_provenance_of_an_image_adds_its_base(made: Made) -> None:
    statement = json.loads(documents_of(made, image=True).provenance)
    digests = {each["digest"]["sha256"] for each in statement["subject"]}
    assert digests == {"ab" * 32, made.package.digest.removeprefix("sha256:")}
    materials = statement["predicate"]["buildDefinition"]["resolvedDependencies"]
    (base,) = [each for each in materials if each["name"] == "base"]
    assert base["digest"] == {"sha256": "cd" * 32}


def test_the_provenance_of_a_package_comes_back_from_its_images(made: Made) -> None:
    own = made.workspace.packages.provenance(made.package)
    told = documents_of(made, image=True).provenance
    assert slsa.for_package(told, made.package.digest) == own
    assert slsa.for_package(told, "sha256:" + "12" * 32) is None
    # For a package that was built for a base of its own, too.
    document = json.loads(own)
    definition = document["predicate"]["buildDefinition"]
    definition["externalParameters"]["base"] = "a.example:5000/b@sha256:" + "ef" * 32
    definition["resolvedDependencies"].append(
        {
            "digest": {"sha256": "ef" * 32},
            "name": "base",
            "uri": "pkg:oci/b@sha256%3A" + "ef" * 32,
        }
    )
    based = canonical_json(document)
    told = slsa.for_image(based, IMAGE.digest, (BASE.name, BASE.digest))
    assert slsa.for_package(told, made.package.digest) == based


@pytest.mark.parametrize("definition", [None, 5, {"resolvedDependencies": [1, {}, "x"]}])
def test_what_others_wrote_as_provenance_is_no_defect(definition: object) -> None:
    predicate = {"buildDefinition": definition}
    odd = slsa.statement(slsa.PREDICATE, predicate, {"x": IMAGE.digest})
    told = slsa.for_image(odd, "sha256:" + "12" * 32, (BASE.name, BASE.digest))
    assert slsa.for_package(told, IMAGE.digest) is not None


def test_the_builder_can_name_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FIELDPOST_BUILDER_ID", "https://ci.example/builders/7")
    with Workspace(tmp_path / "ws") as workspace:
        package = small_package(workspace, tmp_path)
        statement = json.loads(workspace.packages.provenance(package))
    builder = statement["predicate"]["runDetails"]["builder"]
    assert builder["id"] == "https://ci.example/builders/7"


def test_sboms_are_the_same_wherever_and_whenever_they_are_made(made: Made, tmp_path: Path) -> None:
    here = made.workspace.packages.documents(made.package)
    (tmp_path / "there").mkdir()
    with Workspace(tmp_path / "there" / "workspace") as other:
        package = small_package(other, tmp_path / "there")
        there = other.packages.documents(package)
    assert package.digest == made.package.digest
    assert (here.spdx, here.cyclonedx) == (there.spdx, there.cyclonedx)


def test_a_second_build_keeps_the_first_ones_provenance(made: Made, tmp_path: Path) -> None:
    before = made.workspace.packages.provenance(made.package)
    again = small_package(made.workspace, tmp_path)
    assert again.model_version != made.package.model_version or again == made.package
    assert made.workspace.packages.provenance(made.package) == before


def test_a_damaged_layer_has_no_sbom(made: Made) -> None:
    blobs = made.workspace.registry.blobs
    (layer,) = [
        each for each in made.workspace.packages.describe(made.package).layers if each.name == "env"
    ]
    path = blobs.path(layer.digest)
    path.chmod(0o644)
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DigestMismatchError, match="damaged"):
        made.workspace.packages.documents(made.package)


def test_a_package_without_provenance_says_so(made: Made) -> None:
    registry = made.workspace.registry
    registry.referrers.remove(registry.referrers.list(made.package.digest))
    with pytest.raises(NotFoundError, match="has no provenance"):
        made.workspace.packages.provenance(made.package)
    assert made.workspace.packages.documents(made.package).provenance is None


@pytest.mark.parametrize(
    ("headers", "licence", "text"),
    [
        ("License-Expression: mit OR apache-2.0", "MIT OR Apache-2.0", ""),
        ("License: BSD 3-Clause License", "BSD-3-Clause", ""),
        ("License: MIT", "MIT", ""),
        ("License-Expression: not-a-licence\nLicense: ISC", "ISC", ""),
        ("Classifier: License :: OSI Approved :: MIT License", "MIT", ""),
        ("Classifier: License :: OSI Approved :: BSD License", "", "BSD License"),
        (
            TWO_LICENCES,
            "",
            "Apache Software License, MIT License",
        ),
        ("License: " + "x" * 5000, "", "x" * 200),
        ("Summary: nothing", "", ""),
    ],
)
def test_licences_are_told_only_where_they_are_certain(
    headers: str, licence: str, text: str
) -> None:
    found = read_metadata(f"Name: A_b\nVersion: 1\n{headers}\n".encode())
    assert (found.name, found.version) == ("a-b", "1")
    assert (found.licence, found.licence_text) == (licence, text)
