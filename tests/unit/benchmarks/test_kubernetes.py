"""The benchmark of the control path measures what it says."""

from __future__ import annotations

from benchmarks import kubernetes


def test_it_renders_and_compares_every_object() -> None:
    render_s, equal_s, changed_s, objects = kubernetes.measure(3)
    assert objects == 3 * 10
    assert min(render_s, equal_s, changed_s) >= 0


def test_a_revision_changes_every_object_of_a_deployment() -> None:
    (one,), (other,) = kubernetes.deployables(1, 1), kubernetes.deployables(1, 2)
    assert one.name == other.name
    assert one.package.digest != other.package.digest
