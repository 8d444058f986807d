"""On disk: a workspace of an earlier release opens, and a new one is laid out alike."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from serve.registry import Registry

FIRST = Path(__file__).parent / "layout_1.sql"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    folder = tmp_path / "old"
    folder.mkdir()
    with closing(sqlite3.connect(folder / "fieldpost.db")) as database:
        database.executescript(FIRST.read_text())
    return folder


def layout(folder: Path) -> dict[str, object]:
    """Columns, keys and indexes of all tables, in an order that does not matter."""
    with closing(sqlite3.connect(folder / "fieldpost.db")) as database:

        def ask(pragma: str, name: str) -> list[tuple[str, ...]]:
            return sorted(
                # The first column is a number that only says what was written first.
                tuple(map(str, row[1:]))
                for row in database.execute(f"PRAGMA {pragma}({name})")
            )

        tables = [
            name
            for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        ]
        indexes = {
            index: ask("index_info", index)
            for table in tables
            for index, *_ in ask("index_list", table)
        }
        kinds = ("table_info", "foreign_key_list", "index_list")
        return {"indexes": indexes} | {
            table: {kind: ask(kind, table) for kind in kinds} for table in tables
        }


def test_a_workspace_of_the_first_release_is_brought_to_the_layout_of_a_new_one(
    old: Path, tmp_path: Path
) -> None:
    for folder in (old, tmp_path / "new"):
        Registry(folder).close()
    assert layout(tmp_path / "new") == layout(old)


def test_a_workspace_of_the_first_release_is_read_and_written(old: Path, tmp_path: Path) -> None:
    source = tmp_path / "m"
    source.write_bytes(b"m")
    with Registry(old) as registry:
        (model,) = registry.models.list(tags={"k": "v", "k2": None})
        assert (model.ref, model.tags, model.metrics) == (
            "iris:1",
            {"k": "v", "k2": "w"},
            {"a": 1.5},
        )
        assert (model.source_commit, model.source_dirty) == ("c" * 40, True)
        assert [file.path for file in model.files] == ["iris.onnx"]
        assert model.compiled is not None
        assert registry.environments.get("h1").ref == "e:1"
        package = registry.packages.get("iris:1")
        assert [blob.size for blob in package.blobs] == [5]
        deployment = registry.deployments.get("web")
        assert deployment.active_revision is not None
        assert deployment.active_revision.package == package.digest
        assert registry.models.used_by(model) == ["web"]
        assert registry.models.register("iris", source, prepared={}).version == 2
