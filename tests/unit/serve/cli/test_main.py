"""The frame of the command line: lazy commands, exit statuses, errors."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from scoring import errors
from scoring.commands.lazy import LazyGroup
from serve.cli import exits, main


def walk(group: LazyGroup, path: str = "fieldpost") -> Iterator[tuple[str, str, click.Command]]:
    context = click.Context(group)
    for name, entry in group.entries.items():
        command = group.get_command(context, name)
        assert command is not None
        yield f"{path} {name}", entry.help, command
        if isinstance(command, LazyGroup):
            yield from walk(command, f"{path} {name}")


COMMANDS = list(walk(main.root))


def test_every_command_is_found_and_its_help_line_is_that_of_the_table() -> None:
    assert len(COMMANDS) > 20
    for path, help_line, command in COMMANDS:
        if not isinstance(command, LazyGroup):
            assert command.help == help_line, path


@pytest.mark.parametrize(
    "command",
    [c for _, _, c in COMMANDS if not isinstance(c, LazyGroup)],
    ids=lambda c: str(c.name),
)
def test_every_command_has_the_common_options(command: click.Command) -> None:
    options = {opt for parameter in command.params for opt in parameter.opts}
    assert {"--json", "--workspace", "--debug"} <= options


def test_commands_that_change_something_have_a_dry_run() -> None:
    reading = {"list", "show", "diff", "download", "logs", "lock", "verify", "score", "serve"}
    reading |= {"sbom", "provenance", "evaluate", "rbac"}
    for path, _, command in COMMANDS:
        if isinstance(command, LazyGroup) or path.split()[-1] in reading:
            continue
        assert "--dry-run" in {o for p in command.params for o in p.opts}, path


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from serve.cli.main import run\n"
        "assert run(['--help']) == 0\n"
        "print(len(sys.modules), *sorted({m.split('.')[0] for m in sys.modules}))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    count, *names = result.stdout.splitlines()[-1].split()
    heavy = {
        "numpy",
        "onnxruntime",
        "sqlite3",
        "httpx",
        "msgspec",
        "rich",
        "asyncio",
        "tenacity",
    }
    assert not heavy & set(names)
    assert int(count) < 250


def test_every_error_has_an_exit_status_and_its_own_code() -> None:
    found = [errors.FieldpostError]
    for error in found:
        found.extend(error.__subclasses__())
    codes = [error.code for error in found if error.__module__ == "scoring.errors"]
    assert len(codes) == len(set(codes))
    for error in found:
        expected = exits.USAGE if issubclass(error, errors.UsageError) else exits.FAILED
        assert exits.exit_status(error) == expected


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["modle"], "Did you mean 'model'"),
        (["model", "regster"], "Did you mean 'register'"),
        (["--nope"], "No such option"),
        (["model", "register", "iris"], "Missing argument"),
        (["package", "build"], "NAME[:VERSION]"),
    ],
)
def test_wrong_usage_exits_with_two(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.run(arguments) == exits.USAGE
    assert says in capsys.readouterr().err


def test_an_error_is_one_json_document_on_stdout(
    tmp_path: object, capsys: pytest.CaptureFixture[str]
) -> None:
    status = main.run(["model", "show", "nothing", "--json", "--workspace", str(tmp_path)])
    captured = capsys.readouterr()
    assert status == exits.FAILED
    assert json.loads(captured.out)["error"]["code"] == "not_found"
    assert "Traceback" not in captured.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["model", "list"], "output cannot be written: No space left"),
        (["model", "list", "--json"], "output cannot be written: No space left"),
        (["model", "show", "nothing", "--json"], "no model 'nothing'"),
    ],
)
def test_an_output_that_cannot_be_written_is_told_and_fails(
    arguments: list[str], says: str, tmp_path: Path
) -> None:
    given = [*arguments, "--workspace", str(tmp_path)]
    code = f"from serve.cli.main import main\nmain({given!r})"
    with Path("/dev/full").open("wb") as full:
        result = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert result.returncode == exits.FAILED
    assert says in result.stderr
    assert "Traceback" not in result.stderr


def test_a_defect_shows_no_traceback_unless_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("boom")

    monkeypatch.setattr(main.root, "main", broken)
    assert main.run(["model", "list"]) == exits.FAILED
    assert "ZeroDivisionError: boom" in capsys.readouterr().err
    with pytest.raises(ZeroDivisionError):
        main.run(["model", "list", "--debug"])


@pytest.mark.parametrize("tolerance", ["nan", "inf"])
def test_a_tolerance_that_is_no_number_is_wrong_usage(
    tolerance: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m.onnx").write_bytes(b"whatever")
    command = ["model", "register", "m", str(tmp_path / "m.onnx"), "--dry-run"]
    place = ["--workspace", str(tmp_path / "ws")]
    assert main.run([*command, "--tolerance", tolerance, *place]) == 2
    assert "has to be a number from 0 up" in capsys.readouterr().err


def test_an_empty_list_says_whether_there_are_models(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = ["--workspace", str(tmp_path / "ws")]
    assert main.run(["model", "list", *place]) == 0
    assert "No models yet" in capsys.readouterr().out
    assert main.run(["model", "list", "--tag", "stage=prod", *place]) == 0
    assert "No model has this name and these tags." in capsys.readouterr().out
