from __future__ import annotations

from typing import Any

import msgspec

from scoring.schema import ModelSchema, TensorSpec
from serve.registry.diff import compare
from serve.registry.records import Change, FileRecord, ModelVersion


def version(**values: Any) -> ModelVersion:
    empty: dict[str, Any] = {
        "name": "iris",
        "version": 1,
        "digest": "sha256:x",
        **dict.fromkeys(("format", "runtime", "serves", "primary", "description"), ""),
        **dict.fromkeys(("files", "folders", "requirements", "native_requirements"), ()),
        **dict.fromkeys(("compiled", "schema", "compilation", "source_commit"), None),
        "made_with": {},
        "pickle_trusted": False,
        "trusted_types": (),
        "tags": {},
        "metrics": {},
        "created_at": "",
        "created_by": "",
        "source_dirty": None,
    }
    return ModelVersion(**(empty | values))


def file(path: str, digest: str, size: int = 1) -> FileRecord:
    return FileRecord(path=path, digest=digest, size=size)


def test_files() -> None:
    found = compare(
        version(files=(file("a", "1"), file("b", "1"), file("c", "1"))),
        version(files=(file("b", "1"), file("c", "2", 3), file("d", "1")), version=2),
    )
    assert [each.path for each in found.files_added] == ["d"]
    assert [each.path for each in found.files_removed] == ["a"]
    assert list(found.files_changed) == ["c"]
    assert found.files_changed["c"].after.size == 3
    assert (found.before, found.after, found.identical) == ("iris:1", "iris:2", False)


def test_schemas_by_the_names_of_their_tensors() -> None:
    def schema(*inputs: TensorSpec) -> ModelSchema:
        return ModelSchema(inputs=inputs, outputs=(TensorSpec("y", "int64", (None,)),))

    one = schema(TensorSpec("a", "float32", (None, 1)), TensorSpec("b", "string", (None, 1)))
    two = schema(TensorSpec("b", "string", (None, 1)), TensorSpec("a", "float64", (None, 1)))
    found = compare(version(schema=one), version(schema=two))
    assert found.schema == {
        "inputs.a.dtype": Change(before="float32", after="float64"),
    }
    assert compare(version(schema=one), version()).schema["inputs.b.dtype"].after is None


def test_requirements_by_package() -> None:
    found = compare(
        version(requirements=("NumPy==1.0", "old==1", "x[extra]==1")),
        version(requirements=("numpy==2.0", "new", "x[extra]==1")),
    )
    assert found.requirements == {
        "new": Change(before=None, after=""),
        "numpy": Change(before="==1.0", after="==2.0"),
        "old": Change(before="==1", after=None),
    }


def test_text_and_json_say_the_same() -> None:
    found = compare(
        version(files=(file("a", "1"),), metrics={"f1": 0.5}, tags={"t": "ü"}),
        version(files=(file("b", "2"),), metrics={"f1": 0.75}),
    )
    assert found.to_text().splitlines() == [
        "iris:1 and iris:1",
        "+ b  2",
        "- a  1",
        '~ tags.t  "ü" -> none',
        "~ metrics.f1  0.5 -> 0.75",
    ]
    assert msgspec.json.decode(msgspec.json.encode(found))["tags"]["t"]["before"] == "ü"
    assert compare(version(), version()).identical
