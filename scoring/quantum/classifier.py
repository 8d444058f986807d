"""A circuit that learns, as a scikit-learn estimator.

Importing this module imports scikit-learn; `scoring.quantum.SequentialClassifier` does so late.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from scoring.errors import MissingDependencyError, TrainingDataError
from scoring.quantum import document, simulate
from scoring.quantum.circuit import Circuit, Gate, Model
from scoring.quantum.features import Step
from scoring.quantum.learning import Samples, learn, plan
from scoring.quantum.noise import Noise, Seed, sampled_probabilities
from scoring.quantum.training.options import TrainingOptions

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise MissingDependencyError(
        "Training a quantum classifier needs scikit-learn.",
        hint="Install it: pip install 'fieldpost[quantum]'.",
    ) from error

_HALF = 0.5


@dataclass(frozen=True)
class Evaluation:
    """How a classifier does on labelled rows.

    Attributes:
        misses: Rows that were given another class than their own.
        samples: Rows in all.
        classes: The labels, in the order of the confusion matrix.
        confusion: Entry (i, j) counts the rows of class i that were given class j.
        report: Precision, recall and F1 of each class, as text.
    """

    misses: int
    samples: int
    classes: tuple[Any, ...]
    confusion: NDArray[np.int64]
    report: str

    @property
    def accuracy(self) -> float:
        """The share of rows that were given their own class."""
        return 1 - self.misses / self.samples

    def __str__(self) -> str:
        return f"{self.misses} misses of {self.samples} ({self.accuracy:.2%})\n{self.report}"


class SequentialClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A circuit-centric quantum classifier.

    A row becomes the amplitudes of a state (so its length does not matter, nor its sign: append a
    constant where they should), controlled rotations turn it, and the probability to measure one on
    the last qubit, plus a bias, tells the class.

    Args:
        structure: Layers in words (`layers.parse`), a list of gates, or None for
            `"local-z local-x cyclic-x partial-x:-1"` (without the cyclic layer on one qubit).
        encoding: What is done to rows first: words (`preparation`), a list of steps, or None.
        qubits: The size of the register; as few as features and structure need by default.
        multiclass: With more than two classes, `one-vs-rest` (a circuit for each class; what `auto`
            means) or `qubits` (one circuit, as many measured qubits as the classes need).
        optimizer: `library`, `adam` or `lbfgs`.
        gradient: One of `gradients.METHODS`.
        epochs: Rounds over all samples at most (the library's MaxEpochs).
        learning_rate: By what the gradient is multiplied.
        minibatch_size: Samples in one step.
        tolerance: The share of misses below which training ends.
        n_measurements: For each probability, with gradients that are measured.
        max_stalls: Rounds without any change before the library's loop gives up.
        stochastic_rescale_factor: By what it moves stalled parameters.
        scoring_period: Steps between two looks at whether they helped.
        bias: How the bias is found: `auto`, `library`, `best` or `trained`.
        patience: Rounds without a better loss before Adam and L-BFGS end early; None for never.
        starts: How many start points are drawn by chance, or a list of them.
        training_schedule: Places of the samples that are learned from; all by default.
        validation_schedule: Places of the samples on which the bias is fitted and start points are
            compared; all by default.
        classes: All labels that there may be; by default those that occur.
        random_state: What makes a run repeatable.
        n_jobs: How many start points are trained at once, each in a process; -1 for all cores.
        checkpoint: A file from which a training that was broken off goes on; needs `random_state`.
        progress: Whether a bar on stderr shows how far it is.

    Attributes:
        classes_: The labels.
        model_: What was learned: a `Circuit`, or `OneVersusRest`.
        n_features_in_: How many numbers a row has.
        n_iter_: Rounds that the best start point took (of the slowest circuit).
    """

    def __init__(
        self,
        structure: str | Sequence[Gate] | None = None,
        *,
        encoding: str | Sequence[Step] | None = None,
        qubits: int | None = None,
        multiclass: str = "auto",
        optimizer: str = "library",
        gradient: str = "adjoint",
        epochs: int = 16,
        learning_rate: float = 0.1,
        minibatch_size: int = 15,
        tolerance: float = 0.005,
        n_measurements: int = 10_000,
        max_stalls: int = 8,
        stochastic_rescale_factor: float = 0.01,
        scoring_period: int = 1,
        bias: str = "auto",
        patience: int | None = None,
        starts: int | Sequence[Sequence[float]] = 4,
        training_schedule: Sequence[int] | None = None,
        validation_schedule: Sequence[int] | None = None,
        classes: Sequence[Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
        n_jobs: int | None = None,
        checkpoint: str | PathLike[str] | None = None,
        progress: bool = False,
    ) -> None:
        self.structure = structure
        self.encoding = encoding
        self.qubits = qubits
        self.multiclass = multiclass
        self.optimizer = optimizer
        self.gradient = gradient
        self.epochs = epochs
        self.learning_rate = learning_rate
        self.minibatch_size = minibatch_size
        self.tolerance = tolerance
        self.n_measurements = n_measurements
        self.max_stalls = max_stalls
        self.stochastic_rescale_factor = stochastic_rescale_factor
        self.scoring_period = scoring_period
        self.bias = bias
        self.patience = patience
        self.starts = starts
        self.training_schedule = training_schedule
        self.validation_schedule = validation_schedule
        self.classes = classes
        self.random_state = random_state
        self.n_jobs = n_jobs
        self.checkpoint = checkpoint
        self.progress = progress

    def options(self) -> TrainingOptions:
        """How it trains, checked.

        Raises:
            TrainingDataError: An option has a value that it cannot have.
        """
        return TrainingOptions(
            learning_rate=_plain(self.learning_rate),
            tolerance=_plain(self.tolerance),
            minibatch_size=_plain(self.minibatch_size),
            n_measurements=_plain(self.n_measurements),
            max_epochs=_plain(self.epochs),
            max_stalls=_plain(self.max_stalls),
            stochastic_rescale_factor=_plain(self.stochastic_rescale_factor),
            scoring_period=_plain(self.scoring_period),
            optimizer=_plain(self.optimizer),
            gradient=_plain(self.gradient),
            bias=_plain(self.bias),
            patience=_plain(self.patience),
        )

    def fit(self, X: ArrayLike, y: ArrayLike) -> Self:  # noqa: N803
        """Learns from labelled rows.

        Args:
            X: Rows, of the shape (samples, features).
            y: A label for each: numbers or strings, two or more different ones.

        Raises:
            TrainingDataError: Nothing can be learned from them; a `ValueError`, too.
            CircuitError: The structure or the encoding does not fit the rows.
            CircuitTooLargeError: The states would not fit into memory.
        """
        samples = self._samples(X, y)
        seed = self._seed()
        self.model_: Model = learn(
            samples,
            self.options(),
            structure=self.structure,
            encoding=self.encoding or (),
            qubits=_plain(self.qubits),
            multiclass=self.multiclass,
            starts=self.starts,
            seed=seed,
            jobs=self.n_jobs or 1,
            checkpoint=None if self.checkpoint is None else Path(self.checkpoint),
            progress=self.progress,
            schedules=(self.training_schedule, self.validation_schedule),
        )
        self.n_iter_ = max(1, int(self.model_.record["epochs"]))
        return self

    def plan(self, X: ArrayLike, y: ArrayLike) -> Circuit:  # noqa: N803
        """What `fit` would train, all angles zero, after its checks: a circuit, or one of several.

        Raises:
            TrainingDataError, CircuitError, CircuitTooLargeError: As `fit`.
        """
        self.options()
        return plan(
            self._samples(X, y),
            self.structure,
            self.encoding or (),
            _plain(self.qubits),
            self.multiclass,
        )

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """The probability of each class, exactly: the shape (samples, classes)."""
        return simulate.class_probabilities(self._model(), self._rows(X))

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """The class of each row: the shape (samples,)."""
        chosen = self.predict_proba(X).argmax(axis=1)
        found: NDArray[Any] = self.classes_[chosen]
        return found

    def decision_function(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """With two classes how far `p + bias` is over one half; else the classes' probabilities."""
        model = self._model()
        if isinstance(model, Circuit) and model.is_binary:
            return simulate.probability_of_one(model, self._rows(X)) + model.bias - _HALF
        return self.predict_proba(X)

    def sample_proba(
        self,
        X: ArrayLike,  # noqa: N803
        shots: int,
        seed: Seed = None,
        noise: Noise | None = None,
    ) -> NDArray[np.float64]:
        """Class probabilities as a number of measurements would tell them, with noise if given."""
        return sampled_probabilities(self._model(), self._rows(X), shots, seed, noise)

    def evaluate(self, X: ArrayLike, y: ArrayLike) -> Evaluation:  # noqa: N803
        """How it does on labelled rows.

        Raises:
            TrainingDataError: A label is none of those that were learned.
        """
        from sklearn.metrics import classification_report, confusion_matrix  # noqa: PLC0415

        predicted = self.predict(X)
        labels = np.asarray(y)
        if labels.shape != predicted.shape:
            raise TrainingDataError(
                f"{' x '.join(map(str, labels.shape)) or 'No'} labels were given for "
                f"{len(predicted)} rows.",
                hint="Give one label for each row.",
            )
        unknown = ~np.isin(labels, self.classes_)
        if unknown.any():
            place = int(np.flatnonzero(unknown)[0])
            raise TrainingDataError(
                f"The label {labels.tolist()[place]!r} of row {place} was never seen in training.",
                hint=f"Known are {', '.join(map(str, self.classes_))}.",
                where=f"y[{place}]",
            )
        return Evaluation(
            misses=int(np.count_nonzero(predicted != labels)),
            samples=len(labels),
            classes=tuple(self.classes_.tolist()),
            confusion=confusion_matrix(labels, predicted, labels=self.classes_),
            report=classification_report(labels, predicted, zero_division=0),
        )

    def save(self, path: str | PathLike[str]) -> None:
        """Writes what was learned as `NAME.circuit.json`."""
        document.save(self._model(), Path(path))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        # A state knows neither a row's length nor its sign: clouds around zero look alike.
        tags.classifier_tags.poor_score = True
        return tags

    def _model(self) -> Model:
        check_is_fitted(self, "model_")
        return self.model_

    def _rows(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        check_is_fitted(self, "model_")
        try:
            found: NDArray[np.float64] = validate_data(self, X, dtype=np.float64, reset=False)
        except ValueError as error:
            raise TrainingDataError(str(error)) from error
        return found

    def _samples(self, X: ArrayLike, y: ArrayLike) -> Samples:  # noqa: N803
        rows, labels = self._checked(X, y)
        self.classes_ = self._classes(labels)
        return Samples(rows, np.searchsorted(self.classes_, labels), named(self.classes_))

    def _checked(self, X: ArrayLike, y: ArrayLike) -> tuple[NDArray[np.float64], NDArray[Any]]:  # noqa: N803
        try:
            rows, labels = validate_data(self, X, y, dtype=np.float64)
            check_classification_targets(labels)
        except ValueError as error:
            raise TrainingDataError(str(error)) from error
        return rows, labels

    def _classes(self, labels: NDArray[Any]) -> NDArray[Any]:
        """All labels, sorted; each of them occurs."""
        found: NDArray[Any] = np.unique(
            labels if self.classes is None else np.asarray(self.classes)
        )
        present: NDArray[Any] = np.unique(labels)
        strange = [label for label in present.tolist() if label not in found.tolist()]
        if strange:
            raise TrainingDataError(
                f"The label {strange[0]!r} is none of the classes that were named.",
                hint=f"Named are {', '.join(map(str, found.tolist()))}.",
            )
        empty = [label for label in found.tolist() if label not in present.tolist()]
        if empty:
            raise TrainingDataError(
                f"The class {empty[0]!r} is empty: no row has this label.",
                hint="Add rows of it, or leave it out of the classes.",
            )
        if len(found) < 2:  # noqa: PLR2004
            raise TrainingDataError(
                f"All rows have one class, {found.tolist()[0]!r}: there is nothing to tell apart.",
                hint="Give rows of two or more classes.",
            )
        return found

    def _seed(self) -> int:
        if self.checkpoint is not None and not isinstance(self.random_state, int | np.integer):
            raise TrainingDataError(
                "A checkpoint is named, and random_state is no number.",
                hint="Give a number: only then does a training that goes on do what it would have.",
                where="random_state",
            )
        return int(check_random_state(self.random_state).randint(2**31 - 1))


def _plain(number: Any) -> Any:
    """A number of NumPy's, as searches give them, as Python's."""
    return number.item() if isinstance(number, np.generic) else number


def named(classes: NDArray[Any]) -> tuple[int | str, ...]:
    """Labels as a circuit keeps them: whole numbers where all are, else strings."""
    values = classes.tolist()
    whole = all(
        isinstance(value, bool | int)
        or (isinstance(value, float) and math.isfinite(value) and value == int(value))
        for value in values
    )
    return tuple(int(value) for value in values) if whole else tuple(str(value) for value in values)
