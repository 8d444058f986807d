"""A package is built, unpacked, and booted in a process that has nothing but its layers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from scoring import boot
from scoring.bundle import Bundle, ScriptSpec
from scoring.packages.unpack import unpack_package
from serve.packaging.build import build_package
from serve.packaging.cache import LayerCache
from serve.packaging.code import collect_code
from serve.packaging.defaults import default_lock
from serve.packaging.plan import BuildPlan
from serve.packaging.requirements import target_for
from serve.registry.blobs import BlobStore

if TYPE_CHECKING:
    from pathlib import Path

# Takes the worker's place, to look around from where it would run.
_WORKER = """
import json, locale, os, runpy, sys
import flatbuffers, msgspec, numpy, onnxruntime, orjson, httptools, uvloop
import scoring, serve
import scoring.archive, scoring.bundle
session = None
print(json.dumps({
    "argv": sys.argv,
    "path": sys.path,
    "modules": sorted(
        str(module.__file__) for module in list(sys.modules.values())
        if getattr(module, "__file__", None)
    ),
    "stdlib": os.path.dirname(os.__file__),
    "pycache": sys.pycache_prefix,
    "python_variables": sorted(key for key in os.environ if key.startswith("PYTHON")),
    "name": __name__,
    "utf8": sys.flags.utf8_mode,
    "encoding": open(os.devnull).encoding,
}))
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("boot")
    blobs = BlobStore(folder / "store")
    blobs.create()
    script = folder / "score.py"
    script.write_text("def init(): pass\ndef run(data): return data\n")
    plan = BuildPlan(
        bundle=Bundle(name="s", runtime="script", script=ScriptSpec(entry="score.py")),
        lock=default_lock("onnx", target_for(None)),
        code_files=collect_code(script),
    )
    built = build_package(plan, blobs, LayerCache(folder / "cache"))
    return unpack_package(built.digest, blobs, folder / "unpacked")


@pytest.fixture
def looking_around(root: Path, tmp_path: Path) -> Path:
    """The same root with a worker that tells what it sees."""
    copy = tmp_path / "root"
    copy.mkdir()
    for name in ("env", "code", "model"):
        (copy / name).symlink_to((root / name).resolve())
    runtime = copy / "runtime"
    runtime.mkdir()
    (runtime / "scoring").symlink_to((root / "runtime/scoring").resolve())
    (runtime / "serve" / "server").mkdir(parents=True)
    (runtime / "serve" / "__init__.py").write_text("")
    (runtime / "serve" / "server" / "__init__.py").write_text("")
    (runtime / "serve" / "server" / "worker.py").write_text(_WORKER)
    (copy / "pycache").mkdir()
    return copy


def _boot(root: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-S", str(root / "runtime/scoring/boot.py"), *arguments],
        env=os.environ | variables,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )


def test_nothing_of_the_host_is_imported(looking_around: Path, tmp_path: Path) -> None:
    trap = tmp_path / "trap"
    trap.mkdir()
    for name in ("numpy", "scoring", "sitecustomize", "usercustomize"):
        (trap / f"{name}.py").write_text("raise SystemExit('the host was imported')")
    done = _boot(looking_around, str(looking_around), "more", PYTHONPATH=str(trap))
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    layers = [
        str((looking_around / name).resolve()) for name in ("env", "runtime", "runtime/scoring")
    ]
    for file in seen["modules"]:
        real = os.path.realpath(file)
        assert real.startswith((*layers, seen["stdlib"], os.path.realpath(seen["stdlib"]))), file
        assert ".venv" not in file or real.startswith(tuple(layers))
    assert not any("site-packages" in entry for entry in seen["path"] if "env/" not in entry)
    assert seen["argv"][1:] == [str(looking_around), "more"]
    assert seen["name"] == "__main__"
    assert "PYTHONNOUSERSITE" in seen["python_variables"]
    assert not {"PYTHONPATH", "PYTHONSTARTUP"} & set(seen["python_variables"])
    assert seen["pycache"] == str(looking_around / "pycache")


def test_layers_stay_as_they_were_unpacked(looking_around: Path) -> None:
    assert _boot(looking_around, str(looking_around)).returncode == 0
    for layer in ("env", "runtime/scoring"):
        assert not list((looking_around / layer).resolve().rglob("*.pyc"))
    assert list((looking_around / "pycache").rglob("*.pyc"))
    (looking_around / "pycache").rename(looking_around / "elsewhere")
    assert _boot(looking_around, str(looking_around)).returncode == 0
    assert not list((looking_around / "env").resolve().rglob("*.pyc"))


def test_text_is_utf8_in_every_locale(looking_around: Path) -> None:
    for locale in ("C", "C.UTF-8", "POSIX"):
        done = _boot(looking_around, str(looking_around), LC_ALL=locale)
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["encoding"].lower() == "utf-8"


def _with_environment(root: Path, tmp_path: Path, document: str | None) -> Path:
    copy = tmp_path / "other"
    (copy / "env").mkdir(parents=True)
    (copy / "runtime").symlink_to((root / "runtime").resolve())
    if document is not None:
        (copy / "env" / "environment.json").write_text(document)
    return copy


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ('{"python": "3.99", "platform": "linux/amd64"}', "needs Python 3.99"),
        (None, "holds no package"),
        ("{", "holds no package"),
        ("[]", "holds no package"),
    ],
)
def test_another_interpreter_is_refused(
    root: Path, tmp_path: Path, document: str | None, message: str
) -> None:
    other = _with_environment(root, tmp_path, document)
    read, write = os.pipe()
    with os.fdopen(read) as status:
        done = subprocess.run(
            [sys.executable, "-I", "-S", str(other / "runtime/scoring/boot.py"), str(other)],
            env=os.environ | {"FIELDPOST_STATUS_FD": str(write)},
            pass_fds=(write,),
            capture_output=True,
            text=True,
            check=False,
        )
        os.close(write)
        told = json.loads(status.read())
    assert done.returncode == boot.FAILED
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert told["state"] == "failed"
    assert message in told["error"]["message"]


def test_another_machine_is_refused(root: Path, tmp_path: Path) -> None:
    wanted = json.loads((root / "env" / "environment.json").read_text())
    other = "linux/arm64" if wanted["platform"] == "linux/amd64" else "linux/amd64"
    changed = _with_environment(root, tmp_path, json.dumps(wanted | {"platform": other}))
    done = _boot(changed, str(changed))
    assert done.returncode == boot.FAILED
    assert f"built for {other}" in done.stderr


def test_the_root_has_to_be_given(root: Path) -> None:
    done = _boot(root)
    assert done.returncode == boot.FAILED
    assert "usage:" in done.stderr


def test_it_imports_the_standard_library_only(root: Path) -> None:
    code = "import sys; sys.path.insert(0, sys.argv[1]); import boot; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-B", "-c", code, str(root / "runtime/scoring")],
        capture_output=True,
        text=True,
        check=True,
    )
    top = {name.split(".")[0] for name in done.stdout.split()} - {"boot", "__main__"}
    assert top <= sys.stdlib_module_names | {"__mp_main__"}
