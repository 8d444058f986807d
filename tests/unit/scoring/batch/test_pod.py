"""A pod of a job, in this process: its number, its statuses, and what it finds done."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from scoring.batch import pod
from scoring.batch.pod import BAD_ROW, BAD_RUN, INDEX, VARIABLE, Work
from scoring.batch.records import Options
from scoring.batch.results import Result
from scoring.bundle import Bundle, encode
from scoring.schema import ModelSchema, TensorSpec
from tests.e2e.test_images import save_model
from tests.support.batching import rows_of


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    save_model(tmp_path / "model" / "twice.onnx")
    spec = TensorSpec("x", "float32", (None, 2)), TensorSpec("y", "float32", (None, 2))
    bundle = Bundle(
        name="twice",
        runtime="onnx",
        model_path="twice.onnx",
        schema=ModelSchema(inputs=spec[:1], outputs=spec[1:]),
    )
    (tmp_path / "model" / "bundle.json").write_bytes(encode(bundle))
    (tmp_path / "rows.csv").write_text("a,b\n" + "".join(f"{n},1\n" for n in range(10)))
    return tmp_path


def run(root: Path, number: int, tasks: int = 3, source: str = "rows.csv") -> int:
    work = Work("sha256:x", options(root, source), tasks)
    variables = {VARIABLE: msgspec.json.encode(work).decode(), INDEX: str(number)}
    return pod.main(["pod", str(root)], variables)


def options(root: Path, source: str = "rows.csv") -> Options:
    return Options(input=str(root / source), output=str(root / "out.jsonl"), shard_rows=2)


def test_pods_of_all_numbers_make_one_result(root: Path) -> None:
    assert run(root, 0) == 0
    result = Result(str(root / "out.jsonl"))
    plan = result.plan()
    assert plan is not None
    assert result.marks(plan) == {0, 3}
    assert run(root, 2) == 0
    assert run(root, 0) == 0
    assert not result.is_finished()
    assert run(root, 1) == 0
    assert [row["prediction_0"] for row in rows_of(root / "out.jsonl")] == [
        2.0 * n for n in range(10)
    ]
    assert [run(root, number) for number in range(3)] == [0, 0, 0]


def test_any_pod_makes_the_plan_where_none_comes(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pod, "_PLAN_WAIT_S", 0.0)
    assert run(root, 1) == 0
    assert Result(str(root / "out.jsonl")).plan() is not None


def test_statuses_tell_what_another_pod_would_do_no_better(root: Path) -> None:
    assert pod.main(["pod", str(root)], {}) == BAD_RUN
    assert pod.main(["pod", str(root)], {VARIABLE: "{}", INDEX: "x"}) == BAD_RUN
    (root / "wide.csv").write_text("a,b,c\n1,2,3\n")
    assert run(root, 0, source="wide.csv") == BAD_RUN
    assert run(root, 0, source="none.csv") == BAD_RUN
    text = "a,b\n" + "1,1\n" * 200 + "x,1\n"
    (root / "bad.csv").write_text(text)
    assert run(root, 0, tasks=1, source="bad.csv") == BAD_ROW
    assert run(root, 0) == BAD_RUN  # the output is another run's


def test_a_model_that_does_not_load_ends_the_job(root: Path) -> None:
    (root / "model" / "twice.onnx").write_bytes(b"no model")
    assert run(root, 0) == BAD_RUN
