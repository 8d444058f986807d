"""Models behind pipes: what they answer, and how they fail."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from scoring.batch import frames
from scoring.batch.child import Child, ModelDiedError, to_error
from scoring.bundle import Bundle, ScriptSpec, encode
from scoring.errors import (
    EntryScriptError,
    InputError,
    MalformedPayloadError,
    ScoringFailedError,
    WrongTypeError,
)

ECHO = "def init():\n    print('loud')\ndef run(data):\n    print('louder')\n    return [1]\n"


def root_of(folder: Path, script: str) -> Path:
    (folder / "code").mkdir()
    (folder / "model").mkdir()
    (folder / "code" / "score.py").write_text(script)
    bundle = Bundle(name="script", runtime="script", script=ScriptSpec(entry="score.py"))
    (folder / "model" / "bundle.json").write_bytes(encode(bundle))
    return folder


def start(folder: Path, script: str = ECHO) -> Child:
    command = [sys.executable, "-m", "scoring.batch.worker", str(root_of(folder, script)), "x", "1"]
    return Child(command, dict(os.environ))


def test_what_a_script_prints_disturbs_no_answer(tmp_path: Path) -> None:
    child = start(tmp_path)
    assert child.schema is None
    assert child.ask(b"[]") == b"[1]"
    child.close()


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        ("def init(): pass\n", EntryScriptError, "run"),
        ("import nothing_like_it\n", EntryScriptError, "nothing_like_it"),
        ("import os\nos._exit(7)\n", ModelDiedError, "left with status 7"),
    ],
)
def test_scripts_that_do_not_load_are_told(
    tmp_path: Path, script: str, kind: Any, said: str
) -> None:
    with pytest.raises(kind) as caught:
        start(tmp_path, script)
    assert said in f"{caught.value.message} {caught.value.detail}"


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ("raise ValueError('no')", ScoringFailedError, "500"),
        ("return iter([1, 2])", ScoringFailedError, ""),
        ("import os; os._exit(9)", ModelDiedError, "status 9"),
    ],
)
def test_answers_that_fail(tmp_path: Path, body: str, kind: Any, said: str) -> None:
    child = start(tmp_path, f"def init(): pass\ndef run(data):\n    {body}\n")
    if "iter" in body:  # what is streamed is joined
        assert child.ask(b"[]")
    else:
        with pytest.raises(kind, match=said) as caught:
            child.ask(b"[]")
        assert caught.value.retryable is (kind is ModelDiedError)
    child.close()


def test_a_refusal_is_bad_input(tmp_path: Path) -> None:
    script = (
        "from azureml.contrib.services.aml_response import AMLResponse\n"
        "def init(): pass\ndef run(data):\n    return AMLResponse('not so', 422)\n"
    )
    child = start(tmp_path, script)
    with pytest.raises(InputError, match=r"\(422\): not so"):
        child.ask(b"[]")
    child.close()


def test_coroutines_are_awaited(tmp_path: Path) -> None:
    child = start(tmp_path, "async def init(): pass\nasync def run(data):\n    return [2]\n")
    assert child.ask(b"[]") == b"[2]"
    child.close()


def test_a_killed_model_is_told_as_what_may_pass(tmp_path: Path) -> None:
    child = start(tmp_path)
    os.kill(child.pid, signal.SIGKILL)
    with pytest.raises(ModelDiedError, match="ended by signal 9") as caught:
        child.ask(b"[]")
    assert caught.value.retryable
    child.close()


def test_arrays_pass_unchanged() -> None:
    values = {
        "floats": np.array([[1.5, -0.0], [np.nan, np.inf]], np.float32),
        "wide": np.array([2**63 - 1, -(2**63)]),
        "none": np.empty((0, 3), np.float64),
        "flags": np.array([True, False]),
        "texts": np.array([["ä", None], ["", "x"]], dtype=object),
        "maps": [{1: np.float32(0.5)}, {2: 0.25}],
        "fortran": np.asfortranarray(np.arange(6).reshape(2, 3)),
    }
    pipe = io.BytesIO()
    frames.write(pipe, {"inputs": frames.pack(values)})
    pipe.seek(0)
    document = frames.read(pipe)
    assert document is not None
    found = frames.unpack(document["inputs"])
    for name in ("floats", "wide", "none", "flags", "fortran"):
        wanted = values[name]
        assert isinstance(wanted, np.ndarray)
        assert found[name].dtype == wanted.dtype
        assert found[name].tobytes() == np.ascontiguousarray(wanted).tobytes()
        assert found[name].shape == wanted.shape
    assert found["texts"].tolist() == [["ä", None], ["", "x"]]
    assert found["maps"] == [{1: 0.5}, {2: 0.25}]


def test_frames_that_are_cut_off_or_too_long() -> None:
    pipe = io.BytesIO()
    frames.write(pipe, {"a": 1})
    for length in range(len(pipe.getvalue())):
        assert frames.read(io.BytesIO(pipe.getvalue()[:length])) is None
    with pytest.raises(MalformedPayloadError):
        frames.read(io.BytesIO(b"\xff" * 8))
    with pytest.raises(MalformedPayloadError):
        frames.read(io.BytesIO(b"\0" * 7 + b"\1" + b"\xc1"))


def test_errors_come_back_as_what_they_were() -> None:
    error = to_error({"code": "wrong_type", "message": "m", "hint": "h", "where": "w"})
    assert (type(error), error.message, error.hint, error.where) == (WrongTypeError, "m", "h", "w")
    assert to_error({"code": "scoring_failed", "retryable": True}).retryable
    assert type(to_error({"code": "never heard of"})) is ScoringFailedError
