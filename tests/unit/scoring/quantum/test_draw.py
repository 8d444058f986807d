"""Drawings of circuits."""

from __future__ import annotations

from xml.dom import minidom

import pytest

from scoring.quantum.circuit import Circuit, Gate
from scoring.quantum.draw import to_svg, to_text
from tests.support.circuits import against_rest, random_circuit

SMALL = Circuit(
    3,
    (Gate(0, "X", 0), Gate(2, "Y", 1), Gate(0, "Z", 0, (2,)), Gate(1, "I", 1, (2,))),
    (0.5, 1.25),
    measured=(1, 2),
    classes=("a", "b", "c"),
)


def test_a_circuit_as_text() -> None:
    assert to_text(SMALL) == (
        "q0: ─RX(0.5)───RZ(0.5)─────────────\n"
        "                  │\n"
        "q1: ──────────────┼────Ph(1.25)───M0\n"
        "                  │        │\n"
        "q2: ─RY(1.25)─────●────────●──────M1\n"
    )


def test_every_gate_is_drawn_once_with_its_controls() -> None:
    circuit = random_circuit(5, 40, 0)
    text = to_text(circuit, angles=False, width=10_000)
    assert text.count("●") == sum(len(gate.controls) for gate in circuit.gates)
    assert sum(text.count(f"{name}(θ") for name in ("RX", "RY", "RZ", "Ph")) == 40
    lines = text.splitlines()
    assert len({len(line) for line in lines[::2]}) == 1
    for place, line in enumerate(lines):
        for column, character in enumerate(line):
            if character == "│":
                ends = lines[place - 1][column], lines[place + 1][column]
                assert all(end not in " ─" for end in ends), (place, column)


def test_long_circuits_go_on_in_further_bands() -> None:
    circuit = random_circuit(3, 60, 0)
    text = to_text(circuit, width=80)
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("q0:") > 1
    assert text.count("─M\n") + text.endswith("─M") == 1


@pytest.mark.parametrize("model", [SMALL, random_circuit(6, 30, 1), against_rest()])
def test_svg_is_well_formed_and_complete(model: Circuit) -> None:
    document = minidom.parseString(to_svg(model))
    gates = document.getElementsByTagName("circle")
    circuits = getattr(model, "circuits", (model,))
    assert len(gates) == sum(len(gate.controls) for each in circuits for gate in each.gates)
    boxes = document.getElementsByTagName("rect")
    assert len(boxes) == sum(len(each.gates) + len(each.measured) for each in circuits)


def test_labels_are_escaped() -> None:
    model = against_rest()
    named = type(model)(model.circuits, ("<script>", "&", "c"))
    assert "<script>" not in to_svg(named)
    minidom.parseString(to_svg(named))
    assert to_text(named).startswith("<script>:")


def test_a_circuit_without_gates() -> None:
    assert "q1: ─" in to_text(Circuit(2, (), ()))
    minidom.parseString(to_svg(Circuit(1, (), ())))
