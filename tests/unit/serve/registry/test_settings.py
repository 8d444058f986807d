from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from scoring.errors import WorkspaceError

if TYPE_CHECKING:
    from serve.registry import Registry


class Policy(msgspec.Struct, frozen=True):
    keys: tuple[str, ...]


def test_settings_are_read_as_they_were_set_last(registry: Registry) -> None:
    assert registry.settings.get("policy", Policy) is None
    for keys in (("a",), ("b", "ü")):
        registry.settings.set("policy", Policy(keys))
        assert registry.settings.get("policy", Policy) == Policy(keys)
    registry.settings.remove("policy")
    registry.settings.remove("policy")
    assert registry.settings.get("policy", Policy) is None


def test_a_value_of_another_kind_is_told(registry: Registry) -> None:
    registry.settings.set("policy", 5)
    with pytest.raises(WorkspaceError, match="'policy'") as caught:
        registry.settings.get("policy", Policy)
    assert "Upgrade" in caught.value.hint
