"""The scikit-learn face: fitting, answering, evaluating, and what it refuses."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.base import clone
from sklearn.datasets import load_iris
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from scoring.errors import CircuitError, FieldpostError, TrainingDataError
from scoring.quantum import document, memory, simulate
from scoring.quantum.circuit import Circuit, Gate, OneVersusRest
from scoring.quantum.classifier import SequentialClassifier, named
from scoring.quantum.features import Product
from scoring.quantum.noise import Noise

IRIS, KINDS = load_iris(return_X_y=True)
NAMES = np.array(["setosa", "versicolor", "virginica"])[KINDS]
TWO = IRIS[:100], NAMES[:100]


def quick(**other: Any) -> SequentialClassifier:
    given: dict[str, Any] = {"encoding": "standard constant:1", "starts": 2, "epochs": 4}
    return SequentialClassifier(**(given | {"random_state": 0} | other))


@parametrize_with_checks(  # type: ignore[untyped-decorator]
    [SequentialClassifier(epochs=3, starts=2, random_state=0)]
)
def test_it_is_an_estimator(estimator: Any, check: Any) -> None:
    check(estimator)


def test_two_classes() -> None:
    model = quick().fit(*TWO)
    assert model.classes_.tolist() == ["setosa", "versicolor"]
    assert isinstance(model.model_, Circuit)
    assert model.model_.classes == ("setosa", "versicolor")
    evaluation = model.evaluate(*TWO)
    assert evaluation.misses <= 2
    assert evaluation.accuracy == 1 - evaluation.misses / 100
    assert evaluation.confusion.sum() == 100
    assert "setosa" in evaluation.report
    assert f"{evaluation.misses} misses of 100" in str(evaluation)
    assert model.score(*TWO) == evaluation.accuracy


def test_what_it_answers_is_what_its_circuit_answers(tmp_path: Path) -> None:
    model = quick().fit(*TWO)
    path = tmp_path / "iris.circuit.json"
    model.save(path)
    read = document.load(path)
    rows = IRIS[:100]
    assert simulate.class_probabilities(read, rows).tolist() == model.predict_proba(rows).tolist()
    assert simulate.labels(read, rows).tolist() == model.predict(rows).tolist()
    over = model.decision_function(rows)
    assert ((over > 0) == (model.predict(rows) == "versicolor")).all()
    assert read.record["options"]["max_epochs"] == 4
    assert read.record["misses"] == model.evaluate(*TWO).misses


@pytest.mark.parametrize("multiclass", ["one-vs-rest", "qubits"])
@pytest.mark.parametrize("optimizer", ["library", "adam", "lbfgs"])
def test_three_classes(multiclass: str, optimizer: str) -> None:
    model = quick(multiclass=multiclass, optimizer=optimizer, epochs=12).fit(IRIS, NAMES)
    kind = OneVersusRest if multiclass == "one-vs-rest" else Circuit
    assert isinstance(model.model_, kind)
    assert model.evaluate(IRIS, NAMES).accuracy > 0.7
    shares = model.predict_proba(IRIS)
    assert shares.shape == (150, 3)
    assert np.allclose(shares.sum(axis=1), 1)
    assert model.decision_function(IRIS).shape == (150, 3)


def test_one_circuit_measures_as_many_qubits_as_classes_need() -> None:
    rows = np.random.default_rng(0).normal(size=(50, 3))
    model = quick(multiclass="qubits", epochs=1).fit(rows, np.arange(50) % 5)
    assert isinstance(model.model_, Circuit)
    assert model.model_.measured == (0, 1, 2)
    assert model.model_.classes == (0, 1, 2, 3, 4)


def test_a_run_is_repeated_by_its_seed() -> None:
    first, second, other = (quick(random_state=seed).fit(*TWO) for seed in (3, 3, 4))
    assert first.model_ == second.model_
    assert document.dumps(first.model_) == document.dumps(second.model_)
    assert first.model_ != other.model_


def test_processes_change_nothing() -> None:
    alone, together = (quick(n_jobs=jobs, starts=3).fit(*TWO) for jobs in (1, 2))
    assert document.dumps(alone.model_) == document.dumps(together.model_)


def test_it_works_in_pipelines_searches_and_folds() -> None:
    piped = make_pipeline(StandardScaler(), quick(encoding="constant:1"))
    assert cross_val_score(piped, *TWO, cv=3).mean() > 0.9
    search = GridSearchCV(quick(), {"epochs": [0, 4], "optimizer": ["library", "lbfgs"]}, cv=2)
    assert search.fit(*TWO).best_params_["epochs"] == 4
    assert clone(quick(epochs=9)).get_params()["epochs"] == 9


def test_it_is_pickled_with_what_it_learned() -> None:
    model = quick().fit(*TWO)
    again = pickle.loads(pickle.dumps(model))
    assert again.predict(IRIS[:100]).tolist() == model.predict(IRIS[:100]).tolist()


def test_gates_and_steps_as_data() -> None:
    gates = [Gate(0, "Y", 0), Gate(1, "Y", 1, (0,)), Gate(2, "Y", 1)]
    model = quick(structure=gates, encoding=[Product()], qubits=4).fit(*TWO)
    assert isinstance(model.model_, Circuit)
    assert model.model_.gates == tuple(gates)
    assert model.model_.qubits == 4
    assert model.model_.measured == (3,)
    assert model.model_.encoding.steps == (Product(),)


def test_one_feature_has_a_register_without_a_cycle() -> None:
    rows = np.linspace(-1, 1, 20)[:, None]
    model = SequentialClassifier(random_state=0).fit(rows, rows[:, 0] > 0)
    assert isinstance(model.model_, Circuit)
    assert model.model_.qubits == 1
    assert model.predict(rows).dtype == np.bool_


def test_schedules_say_who_learns_and_who_is_asked() -> None:
    some = list(range(0, 100, 2))
    model = quick(training_schedule=some, validation_schedule=[1, 99]).fit(*TWO)
    assert isinstance(model.model_, Circuit)
    assert model.model_.record["misses"] <= 2
    for wrong in ([100], [-1], [0.5], [], [[0]]):
        with pytest.raises(TrainingDataError, match="samples that are not there"):
            quick(training_schedule=wrong).fit(*TWO)


def test_shots_and_noise_are_seeded() -> None:
    model = quick().fit(*TWO)
    rows = IRIS[:5]
    few = model.sample_proba(rows, 20, seed=1)
    assert few.tolist() == model.sample_proba(rows, 20, seed=1).tolist()
    assert np.abs(model.sample_proba(rows, 10**7, seed=1) - model.predict_proba(rows)).max() < 1e-2
    noisy = model.sample_proba(rows, 10**7, seed=1, noise=Noise(readout=0.2))
    assert np.abs(noisy - model.predict_proba(rows)).max() > 1e-2


@pytest.mark.parametrize(
    ("given", "rows", "labels", "message"),
    [
        ({}, IRIS[:50], NAMES[:50], "All rows have one class, 'setosa'"),
        ({"classes": ["setosa", "versicolor", "rosa"]}, *TWO, "The class 'rosa' is empty"),
        ({"classes": ["setosa", "rosa"]}, *TWO, "'versicolor' is none of the classes"),
        ({}, [[1.0, float("nan")]] * 4, [0, 1, 0, 1], "NaN"),
        ({}, [[1.0, float("inf")]] * 4, [0, 1, 0, 1], "infinity"),
        ({}, IRIS, NAMES[:-1], "inconsistent numbers of samples"),
        ({}, IRIS, np.linspace(0, 1, 150), "Unknown label type"),
        ({}, np.empty((0, 2)), [], "0 sample"),
        ({"epochs": -1}, *TWO, "max_epochs is -1"),
        ({"learning_rate": 0}, *TWO, "learning_rate is 0"),
        ({"optimizer": "sgd"}, *TWO, "optimizer is 'sgd'"),
        ({"gradient": "guess"}, *TWO, "no gradient 'guess'"),
        ({"multiclass": "votes"}, *TWO, "multiclass is 'votes'"),
        ({"starts": 0}, *TWO, "starts is 0"),
        ({"starts": [[1.0, 2.0]]}, *TWO, "has to have"),
        ({"starts": [[float("nan")] * 10]}, *TWO, "not finite"),
        ({"structure": ""}, *TWO, "no gates"),
        ({"checkpoint": "x", "random_state": None}, *TWO, "random_state is no number"),
        ({"patience": 0}, *TWO, "patience is 0"),
    ],
)
def test_what_nothing_can_be_learned_from(
    given: dict[str, Any], rows: Any, labels: Any, message: str
) -> None:
    with pytest.raises(TrainingDataError) as caught:
        quick(**given).fit(rows, labels)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"qubits": 2, "encoding": None, "structure": "local-x"}, None),
        ({"qubits": 1}, "need 3 qubits; the circuit has 1"),
        ({"structure": "local-x partial-x:7", "qubits": 3}, "names qubit 7"),
        ({"structure": [Gate(0, "X", 0, (0,))]}, "controlled by its own target"),
        ({"encoding": "fold"}, "'fold' is no step"),
    ],
)
def test_structures_that_do_not_fit(given: dict[str, Any], message: str | None) -> None:
    model = quick(**given)
    if message is None:
        model.fit(*TWO)
        return
    with pytest.raises(CircuitError) as caught:
        model.fit(*TWO)
    assert message in str(caught.value)


def test_too_large_is_said_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda: 2**30)
    with pytest.raises(FieldpostError, match="states of 100 samples on 26 qubits need"):
        quick(qubits=26).fit(*TWO)


@pytest.fixture(scope="module")
def fitted() -> SequentialClassifier:
    return quick().fit(*TWO)


def test_labels_that_were_never_seen(fitted: SequentialClassifier) -> None:
    with pytest.raises(TrainingDataError, match="'virginica' of row 100 was never seen") as caught:
        fitted.evaluate(IRIS, NAMES)
    assert caught.value.where == "y[100]"
    with pytest.raises(TrainingDataError, match="99 labels were given for 100"):
        fitted.evaluate(IRIS[:100], NAMES[:99])


@pytest.mark.parametrize(
    "rows", [IRIS[:, :3], [[1.0, 2.0, 3.0, float("nan")]], [1.0, 2.0, 3.0, 4.0]]
)
def test_rows_that_it_cannot_answer(
    rows: NDArray[np.float64], fitted: SequentialClassifier
) -> None:
    with pytest.raises(TrainingDataError):
        fitted.predict(rows)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (np.array([0, 1]), (0, 1)),
        (np.array([False, True]), (0, 1)),
        (np.array([1.0, 2.0]), (1, 2)),
        (np.array([1.5, 2.0]), ("1.5", "2.0")),
        (np.array(["a", "b"]), ("a", "b")),
    ],
)
def test_labels_as_circuits_keep_them(given: NDArray[Any], kept: tuple[Any, ...]) -> None:
    assert named(given) == kept


def test_a_bar_shows_how_far_it_is(capfd: pytest.CaptureFixture[str]) -> None:
    quick(progress=True).fit(*TWO)
    shown = capfd.readouterr()
    assert "training" in shown.err
    assert not shown.out


def test_scikit_learn_comes_with_the_classifier_only() -> None:
    code = (
        "import sys, scoring.quantum.simulate, scoring.quantum.learning\n"
        "assert not {'sklearn', 'scipy', 'joblib', 'rich'} & set(sys.modules)\n"
        "from scoring.quantum import SequentialClassifier\n"
        "assert 'sklearn' in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("qubits", [0, -1, 1.5, "3", 31])
def test_no_register_can_have_such_a_size(qubits: Any) -> None:
    with pytest.raises(CircuitError, match="qubits cannot be described"):
        quick(qubits=qubits).fit(*TWO)


def test_a_structure_is_words_or_gates() -> None:
    with pytest.raises(CircuitError, match="5 is no structure"):
        quick(structure=5).fit(*TWO)


def test_a_search_may_give_sizes_as_numpys_numbers() -> None:
    model = quick(qubits=np.int64(4), epochs=np.int64(1)).fit(*TWO)
    assert isinstance(model.model_, Circuit)
    assert model.model_.qubits == 4
    document.dumps(model.model_)
