"""What a circuit refuses, each with its own message and place; and that it needs no numpy."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from scoring.errors import CircuitError
from scoring.quantum.circuit import (
    Circuit,
    Gate,
    OneVersusRest,
    parameters_needed,
    qubits_needed,
)
from scoring.quantum.features import Encoding

X0 = Gate(0, "X", 0)
NAN = float("nan")


def make(**other: Any) -> Circuit:
    given: dict[str, Any] = {"qubits": 2, "gates": (X0,), "parameters": (0.5,)}
    return Circuit(**(given | other))


def test_what_is_not_said_is_the_librarys() -> None:
    circuit = make()
    assert circuit.measured == (1,)
    assert circuit.classes == (0, 1)
    assert circuit.encoding == Encoding(4)
    assert circuit.bias == 0.0
    assert circuit.size == 4
    assert circuit.is_binary


@pytest.mark.parametrize(
    ("given", "message", "where"),
    [
        ({"qubits": 0}, "0 qubits", "qubits"),
        ({"qubits": 31}, "31 qubits", "qubits"),
        ({"qubits": True}, "True qubits", "qubits"),
        ({"gates": (Gate(2, "X", 0),)}, "Qubit 2 is not on the register of 2", "gates[0].target"),
        ({"gates": (X0, Gate(-1, "X", 0))}, "Qubit -1", "gates[1].target"),
        ({"gates": (Gate(0, "X", 0, (5,)),)}, "Qubit 5", "gates[0].controls"),
        ({"gates": (Gate(0, "X", 0, (0,)),)}, "controlled by its own target", "gates[0]"),
        ({"qubits": 3, "gates": (Gate(0, "X", 0, (1, 1)),)}, "a control twice", "gates[0]"),
        ({"gates": (Gate(0, "W", 0),)}, "'W' is not known", "gates[0].axis"),
        ({"gates": (Gate(0, "X", -1),)}, "no place of a parameter", "gates[0].parameter"),
        ({"gates": (Gate(0, "X", 3),)}, "Parameters are missing: the gates name 4", "parameters"),
        ({"parameters": (1.0, 2.0)}, "too many parameters", "parameters"),
        ({"gates": (), "parameters": (1.0,)}, "too many parameters", "parameters"),
        ({"parameters": (NAN,)}, "Number 0 of the parameters is nan", ""),
        ({"parameters": ("x",)}, "Number 0 of the parameters", ""),
        ({"parameters": (10**400,)}, "Number 0 of the parameters", ""),
        ({"bias": float("inf")}, "bias is inf", ""),
        ({"measured": (2,)}, "Qubit 2", "measured"),
        ({"measured": (0, 0)}, "measured twice", "measured"),
        ({"classes": (0,)}, "cannot have 1 classes", "classes"),
        ({"classes": (0, 0)}, "named twice", "classes"),
        ({"classes": (0, 2**63)}, "is no whole number of 64 bits", "classes"),
        ({"classes": (0, "a")}, "not all whole numbers", "classes"),
        ({"classes": (0.5, 1.5)}, "not all whole numbers", "classes"),
        ({"classes": (0, 1, 2)}, "cannot tell 3 classes apart", "classes"),
        ({"measured": (0, 1), "bias": 0.1}, "several qubits", "bias"),
        ({"encoding": Encoding(5)}, "5 features (after the encoding's steps) need 3", "features"),
    ],
)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str, where: str) -> None:
    with pytest.raises(CircuitError) as caught:
        make(**given)
    assert message in str(caught.value)
    assert caught.value.where == where


def test_other_angles_are_checked_as_well() -> None:
    circuit = make()
    assert circuit.at([2.0]).parameters == (2.0,)
    assert circuit.at([2.0], 0.25).bias == 0.25
    with pytest.raises(CircuitError, match="missing"):
        circuit.at([])
    with pytest.raises(CircuitError, match="Number 0 of the parameters is nan"):
        circuit.at([NAN])


def test_minus_zero_is_zero() -> None:
    assert str(make(parameters=(-0.0,), bias=-0.0).parameters[0]) == "0.0"


@pytest.mark.parametrize(
    ("gates", "real"),
    [
        ([Gate(0, "Y", 0), Gate(1, "Y", 0, (0,))], True),
        ([Gate(0, "I", 0)], True),
        ([Gate(0, "I", 0, (1,))], False),
        ([Gate(0, "X", 0)], False),
    ],
)
def test_rotations_about_y_alone_are_real(gates: list[Gate], real: bool) -> None:
    assert make(gates=gates).is_real is real


def test_what_gates_need() -> None:
    gates = [Gate(1, "X", 4, (3,)), Gate(0, "Y", 2)]
    assert qubits_needed(gates) == 4
    assert parameters_needed(gates) == 5
    assert qubits_needed([]) == 1
    assert parameters_needed([]) == 0


def test_one_against_rest_needs_a_circuit_for_each_class() -> None:
    one = make()
    model = OneVersusRest((one, one, one), ("a", "b", "c"))
    assert model.features == 4
    with pytest.raises(CircuitError, match="2 circuits were given for 3"):
        OneVersusRest((one, one), ("a", "b", "c"))
    both = make(measured=(0, 1))
    with pytest.raises(CircuitError, match="measures several") as caught:
        OneVersusRest((one, both), ("a", "b"))
    assert caught.value.where == "circuits[1]"
    narrow = make(encoding=Encoding(3))
    with pytest.raises(CircuitError, match="different lengths"):
        OneVersusRest((one, narrow), ("a", "b"))


def test_a_register_larger_than_memory_can_be_described() -> None:
    assert Circuit(30, (), (), encoding=Encoding(3)).size == 2**30


def test_circuits_are_read_without_numpy_or_scikit_learn() -> None:
    code = (
        "import sys, scoring.quantum, scoring.quantum.circuit, scoring.quantum.document, "
        "scoring.quantum.layers, scoring.quantum.cone\n"
        "heavy = {'numpy', 'scipy', 'sklearn', 'msgspec', 'onnxruntime'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_names_what_it_has_and_nothing_else() -> None:
    import scoring.quantum

    assert scoring.quantum.Circuit is Circuit
    with pytest.raises(AttributeError, match="no attribute 'Missing'"):
        scoring.quantum.Missing  # noqa: B018
