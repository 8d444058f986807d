"""What `fieldpost package export` says to do next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from serve.bento.exporting import ExportedBento
from serve.cli.export import _how_to_run

if TYPE_CHECKING:
    from pathlib import Path


def exported(destination: str, *, stored: bool = False) -> ExportedBento:
    return ExportedBento("iris:0123", "sha256:0123", destination, stored=stored)


def test_a_folder_is_served_by_its_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "iris bento").mkdir()
    assert _how_to_run(exported("iris bento")) == f"bentoml serve '{tmp_path}/iris bento'"


def test_a_file_is_imported_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "iris.tar.gz").touch()
    command = f"bentoml import {tmp_path}/iris.tar.gz && bentoml serve iris:0123"
    assert _how_to_run(exported("iris.tar.gz")) == command


def test_one_in_the_store_is_served_by_its_tag() -> None:
    assert _how_to_run(exported("/store/iris/0123", stored=True)) == "bentoml serve iris:0123"
