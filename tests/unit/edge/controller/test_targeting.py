"""Which deployments apply to a device."""

from __future__ import annotations

from typing import Any

from edge.controller.conditions import Subject
from edge.controller.entities import Revision
from edge.controller.targeting import Candidate, choose
from edge.protocol.messages import Module, Window

DEVICE = Subject("d", "s", {"area": "yard"}, {})


def candidate(name: str, made: int, priority: int = 0, **more: Any) -> Candidate:
    modules = more.pop("modules", ("main",))
    given: dict[str, Any] = {
        "deployment": name,
        "number": 1,
        "condition": "*",
        "priority": priority,
        "modules": {one: Module(package="sha256:" + f"{made:064x}") for one in modules},
    }
    return Candidate(Revision(**(given | more)), made)


def applied(*candidates: Candidate) -> list[str]:
    return [one.deployment for one in choose(DEVICE, candidates).applied]


def test_the_highest_priority_wins_then_the_newest() -> None:
    low, high, newer = candidate("low", 9, 1), candidate("high", 1, 5), candidate("newer", 2, 5)
    assert applied(low, high) == ["high"]
    assert applied(low, newer, high) == ["newer"]
    assert applied() == []
    assert applied(low, candidate("other", 10, 9, condition="site = 'x'")) == ["low"]


def test_layers_add_modules_and_the_higher_one_has_them() -> None:
    base = candidate("base", 1, 5, modules=("main", "log"))
    above = candidate("above", 2, 9, layer=True, modules=("log", "probe"))
    below = candidate("below", 3, 1, layer=True, modules=("main", "extra"))
    choice = choose(DEVICE, [below, base, above])
    assert [one.deployment for one in choice.applied] == ["above", "base", "below"]
    assert choice.owners == {"main": "base", "log": "above", "probe": "above", "extra": "below"}
    assert choice.modules["log"] == above.revision.modules["log"]


def test_a_layer_alone_is_enough() -> None:
    assert applied(candidate("layer", 1, layer=True)) == ["layer"]


def test_windows_and_rates_are_those_of_the_highest_that_has_some() -> None:
    window = Window(begins=60, ends=120)
    base = candidate("base", 1, 1, window=window, rate=10)
    top = candidate("top", 2, 2, layer=True, rate=5)
    choice = choose(DEVICE, [base, top])
    assert (choice.window, choice.rate) == (window, 5)
