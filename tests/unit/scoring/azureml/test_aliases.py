from __future__ import annotations

import importlib
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from scoring.azureml import aliases, state

if TYPE_CHECKING:
    from pathlib import Path

REQUEST_NAMES = (
    "azureml.contrib.services.aml_request",
    "azureml_inference_server_http.api.aml_request",
)


@pytest.fixture(autouse=True)
def installed(clean_process: None) -> None:
    aliases.install()


def test_both_names_are_one_module() -> None:
    first, second = map(importlib.import_module, REQUEST_NAMES)
    assert first is second


@pytest.mark.parametrize("name", REQUEST_NAMES)
def test_rawhttp_marks_the_process_and_returns_the_function(name: str) -> None:
    module = importlib.import_module(name)

    def run(request: object) -> object:
        return request

    assert module.rawhttp(run) is run
    assert state.raw_http


def test_import_without_from_works() -> None:
    namespace: dict[str, object] = {}
    exec("import azureml.contrib.services.aml_response as r; import azureml.contrib", namespace)
    assert hasattr(namespace["r"], "AMLResponse")


def test_what_is_not_there_is_still_a_clean_import_error() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'azureml\.core\.run'"):
        importlib.import_module("azureml.core.run")
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'azureml\.train'"):
        importlib.import_module("azureml.train.automl")


def test_the_model_class_has_both_its_names() -> None:
    namespace: dict[str, object] = {}
    exec("from azureml.core import Model as short", namespace)
    exec("from azureml.core.model import Model", namespace)
    assert namespace["short"] is namespace["Model"]


def test_an_installed_azureml_core_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = tmp_path / "azureml" / "core"
    core.mkdir(parents=True)
    (tmp_path / "azureml" / "__init__.py").touch()
    (core / "__init__.py").write_text("from azureml.core.model import Model")
    (core / "model.py").write_text("class Model:\n    real = True")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert importlib.import_module("azureml.core").Model.real


def test_installing_twice_changes_nothing() -> None:
    before = list(sys.meta_path)
    aliases.install()
    assert sys.meta_path == before


def test_an_installed_azure_package_keeps_all_but_the_four_modules(tmp_path: Path) -> None:
    services = tmp_path / "azureml" / "contrib" / "services"
    services.mkdir(parents=True)
    (tmp_path / "azureml" / "core.py").write_text("here = True\n")
    (services / "aml_request.py").write_text("raise RuntimeError('the installed one')\n")
    code = (
        "import sys; from scoring.azureml import aliases; aliases.install();"
        f"sys.path.append({str(tmp_path)!r});"
        "from azureml.contrib.services.aml_request import rawhttp; import azureml.core;"
        "print(rawhttp.__module__, azureml.core.here)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "scoring.azureml.aml_request True\n"
