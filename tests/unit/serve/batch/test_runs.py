"""The runs of a workspace: their records, their states, what they may not be asked."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from scoring.batch.records import Done
from scoring.batch.results import Result
from scoring.errors import InUseError, NotFoundError, UsageError
from serve import Workspace
from serve.batch.locking import holder, is_locked, locked
from serve.batch.progress import Sentences
from serve.batch.runs import make_options
from tests.support.batching import Answering, plan_of

SCRIPT = """
import json, os
def init(): pass
def run(raw):
    return [os.environ.get("WHO", "nobody")] * len(json.loads(raw)["data"])
"""


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    (tmp_path / "score.py").write_text(SCRIPT)
    (tmp_path / "rows.csv").write_text("a\n1\n2\n")
    with Workspace(tmp_path / "ws") as opened:
        yield opened


def test_a_run_is_listed_and_shown(workspace: Workspace, tmp_path: Path) -> None:
    script, source, out = str(tmp_path / "score.py"), tmp_path / "rows.csv", tmp_path / "o.jsonl"
    workspace.batch.score(script, source, out, environment={"WHO": "me"}, workers=1)
    assert out.read_text() == '{"prediction":"me"}\n' * 2
    (view,) = workspace.batch.list()
    assert (view.state, view.rows, view.shards) == ("finished", 2, 1)
    assert workspace.batch.show(view.name) == workspace.batch.show(str(out)) == view
    assert workspace.batch.cancel(view.name).state == "finished"
    out.unlink()
    assert workspace.batch.show(view.name).state == "interrupted"


def test_a_plan_writes_nothing(workspace: Workspace, tmp_path: Path) -> None:
    plan = workspace.batch.plan(str(tmp_path / "score.py"), tmp_path / "rows.csv", tmp_path / "o")
    assert [answer.name for answer in plan.answers] == ["prediction"]
    assert not (tmp_path / "o").exists()
    assert workspace.batch.list() == []


def test_what_is_not_there_is_told(workspace: Workspace, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no batch run 'x'"):
        workspace.batch.show("x")
    with pytest.raises(UsageError, match="no option 'keeps'") as caught:
        workspace.batch.score("m", tmp_path / "rows.csv", tmp_path / "o", keeps=("a",))
    assert "keep, prefix" in caught.value.hint
    with pytest.raises(UsageError, match="An option is wrong"):
        workspace.batch.score("m", tmp_path / "rows.csv", tmp_path / "o", on_error="maybe")


def test_a_run_in_the_middle_is_told_from_one_that_was_ended(
    workspace: Workspace, tmp_path: Path
) -> None:
    out = str(tmp_path / "out")
    (tmp_path / "pairs.csv").write_text("left,right\n1,2\n3,4\n")
    plan = plan_of(Answering(), tmp_path / "pairs.csv", out, shard_rows=1)
    result = Result(out)
    result.claim(plan)
    result.store.write(result.part(plan, 1), b"")
    result.mark(plan, Done(shard=1, rows=1, written=1, rejected=0))
    view = workspace.batch.show(out)
    assert (view.state, view.done, view.shards, view.rows) == ("interrupted", 1, 2, 1)
    with locked(result):
        assert workspace.batch.show(out).state == "running"
        assert holder(result) > 0
        with pytest.raises(InUseError), locked(result):
            pass
    assert not is_locked(result)


def test_paths_are_whole_and_urls_stay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    options = make_options("rows/*.csv", "out/", {"keep": ["a"]})
    assert options.input == f"{tmp_path}/rows/*.csv"
    assert options.output == f"{tmp_path}/out/"
    assert options.keep == ("a",)
    assert make_options("s3://a/b", "file:///c/d.csv", {}).output == "/c/d.csv"


def test_sentences_come_every_few_seconds() -> None:
    told: list[str] = []
    now = [0.0]
    follower = Sentences(told.append, every_s=5, clock=lambda: now[0])
    for second in range(12):
        now[0] = second
        follower.scored(100)
    follower.finished()
    follower.retrying(3, "it died")
    follower.counted(2, 8)
    assert told == [
        "0 of 0 shards, 600 rows",
        "0 of 0 shards, 1100 rows",
        "Shard 3 is tried again: it died",
        "2 of 8 tasks are done",
    ]
