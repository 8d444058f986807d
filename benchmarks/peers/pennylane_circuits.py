"""PennyLane as a peer: one process that times what it is asked, line by line.

Reads JSON lines `{"work": …, "circuit": PATH, "states": PATH}` from stdin and answers each with
`{"samples_per_s": …}`. Circuits are Fieldpost's JSON, states a .npy file (samples, 2**qubits).

`tapes`: circuits that were built before the clock started, handed to the device at once: the fair
peer. `qnode`: what a user writes, one call for each sample.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

warnings.filterwarnings("ignore")

import pennylane as qml  # noqa: E402
from pennylane import numpy as pnp  # noqa: E402
from pennylane.devices import ExecutionConfig  # noqa: E402

PLAIN = {"X": qml.RX, "Y": qml.RY, "Z": qml.RZ}
CONTROLLED = {"X": qml.CRX, "Y": qml.CRY, "Z": qml.CRZ}


def operations(circuit: dict[str, Any], state: Any, angles: Any) -> list[Any]:
    """PennyLane's first wire is the most significant bit: our last qubit."""
    last = circuit["qubits"] - 1
    listed = [qml.StatePrep(state, wires=range(circuit["qubits"]))]
    for gate in circuit["gates"]:
        controls = [last - control for control in gate.get("controls", [])]
        kinds = CONTROLLED if controls else PLAIN
        angle = angles[gate["parameter"]]
        listed.append(kinds[gate["axis"]](angle, wires=[*controls, last - gate["target"]]))
    return listed


def measured(circuit: dict[str, Any]) -> Any:
    return qml.expval(qml.Z(circuit["qubits"] - 1 - circuit["measured"][0]))


def prepared(circuit: dict[str, Any], states: Any, config: ExecutionConfig) -> tuple[Any, Any, Any]:
    device = qml.device("lightning.qubit", wires=circuit["qubits"])
    tapes = []
    for state in states:
        tape = qml.tape.QuantumScript(
            operations(circuit, state, circuit["parameters"]), [measured(circuit)]
        )
        tape.trainable_params = list(range(1, len(circuit["gates"]) + 1))
        tapes.append(tape)
    config = device.setup_execution_config(config)
    tapes, _ = device.preprocess_transforms(config)(tapes)
    return device, tapes, config


def gradient_tapes(circuit: dict[str, Any], states: Any) -> Callable[[], object]:
    wanted = ExecutionConfig(gradient_method="adjoint", use_device_gradient=True)
    device, tapes, config = prepared(circuit, states, wanted)
    return lambda: device.execute_and_compute_derivatives(tapes, config)


def inference_tapes(circuit: dict[str, Any], states: Any) -> Callable[[], object]:
    device, tapes, config = prepared(circuit, states, ExecutionConfig())
    return lambda: device.execute(tapes, config)


def qnode(circuit: dict[str, Any]) -> Any:
    device = qml.device("lightning.qubit", wires=circuit["qubits"])

    def ask(state: Any, angles: Any) -> Any:
        operations(circuit, state, angles)  # each is queued as it is made
        return measured(circuit)

    return qml.QNode(ask, device, diff_method="adjoint")


def gradient_qnode(circuit: dict[str, Any], states: Any) -> Callable[[], object]:
    ask = qml.grad(qnode(circuit), argnums=1)
    angles = pnp.array(circuit["parameters"], requires_grad=True)
    return lambda: [ask(state, angles) for state in states]


def inference_qnode(circuit: dict[str, Any], states: Any) -> Callable[[], object]:
    ask = qnode(circuit)
    angles = np.array(circuit["parameters"])
    return lambda: [ask(state, angles) for state in states]


WORK = {
    "gradient tapes": gradient_tapes,
    "gradient qnode": gradient_qnode,
    "inference tapes": inference_tapes,
    "inference qnode": inference_qnode,
}


def rate(work: Callable[[], object], samples: int, least_s: float = 0.5) -> float:
    """The best of the runs that fit into a moment, after one that warms up."""
    work()
    best, spent = float("inf"), 0.0
    while spent < least_s:
        begun = time.perf_counter()
        work()
        seconds = time.perf_counter() - begun
        best, spent = min(best, seconds), spent + seconds
    return samples / best


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        circuit = json.loads(Path(asked["circuit"]).read_text())
        states = np.load(asked["states"])
        run = WORK[asked["work"]](circuit, states)
        print(json.dumps({"samples_per_s": rate(run, len(states))}), flush=True)


if __name__ == "__main__":
    main()
