"""Light cones and blocks, where one can see by eye what is right."""

from __future__ import annotations

import pytest

from scoring.quantum.circuit import Gate
from scoring.quantum.cone import Block, fuse, light_cone


@pytest.mark.parametrize(
    ("gates", "kept"),
    [
        ([Gate(0, "X", 0)], []),  # another qubit
        ([Gate(1, "X", 0)], [0]),
        ([Gate(1, "Z", 0)], []),  # phases are not measured
        ([Gate(1, "Z", 0), Gate(1, "X", 0)], [0, 1]),
        ([Gate(1, "X", 0), Gate(1, "Z", 0)], [0]),
        ([Gate(0, "X", 0, (1,))], []),  # only its control is measured
        ([Gate(0, "X", 0, (1,)), Gate(1, "Y", 0)], [0, 1]),
        ([Gate(0, "Y", 0), Gate(1, "X", 0, (0,))], [0, 1]),
        ([Gate(0, "Z", 0), Gate(1, "X", 0, (0,))], [1]),  # a control is as good as measured
        ([Gate(0, "X", 0), Gate(1, "Z", 0, (0,)), Gate(1, "X", 0)], [0, 1, 2]),
        ([Gate(0, "X", 0), Gate(1, "Z", 0, (0,))], []),
        ([Gate(1, "I", 0)], []),
        ([Gate(0, "I", 0, (1,)), Gate(1, "X", 0)], [0, 1]),
        ([Gate(1, "I", 0, (0,)), Gate(1, "X", 0)], [1]),  # turns no phase of its target
    ],
)
def test_what_the_second_qubit_depends_on(gates: list[Gate], kept: list[int]) -> None:
    assert light_cone(gates, [1]) == kept


def test_gates_on_few_qubits_become_one_block() -> None:
    gates = [Gate(0, "X", 0), Gate(2, "X", 0), Gate(1, "Y", 0, (0,)), Gate(2, "Z", 0)]
    assert fuse(gates, range(4), 2) == [Block((0, 2), (0, 1, 3)), Block((0, 1), (2,))]
    assert fuse(gates, range(4), 3) == [Block((0, 1, 2), (0, 1, 2, 3))]


def test_nothing_overtakes_a_gate_that_was_left_behind() -> None:
    gates = [Gate(0, "X", 0), Gate(1, "Y", 0, (2,)), Gate(1, "X", 0), Gate(0, "Z", 0)]
    assert fuse(gates, range(4), 1) == [
        Block((0,), (0, 3)),
        Block((1, 2), (1, 2)),
    ]


def test_a_gate_wider_than_blocks_has_its_own() -> None:
    gates = [Gate(0, "X", 0), Gate(0, "X", 0, (1, 2)), Gate(3, "X", 0)]
    assert [block.qubits for block in fuse(gates, range(3), 2)] == [(0, 3), (0, 1, 2)]
