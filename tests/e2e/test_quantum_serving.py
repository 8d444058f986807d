"""One circuit, one answer: numpy, both compiled forms, ONNX, every protocol, a deployment.

What lies between a row and an answer differs (state vector, one matrix, several, JSON, binary
tensors, a packaged process); probabilities may differ in their last bits only, and labels only for
rows that lie on the threshold.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from scoring.formats.base import Trust
from scoring.prepare import COMPILED_PATH, prepare
from scoring.quantum import document, qasm, simulate
from scoring.quantum.adjoint import AdjointPlan
from scoring.quantum.circuit import Circuit, Model
from scoring.quantum.compile.compiler import compile_circuit, near_threshold
from scoring.quantum.encoding import encode
from scoring.quantum.pipelines import model_of
from scoring.quantum.pure import PureClassifier
from scoring.runtimes.onnx import OnnxPredictor, open_session
from serve import Workspace
from serve.server.grpc.messages import message
from tests.support.circuits import EVERY_STEP, against_rest, random_circuit, run_onnx
from tests.support.server import LiveServer, serve_model, serve_models

pytest.importorskip("onnx")
pytestmark = pytest.mark.timeout(300)

TOLERANCE = 1e-12
SIZES = range(2, 15)
ROWS = 24
LARGE = ("n12", "n13", "n14")
"""Folded they take seconds and hundreds of megabytes: nobody serves that."""

MODELS: dict[str, Model] = {
    **{f"n{n}": random_circuit(n, 4 * n, n, most_controls=min(4, n - 1)) for n in SIZES},
    "words": random_circuit(4, 20, 20, classes=("no", "yes")),
    "several": random_circuit(5, 30, 21, measured=2, classes=("a", "b", "c")),
    "steps": random_circuit(4, 20, 22, encoding=EVERY_STEP),
    "rest": against_rest(),
}


def rows_for(model: Model) -> NDArray[np.float64]:
    circuit = model if isinstance(model, Circuit) else model.circuits[0]
    rows = np.random.default_rng(9).normal(size=(ROWS, circuit.encoding.features))
    rows[0] = 0
    return rows


def assert_same(model: Model, probabilities: Any, labels: Any = None) -> None:
    """Equal to the state vector: probabilities within 1e-12, labels off the threshold."""
    wanted = simulate.class_probabilities(model, rows_for(model))
    found = np.asarray(probabilities, dtype=np.float64).reshape(wanted.shape)
    assert np.abs(found - wanted).max() < TOLERANCE
    if labels is not None:
        clear = ~near_threshold(wanted, TOLERANCE)
        expected = [model.classes[k] for k in wanted.argmax(axis=1)]
        given = [label.decode() if isinstance(label, bytes) else label for label in labels]
        assert [x for x, c in zip(given, clear, strict=True) if c] == [
            x for x, c in zip(expected, clear, strict=True) if c
        ]


@pytest.fixture(scope="module")
def predictors(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """All models, prepared as `fieldpost serve FILE` does."""
    folder = tmp_path_factory.mktemp("circuits")
    found: dict[str, Any] = {}
    for name, model in MODELS.items():
        path = folder / f"{name}.circuit.json"
        document.save(model, path)
        prepared = prepare(path, folder / name, trust=Trust())
        assert prepared.serves == "compiled"
        session = open_session(folder / name / COMPILED_PATH)
        found[name] = OnnxPredictor(session, prepared.schema)
    return found


@pytest.fixture(scope="module")
def server(predictors: dict[str, Any]) -> Iterator[LiveServer]:
    with serve_models(predictors, max_body_bytes=64 << 20) as live:
        yield live


@pytest.mark.parametrize("name", MODELS)
def test_in_this_process(name: str) -> None:
    model, rows = MODELS[name], rows_for(MODELS[name])
    for form in ("folded", "fused") if name not in LARGE else ("fused",):
        compiled = compile_circuit(model, form=form)
        assert_same(model, compiled.class_probabilities(rows))
        labels, probabilities = run_onnx(compiled.onnx, rows)
        assert_same(model, probabilities, labels)
    small = not isinstance(model, Circuit) or model.qubits <= 5
    if small:
        pure = PureClassifier(model)
        assert_same(model, pure.predict_proba(rows.tolist()), pure.predict(rows.tolist()))


@pytest.mark.parametrize("name", [name for name in MODELS if name != "rest"])
def test_the_trainers_forward_pass_and_openqasm(name: str) -> None:
    model, rows = MODELS[name], rows_for(MODELS[name])
    assert isinstance(model, Circuit)
    plan = AdjointPlan(model)
    states = encode(model, rows)
    outcomes, _ = plan.gradient(model.parameters, states, lambda shares, _: np.zeros_like(shares))
    assert_same(model, simulate.decide(model, outcomes))
    again = qasm.loads(qasm.dumps(model))
    assert_same(model, simulate.class_probabilities(again, rows))


@pytest.mark.parametrize("name", MODELS)
def test_float32_is_good_to_five_digits(name: str) -> None:
    model, rows = MODELS[name], rows_for(MODELS[name]).astype(np.float32)
    content = compile_circuit(model, form="auto", dtype="float32").onnx
    wanted = simulate.class_probabilities(model, rows.astype(np.float64))
    assert np.abs(run_onnx(content, rows)[1] - wanted).max() < 1e-5


@pytest.mark.parametrize("name", MODELS)
def test_over_http_score(predictors: dict[str, Any], name: str) -> None:
    model, rows = MODELS[name], rows_for(MODELS[name]).tolist()
    with serve_model(predictors[name], max_body_bytes=64 << 20) as alone:
        url = f"http://127.0.0.1:{alone.port}/score"
        answer = httpx.post(url, json={"data": rows}, timeout=60).json()
    assert_same(model, answer["probabilities"], answer["predictions"])


@pytest.mark.parametrize("name", MODELS)
def test_over_the_open_inference_protocol(server: LiveServer, name: str) -> None:
    model, rows = MODELS[name], rows_for(MODELS[name]).tolist()
    tensor = {
        "name": "X",
        "datatype": "FP64",
        "shape": [ROWS, len(rows[0])],
        "data": rows,
    }
    url = f"http://127.0.0.1:{server.port}/v2/models/{name}/infer"
    answer = httpx.post(url, json={"inputs": [tensor]}, timeout=60).json()
    outputs = {each["name"]: each["data"] for each in answer["outputs"]}
    assert_same(model, outputs["probabilities"], outputs["predictions"])


@pytest.mark.parametrize("name", MODELS)
def test_over_grpc(server: LiveServer, name: str) -> None:
    triton = pytest.importorskip("tritonclient.grpc", reason="tritonclient is not installed")
    model, rows = MODELS[name], rows_for(MODELS[name])
    given = triton.InferInput("X", list(rows.shape), "FP64")
    given.set_data_from_numpy(rows)
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        answer = client.infer(name, [given])
    assert_same(model, answer.as_numpy("probabilities"), answer.as_numpy("predictions").tolist())


@pytest.mark.parametrize("name", ["n4", "rest"])
def test_metadata_name_the_circuit_that_is_served(server: LiveServer, name: str) -> None:
    wanted = document.digest(MODELS[name])
    url = f"http://127.0.0.1:{server.port}/v2/models/{name}"
    told = httpx.get(url).json()
    assert told["parameters"] == {"fieldpost.circuit": wanted}
    assert _metadata_by_grpc(server, name).parameters["fieldpost.circuit"].string_param == wanted


def _metadata_by_grpc(server: LiveServer, name: str) -> Any:
    grpc = pytest.importorskip("grpc", reason="grpcio is not installed")
    asked = message("inference.ModelMetadataRequest")(name=name)
    with grpc.insecure_channel(f"127.0.0.1:{server.port}") as channel:
        call = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelMetadata",
            request_serializer=lambda given: given.SerializeToString(),
            response_deserializer=message("inference.ModelMetadataResponse").FromString,
        )
        return call(asked, timeout=30)


@pytest.mark.parametrize("name", ["n2", "n4", "several", "rest"])
def test_pennylane_agrees(name: str) -> None:
    pennylane = pytest.importorskip("pennylane", reason="PennyLane is not installed")
    model, rows = MODELS[name], rows_for(MODELS[name])[1:5]
    circuits = (model,) if isinstance(model, Circuit) else model.circuits
    for circuit in circuits:
        found = [_pennylane(pennylane, circuit, state) for state in encode(circuit, rows)]
        wanted = simulate.outcome_probabilities(circuit, rows)
        assert np.abs(np.array(found) - wanted).max() < TOLERANCE


def _pennylane(qml: Any, circuit: Circuit, state: Any) -> Any:
    """Outcome probabilities by PennyLane's default simulator."""
    wires = list(range(circuit.qubits))

    def program() -> Any:
        qml.StatePrep(state, wires=wires[::-1])
        for gate in circuit.gates:
            angle = circuit.parameters[gate.parameter]
            if gate.axis == "I":
                phase = qml.GlobalPhase(angle / 2, wires=gate.target)
                qml.ctrl(phase, gate.controls) if gate.controls else None
                continue
            turn = {"X": qml.RX, "Y": qml.RY, "Z": qml.RZ}[gate.axis]
            if gate.controls:
                qml.ctrl(turn, gate.controls)(angle, wires=gate.target)
            else:
                turn(angle, wires=gate.target)
        return qml.probs(wires=circuit.measured[::-1])

    return qml.QNode(program, qml.device("default.qubit", wires=circuit.qubits))()


def test_from_training_to_a_deployment(tmp_path: Path) -> None:
    """A fitted classifier, registered as an object, packaged and deployed."""
    pytest.importorskip("sklearn")
    from sklearn.datasets import make_moons
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    from scoring.quantum import SequentialClassifier

    x, y = make_moons(80, noise=0.1, random_state=0)
    learner = SequentialClassifier(encoding="constant:1 product", epochs=4, random_state=0)
    fitted = make_pipeline(StandardScaler(), learner).fit(x, np.where(y, "moon", "sun"))
    with Workspace(tmp_path / "workspace") as workspace:
        version = workspace.models.register("half-moons", fitted, sample=x[:5])
        assert (version.format, version.serves) == ("circuit", "compiled")
        assert version.schema is not None
        assert version.schema.notes == {"fieldpost.circuit": document.digest(model_of(fitted))}
        assert [file.path for file in version.files] == ["half-moons.circuit.json"]
        package = workspace.packages.build(version)
        deployment = workspace.deploy("half-moons", package, target="local")
        try:
            answer = deployment.score({"data": x.tolist()})
        finally:
            deployment.stop()
    wanted = fitted.predict_proba(x)
    assert np.abs(np.array(answer["probabilities"]) - wanted).max() < TOLERANCE
    clear = ~near_threshold(wanted, TOLERANCE)
    assert np.array_equal(np.array(answer["predictions"])[clear], fitted.predict(x)[clear])
