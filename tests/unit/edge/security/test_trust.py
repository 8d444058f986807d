from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from edge.protocol import envelope
from edge.protocol.messages import Command
from edge.security import freshtime
from edge.security.director import Director
from edge.security.keys import SigningKey
from edge.security.trust import DeviceTrust
from scoring.errors import (
    ExpiredError,
    MalformedPayloadError,
    RollbackError,
    UnsignedError,
    VerificationError,
)
from tests.support.fleettrust import DAY_S, START, Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "metadata")


@pytest.fixture
def device(fleet: Fleet, tmp_path: Path) -> DeviceTrust:
    return fleet.device(tmp_path / "device")


def test_a_permitted_package_is_taken_on(fleet: Fleet, device: DeviceTrust) -> None:
    module = fleet.permit("v1")
    desired = device.verify(fleet.wish(1, module), START, fleet.fetch)
    assert desired.modules == {"main": module}
    assert device.state.generation == 1
    assert device.floor == START


def test_the_retained_wish_may_come_again_even_when_all_has_expired(
    fleet: Fleet, device: DeviceTrust
) -> None:
    wish = fleet.wish(1, fleet.permit("v1"))
    first = device.verify(wish, START, fleet.fetch)
    assert device.verify(wish, START + 3650 * DAY_S) == first


def test_a_wish_is_remembered_over_restarts(
    fleet: Fleet, device: DeviceTrust, tmp_path: Path
) -> None:
    wish = fleet.wish(5, fleet.permit("v1"))
    device.verify(wish, START, fleet.fetch)
    again = fleet.device(tmp_path / "device")
    assert again.recheck(wish).generation == 5
    with pytest.raises(RollbackError, match="replay"):
        again.verify(fleet.wish(4), START, fleet.fetch)


def test_what_was_taken_on_starts_years_later_without_a_connection(
    fleet: Fleet, device: DeviceTrust, tmp_path: Path
) -> None:
    module = fleet.permit("v1")
    wish = fleet.wish(1, module)
    device.verify(wish, START, fleet.fetch)
    later = fleet.device(tmp_path / "device")
    assert later.recheck(wish).modules["main"] == module
    assert later.permits(module.package)
    assert later.expired(START + 3650 * DAY_S) == ("root", "timestamp", "snapshot", "targets")


def test_a_kept_wish_that_was_changed_on_the_disk_is_refused(
    fleet: Fleet, device: DeviceTrust, tmp_path: Path
) -> None:
    """Whoever writes to the device's disk wishes for nothing, of whatever generation."""
    module = fleet.permit("v1")
    device.verify(fleet.wish(5, module), START, fleet.fetch)
    again = fleet.device(tmp_path / "device")
    stranger = Director(SigningKey.generate())
    for generation in (5, 6):
        with pytest.raises(VerificationError):
            again.recheck(stranger.sign(fleet.desired(generation)))
    with pytest.raises(RollbackError):
        again.recheck(fleet.wish(4, module))


def test_a_package_that_nothing_permits_is_refused(fleet: Fleet, device: DeviceTrust) -> None:
    module = fleet.permit("v1")
    other = msgspec.structs.replace(module, package="sha256:" + "0" * 64)
    with pytest.raises(VerificationError, match="permits"):
        device.verify(fleet.wish(1, other), START, fleet.fetch)
    assert device.state.generation == 0


def test_the_release_is_the_signed_one(fleet: Fleet, device: DeviceTrust) -> None:
    module = msgspec.structs.replace(fleet.permit("v1"), release=9)
    with pytest.raises(VerificationError, match="release 9"):
        device.verify(fleet.wish(1, module), START, fleet.fetch)


@pytest.mark.parametrize(("key", "value"), [("device", "door"), ("site", "yard")])
def test_a_wish_for_another_device_is_refused(
    fleet: Fleet, device: DeviceTrust, key: str, value: str
) -> None:
    fleet.permit("v1")
    with pytest.raises(VerificationError, match="is for"):
        device.verify(fleet.wish(1, None, **{key: value}), START, fleet.fetch)


def test_a_stranger_cannot_wish(fleet: Fleet, device: DeviceTrust) -> None:
    forged = Director(SigningKey.generate()).sign(fleet.desired(1))
    with pytest.raises(VerificationError, match="not signed by a director"):
        device.verify(forged, START, fleet.fetch)


def test_the_offline_keys_do_not_direct(fleet: Fleet, device: DeviceTrust) -> None:
    forged = Director(fleet.keys.targets, *fleet.keys.root).sign(fleet.desired(1))
    with pytest.raises(VerificationError, match="not signed by a director"):
        device.verify(forged, START, fleet.fetch)


def test_an_unsigned_wish_is_refused(fleet: Fleet, device: DeviceTrust) -> None:
    body = envelope.decode(fleet.wish(1)).body()
    device.refresh(fleet.fetch, START)
    with pytest.raises(UnsignedError):
        device.verify(envelope.encode("desired", body, ()), START)


def test_bytes_that_changed_are_refused(fleet: Fleet, device: DeviceTrust) -> None:
    good = envelope.decode(fleet.wish(1))
    body = good.body().replace(b'"generation":1', b'"generation":2')
    with pytest.raises(VerificationError):
        device.verify(envelope.encode("desired", body, good.signatures), START, fleet.fetch)


def test_a_command_is_no_wish(fleet: Fleet, device: DeviceTrust) -> None:
    with pytest.raises(VerificationError, match="came as desired"):
        device.verify(fleet.director.sign(_command()), START, fleet.fetch)


def test_what_is_no_envelope_is_refused(device: DeviceTrust) -> None:
    with pytest.raises(MalformedPayloadError):
        device.verify(b"{}", START)


def test_a_generation_is_wished_for_once(fleet: Fleet, device: DeviceTrust) -> None:
    device.verify(fleet.wish(3), START, fleet.fetch)
    with pytest.raises(RollbackError, match="twice"):
        device.verify(fleet.wish(3, issued_at=1.0), START, fleet.fetch)


def test_a_forger_makes_the_device_look_for_new_keys_now_and_then_only(
    fleet: Fleet, device: DeviceTrust
) -> None:
    asked: list[str] = []

    def fetch(name: str, most_bytes: int) -> bytes | None:
        asked.append(name)
        return fleet.fetch(name, most_bytes)

    forged = Director(SigningKey.generate()).sign(fleet.desired(1))
    for _ in range(10):
        with pytest.raises(VerificationError):
            device.verify(forged, START, fetch)
    assert asked.count("timestamp.json") == 1
    fleet.clock.now += 60
    with pytest.raises(VerificationError):
        device.verify(forged, START, fetch)
    assert asked.count("timestamp.json") == 2


def _command(deadline: float = START + 60, **changes: str) -> Command:
    values = {"site": "hall", "device": "camera", "id": "1", "key": "k", "verb": "report"}
    return Command(deadline=deadline, **(values | changes))  # type: ignore[arg-type]


def test_a_command_is_begun_before_its_deadline(fleet: Fleet, device: DeviceTrust) -> None:
    data = fleet.director.sign(_command())
    assert device.verify_command(data, START, fleet.fetch).verb == "report"
    with pytest.raises(ExpiredError):
        device.verify_command(data, START + 60, fleet.fetch)


def test_a_clock_that_went_back_does_not_bring_commands_back(
    fleet: Fleet, device: DeviceTrust
) -> None:
    data = fleet.director.sign(_command(START - 60))
    with pytest.raises(ExpiredError):
        device.verify_command(data, START - 3650 * DAY_S, fleet.fetch)


def test_a_command_whose_key_would_have_to_be_kept_for_long_is_refused(
    fleet: Fleet, device: DeviceTrust
) -> None:
    with pytest.raises(VerificationError, match="away"):
        device.verify_command(fleet.director.sign(_command(START + 2 * DAY_S)), START, fleet.fetch)


@pytest.mark.parametrize("deadline", [float("nan"), float("inf")])
def test_a_deadline_is_a_number(fleet: Fleet, device: DeviceTrust, deadline: float) -> None:
    with pytest.raises((VerificationError, ExpiredError, MalformedPayloadError)):
        device.verify_command(fleet.director.sign(_command(deadline)), START, fleet.fetch)


def test_a_director_tells_the_time(fleet: Fleet, device: DeviceTrust) -> None:
    device.refresh(fleet.fetch, START)
    nonce = freshtime.ask()
    answer = fleet.director.tell_time(nonce, START + 100)
    assert device.verify_time(answer, nonce, 4.0) == START + 102
    with pytest.raises(VerificationError, match="another question"):
        device.verify_time(answer, freshtime.ask(), 1.0)
    with pytest.raises(ExpiredError):
        device.verify_time(answer, nonce, 61.0)
    with pytest.raises(VerificationError):
        device.verify_time(Director(SigningKey.generate()).tell_time(nonce, 1.0), nonce, 1.0)


def test_the_time_is_told_to_questions_alone(fleet: Fleet) -> None:
    with pytest.raises(MalformedPayloadError):
        fleet.director.tell_time("x" * 32, START)


def test_a_full_disk_leaves_the_wish_untaken(
    fleet: Fleet, device: DeviceTrust, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    from scoring.errors import StorageFullError

    device.refresh(fleet.fetch, START)
    real = os.write

    def full(fd: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(StorageFullError):
        device.verify(fleet.wish(1), START)
    monkeypatch.setattr(os, "write", real)
    assert device.state.generation == 0
    assert device.verify(fleet.wish(1), START).generation == 1
