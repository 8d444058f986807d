"""What names and first bytes tell of a base."""

from __future__ import annotations

import pytest

from scoring.errors import IncompatibleEnvironmentError, PackagingError
from serve.packaging.images.facts import Facts, elf_platform, from_names, require_suitable
from tests.support.smallbases import program


def test_interpreters_are_found_where_distributions_put_them() -> None:
    names = ["usr/bin/python3.11", "usr/local/bin/python3.13", "opt/conda/bin/python3.12"]
    assert from_names(names).pythons == ("3.11", "3.12", "3.13")
    others = ["usr/bin/python3", "usr/share/bin/python3.11/x", "usr/bin/python3.11-config"]
    assert from_names(others).pythons == ()


def test_musl_alone_counts() -> None:
    assert from_names(["lib/ld-musl-x86_64.so.1"]).musl
    assert not from_names(["lib/ld-musl-x86_64.so.1", "lib64/ld-linux-x86-64.so.2"]).musl


def test_the_processor_of_a_program() -> None:
    assert elf_platform(program()) == "linux/amd64"
    assert elf_platform(program("linux/arm64")) == "linux/arm64"
    assert elf_platform(b"#!/bin/sh") == ""
    assert elf_platform(b"") == ""


def check(facts: Facts) -> None:
    require_suitable(facts, platform="linux/amd64", python="3.11", what="The base x")


def test_what_does_not_suit() -> None:
    check(Facts(pythons=("3.11",), platform="linux/amd64"))
    with pytest.raises(PackagingError, match="is for linux/arm64, and the package"):
        check(Facts(pythons=("3.11",), platform="linux/arm64"))
    with pytest.raises(
        IncompatibleEnvironmentError, match=r"no Python 3\.11.*only 3\.12 and 3\.13"
    ):
        check(Facts(pythons=("3.12", "3.13")))
    with pytest.raises(IncompatibleEnvironmentError, match="none at all"):
        check(Facts())
    with pytest.raises(IncompatibleEnvironmentError, match="musl"):
        check(Facts(pythons=("3.11",), musl=True))
