"""Builders, as far as none has to be started; tests/e2e/test_dockerfiles.py starts them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from scoring.errors import PackagingError, UsageError
from serve.packaging.builders import build_image, check_builder, image_name
from serve.packaging.images.finding import BaseFinder
from tests.unit.serve.packaging.conftest import Built

DIGEST = "sha256:0123456789abcdef" + "0" * 48


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("iris", "iris"),
        ("a..b__c", "a-b-c"),  # engines do not take runs of dots
        ("-Ümlaut-", "mlaut"),
        ("", "package"),
    ],
)
def test_images_are_named_by_model_and_package(title: str, name: str) -> None:
    assert image_name(title, DIGEST) == f"fieldpost/{name}:0123456789ab"


def test_an_unknown_builder_is_wrong_usage() -> None:
    with pytest.raises(UsageError, match="kaniko"):
        check_builder("kaniko")


def test_a_builder_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(UsageError, match="not installed"):
        check_builder("docker")


@pytest.mark.parametrize(
    ("script", "message", "hint"),
    [
        ("echo Cannot connect to the Docker daemon; exit 1", "status 1", "DOCKER_HOST"),
        ("for i in $(seq 50); do echo line $i; done; exit 3", "status 3", "dockerfile"),
        ("kill -9 $$", "signal 9", "dockerfile"),
    ],
)
def test_a_failure_shows_the_last_lines(
    built: Built,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    message: str,
    hint: str,
) -> None:
    program = tmp_path / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    seen: list[str] = []

    with pytest.raises(PackagingError, match=message) as caught:
        build_image(
            built.package.digest,
            built.blobs,
            BaseFinder(tmp_path, "base:1", {}),
            builder="docker",
            name="x:1",
            work=tmp_path / "work",
            progress=seen.append,
        )

    assert hint in (caught.value.hint or "")
    assert (caught.value.detail or "").splitlines() == seen[-12:]
    assert list((tmp_path / "work").iterdir()) == []
