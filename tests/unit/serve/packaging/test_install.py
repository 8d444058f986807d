from __future__ import annotations

from pathlib import Path

import pytest

from scoring.errors import EnvironmentResolutionError, StorageFullError
from serve.packaging.install import install_lock, prune
from serve.packaging.lock import Lock, LockedPackage, format_lock, parse_lock
from serve.packaging.uvtool import run_uv

KEPT = (
    *("numpy/__init__.py", "numpy/testing/__init__.py", "numpy/_core/x.so", "mine/tests/data.py"),
    *("mine.pth", "numpy-2.0.dist-info/METADATA", "numpy-2.0.dist-info/entry_points.txt"),
    *("numpy-2.0.dist-info/licenses/LICENSE.txt", "x-1.dist-info/LICENSE", "x-1.dist-info/NOTICE"),
    *("numpy.libs/libblas.so", "mine/bin/tool", "mine/include/data.json", "share/x/y.json"),
)
DROPPED = (
    *("numpy/tests/test_a.py", "numpy/_core/tests/t.py", "numpy/__pycache__/x.cpython-311.pyc"),
    *("numpy/_core/include/numpy/arrayobject.h", "numpy/__init__.pxd", "numpy/lib/npymath.a"),
    *("numpy-2.0.dist-info/RECORD", "numpy-2.0.dist-info/INSTALLER", "x-1.dist-info/REQUESTED"),
    *("x-1.dist-info/direct_url.json", "bin/f2py", "include/x.h", ".lock", "mine/old.pyc"),
    *("numpy-2.0.dist-info/uv_cache.json",),
)


def test_only_what_a_server_reads_is_kept(tmp_path: Path) -> None:
    for name in (*KEPT, *DROPPED):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    prune(tmp_path)
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert files == set(KEPT)


def test_an_empty_lock_installs_nothing(tmp_path: Path) -> None:
    install_lock(Lock(text=""), tmp_path / "site-packages", work=tmp_path)
    assert list((tmp_path / "site-packages").iterdir()) == []


def test_a_wheel_with_another_hash_is_not_installed(tmp_path: Path) -> None:
    lock = Lock(text=format_lock((LockedPackage("packaging", "26.3", "0" * 64),)))
    with pytest.raises(EnvironmentResolutionError) as caught:
        install_lock(lock, tmp_path / "site-packages", work=tmp_path)
    assert caught.value.hint
    assert not (tmp_path / "site-packages" / "packaging").exists()


def test_without_network_or_cache_the_reason_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_DEFAULT_INDEX", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    lock = Lock(text=format_lock((LockedPackage("packaging", "26.3", "0" * 64),)))
    with pytest.raises(EnvironmentResolutionError, match="no index can be reached"):
        install_lock(lock, tmp_path / "site-packages", work=tmp_path)


def test_a_full_disk_is_no_fault_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What uv says of a full disk, without a disk that is full.
    program = tmp_path / "uv"
    program.write_text(
        "#!/bin/sh\n"
        "echo 'error: failed to write to file `x`: No space left on device (os error 28)' >&2\n"
        "exit 2\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr("uv.find_uv_bin", lambda: str(program))
    with pytest.raises(StorageFullError) as caught:
        run_uv(["pip", "compile", "x.in"], folder=tmp_path)
    assert "os error 28" in caught.value.detail


@pytest.mark.parametrize(
    "line",
    [
        "numpy==2.0",
        "numpy==2.0 --hash=md5:00",
        "-r other.txt",
        "--index-url https://evil.example --hash=sha256:" + "0" * 64,
        "numpy==2.0 ; os_name == 'nt' --hash=sha256:" + "0" * 64,
    ],
)
def test_a_lock_holds_nothing_but_locked_packages(line: str) -> None:
    with pytest.raises(EnvironmentResolutionError, match="no locked package"):
        parse_lock(line)
