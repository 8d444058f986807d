from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from scoring.azureml import EntryScript, ScriptSettings
from scoring.errors import EntryScriptError
from scoring.http import Request

if TYPE_CHECKING:
    from pathlib import Path

Load = Callable[..., EntryScript]


def answer(script: EntryScript, body: bytes = b'"x"') -> bytes:
    response = script.handle(Request("POST", "/score", body=body))
    assert response.status == 200, response
    assert isinstance(response.body, bytes)
    return response.body


def test_the_script_is_the_module_entry_module(load: Load) -> None:
    script = load(
        """
        import sys
        def init():
            global ready
            ready = __name__
        def run(raw): return [ready, sys.modules[__name__].ready]
        """
    )
    assert answer(script) == b'["entry_module","entry_module"]'


def test_without_a_name_the_module_main_is_imported(tmp_path: Path, clean_process: None) -> None:
    (tmp_path / "main.py").write_text("def init(): pass\ndef run(raw): return __name__\n")
    assert answer(EntryScript.load(ScriptSettings(app_root=str(tmp_path)))) == b'"main"'


def test_root_and_source_directory_join_the_path(load: Load, tmp_path: Path) -> None:
    (tmp_path / "user_root.py").write_text("value = 1\n")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "user_lib.py").write_text("value = 2\n")
    script = load(
        """
        import user_lib
        import user_root
        def run(raw): return [user_root.value, user_lib.value]
        """,
        source_directory="lib",
    )
    assert answer(script) == b"[1,2]"


@pytest.mark.parametrize("strict", [False, True])
def test_the_scripts_own_folder_is_on_the_path_unless_strict(
    strict: bool, tmp_path: Path, clean_process: None
) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "user_beside.py").write_text("")
    (tmp_path / "src" / "score.py").write_text(
        "import user_beside\ndef init(): pass\ndef run(raw): return 1\n"
    )
    settings = ScriptSettings(app_root=str(tmp_path), entry_script="src/score.py", strict=strict)
    if not strict:
        assert answer(EntryScript.load(settings)) == b"1"
        return
    with pytest.raises(EntryScriptError, match="user_beside"):
        EntryScript.load(settings)


def test_the_model_folder_is_in_the_environment(load: Load, tmp_path: Path) -> None:
    folder = tmp_path / "azureml-models" / "m" / "1"
    folder.mkdir(parents=True)
    (folder / "weights.txt").write_text("0.5")
    script = load(
        """
        import os
        def init():
            global weights
            path = os.path.join(os.getenv("AZUREML_MODEL_DIR"), "weights.txt")
            with open(path) as file:
                weights = float(file.read())
        def run(raw): return [weights, os.environ["AML_APP_ROOT"]]
        """,
        model_dir=str(folder),
    )
    assert answer(script) == f'[0.5,"{tmp_path}"]'.encode()
    assert os.environ["AZUREML_MODEL_DIR"] == str(folder)


def test_a_drivers_init_and_the_scripts_run_are_used(load: Load, tmp_path: Path) -> None:
    (tmp_path / "user_real.py").write_text("def init(): pass\ndef run(raw): return ['real', raw]\n")
    script = load(
        """
        import user_real as driver_module
        def init(): driver_module.seen = True
        def run(raw): return "driver"
        """
    )
    assert answer(script, b"a") == b'["real","a"]'
    assert sys.modules["user_real"].seen


def test_a_second_script_knows_nothing_of_the_first(load: Load) -> None:
    load(
        """
        from azureml.contrib.services.aml_request import rawhttp
        @rawhttp
        def run(request): return 1
        """
    )
    load(
        """
        from inference_schema.parameter_types.standard_py_parameter_type import (
            StandardPythonParameterType)
        from inference_schema.schema_decorators import input_schema, output_schema
        @input_schema("a", StandardPythonParameterType(1))
        @output_schema(StandardPythonParameterType(1))
        def run(a): return a
        """
    )
    assert answer(load("def run(raw): return raw"), b"text") == b'"text"'


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("def run(*args): pass", "cannot accept positional-only arguments"),
        ("def run(data, **more): pass", "cannot accept positional-only arguments"),
        ("def run(data, /): pass", "cannot accept positional-only arguments"),
        ("def run(): pass", "needs to accept an argument for input data"),
        ("def run(request_headers): pass", 'an argument other than "request_headers"'),
        ("def run(data, more): pass", "more than one required argument: more"),
        ("value = 1", r"does not have a run\(\) function"),
        ("run = 3", r"does not have a run\(\) function"),
    ],
)
def test_signatures_that_cannot_be_called_are_refused(
    source: str, message: str, load: Load
) -> None:
    with pytest.raises(EntryScriptError, match=message) as caught:
        load(source)
    assert caught.value.hint


def test_a_script_without_init_is_refused(tmp_path: Path, clean_process: None) -> None:
    (tmp_path / "score.py").write_text("def run(raw): pass\n")
    with pytest.raises(EntryScriptError, match=r"init\(\) function"):
        EntryScript.load(ScriptSettings(app_root=str(tmp_path), entry_script="score.py"))


def test_raw_and_schema_together_are_refused(load: Load) -> None:
    with pytest.raises(EntryScriptError, match="both @rawhttp and @input_schema"):
        load(
            """
            from azureml.contrib.services.aml_request import rawhttp
            from inference_schema.parameter_types.standard_py_parameter_type import (
                StandardPythonParameterType)
            from inference_schema.schema_decorators import input_schema
            @rawhttp
            @input_schema("a", StandardPythonParameterType(1))
            def run(a): return a
            """
        )


FAILURES: dict[str, tuple[str, str, int]] = {
    "import": ("import no_such_module_here", "ModuleNotFoundError", 1),
    "raise": ("\n\nraise ValueError('broken')", "ValueError: broken", 3),
    "exit": ("import sys\nsys.exit('gone')", "SystemExit: gone", 2),
    "syntax": ("def run(raw:\n    pass", "SyntaxError", 1),
    "init": (
        "def init():\n    return {}['key']\ndef run(raw): pass",
        "KeyError: 'key'",
        2,
    ),
    "init exits": ("def init():\n    raise SystemExit(4)\ndef run(raw): pass", "SystemExit: 4", 2),
}


@pytest.mark.parametrize("name", sorted(FAILURES))
def test_failures_carry_the_scripts_own_traceback(name: str, load: Load, tmp_path: Path) -> None:
    source, message, line = FAILURES[name]
    with pytest.raises(EntryScriptError) as caught:
        load(source)
    error = caught.value
    assert message in error.message
    assert error.where == f"{tmp_path / 'score.py'}:{line}"
    assert f'File "{tmp_path / "score.py"}", line {line}' in error.detail
    assert "loading.py" not in error.detail
    assert "entry_module" not in sys.modules or name.startswith("init")


@pytest.mark.parametrize(
    ("source", "hint"),
    [
        (
            "raise ModuleNotFoundError('No', name='inference_schema.schema_decorators')",
            "pip install 'fieldpost[azureml]'",
        ),
        ("from azureml.core import Workspace", "Of azureml.core only Model.get_model_path"),
        ("import azureml.core.run", "Of azureml.core only Model.get_model_path"),
        ("1 / 0", "Mend the script"),
        ("import no_such_module_here", "no_such_module_here"),
        ("def init(): open('/no/such/model.pkl')\ndef run(raw): pass", "holds: weights.txt"),
    ],
)
def test_hints_say_what_to_do(source: str, hint: str, load: Load, tmp_path: Path) -> None:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "weights.txt").touch()
    with pytest.raises(EntryScriptError) as caught:
        load(source, model_dir=str(tmp_path / "m"))
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "code",
    [
        "os.environ['AZUREML_MODEL_DIR']",
        "os.path.join(os.getenv('AZUREML_MODEL_DIR'), 'model.pkl')",
        "pathlib.Path(os.getenv('AZUREML_MODEL_DIR'))",
        "open('azureml-models/model.pkl')",
    ],
)
def test_a_script_that_misses_its_model_folder_is_told_how_to_get_one(
    code: str, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AZUREML_MODEL_DIR", raising=False)
    with pytest.raises(EntryScriptError) as caught:
        load(f"import os, pathlib\ndef init():\n    {code}\ndef run(raw): pass")
    assert "AZUREML_MODEL_DIR is not set" in caught.value.hint
    assert "--model-dir" in caught.value.hint


@pytest.mark.parametrize("name", ["absent.py", "."])
def test_a_missing_script_is_named(name: str, tmp_path: Path, clean_process: None) -> None:
    with pytest.raises(EntryScriptError, match="no scoring script") as caught:
        EntryScript.load(ScriptSettings(app_root=str(tmp_path), entry_script=name))
    assert caught.value.where == str(tmp_path / name)


def test_a_file_that_is_no_python_is_refused(tmp_path: Path, clean_process: None) -> None:
    (tmp_path / "score.txt").write_text("def run(raw): pass")
    with pytest.raises(EntryScriptError):
        EntryScript.load(ScriptSettings(app_root=str(tmp_path), entry_script="score.txt"))


def test_a_ctrl_c_during_init_is_not_the_scripts_failure(load: Load) -> None:
    with pytest.raises(KeyboardInterrupt):
        load("def init(): raise KeyboardInterrupt\ndef run(raw): pass")


def test_async_functions_are_awaited(load: Load) -> None:
    script = load(
        """
        import asyncio
        async def init():
            global lock
            lock = asyncio.Lock()
        async def run(raw):
            async with lock:
                await asyncio.sleep(0)
            return raw.upper()
        """
    )
    assert answer(script, b"a") == b'"A"'
    assert answer(script, b"b") == b'"B"'
