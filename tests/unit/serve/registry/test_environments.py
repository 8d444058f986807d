from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from scoring.errors import InvalidNameError, NotFoundError

if TYPE_CHECKING:
    from serve.registry import Registry
    from serve.registry.records import Environment


def add(registry: Registry, name: str, lock: bytes, hash_: str = "sha256:aa") -> Environment:
    return registry.environments.register(
        name,
        lock,
        hash=hash_,
        source_kind="requirements",
        platform="x86_64-manylinux_2_28",
        python="3.11",
        created_by="ann",
    )


def test_an_environment_is_found_by_name_version_and_hash(registry: Registry) -> None:
    first = add(registry, "base", b"numpy==2.0", "sha256:aa")
    second = add(registry, "base", b"numpy==2.1", "sha256:bb")
    assert (first.ref, second.ref) == ("base:1", "base:2")
    for ref in ("base", "base:latest", "base:2", "sha256:bb"):
        assert registry.environments.get(ref) == second
    assert registry.environments.get("base:1") == first
    assert registry.environments.lock(first) == b"numpy==2.0"
    assert first.to_dict()["source_kind"] == "requirements"


def test_the_same_hash_under_one_name_is_the_same_version(registry: Registry) -> None:
    first = add(registry, "base", b"a")
    assert add(registry, "base", b"a") == first
    assert add(registry, "other", b"a").version == 1
    assert [each.ref for each in registry.environments.list()] == ["base:1", "other:1"]
    assert [each.ref for each in registry.environments.list("other")] == ["other:1"]


def test_what_names_nothing(registry: Registry) -> None:
    with pytest.raises(NotFoundError) as caught:
        registry.environments.get("base")
    assert "env register" in caught.value.hint
    add(registry, "base", b"a")
    with pytest.raises(NotFoundError) as caught:
        registry.environments.get("base:9")
    assert "base:1" in caught.value.hint
    for ref in ("Base", "sha256:zz", "x" * 1000):
        with pytest.raises(InvalidNameError):
            registry.environments.get(ref)


@pytest.mark.parametrize(("name", "hash_"), [("A", "h"), ("a", ""), ("a", "x" * 129), ("a", "é")])
def test_what_has_not_the_right_form(registry: Registry, name: str, hash_: str) -> None:
    with pytest.raises(InvalidNameError):
        add(registry, name, b"", hash_)
    assert registry.blobs.digests() == []
