from __future__ import annotations

import json
import logging
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from scoring.azureml import EntryScript, ScriptSettings, logs
from scoring.errors import EntryScriptError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SCRIPT = """
import logging
import sys

logging.getLogger("own").info("from the import")


def init():
    logging.getLogger(__name__).info("named in init")
    print("printed", 1, sep="-")
    print("to stderr", file=sys.stderr)


def run(raw):
    logging.info("Request received")
    logging.debug("too low")
    return raw
"""
DRIVE = """
import sys
from scoring.azureml import EntryScript, ScriptSettings
from scoring.http import Request

settings = ScriptSettings(app_root=sys.argv[1], entry_script="score.py", **eval(sys.argv[2]))
EntryScript.load(settings).handle(Request("POST", "/score", body=b"x"))
"""


def drive(folder: Path, script: str = SCRIPT, **settings: object) -> tuple[str, str]:
    """Standard output and error of a fresh process that loads a script and scores once."""
    (folder / "score.py").write_text(script)
    command = [sys.executable, "-c", DRIVE, str(folder), repr(settings)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout, done.stderr


def test_what_scripts_log_and_print_is_seen(tmp_path: Path) -> None:
    output, errors = drive(tmp_path)
    assert "azmlinfsrv.print - printed-1\n" in output
    for message in ("from the import", "named in init", "Request received", "to stderr"):
        assert message in errors
    assert "too low" not in output + errors


def test_strict_loses_them_as_azures_server_does(tmp_path: Path) -> None:
    output, errors = drive(tmp_path, strict=True)
    assert "azmlinfsrv.print - printed-1\n" in output
    assert "POST /score 200" in output
    assert errors == "to stderr\n"


def test_the_log_level_counts(tmp_path: Path) -> None:
    assert "too low" in drive(tmp_path, log_level="debug")[1]
    assert "Request received" not in drive(tmp_path, log_level="WARNING")[1]


def test_a_scripts_own_basic_config_works(tmp_path: Path) -> None:
    script = "import logging\nlogging.basicConfig(format='own: %(message)s')\n" + SCRIPT
    assert "own: Request received\n" in drive(tmp_path, script)[1]


def test_the_users_logging_json_is_honoured(tmp_path: Path) -> None:
    document = {
        "version": 1,
        "formatters": {
            "f": {
                "class": "azureml_inference_server_http.log_config.AMLLogFormatter",
                "format": "user's: %(message)s",
            }
        },
        "filters": {"probes": {"()": "azureml_inference_server_http.log_config.RootAccessFilter"}},
        "handlers": {
            "h": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stdout",
                "formatter": "f",
                "filters": ["probes"],
            }
        },
        "root": {"level": "DEBUG", "handlers": ["h"]},
    }
    (tmp_path / "logging.json").write_text(json.dumps(document))
    output, _ = drive(tmp_path)
    assert "user's: too low\n" in output
    assert "user's: printed-1\n" in output


@pytest.mark.parametrize("content", ["{", "[]", '{"version": 9}', '{"version": 1, "root": 3}'])
def test_a_broken_logging_json_is_named(content: str, tmp_path: Path, clean_process: None) -> None:
    (tmp_path / "logging.json").write_text(content)
    with pytest.raises(EntryScriptError) as caught:
        logs.configure(ScriptSettings(app_root=str(tmp_path)))
    assert caught.value.where == str(tmp_path / "logging.json")


def test_an_unknown_log_level_is_named(tmp_path: Path, clean_process: None) -> None:
    with pytest.raises(EntryScriptError, match="'LOUD'"):
        logs.configure(ScriptSettings(app_root=str(tmp_path), log_level="LOUD"))


def test_print_to_a_file_stays_a_print(
    tmp_path: Path, load: Callable[..., EntryScript], capsys: pytest.CaptureFixture[str]
) -> None:
    load(
        "import sys\ndef init(): print('a', 'b', sep='-', end='!', file=sys.stderr)\n"
        "def run(raw): pass\n"
    )
    assert "a-b!" in capsys.readouterr().err


def test_init_failures_list_the_model_folder(
    load: Callable[..., EntryScript], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "m" / "deep").mkdir(parents=True)
    (tmp_path / "m" / "deep" / "model.pkl").touch()
    with pytest.raises(EntryScriptError):
        load("def init(): 1 / 0\ndef run(raw): pass", model_dir=str(tmp_path / "m"))
    assert "        model.pkl" in capsys.readouterr().out


def test_long_listings_are_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, clean_process: None
) -> None:
    for number in range(5):
        (tmp_path / f"{number}.bin").touch()
    with caplog.at_level(logging.INFO, logger="azmlinfsrv"):
        logs.log_model_dir(str(tmp_path), limit=3)
    assert "First 3 lines" in caplog.text
    assert "1.bin" in caplog.text
    assert "2.bin" not in caplog.text
