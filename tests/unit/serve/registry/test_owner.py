from __future__ import annotations

import os
import subprocess
import sys

import msgspec
import pytest

from serve.registry import owner


def test_this_process_lives() -> None:
    assert not owner.is_gone(owner.encode(owner.current()))


def test_a_process_that_ended_is_gone() -> None:
    code = "from serve.registry import owner; print(owner.encode(owner.current()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert owner.is_gone(done.stdout)


def test_another_process_of_the_same_number_is_not_the_owner() -> None:
    impostor = msgspec.structs.replace(owner.current(), started="1")
    assert owner.is_gone(owner.encode(impostor))


def test_a_process_elsewhere_is_believed_for_a_while() -> None:
    there = msgspec.structs.replace(owner.current(), host="elsewhere", pid=1)
    assert not owner.is_gone(owner.encode(there))
    old = msgspec.structs.replace(there, at=there.at - owner.MAX_AGE_S - 1)
    assert owner.is_gone(owner.encode(old))


@pytest.mark.parametrize("text", ["", "{}", "nonsense", '{"pid": "x"}'])
def test_what_cannot_be_read_is_gone(text: str) -> None:
    assert owner.is_gone(text)


def test_a_process_of_another_user_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, signal: int) -> None:
        raise PermissionError

    mine = owner.encode(owner.current())
    monkeypatch.setattr(os, "kill", refuse)
    assert not owner.is_gone(mine)
