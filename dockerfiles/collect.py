# ruff: noqa: INP001, S603, S607 - a script of the images, which starts what they have
"""Copies a Python, and what it needs to run, into a folder that becomes a base image.

    python3 collect.py FOLDER [--without-sources]

It runs inside of an image that has Python, and takes of it: the interpreter, the standard library
with its byte code, the shared libraries that they and compiled wheels link, the authorities of TLS
and a few files below /etc. No shell, no package manager, no tests. The standard library is all it
imports.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import re
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

USER = 65532

# What servers never import, and the packages of whoever uses the image as a machine.
DROPPED = frozenset(
    {
        *("__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip"),
        *("lib2to3", "site-packages", "dist-packages", "pydoc_data"),
    }
)
DROPPED_PREFIXES = ("config-", "_tkinter", "turtle.", "_test", "xxlimited", "_xxtest")
# Linked by wheels, which bring all else: what manylinux lets them expect, and OpenMP.
FOR_WHEELS = (
    *("libc.so.6", "libdl.so.2", "libm.so.6", "libpthread.so.0", "librt.so.1", "libutil.so.1"),
    *("libanl.so.1", "libexpat.so.1", "libgcc_s.so.1", "libgomp.so.1", "libstdc++.so.6"),
    "libz.so.1",
)
# Opened by name: host names are looked up through them where the C library is an old one.
BY_NAME = ("libresolv.so.2", "libnss_dns.so.2", "libnss_files.so.2")
FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/nologin\nfieldpost:x:{USER}:{USER}::/:/nologin\n",
    "etc/group": f"root:x:0:\nfieldpost:x:{USER}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}
COPIED = ("etc/os-release", "etc/ssl/certs/ca-certificates.crt", "usr/lib/locale/C.utf8")
_LIBRARY = re.compile(r"=> (/\S+)|^\s*(/\S+)", re.MULTILINE)


def main() -> None:
    """Fills the folder."""
    root, sources = Path(sys.argv[1]), "--without-sources" not in sys.argv[2:]
    make_folders(root)
    interpreter = copy_interpreter(root)
    library = copy_library(root)
    compile_library(library, keep_sources=sources)
    binaries = [interpreter, *library.rglob("*.so"), *map(Path, found(FOR_WHEELS + BY_NAME))]
    for path in sorted(linked(binaries)):
        copy_file(path, root)
    for name, text in FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    copy_others(root)
    subprocess.run(["ldconfig", "-r", str(root)], check=True)
    make_even(root)


def make_folders(root: Path) -> None:
    """The top of the file system: where /lib is a link to usr/lib it stays one."""
    for name in ("bin", "lib", "lib64", "sbin"):
        path = Path("/", name)
        if path.is_symlink():
            (root / "usr" / name).mkdir(parents=True, exist_ok=True)
            (root / name).symlink_to(path.readlink())
    for name in ("dev", "etc", "proc", "sys", "run", "tmp", "var/tmp"):
        (root / name).mkdir(parents=True, exist_ok=True)
    shutil.copytree("/etc/ld.so.conf.d", root / "etc/ld.so.conf.d", dirs_exist_ok=True)
    copy_file(Path("/etc/ld.so.conf"), root)


def copy_interpreter(root: Path) -> Path:
    """The program under all of its names; returns the original."""
    program = Path(sys.executable).resolve()
    copy_file(program, root)
    folder = Path(sys.executable).parent
    major, minor = sys.version_info[:2]
    for name in (f"python{major}.{minor}", f"python{major}", "python"):
        link = root / folder.relative_to("/") / name
        if not link.exists():
            link.symlink_to(program.name)
    return program


def copy_library(root: Path) -> Path:
    """The standard library without what no server needs; returns the copy."""
    original = Path(sysconfig.get_path("stdlib"))
    copy = root / original.relative_to("/")
    shutil.copytree(original, copy, ignore=unneeded, symlinks=False)
    return copy


def unneeded(_folder: str, names: list[str]) -> set[str]:
    """The names that are left out, as `shutil.copytree` asks for them."""
    return {name for name in names if name in DROPPED or name.startswith(DROPPED_PREFIXES)}


def compile_library(library: Path, *, keep_sources: bool) -> None:
    """Byte code that depends on the sources alone, so that the image is the same tomorrow."""
    done = compileall.compile_dir(
        library,
        quiet=1,
        legacy=not keep_sources,
        stripdir=library,
        prependdir=sysconfig.get_path("stdlib"),
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,
    )
    if not done:
        raise SystemExit("the standard library does not compile")
    if not keep_sources:
        for path in library.rglob("*.py"):
            path.unlink()


def found(names: tuple[str, ...]) -> Iterator[str]:
    """The libraries of these names that the loader knows."""
    listing = subprocess.run(["ldconfig", "-p"], check=True, capture_output=True, text=True).stdout
    known = dict(re.findall(r"^\s*(\S+) \(.*\) => (/\S+)$", listing, re.MULTILINE)[::-1])
    yield from (known[name] for name in names if name in known)


def linked(binaries: list[Path]) -> set[Path]:
    """These libraries and all that they load, and the loader itself."""
    loader = next(Path("/").glob("lib*/ld-linux*.so.*"))
    paths = {loader} | {path for path in binaries if ".so." in path.name}
    for path in binaries:
        listing = subprocess.run(
            [str(loader), "--list", str(path)], check=False, capture_output=True, text=True
        )
        if "not found" in listing.stdout:
            raise SystemExit(f"{path} needs a library that is not there:\n{listing.stdout}")
        paths |= {Path(first or second) for first, second in _LIBRARY.findall(listing.stdout)}
    return paths


def copy_others(root: Path) -> None:
    """Authorities of TLS, the locale, the system's name."""
    for name in COPIED:
        path = Path("/", name)
        if path.is_dir():
            shutil.copytree(path, root / name, dirs_exist_ok=True)
        elif path.exists():
            copy_file(path, root)


def copy_file(path: Path, root: Path) -> None:
    """A file with the name that it is found by; links are followed."""
    target = root / path.relative_to("/")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def make_even(root: Path) -> None:
    """One date and few modes for everything, and a place for temporary files."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            path = Path(folder, name)
            if not path.is_symlink():
                runs = path.is_dir() or path.stat().st_mode & 0o100
                path.chmod(0o755 if runs else 0o644)
    for name in ("tmp", "var/tmp"):
        (root / name).chmod(0o1777)
    shutil.rmtree(root / "var/cache", ignore_errors=True)  # of ldconfig
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            os.utime(Path(folder, name), (0, 0), follow_symlinks=False)


if __name__ == "__main__":
    main()
