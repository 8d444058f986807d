"""`fieldpost quantum …`, from a table to a circuit in every form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring.quantum import document, qasm, simulate
from scoring.quantum.circuit import Circuit
from serve.cli.main import run
from tests.support.circuits import against_rest, random_circuit, rows_for, run_onnx

pytest.importorskip("sklearn")
CIRCUIT = random_circuit(3, 12, 1, most_controls=1, classes=("no", "yes"), bias=0.1)


class Command:
    """Runs commands in a folder, and reads what they print."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._capsys = capsys

    def __call__(self, *arguments: str | Path, expect: int = 0, as_json: bool = True) -> Any:
        given = [*map(str, arguments), *(["--json"] if as_json else [])]
        status = run(["quantum", *given, "--workspace", str(self.folder / "workspace")])
        found = self._capsys.readouterr()
        assert status == expect, found.err
        assert "Traceback" not in found.err
        return json.loads(found.out) if as_json else found.out


@pytest.fixture
def quantum(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Command:
    monkeypatch.chdir(tmp_path)
    return Command(tmp_path, capsys)


@pytest.fixture
def table(tmp_path: Path) -> Path:
    """Two clouds, which one rotation tells apart."""
    rng = np.random.default_rng(0)
    rows = np.concatenate([rng.normal((1, 0.2), 0.1, (30, 2)), rng.normal((0.2, 1), 0.1, (30, 2))])
    lines = [f"{x:.4f},{y:.4f},{'left' if k < 30 else 'right'}" for k, (x, y) in enumerate(rows)]
    path = tmp_path / "clouds.csv"
    path.write_text("x,y,kind\n" + "\n".join(lines) + "\n")
    return path


def saved(folder: Path, model: Any = CIRCUIT) -> Path:
    path = folder / "a.circuit.json"
    document.save(model, path)
    return path


def test_training_writes_a_circuit_that_can_be_evaluated(quantum: Command, table: Path) -> None:
    told = quantum(
        *("train", table, "--structure", "local-y", "--out", "clouds", "--test-share", "0.2"),
        *("--optimizer", "adam", "--learning-rate", "0.3", "--epochs", "40", "--starts", "1"),
    )
    path = quantum.folder / "clouds.circuit.json"
    model = document.load(path)
    assert told["digest"] == document.digest(model)
    assert model.classes == ("left", "right")
    assert told["training"]["samples"], told["held_out"]["samples"] == (48, 12)
    assert told["training"]["accuracy"] > 0.9
    found = quantum("evaluate", path, table)
    assert found["misses"] == told["training"]["misses"] + told["held_out"]["misses"]
    assert sum(map(sum, found["confusion"])) == 60
    text = quantum("evaluate", path, table, as_json=False)
    assert "misses of 60" in text
    assert "IS / TOLD" in text


def test_training_is_repeatable_by_its_seed(quantum: Command, table: Path) -> None:
    options = ("--structure", "local-y", "--epochs", "2", "--starts", "1", "--seed", "7")
    digests = [
        quantum("train", table, *options, "--out", name)["digest"] for name in ("one", "two")
    ]
    assert digests[0] == digests[1]


def test_a_dry_run_checks_and_writes_nothing(quantum: Command, table: Path) -> None:
    plan = quantum("train", table, "--structure", "local-y", "--out", "a", "--dry-run")
    assert (plan["qubits"], plan["gates"], plan["rows"]) == (1, 1, 60)
    quantum("train", table, "--structure", "lokal-y", "--out", "a", "--dry-run", expect=1)
    quantum("compile", saved(quantum.folder), "--dry-run")
    quantum("draw", quantum.folder / "a.circuit.json", "--svg", "a.svg", "--dry-run")
    assert {path.name for path in quantum.folder.iterdir()} == {"clouds.csv", "a.circuit.json"}


def test_a_dry_run_finds_what_training_would_not_do(quantum: Command, table: Path) -> None:
    alone = quantum.folder / "alone.csv"
    alone.write_text("x,kind\n1,left\n2,left\n")
    for given in ((alone,), (table, "--structure", ""), (table, "--learning-rate", "-1")):
        told = quantum("train", *given, "--out", "a", "--dry-run", expect=1)
        assert told == quantum("train", *given, "--out", "a", expect=1)
        assert told["error"]["code"] == "bad_training_data"


@pytest.mark.parametrize(
    ("held", "message"), [("x,y,kind\n1,2,up\n", "'up'"), ("x,kind\n1,left\n", "have 1 features")]
)
def test_rows_held_out_are_looked_at_before_training(
    quantum: Command, table: Path, held: str, message: str
) -> None:
    (quantum.folder / "held.csv").write_text(held)
    for more in ((), ("--dry-run",)):
        told = quantum("train", table, "--test", "held.csv", "--out", "a", *more, expect=1)
        assert message in told["error"]["message"]
    assert not (quantum.folder / "a.circuit.json").exists()


@pytest.mark.parametrize("form", ["auto", "folded", "fused"])
def test_compiling_writes_onnx(quantum: Command, form: str) -> None:
    told = quantum("compile", saved(quantum.folder), "--form", form)
    assert told["forms"] == ["folded" if form == "auto" else form]
    rows = rows_for(CIRCUIT)
    content = (quantum.folder / "a.onnx").read_bytes()
    assert len(content) == told["bytes"]
    wanted = simulate.class_probabilities(CIRCUIT, rows)
    assert np.abs(run_onnx(content, rows)[1] - wanted).max() < 1e-12


def test_compiling_tells_of_rows_near_the_threshold(quantum: Command) -> None:
    half = Circuit(1, (), (), bias=0.0)
    rows = quantum.folder / "rows.json"
    rows.write_text("[[1, 1], [1, 2], [3, 3]]")
    told = quantum("compile", saved(quantum.folder, half), "--sample", rows, "--float32")
    assert (told["near_threshold"], told["rows"], told["dtype"]) == (2, 3, "float32")
    text = quantum("compile", quantum.folder / "a.circuit.json", "--sample", rows, as_json=False)
    assert "2 of 3 rows" in text
    labelled = quantum.folder / "rows.csv"
    labelled.write_text("a,b,kind\n1,1,0\n1,2,1\n")
    told = quantum("compile", saved(quantum.folder, half), "--sample", labelled, expect=1)
    assert "--label" in told["error"]["hint"]
    told = quantum("compile", saved(quantum.folder, half), "--sample", labelled, "--label", "kind")
    assert (told["near_threshold"], told["rows"]) == (1, 2)


def test_registering_warns_of_rows_near_the_threshold(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "rows.json").write_text("[[1, 1], [1, 2], [3, 3]]")
    for bias, warned in ((0.0, True), (0.125, False)):
        path = saved(tmp_path, Circuit(1, (), (), bias=bias))
        given = ["near", str(path), "--sample", str(tmp_path / "rows.json")]
        run(["model", "register", *given, "--workspace", str(tmp_path / "workspace"), "--json"])
        found = capsys.readouterr()
        assert json.loads(found.out)["serves"] == "compiled"
        assert ("Warning: " in found.err) == warned
        assert ("2 of them are so near the threshold" in found.err) == warned


def test_to_openqasm_and_back(quantum: Command) -> None:
    saved(quantum.folder)
    quantum("compile", "a.circuit.json", "--to", "qasm")
    quantum("compile", "a.qasm", "--to", "circuit", "--out", "b.circuit.json")
    rows = rows_for(CIRCUIT)
    again = document.load(quantum.folder / "b.circuit.json")
    wanted = simulate.class_probabilities(CIRCUIT, rows)
    assert np.abs(simulate.class_probabilities(again, rows) - wanted).max() < 1e-12
    assert again == qasm.load(quantum.folder / "a.qasm")
    quantum("compile", "a.circuit.json", "--to", "qsharp")
    assert "operation Main()" in (quantum.folder / "a.qs").read_text()


@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
@pytest.mark.parametrize(
    "given", [("compile", "--out"), ("compile", "--to", "qasm", "--out"), ("draw", "--svg")]
)
def test_where_nothing_can_be_written_is_said_at_once(
    quantum: Command, given: tuple[str, ...], dry: tuple[str, ...]
) -> None:
    (quantum.folder / "here").mkdir()
    path = saved(quantum.folder)
    for out, why in (("nowhere/x", "which is no folder"), ("here", "is a folder")):
        told = quantum(given[0], path, *given[1:], out, *dry, expect=2)
        assert why in told["error"]["message"]
        assert given[-1] in told["error"]["hint"]


def test_several_circuits_are_no_program(quantum: Command) -> None:
    saved(quantum.folder, against_rest())
    for target in ("qasm", "qsharp"):
        told = quantum("compile", "a.circuit.json", "--to", target, expect=1)
        assert told["error"]["code"] == "unsupported_model"


def test_drawing(quantum: Command) -> None:
    saved(quantum.folder)
    text = quantum("draw", "a.circuit.json", as_json=False)
    assert text.count("q0:") >= 1
    assert quantum("draw", "a.circuit.json")["text"].rstrip() == text.rstrip()
    quantum("draw", "a.circuit.json", "--svg", "a.svg")
    assert (quantum.folder / "a.svg").read_text().startswith("<svg")


def test_registered_circuits_are_found_by_name(quantum: Command) -> None:
    from serve import Workspace

    with Workspace(quantum.folder / "workspace") as workspace:
        workspace.models.register("moons", saved(quantum.folder))
    assert quantum("draw", "moons") == quantum("draw", "a.circuit.json")
    assert quantum("compile", "moons:1")["path"] == "moons.onnx"
    quantum("draw", "absent", expect=1)


def test_what_training_wrote_is_found_by_the_name_given_to_it(
    quantum: Command, table: Path
) -> None:
    wanted = quantum("draw", saved(quantum.folder))
    for name in ("moons", "Moons v2", "deep/er"):  # only the first could be a model's
        path = quantum.folder / f"{name}.circuit.json"
        path.parent.mkdir(exist_ok=True)
        document.save(CIRCUIT, path)
        assert quantum("draw", name) == wanted
    assert quantum("draw", quantum.folder / "deep" / "er") == wanted
    assert quantum("compile", "deep/er")["path"] == "deep/er.onnx"
    quantum("train", table, "--epochs", "1", "--starts", "1", "--out", "clouds")
    assert quantum("evaluate", "clouds", table)["samples"] == 60


def test_a_registered_model_comes_before_a_file(quantum: Command) -> None:
    from serve import Workspace

    with Workspace(quantum.folder / "workspace") as workspace:
        workspace.models.register("moons", saved(quantum.folder))
    document.save(random_circuit(2, 3, 5), quantum.folder / "moons.circuit.json")
    assert quantum("draw", "moons") == quantum("draw", "a.circuit.json")


def test_where_neither_is_there_both_are_told(quantum: Command) -> None:
    told = quantum("draw", "absent", expect=1)["error"]
    assert told["code"] == "not_found"
    assert "absent.circuit.json" in told["hint"]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("draw", "absent.circuit.json"), "file_not_found"),
        (("evaluate", "a.circuit.json", "absent.csv"), "file_not_found"),
        (("evaluate", "a.circuit.json", "clouds.csv"), "bad_training_data"),
        (("train", "clouds.csv", "--out", "b", "--label", "colour"), "bad_training_data"),
        (("train", "clouds.csv", "--out", "b", "--structure", "lokal-x"), "bad_circuit"),
        (("train", "clouds.csv", "--out", "b", "--qubits", "29"), "circuit_too_large"),
        (("train", "clouds.csv", "--out", "b", "--qubits", "29", "--dry-run"), "circuit_too_large"),
        (("train", "clouds.csv", "--out", "absent/b"), "usage"),
        (("train", "clouds.csv", "--out", "folder.json"), "usage"),
    ],
)
def test_what_is_wrong_is_told(
    quantum: Command, table: Path, arguments: tuple[str, ...], code: str
) -> None:
    saved(quantum.folder)
    (quantum.folder / "folder.json").mkdir()
    told = quantum(*arguments, expect=2 if code == "usage" else 1)
    assert told["error"]["code"] == code
    assert not (quantum.folder / "b.circuit.json").exists()
