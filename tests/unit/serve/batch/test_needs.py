"""What pods would miss is told before there is a Job."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from scoring.batch.records import Options
from scoring.errors import MissingDependencyError
from serve import Workspace
from serve.batch.needs import needed
from tests.support import small_packages

IMAGE = f"registry.example/iris@sha256:{'a' * 64}"


@pytest.mark.parametrize(
    ("source", "output", "more", "wanted"),
    [
        ("/d/rows.csv", "/d/out", {}, ()),
        ("/d/rows.csv.gz", "/d/out.jsonl", {}, ()),
        ("/d/rows/*.parquet", "/d/out", {}, ("pyarrow",)),
        ("/d/rows", "/d/out", {"input_format": "parquet"}, ("pyarrow",)),
        ("/d/rows.csv", "/d/out.pq", {}, ("pyarrow",)),
        ("/d/rows.csv", "/d/out", {"output_format": "parquet"}, ("pyarrow",)),
        ("s3://b/rows.csv", "/d/out", {}, ("fsspec", "s3fs")),
        ("/d/rows.csv", "gs://b/out.parquet", {}, ("fsspec", "gcsfs", "pyarrow")),
        ("memory://b/rows.csv", "local:///out", {}, ("fsspec",)),
        ("file:///d/rows.csv", "/d/out", {}, ()),
    ],
)
def test_names_tell_what_is_needed(
    source: str, output: str, more: dict[str, Any], wanted: tuple[str, ...]
) -> None:
    assert needed(Options(input=source, output=output, **more)) == wanted


def submit(workspace: Workspace, package: str, source: str) -> list[dict[str, Any]]:
    settings = {"image": IMAGE, "volumes": "claim:/d"}
    _, objects = workspace.batch.submit(package, source, "/d/out", settings=settings, dry_run=True)
    return objects


def test_a_package_without_it_makes_no_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Workspace(tmp_path / "ws") as workspace:
        bare = small_packages.small_package(workspace, tmp_path).digest
        with pytest.raises(MissingDependencyError, match="lacks pyarrow") as caught:
            submit(workspace, bare, "/d/rows.parquet")
        assert "env register" in caught.value.hint
        assert submit(workspace, bare, "/d/rows.csv")
        monkeypatch.setitem(small_packages.WHEELS, "pyarrow", ("20.0.0", "License: Apache"))
        able = small_packages.small_package(workspace, tmp_path, content=b"others").digest
        assert submit(workspace, able, "/d/rows.parquet")
        with pytest.raises(MissingDependencyError, match="lacks fsspec, s3fs,"):
            submit(workspace, able, "s3://b/rows.parquet")
