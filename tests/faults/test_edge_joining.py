"""Joining and renewing, interrupted at each write to the device's disk, and then done again."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.security import identity
from edge.security.authority import Authority
from edge.security.enrol import Enrolment
from edge.security.identity import Identity
from edge.security.letters import EnrolRequest
from scoring.errors import FieldpostError
from serve.registry import location
from serve.registry.database import Database
from tests.support.fleettrust import START, Clock


@pytest.fixture
def enrolment(tmp_path: Path) -> Iterator[Enrolment]:
    (tmp_path / "workspace").mkdir()
    with Database(location.resolve(str(tmp_path / "workspace"))) as database:
        yield Enrolment(database, Authority.create(START), clock=Clock())


class _Failing:
    """Lets so many calls through, and then none."""

    def __init__(self, patch: pytest.MonkeyPatch, calls: int) -> None:
        self.left = calls
        for name in ("write", "fsync", "rename", "replace", "unlink"):
            patch.setattr(os, name, self._counted(getattr(os, name)))

    def _counted(self, real: object) -> object:
        def call(*arguments: object, **named: object) -> object:
            self.left -= 1
            if self.left < 0:
                raise OSError(errno.ENOSPC, "No space left on device")
            return real(*arguments, **named)  # type: ignore[operator]

        return call


def _join(enrolment: Enrolment, token: str, folder: Path) -> Identity:
    csr = identity.request(folder).decode()
    return identity.accept(folder, enrolment.enrol(EnrolRequest(token=token, csr=csr)))


def _attempts(patch: pytest.MonkeyPatch, step: object, most: int = 60) -> int:
    """Tries with room for 0, 1, 2 ... calls until the step is done; returns how many failed."""
    for calls in range(most):
        with patch.context() as patched:
            _Failing(patched, calls)
            try:
                step()  # type: ignore[operator]
            except (FieldpostError, OSError):
                continue
            return calls
    raise AssertionError("it was never done")


def test_joining(enrolment: Enrolment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, token = tmp_path / "device", enrolment.claim("hall", "camera")
    made = _attempts(monkeypatch, lambda: identity.request(folder))
    assert made > 2
    answer = enrolment.enrol(EnrolRequest(token=token, csr=identity.request(folder).decode()))
    failed = _attempts(monkeypatch, lambda: identity.accept(folder, answer))
    assert failed > 10
    assert Identity(folder).device == "camera"
    assert len(enrolment.certificates()) == 1


def test_renewing(enrolment: Enrolment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "device"
    first = _join(enrolment, enrolment.claim("hall", "camera"), folder)
    answer = enrolment.renew(first.renewal())
    whole = []

    def take_on() -> None:
        whole.append(Identity(folder).device)  # at each moment there is a whole identity
        Identity(folder).renewed(answer)

    assert _attempts(monkeypatch, take_on) > 10
    assert set(whole) == {"camera"}
    serial = Identity(folder).certificate.serial_number
    assert serial != first.certificate.serial_number
    assert enrolment.renew(Identity(folder).renewal()).device == "camera"
