"""Results: what is whose, what is done, and what is joined."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pyarrow.parquet as pq
import pytest

from scoring.batch.records import Done
from scoring.batch.results import Result
from scoring.errors import AlreadyExistsError, ScoringFailedError, WorkspaceError
from tests.support.batching import Answering, plan_of, run


def dataset(folder: Path) -> Path:
    path = folder / "rows.csv"
    path.write_text("left,right\n" + "1,2\n" * 10)
    return path


def test_another_runs_result_is_left_alone_and_the_difference_told(tmp_path: Path) -> None:
    source, out = dataset(tmp_path), str(tmp_path / "out")
    result = Result(out)
    result.claim(plan_of(Answering(), source, out))
    result.claim(plan_of(Answering(), source, out))
    with pytest.raises(AlreadyExistsError, match=r"other options \(call_rows\)"):
        result.claim(plan_of(Answering(), source, out, call_rows=3))
    model = msgspec.structs.replace(plan_of(Answering(), source, out), model="y")
    with pytest.raises(AlreadyExistsError, match="its model is another"):
        result.claim(model)
    source.write_text(source.read_text() + "1,2\n")
    with pytest.raises(AlreadyExistsError, match="its dataset was another, or has changed since"):
        result.claim(plan_of(Answering(), source, out))


def test_a_file_where_a_folder_is_wanted_is_told(tmp_path: Path) -> None:
    source, out = dataset(tmp_path), tmp_path / "out.txt"
    out.write_text("keep")
    with pytest.raises(AlreadyExistsError, match="no run of this command made it"):
        Result(str(out)).claim(plan_of(Answering(), source, out))
    assert out.read_text() == "keep"


@pytest.mark.parametrize("name", ["out.csv", "out"])
def test_files_of_others_are_not_overwritten(tmp_path: Path, name: str) -> None:
    source, out = dataset(tmp_path), tmp_path / name
    if name == "out":
        out.mkdir()
        (out / "precious.txt").write_text("keep")
    else:
        out.write_text("keep")
    result = Result(str(out))
    with pytest.raises(AlreadyExistsError, match="no run of this command made it"):
        result.claim(plan_of(Answering(), source, out))
    result.clear()
    if name == "out":
        assert (out / "precious.txt").exists()
    else:
        assert not out.exists()


def test_parts_of_an_older_plan_are_not_taken_for_this_ones(tmp_path: Path) -> None:
    source, out = dataset(tmp_path), str(tmp_path / "out")
    plan, other = plan_of(Answering(), source, out), plan_of(Answering(), source, out, call_rows=3)
    result = Result(out)
    result.store.write(result.part(other, 0), b"")
    result.mark(other, Done(shard=0, rows=10, written=10, rejected=0))
    assert result.marks(other) == {0}
    assert result.marks(plan) == set()
    with pytest.raises(ScoringFailedError, match="1 of 1 shards have no result yet"):
        result.finish(plan)


def test_readers_of_datasets_pass_over_what_a_run_remembers(tmp_path: Path) -> None:
    run(Answering(), dataset(tmp_path), tmp_path / "out", output_format="parquet", shard_rows=4)
    assert pq.read_table(tmp_path / "out").num_rows == 10
    assert sorted(p.name[:10] for p in (tmp_path / "out").iterdir()) == [
        "_fieldpost",
        *(f"part-{n:05d}" for n in range(3)),
    ]


def test_a_single_file_leaves_little_beside_it(tmp_path: Path) -> None:
    summary = run(Answering(), dataset(tmp_path), tmp_path / "out.csv", shard_rows=4)
    text = (tmp_path / "out.csv").read_text().splitlines()
    assert len(text) == 11
    assert text.count(text[0]) == 1
    state = tmp_path / ".out.csv.fieldpost"
    assert sorted(path.name for path in state.iterdir()) == ["done", "plan.json", "summary.json"]
    again = Result(str(tmp_path / "out.csv"))
    assert again.is_finished()
    assert again.summary() == summary
    (tmp_path / "out.csv").unlink()
    assert not again.is_finished()


@pytest.mark.parametrize("text", [b"{", b'{"version": 99}'])
def test_a_plan_that_cannot_be_read_is_told(tmp_path: Path, text: bytes) -> None:
    result = Result(str(tmp_path / "out"))
    result.store.write(f"{result.state}/plan.json", text)
    with pytest.raises(WorkspaceError, match=r"--overwrite|cannot be read|is of version"):
        result.plan()


def test_a_part_that_somebody_removed_is_not_done(tmp_path: Path) -> None:
    source, out = dataset(tmp_path), str(tmp_path / "out")
    plan, result = plan_of(Answering(), source, out), Result(out)
    result.store.write(result.part(plan, 0), b"")
    result.mark(plan, Done(shard=0, rows=10, written=10, rejected=0))
    assert result.marks(plan) == {0}
    result.store.remove(result.part(plan, 0))
    assert result.marks(plan) == set()
