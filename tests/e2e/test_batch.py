"""Batch scoring as a user does it: a package's results are its server's answers, bit for bit.

Twenty seconds, half of them to build packages.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.compose import make_column_transformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from scoring.errors import InputError, PackagingError, UnsignedError
from serve import Workspace
from serve.provenance.keys import PrivateKey
from tests.e2e.test_images import save_model
from tests.support.batching import rows_of

pytestmark = pytest.mark.timeout(300)

MAIN = "from serve.cli.main import main; main()"
NUMBERS = ["age", "fare"]
SCRIPT = """
import json
def init():
    pass
def run(raw):
    rows = json.loads(raw)["data"]
    print("a script prints")
    return [{"total": sum(row), "many": len(rows)} for row in rows]
"""


def frame(rows: int, seed: int = 0) -> pd.DataFrame:
    """Passengers, of whom some hide their age."""
    chance = np.random.default_rng(seed)
    table = pd.DataFrame(
        {
            "id": np.arange(rows),
            "age": chance.normal(40, 15, rows).round(1),
            "fare": chance.exponential(30, rows).round(4),
            "port": chance.choice(["Cherbourg", "Queenstown", "Southampton, UK"], rows),
        }
    )
    table.loc[chance.random(rows) < 0.1, "age"] = np.nan
    return table


class Site:
    """A workspace with packages, and the model that is in one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.workspace = Workspace(folder / "ws")
        table = frame(400)
        numbers = make_pipeline(SimpleImputer(), StandardScaler())
        columns = make_column_transformer((numbers, NUMBERS), (OneHotEncoder(), ["port"]))
        self.model = make_pipeline(columns, LogisticRegression())
        self.model.fit(table[[*NUMBERS, "port"]], table["fare"] > table["age"].fillna(40))
        sample = table[[*NUMBERS, "port"]]
        registered = self.workspace.models.register("titanic", self.model, sample=sample)
        self.package = self.workspace.packages.build(registered)

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", MAIN, *arguments],
            env=os.environ | {"FIELDPOST_WORKSPACE": str(self.folder / "ws")},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    found = Site(tmp_path_factory.mktemp("batch"))
    yield found
    found.workspace.close()


@pytest.fixture(scope="module")
def asked(site: Site) -> Iterator[Any]:
    handle = site.workspace.deploy("titanic", site.package)
    yield handle
    handle.stop()


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_results_are_the_servers_answers_bit_for_bit(
    site: Site, asked: Any, tmp_path: Path, form: str
) -> None:
    table = frame(700, seed=1)
    source = tmp_path / f"rows.{form}"
    writers: dict[str, Any] = {"csv": table.to_csv, "parquet": table.to_parquet}
    if form == "jsonl":
        table.to_json(source, orient="records", lines=True)
    else:
        writers[form](source, index=False)
    out = tmp_path / "out.jsonl"
    site.workspace.batch.score(
        "titanic", source, out, keep=("id",), shard_rows=300, call_rows=150, workers=2
    )
    found = rows_of(out)
    assert [int(row.pop("id")) for row in found] == list(range(700))
    wanted: list[dict[str, Any]] = []
    for shard in range(0, 700, 300):
        for start in range(shard, min(shard + 300, 700), 150):
            part = table[start : min(start + 150, shard + 300)]
            wanted += answered(asked, part)
    if form == "parquet":  # one row group is one shard: its chunks are other ones
        wanted = [r for n in range(0, 700, 150) for r in answered(asked, table[n : n + 150])]
    assert found == wanted


def answered(asked: Any, part: pd.DataFrame) -> list[dict[str, Any]]:
    """The answers of the server, as rows of a result."""
    names = [*NUMBERS, "port"]
    rows = json.loads(part[names].to_json(orient="values"))
    answer = asked.score({"columns": names, "data": rows})
    return [
        {"prediction": label, "probability_False": chances[0], "probability_True": chances[1]}
        for label, chances in zip(answer["predictions"], answer["probabilities"], strict=True)
    ]


def test_results_are_sklearns_own(site: Site, tmp_path: Path) -> None:
    table = frame(3000, seed=2)
    table.to_parquet(tmp_path / "rows.parquet", row_group_size=500)
    site.workspace.batch.score("titanic", tmp_path / "rows.parquet", tmp_path / "out", keep=("id",))
    found = pd.read_parquet(tmp_path / "out")
    inputs = table[[*NUMBERS, "port"]]
    assert found["id"].tolist() == list(range(3000))
    assert (found["prediction"].to_numpy() == site.model.predict(inputs)).all()
    chances = found[["probability_False", "probability_True"]].to_numpy()
    assert np.allclose(chances, site.model.predict_proba(inputs), atol=1e-5)


def test_a_packages_script_answers_as_it_does_when_served(site: Site, tmp_path: Path) -> None:
    script = tmp_path / "score.py"
    script.write_text(SCRIPT)
    package = site.workspace.packages.build(script=script)
    (tmp_path / "rows.csv").write_text("a,b\n" + "".join(f"{n},{n}.5\n" for n in range(25)))
    done = site.command(
        *("batch", "score", package.digest, str(tmp_path / "rows.csv"), str(tmp_path / "out.csv")),
        *("--call-rows", "10", "--keep", "a", "--columns", "a,b", "--json"),
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["written"] == 25
    found = rows_of(tmp_path / "out.csv")
    assert [float(row["total"]) for row in found] == [2 * n + 0.5 for n in range(25)]
    assert [row["many"] for row in found] == ["10"] * 20 + ["5"] * 5


def test_the_commands_tell_what_they_do(site: Site, tmp_path: Path) -> None:
    frame(1000).to_csv(tmp_path / "rows.csv", index=False)
    source, out = str(tmp_path / "rows.csv"), str(tmp_path / "out.parquet")
    call = ("batch", "score", "titanic", source, out, "--keep", "id", "--shard-rows", "250")
    planned = site.command(*call, "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "prediction, probability_False, probability_True" in planned.stdout
    assert not Path(out).exists()
    done = site.command(*call)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"1000 rows in {out}, of 1000 read, 4 shards")
    assert "1 files, 4 shards" in done.stderr
    again = site.command(*call)
    assert "4 shards had been scored before" in again.stdout
    shown = json.loads(site.command("batch", "show", out, "--json").stdout)
    assert (shown["state"], shown["rows"], shown["shards"]) == ("finished", 1000, 4)
    listed = site.command("batch", "list")
    assert shown["name"] in listed.stdout
    other = site.command(*call, "--call-rows", "7")
    assert other.returncode == 1
    assert "other options (call_rows)" in other.stderr
    assert "--overwrite" in other.stderr
    replaced = site.command(*call, "--call-rows", "7", "--overwrite")
    assert replaced.returncode == 0, replaced.stderr


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("nothing", "rows.csv", "out.csv"), 1, "neither a file here nor a registered model"),
        (("titanic", "no.csv", "out.csv"), 1, "There is no file at"),
        (("titanic", "rows.csv", "out.csv.gz"), 2, "would be compressed"),
        (("titanic", "rows.csv", "out.csv", "--set", "workers=1"), 2, "jobs of a cluster"),
        (("titanic", "rows.csv", "out.csv", "--delimiter", "ab"), 2, "not one character"),
        (("titanic", "rows.csv", "out.csv", "--encoding", "utf-16"), 2, "cannot be read by lines"),
        (("titanic", "rows.txt", "out.csv"), 2, "not told by its name"),
        (("titanic", "rows.csv", "there.csv"), 1, "is there already"),
        (("titanic", "rows.csv", "rows.csv", "--overwrite"), 2, "the rows would be lost"),
        (("titanic", "s9://bucket/rows.csv", "out.csv"), 2, "cannot be opened"),
    ],
)
def test_wrong_commands_say_what_to_do(
    site: Site, tmp_path: Path, arguments: tuple[str, ...], status: int, said: str
) -> None:
    frame(5).to_csv(tmp_path / "rows.csv", index=False)
    (tmp_path / "rows.txt").write_text("")
    (tmp_path / "there.csv").write_text("mine\n")
    model, source, out, *options = arguments
    places = [str(tmp_path / source) if "://" not in source else source, str(tmp_path / out)]
    done = site.command("batch", "score", model, *places, *options)
    assert (done.returncode, said in done.stderr) == (status, True), done.stderr
    assert "Traceback" not in done.stderr


def test_all_that_does_not_fit_is_told_at_once(site: Site, tmp_path: Path) -> None:
    table = frame(10).rename(columns={"port": "harbour"})
    table["age"] = table["age"].astype(str)
    table.to_parquet(tmp_path / "a.parquet")
    frame(10).assign(fare="free").to_csv(tmp_path / "b.csv", index=False)
    with pytest.raises(InputError) as caught:
        site.workspace.batch.score(
            "titanic", tmp_path / "[ab].*", tmp_path / "out.csv", keep=("id", "nope")
        )
    told = caught.value.message
    assert "a.parquet: missing column 'port'" in told
    assert "a.parquet: column 'age' is " in told
    assert "b.csv: missing column 'nope', which --keep names" in told
    with pytest.raises(InputError, match=r"line 2: Column 'fare'.*\"?free"):
        site.workspace.batch.score("titanic", tmp_path / "b.csv", tmp_path / "out.csv")


def test_twice_the_same_column_is_told(site: Site, tmp_path: Path) -> None:
    buffer = io.StringIO()
    frame(3).to_csv(buffer, index=False)
    text = buffer.getvalue().replace("id,", "age,", 1)
    (tmp_path / "rows.csv").write_text(text)
    with pytest.raises(InputError, match="given twice: column 'age'"):
        site.workspace.batch.score("titanic", tmp_path / "rows.csv", tmp_path / "out.csv")


def test_urls_of_fsspec_are_read_and_written(site: Site, tmp_path: Path) -> None:
    import fsspec

    frame(300).to_csv(tmp_path / "rows.csv", index=False)
    place, out = f"local://{tmp_path}/rows.csv", f"local://{tmp_path}/out"
    assert fsspec.filesystem("local").exists(f"{tmp_path}/rows.csv")
    summary = site.workspace.batch.score("titanic", place, out, keep=("id",), shard_rows=100)
    assert (summary.rows, summary.shards) == (300, 3)
    assert [int(row["id"]) for row in rows_of(tmp_path / "out")] == list(range(300))
    assert site.workspace.batch.score("titanic", place, out, keep=("id",), shard_rows=100).resumed


def test_a_package_of_an_older_release_is_told(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "runtime" / "scoring").mkdir(parents=True)
    monkeypatch.setattr("scoring.packages.unpack.unpack_package", lambda *_: tmp_path)
    with pytest.raises(PackagingError, match="built before there was batch scoring"):
        site.workspace.batch.score(site.package.digest, tmp_path / "rows.csv", tmp_path / "o.csv")


def test_only_signed_packages_where_signatures_are_required(tmp_path: Path) -> None:
    from tests.support.small_packages import small_package

    frame(3).to_csv(tmp_path / "rows.csv", index=False)
    with Workspace(tmp_path / "ws") as workspace:
        package = small_package(workspace, tmp_path)
        workspace.require_signatures([PrivateKey.generate().public])
        with pytest.raises(UnsignedError):
            workspace.batch.score(package.digest, tmp_path / "rows.csv", tmp_path / "o.csv")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_dataset(tmp_path: Path) -> None:
    rows = 4_000_000 if os.environ.get("FIELDPOST_TEST_LONG") else 150_000
    save_model(tmp_path / "twice.onnx")
    small, large = (measured_mib(tmp_path, count) for count in (3000, rows))
    assert large < small + 30


def measured_mib(folder: Path, rows: int) -> float:
    """The most that any process of a run holds; one shard with all rows, kept text and all."""
    source, out = folder / f"{rows}.csv", folder / f"out-{rows}.csv"
    with source.open("w") as file:
        file.write("a,b,note\n")
        file.writelines(f"{n},1.5,{'x' * 200}\n" for n in range(rows))
    code = (
        "import resource, sys\nfrom serve.cli.main import run\n"
        "status = run(sys.argv[1:])\n"
        "kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)\n"
        "print(max(resource.getrusage(kind).ru_maxrss for kind in kinds), file=sys.stderr)\n"
        "sys.exit(status)"
    )
    call = ("batch", "score", str(folder / "twice.onnx"), str(source), str(out))
    options = ("--columns", "a,b", "--keep", "note", "--shard-rows", "100000000", "--json")
    done = subprocess.run(
        [sys.executable, "-c", code, *call, *options],
        env=os.environ | {"FIELDPOST_WORKSPACE": str(folder / "ws")},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"] == rows
    return int(done.stderr.split()[-1]) / 1024
