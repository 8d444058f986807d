"""Layers of gates, and their words."""

from __future__ import annotations

import pytest

from scoring.errors import CircuitError
from scoring.quantum import layers
from scoring.quantum.circuit import Circuit, Gate, parameters_needed


def test_the_librarys_layers() -> None:
    assert layers.local(2, "Y") == [Gate(0, "Y", 0), Gate(1, "Y", 1)]
    assert layers.partial([3, 1], "X") == [Gate(3, "X", 0), Gate(1, "X", 1)]
    assert layers.cyclic(3, "X", 2) == [
        Gate(0, "X", 0, (2,)),
        Gate(1, "X", 1, (0,)),
        Gate(2, "X", 2, (1,)),
    ]


def test_combined_layers_have_parameters_of_their_own() -> None:
    found = layers.combined([layers.local(2, "Y"), layers.cyclic(3, "X", 2)])
    assert [gate.parameter for gate in found] == [0, 1, 2, 3, 4]


def test_a_layer_that_shares_a_parameter_takes_only_one_place() -> None:
    shared = [Gate(0, "X", 0), Gate(1, "X", 0)]
    found = layers.combined([shared, layers.local(2, "Z")])
    assert [gate.parameter for gate in found] == [0, 0, 1, 2]
    assert parameters_needed(found) == 3


@pytest.mark.parametrize(("qubits", "stride"), [(3, 0), (3, 3), (2, -4), (1, 1)])
def test_a_cycle_of_qubits_controlled_by_themselves_is_refused(qubits: int, stride: int) -> None:
    with pytest.raises(CircuitError, match="control qubits by themselves"):
        layers.cyclic(qubits, "X", stride)


def test_the_wine_samples_structure_in_words() -> None:
    found = layers.parse("local-z local-x cyclic-x partial-x:-1", 4)
    expected = layers.combined(
        [
            layers.local(4, "Z"),
            layers.local(4, "X"),
            layers.cyclic(4, "X", 1),
            layers.partial([3], "X"),
        ]
    )
    assert found == expected
    assert len(found) == 13


def test_words_for_single_gates_strides_and_qubits() -> None:
    found = layers.parse("turn-Y:0,-1 cyclic-z:-1 partial-i:1,-1", 3)
    assert found[0] == Gate(0, "Y", 0, (2,))
    assert found[1] == Gate(0, "Z", 1, (2,))
    assert found[4:] == [Gate(1, "I", 4), Gate(2, "I", 5)]
    Circuit(3, tuple(found), (0.0,) * 6)


@pytest.mark.parametrize(
    "words",
    [
        "local",
        "local-q",
        "local-x:1",
        "cyclic-x:1,2",
        "partial-x",
        "partial-x:a",
        "spin-x:1",
        "partial-x:3",
        "partial-x:-4",
        "turn-x",
        "-x",
        "local-xx",
    ],
)
def test_what_is_no_layer(words: str) -> None:
    with pytest.raises(CircuitError) as caught:
        layers.parse(words, 3)
    assert caught.value.where == words
    assert caught.value.hint


def test_no_words_are_no_gates() -> None:
    assert layers.parse("  ", 2) == []


@pytest.mark.parametrize(
    ("words", "qubits"),
    [
        ("", 1),
        ("local-x", 1),
        ("cyclic-z", 2),
        ("cyclic-z:-3", 4),
        ("partial-x:4,-2", 5),
        ("turn-x:-3,0", 3),
    ],
)
def test_the_smallest_register_for_words(words: str, qubits: int) -> None:
    assert layers.least_qubits(words) == qubits
    layers.parse(words, qubits)
