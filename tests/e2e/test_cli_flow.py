"""The main job through the command line, as a user runs it, with the JSON that scripts read."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import skops.io
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

FIELDPOST = Path(sys.executable).parent / "fieldpost"
Run = Callable[..., Any]
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two classifiers of the iris data, the first one worse, and a script that never starts."""
    folder = tmp_path_factory.mktemp("models")
    x, y = load_iris(return_X_y=True)
    skops.io.dump(LogisticRegression(C=1e-3).fit(x, y), folder / "first.skops")
    skops.io.dump(LogisticRegression(max_iter=500).fit(x, y), folder / "second.skops")
    (folder / "broken.py").write_text(
        "def init():\n    raise RuntimeError('no weights here')\n\n\n"
        "def run(data):\n    return data\n"
    )
    return folder


@pytest.fixture
def fieldpost(tmp_path: Path) -> Iterator[Run]:
    """Runs one command in a workspace of its own; stops what it deployed."""
    environment = os.environ | {"FIELDPOST_WORKSPACE": str(tmp_path / "workspace")}

    def run(*arguments: str | Path, expect: int = 0, json_out: bool = True) -> Any:
        command = [str(FIELDPOST), *map(str, arguments), *(["--json"] if json_out else [])]
        result = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, cwd=tmp_path
        )
        assert result.returncode == expect, f"{command}\n{result.stdout}\n{result.stderr}"
        assert "Traceback" not in result.stderr or expect
        return json.loads(result.stdout) if json_out else result.stdout

    yield run
    for view in run("deployment", "list"):
        run("deployment", "stop", view["name"])


def test_from_a_file_to_answers_and_back(fieldpost: Run, models: Path, tmp_path: Path) -> None:
    first = fieldpost("model", "register", "iris", models / "first.skops", "--tag", "stage=trial")
    second = fieldpost("model", "register", "iris", models / "second.skops")
    assert (first["version"], second["version"]) == (1, 2)
    assert second["serves"] == "compiled"
    assert [v["version"] for v in fieldpost("model", "list", "--tag", "stage=trial")] == [1]
    assert not fieldpost("model", "diff", "iris:1", "iris:2")["identical"]

    packages = [fieldpost("package", "build", f"iris:{version}") for version in (1, 2)]
    assert fieldpost("package", "verify", packages[0]["digest"])["verified"]

    deployed = fieldpost("deploy", "iris", "--package", packages[0]["digest"])
    assert (deployed["state"], deployed["revision"]) == ("running", 1)
    body = json.dumps({"data": load_iris().data[:150:25].tolist()})
    before = fieldpost("score", "iris", "-d", body)
    again = fieldpost("deploy", "iris", "--package", "iris:2")
    assert (again["url"], again["revision"]) == (deployed["url"], 2)
    after = fieldpost("score", "iris", "-d", body)
    assert after != before
    assert after["predictions"] == [0, 0, 1, 1, 2, 2]

    error = fieldpost("model", "delete", "iris:2", expect=1)["error"]
    assert error["code"] == "in_use"
    assert "iris" in error["message"]
    back = fieldpost("deployment", "rollback", "iris")
    assert back["revision"] == 3
    assert fieldpost("score", "iris", "-d", body) == before

    fieldpost("model", "download", "iris:2", "out")
    assert (tmp_path / "out/second.skops").read_bytes() == (models / "second.skops").read_bytes()
    assert fieldpost("deployment", "stop", "iris")["state"] == "stopped"
    assert fieldpost("score", "iris", "-d", body, expect=1)["error"]["code"] == "unreachable"
    started = fieldpost("deployment", "start", "iris")
    assert (started["url"], started["state"]) == (deployed["url"], "running")
    assert fieldpost("score", "iris", "-d", body) == before


def test_a_revision_that_never_starts_leaves_the_old_one(fieldpost: Run, models: Path) -> None:
    fieldpost("model", "register", "iris", models / "second.skops")
    fieldpost("package", "build", "iris")
    fieldpost("deploy", "iris", "--package", "iris")
    broken = fieldpost("package", "build", "--script", models / "broken.py")
    result = fieldpost("deploy", "iris", "--package", broken["digest"], expect=1)
    assert result["error"]["code"] == "deployment_failed"
    view = fieldpost("deployment", "show", "iris")
    assert (view["state"], view["revision"]) == ("running", 1)
    assert [r["state"] for r in view["revisions"]] == ["active", "failed"]
    assert "no weights here" in str(fieldpost("deployment", "logs", "iris"))
    assert fieldpost("score", "iris", "-d", '{"data": [[5.1, 3.5, 1.4, 0.2]]}')


def test_an_interrupted_deploy_goes_on_and_says_so(fieldpost: Run, tmp_path: Path) -> None:
    script = tmp_path / "slow.py"
    script.write_text(
        "import time\n\n\ndef init():\n    time.sleep(3)\n\n\ndef run(data):\n    return data\n"
    )
    package = fieldpost("package", "build", "--script", script)["digest"]
    environment = os.environ | {"FIELDPOST_WORKSPACE": str(tmp_path / "workspace")}
    command = subprocess.Popen(
        [FIELDPOST, "deploy", "slow", "--package", package],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    until(lambda: [view["state"] for view in fieldpost("deployment", "list")] == ["starting"])
    command.send_signal(signal.SIGINT)
    _, said = command.communicate(timeout=30)
    assert command.returncode == 130
    assert "goes on without this command" in said
    until(lambda: fieldpost("deployment", "show", "slow")["state"] == "running")


def until(condition: Callable[[], bool], *, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_same_inputs_give_the_same_digest_anywhere(
    fieldpost: Run, models: Path, tmp_path: Path
) -> None:
    digests = set()
    for place in ("here", "somewhere/else"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        shutil.copy(models / "second.skops", folder / "model.skops")
        os.utime(folder / "model.skops", (0, len(place)))
        workspace = ("--workspace", folder / "workspace")
        fieldpost("model", "register", "iris", folder / "model.skops", *workspace)
        digests.add(fieldpost("package", "build", "iris:1", *workspace)["digest"])
    assert len(digests) == 1


def test_a_dry_run_changes_nothing(fieldpost: Run, models: Path) -> None:
    plan = fieldpost("model", "register", "iris", models / "second.skops", "--dry-run")
    assert plan["prepared"]["serves"] == "compiled"
    assert fieldpost("model", "list") == []
    fieldpost("model", "register", "iris", models / "second.skops")
    assert fieldpost("package", "build", "iris", "--dry-run")["runtime"] == "onnx"
    assert fieldpost("package", "list") == []
    fieldpost("package", "build", "iris")
    assert fieldpost("deploy", "iris", "--package", "iris", "--dry-run")["revision"] == 1
    assert fieldpost("deployment", "list") == []


def test_text_for_people(fieldpost: Run, models: Path) -> None:
    fieldpost("model", "register", "iris", models / "second.skops")
    text = fieldpost("model", "show", "iris", json_out=False)
    assert "serves:" in text
    assert "labels differ" in text
    assert "iris:1" in fieldpost("model", "list", json_out=False)


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (["deploy", "x", "--package", "nothing"], 1, "not_found"),
        (["deploy", "x", "--package", "nothing", "--target", "moon"], 2, "usage"),
        (["deploy", "Bad Name", "--package", "nothing"], 2, "invalid_name"),
        (["package", "build", "nothing"], 1, "not_found"),
        (["package", "build", "--script", "missing.py"], 1, "file_not_found"),
        (["env", "register", "e", "missing.txt"], 1, "environment_resolution"),
        (["deployment", "rollback", "nothing"], 1, "not_found"),
        (["model", "delete", "nothing:1"], 1, "not_found"),
        (["model", "register", "m", "missing.onnx"], 1, "file_not_found"),
        (["score", "nothing", "-d", "{}"], 1, "not_found"),
        (["score", "http://127.0.0.1:9", "-d", "{}", "--wait", "0"], 1, "unreachable"),
    ],
)
def test_errors_have_codes(fieldpost: Run, arguments: list[str], status: int, code: str) -> None:
    assert fieldpost(*arguments, expect=status)["error"]["code"] == code
