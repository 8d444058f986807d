"""Which form is chosen, and what is said of it."""

from __future__ import annotations

import pytest

from scoring.quantum import memory
from scoring.quantum.compile.choose import Part, choose, describe
from scoring.quantum.features import Encoding
from tests.support.circuits import random_circuit


def never(_part: Part) -> float:
    raise AssertionError("the size decides")


@pytest.mark.parametrize(("qubits", "form"), [(1, "folded"), (9, "folded"), (12, "fused")])
def test_small_circuits_fold_and_large_ones_fuse(qubits: int, form: str) -> None:
    part = choose(random_circuit(qubits, 20, 0, most_controls=1), "auto", never)
    assert part.form == form
    assert str({"folded": 9, "fused": 12}[form]) in part.reason


@pytest.mark.parametrize(("faster", "slower"), [("folded", "fused"), ("fused", "folded")])
@pytest.mark.parametrize("qubits", [10, 11])
def test_between_them_the_clock_decides(qubits: int, faster: str, slower: str) -> None:
    rates = {faster: 2000.0, slower: 1000.0}
    circuit = random_circuit(qubits, 20, 0, most_controls=1)
    part = choose(circuit, "auto", lambda part: rates[part.form])
    assert part.form == faster
    assert f"{faster} 2,000" in part.reason
    assert f"{slower} 1,000" in part.reason


def test_few_features_on_many_qubits_fold() -> None:
    circuit = random_circuit(11, 20, 0, most_controls=1, encoding=Encoding(20))
    assert choose(circuit, "auto", never).form == "folded"


@pytest.mark.parametrize("form", ["folded", "fused"])
def test_a_form_may_be_asked_for(form: str) -> None:
    part = choose(random_circuit(6, 20, 0), form, never)  # type: ignore[arg-type]
    assert part.form == form
    assert part.reason == "It was asked for."


def test_what_cannot_be_folded_is_fused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 1 << 20)
    part = choose(random_circuit(10, 20, 0, most_controls=1), "auto", never)
    assert part.form == "fused"
    assert "does not fit" in part.reason


def test_what_was_chosen_is_told() -> None:
    part = choose(random_circuit(3, 40, 0, axes="XYZ", most_controls=1), "auto", never)
    assert describe([part]).startswith("Folded into 8x8 matrix, 0.5 kB. Up to 9 qubits")
    assert "(first of 2 circuits)" in describe([part, part])
    large = choose(random_circuit(13, 20, 0, most_controls=1), "auto", never)
    assert "blocks" in describe([large])
