"""Models that do their worst to the process that loads them."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from scoring.errors import (
    CorruptModelError,
    FieldpostError,
    ModelFileError,
    ModelNotFoundError,
    UntrustedModelError,
    WrongShapeError,
)
from scoring.formats.base import Trust
from scoring.isolation import _error, _Failure, _subclasses
from scoring.prepare import prepare, prepare_isolated

IRIS, SPECIES = load_iris(return_X_y=True)
TRUSTED = Trust(pickle=True)


class Hostile:
    """Runs code when it is unpickled."""

    def __init__(self, code: str) -> None:
        self.code = code

    def __reduce__(self) -> Any:
        return exec, (self.code,)


def _hostile(folder: Path, code: str) -> Path:
    path = folder / "model.pkl"
    path.write_bytes(pickle.dumps(Hostile(code)))
    return path


def test_the_result_is_that_of_this_process(tmp_path: Path) -> None:
    path = tmp_path / "iris.joblib"
    joblib.dump(LogisticRegression(max_iter=500).fit(IRIS, SPECIES), path)
    here = prepare(path, tmp_path / "here", trust=TRUSTED, sample=IRIS[:5])
    there = prepare_isolated(path, tmp_path / "there", trust=TRUSTED, sample=IRIS[:5])
    assert here == there
    compiled = [(tmp_path / out / "compiled/model.onnx").read_bytes() for out in ("here", "there")]
    assert compiled[0] == compiled[1]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os; os._exit(0)", r"ended its process \(exit status 0\)"),
        ("import os; os._exit(7)", r"ended its process \(exit status 7\)"),
        ("import os; os.kill(os.getpid(), 11)", r"ended its process \(signal SIGSEGV\)"),
        ("import os; os.kill(os.getpid(), 9)", r"ended its process \(signal SIGKILL\)"),
    ],
)
def test_a_pickle_that_ends_its_process_is_an_error(code: str, words: str, tmp_path: Path) -> None:
    path = _hostile(tmp_path, code)
    with pytest.raises(CorruptModelError, match=words) as caught:
        prepare_isolated(path, tmp_path / "out", trust=TRUSTED)
    assert caught.value.where == str(path)
    assert caught.value.hint


@pytest.mark.parametrize("code", ["raise SystemExit(0)", "raise KeyboardInterrupt", "1 / 0"])
def test_a_pickle_that_raises_is_an_error(code: str, tmp_path: Path) -> None:
    with pytest.raises(ModelFileError):
        prepare_isolated(_hostile(tmp_path, code), tmp_path / "out", trust=TRUSTED)


def test_what_it_prints_goes_to_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    code = """
        import os, sys
        os.write(1, b'{"noise": 1}\\n'); os.write(2, b"last words\\n"); os._exit(1)
    """
    caplog.set_level(logging.INFO)
    with pytest.raises(CorruptModelError) as caught:
        prepare_isolated(_hostile(tmp_path, textwrap.dedent(code)), tmp_path, trust=TRUSTED)
    assert "last words" in caught.value.detail
    assert any("last words" in record.getMessage() for record in caplog.records)
    assert capfd.readouterr() == ("", "")


def test_no_framework_enters_the_callers_process(tmp_path: Path) -> None:
    path = tmp_path / "iris.joblib"
    joblib.dump(LogisticRegression(max_iter=500).fit(IRIS, SPECIES), path)
    program = (
        "import sys; from pathlib import Path\n"
        "from scoring.prepare import prepare_isolated; from scoring.formats.base import Trust\n"
        "path = Path(sys.argv[1])\n"
        "found = prepare_isolated(path, path.parent / 'o', trust=Trust(pickle=True))\n"
        "heavy = {'onnx', 'sklearn', 'pandas', 'scipy', 'skl2onnx', 'joblib', 'onnxruntime'}\n"
        "print(found.serves, sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(path)],
        env={"PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "compiled []"


def test_errors_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "iris.joblib"
    joblib.dump(LogisticRegression(max_iter=500).fit(IRIS, SPECIES), path)
    cases: list[tuple[type[FieldpostError], Path, Trust, Any]] = [
        (UntrustedModelError, path, Trust(), None),
        (WrongShapeError, path, TRUSTED, np.ones((2, 2))),
        (ModelNotFoundError, tmp_path / "none", TRUSTED, None),
    ]
    for kind, file, trust, sample in cases:
        with pytest.raises(kind) as here:
            prepare(file, tmp_path / "o", trust=trust, sample=sample)
        with pytest.raises(kind) as there:
            prepare_isolated(file, tmp_path / "o", trust=trust, sample=sample)
        assert type(here.value) is type(there.value)
        assert here.value.to_dict() == there.value.to_dict()


def test_every_error_can_cross_the_border() -> None:
    # Other tests of this process may have imported those of serve, which no child raises.
    kinds = [k for k in _subclasses(FieldpostError) if k.__module__ == FieldpostError.__module__]
    assert len({kind.code for kind in kinds}) == len(kinds)
    for kind in kinds:
        raised = _error(_Failure(kind.code, "message", "hint", "where", "detail"))
        assert type(raised) is kind
        assert (raised.hint, raised.where, raised.detail) == ("hint", "where", "detail")


MODULE = """
import os
import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin

class Deadly(ClassifierMixin, BaseEstimator):
    def fit(self, rows, targets):
        self.n_features_in_, self.classes_ = rows.shape[1], np.unique(targets)
        return self

    def predict(self, rows):
        return self.classes_[(np.asarray(rows)[:, 0] > 5).astype(int)]

    def onnx_parser(self):
        os.abort()
"""


def test_a_converter_that_ends_the_process_leaves_the_original(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deadly_model.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import deadly_model  # type: ignore[import-not-found]

    joblib.dump(deadly_model.Deadly().fit(IRIS, SPECIES > 0), tmp_path / "m.joblib")
    prepared = prepare_isolated(tmp_path / "m.joblib", tmp_path / "out", trust=TRUSTED)
    assert prepared.serves == "original"
    assert prepared.compilation is not None
    assert prepared.compilation.reason == "Compiling ended its process (signal SIGABRT)."
    assert prepared.schema.example is not None


def test_the_child_does_not_outlive_its_parent(tmp_path: Path) -> None:
    """The model waits for ever; its parent is killed; the pipe that it reads then breaks."""
    pid = tmp_path / "pid"
    code = (
        f"import os, pathlib, time; pathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\n"
        f"os.open({str(tmp_path / 'lock')!r}, os.O_RDONLY)\n"
        "while True: time.sleep(60)\n"
    )
    fifo = tmp_path / "lock"
    os.mkfifo(fifo)
    program = (
        "import sys; from pathlib import Path\n"
        "from scoring.prepare import prepare_isolated; from scoring.formats.base import Trust\n"
        "prepare_isolated(Path(sys.argv[1]), Path('o'), trust=Trust(pickle=True))\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program, str(_hostile(tmp_path, code))],
        env={"PYTHONPATH": ":".join(sys.path)},
        cwd=tmp_path,
    )
    # Opening the FIFO waits until the child has opened it, and writing fails when the child ends.
    with fifo.open("wb", buffering=0) as lock:
        assert int(pid.read_text()) != parent.pid
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        with pytest.raises(BrokenPipeError):
            _write_for_ever(lock)


def _write_for_ever(file: Any) -> None:
    while True:
        file.write(b"x")
