"""Bases in registries, behind the mirrors of this machine's configuration."""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from serve.distribution.pushing import push
from serve.distribution.reference import parse_reference
from serve.packaging.images.basestore import BaseStore
from serve.packaging.images.registrybase import open_registry
from tests.support.oci import make_image, make_store
from tests.support.tiny_registry import Action, Handler, TinyRegistry

if TYPE_CHECKING:
    from pathlib import Path


def refuses(request: Handler) -> bool:
    request.error(403, "DENIED")
    return True


def lies(request: Handler) -> bool:
    document = {"schemaVersion": 2, "config": {}, "layers": []}
    headers = {"docker-content-digest": "sha256:" + "b" * 64}
    request.answer(200, json.dumps(document).encode(), headers)
    return True


@pytest.mark.parametrize("answer", [refuses, lies])
def test_a_mirror_that_fails_is_passed_over(
    answer: Action,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    image = make_image(make_store(tmp_path / "store"), [b"layer"])
    with TinyRegistry() as mirror, TinyRegistry() as origin:
        push(image.root, image.content, parse_reference(f"{origin.host}/team/base:1"))
        mirror.on("GET", "/manifests/", answer, times=9)
        conf = tmp_path / "registries.conf"
        conf.write_text(
            f'[[registry]]\nlocation = "{origin.host}"\n'
            f'[[registry.mirror]]\nlocation = "{mirror.host}"\n'
        )
        monkeypatch.setenv("CONTAINERS_REGISTRIES_CONF", str(conf))
        with caplog.at_level(logging.WARNING):
            base = open_registry(
                f"{origin.host}/team/base:1", "linux/amd64", BaseStore(tmp_path / "bases")
            )
        assert mirror.asked("GET", "/manifests/")
    assert base.digest == image.root.digest
    assert f"the mirror {mirror.host}/team/base has failed" in caplog.text
