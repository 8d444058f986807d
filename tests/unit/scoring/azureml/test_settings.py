from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import pytest

from scoring import __version__
from scoring.azureml import ScriptSettings
from scoring.bundle import Bundle, ScriptSpec
from scoring.errors import EntryScriptError

if TYPE_CHECKING:
    from pathlib import Path


def test_nothing_set_gives_azures_defaults() -> None:
    settings = ScriptSettings.read(environ={})
    assert settings.app_root == "/var/azureml-app"
    assert settings.script_path is None
    assert settings.scoring_timeout_ms == 3_600_000
    assert (settings.service_name, settings.service_version) == ("ML service", "1.0")
    assert settings.server_version == f"fieldpost/{__version__}"
    assert not settings.strict


def test_command_line_beats_environment_beats_file(tmp_path: Path) -> None:
    values = {"SERVICE_NAME": "file", "SERVICE_VERSION": "file", "SERVICE_PATH_PREFIX": "file"}
    (tmp_path / "config.json").write_text(json.dumps(values))
    settings = ScriptSettings.read(
        arguments={"service_name": "argument", "service_version": None},
        environ={
            "AML_APP_ROOT": str(tmp_path),
            "SERVICE_NAME": "environment",
            "SERVICE_VERSION": "environment",
        },
    )
    assert settings.service_name == "argument"
    assert settings.service_version == "environment"
    assert settings.service_path_prefix == "file"


@pytest.mark.parametrize("place", ["named", "root", "script"])
def test_config_file_is_found(place: str, tmp_path: Path) -> None:
    folders = {"named": tmp_path / "n", "root": tmp_path / "r", "script": tmp_path / "r" / "s"}
    for folder in folders.values():
        folder.mkdir(parents=True, exist_ok=True)
    (folders[place] / "config.json").write_text('{"SCORING_TIMEOUT_MS": 5}')
    environ = {
        "AML_APP_ROOT": str(folders["root"]),
        "AZUREML_ENTRY_SCRIPT": "s/score.py",
        "AZUREML_CONFIG_FILE": str(folders["named"] / "config.json"),
    }
    assert ScriptSettings.read(environ=environ).scoring_timeout_ms == 5


def test_empty_config_file_is_no_config_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").touch()
    assert ScriptSettings.read(environ={"AML_APP_ROOT": str(tmp_path)}).service_name


@pytest.mark.parametrize(("strict", "origins"), [(False, "*"), (True, "")])
def test_origins_in_the_file_count_unless_strict(
    strict: bool, origins: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text('{"AML_CORS_ORIGINS": "*"}')
    arguments = {"app_root": str(tmp_path), "strict": strict}
    assert ScriptSettings.read(arguments=arguments, environ={}).cors_origins == origins


def test_unknown_keys_are_named_in_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, clean_process: None
) -> None:
    (tmp_path / "config.json").write_text('{"SCORING_TIMEOUT": 5, "WORKSPACE_NAME": "w"}')
    with caplog.at_level(logging.WARNING, logger="azmlinfsrv"):
        ScriptSettings.read(environ={"AML_APP_ROOT": str(tmp_path)})
    assert "SCORING_TIMEOUT" in caplog.text
    assert "WORKSPACE_NAME" not in caplog.text


@pytest.mark.parametrize("content", ["{", "[]", '"text"'])
def test_broken_config_file_is_named(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(EntryScriptError) as caught:
        ScriptSettings.read(environ={"AML_APP_ROOT": str(tmp_path)})
    assert caught.value.where == str(tmp_path / "config.json")


@pytest.mark.parametrize("value", ["soon", "-1", "1.5"])
def test_wrong_timeout_is_named_as_the_user_knows_it(value: str) -> None:
    with pytest.raises(EntryScriptError) as caught:
        ScriptSettings.read(environ={"SCORING_TIMEOUT_MS": value})
    assert caught.value.where == "SCORING_TIMEOUT_MS"


def test_server_version_can_be_switched_off_and_set() -> None:
    switched_off = {"SERVER_VERSION_LOG_RESPONSE_ENABLED": "false"}
    assert ScriptSettings.read(environ=switched_off).server_version == ""
    own = {"HTTP_X_MS_SERVER_VERSION": "own/1"}
    assert ScriptSettings.read(environ=own).server_version == "own/1"


def test_a_package_names_script_source_and_model_folder(tmp_path: Path) -> None:
    bundle = Bundle(
        name="iris",
        runtime="script",
        model_dir="azureml-models/iris/1",
        script=ScriptSpec(entry="src/score.py", source_directory="src"),
    )
    settings = ScriptSettings.for_package(tmp_path, bundle, environ={})
    assert settings.script_path == tmp_path / "code" / "src" / "score.py"
    assert settings.source_directory == "src"
    assert settings.model_dir == str(tmp_path / "model" / "azureml-models" / "iris" / "1")
    assert settings.service_name == "iris"
    assert not settings.strict


def test_strict_knows_no_name_but_the_variables(tmp_path: Path) -> None:
    bundle = Bundle(name="iris", runtime="script", script=ScriptSpec(entry="score.py"))
    settings = ScriptSettings.for_package(tmp_path, bundle, environ={}, strict=True)
    assert settings.strict
    assert settings.service_name == "ML service"
    named = ScriptSettings.for_package(
        tmp_path, bundle, environ={"SERVICE_NAME": "mine"}, strict=True
    )
    assert named.service_name == "mine"


def test_links_in_a_root_are_followed(tmp_path: Path) -> None:
    for name in ("mine", "models", "root/model/azureml-models"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "root/code").symlink_to(tmp_path / "mine")
    (tmp_path / "root/model/azureml-models/model").symlink_to(tmp_path / "models")
    bundle = Bundle(
        name="iris",
        runtime="script",
        model_dir="azureml-models/model",
        script=ScriptSpec(entry="score.py"),
    )
    settings = ScriptSettings.for_package(tmp_path / "root", bundle, environ={})
    assert settings.script_path == tmp_path / "mine/score.py"
    assert settings.model_dir == str(tmp_path / "models")


def test_a_package_without_a_script_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EntryScriptError, match="no scoring script"):
        ScriptSettings.for_package(tmp_path, Bundle(name="iris", runtime="onnx"), environ={})
