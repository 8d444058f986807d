"""The threat list of the specification, a test for each row: someone lies, and a device holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tuf.api.exceptions import DownloadHTTPError
from tuf.api.metadata import MetaFile, Snapshot, Timestamp
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edge.security import fields
from edge.security.director import Director
from edge.security.drafts import change_directors, change_keys, permit, sign_draft, withdraw
from edge.security.keys import SigningKey
from edge.security.metadatastore import FolderStore
from edge.security.repository import Repository, releases, sign
from edge.security.trust import DeviceTrust
from edge.security.trusted import Documents, Trusted
from scoring import digest as digests
from scoring.errors import (
    ExpiredError,
    PayloadTooLargeError,
    RollbackError,
    SigningKeyError,
    VerificationError,
)
from tests.support.fleettrust import DAY_S, START, Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    return Fleet(tmp_path / "metadata")


@pytest.fixture
def device(fleet: Fleet, tmp_path: Path) -> DeviceTrust:
    trust = fleet.device(tmp_path / "device")
    trust.refresh(fleet.fetch, START)
    return trust


class Mirror:
    """Serves what the fleet published, but for what it was told to serve instead."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self.instead: dict[str, bytes | None] = {}

    def __call__(self, name: str, most_bytes: int) -> bytes | None:
        data = self.instead[name] if name in self.instead else self._fleet.fetch(name, 1 << 24)
        if data is not None and len(data) > most_bytes:
            raise PayloadTooLargeError("too long")
        return data

    def freeze(self, *names: str) -> None:
        """Goes on serving what is published now."""
        for name in names:
            self.instead[name] = self._fleet.repository.get(name)


# Rollback


def test_rollback_of_the_timestamp(fleet: Fleet, device: DeviceTrust) -> None:
    mirror = Mirror(fleet)
    mirror.freeze("timestamp.json")
    fleet.permit("v1")
    device.refresh(fleet.fetch, START)
    with pytest.raises(RollbackError, match="timestamp"):
        device.refresh(mirror, START)


def test_rollback_to_what_was_seen_but_never_completed(fleet: Fleet, device: DeviceTrust) -> None:
    mirror = Mirror(fleet)
    fleet.permit("v1")
    mirror.freeze("timestamp.json")
    fleet.permit("v2")
    withheld = Mirror(fleet)
    withheld.instead["3.snapshot.json"] = None
    with pytest.raises(VerificationError, match="not there"):
        device.refresh(withheld, START)
    with pytest.raises(RollbackError):
        device.refresh(mirror, START)


def test_rollback_of_targets_by_the_online_keys(fleet: Fleet, device: DeviceTrust) -> None:
    """Who has the online keys alone cannot bring a withdrawn permission back."""
    old = fleet.repository.trusted().documents.targets
    fleet.permit("v1")
    device.refresh(fleet.fetch, START)
    with pytest.raises(RollbackError, match="targets"):
        fleet.publish(targets=old)
    stolen = Repository(FolderStore(fleet.folder), clock=fleet.clock)
    documents = stolen._online(old, fleet.keys.snapshot, fleet.keys.timestamp, versions=(9, 9))
    mirror = Mirror(fleet)
    mirror.instead |= documents
    with pytest.raises(RollbackError, match="targets"):
        device.refresh(mirror, START)


def test_rollback_of_a_release(fleet: Fleet, device: DeviceTrust) -> None:
    first, second = fleet.permit("v1"), fleet.permit("v2")
    device.verify(fleet.wish(1, second), START, fleet.fetch)
    device.verify(fleet.wish(2, first), START, fleet.fetch)  # the newer was not good yet
    device.found_good(second.package)
    with pytest.raises(RollbackError, match="older than 2"):
        device.verify(fleet.wish(3, first), START, fleet.fetch)
    again = fleet.permit("v1")
    assert again.package == first.package
    assert again.release == 3
    assert device.verify(fleet.wish(4, again), START, fleet.fetch).modules["main"] == again


def test_what_runs_in_another_module_is_not_taken_back_by_staying(
    fleet: Fleet, device: DeviceTrust
) -> None:
    """Two modules of one name: the newer of them does not shut out every later wish."""
    first, second = fleet.permit("v1"), fleet.permit("v2")
    both = {"main": second, "side": first}
    device.verify(fleet.wish(1, modules=both), START, fleet.fetch)
    device.found_good(second.package)
    with pytest.raises(RollbackError):
        device.verify(fleet.wish(2, modules=both), START, fleet.fetch)
    runs = {"main": second.package, "side": first.package}
    again = device.verify(fleet.wish(3, modules=both), START, fleet.fetch, runs)
    assert again.modules == both
    for wish in ({"main": first, "side": second}, {"main": first}, {"new": first}):
        with pytest.raises(RollbackError):
            device.verify(fleet.wish(4, modules=wish), START, fleet.fetch, runs)


def test_a_withdrawn_release_neither_starts_nor_comes_back(
    fleet: Fleet, device: DeviceTrust
) -> None:
    first = fleet.permit("v1")
    wish = fleet.wish(1, first)
    device.verify(wish, START, fleet.fetch)
    second = fleet.permit("v2")
    draft = fleet.repository.draft_targets()
    assert withdraw(draft, "iris", 2) == [first.package]
    assert set(releases(draft)) == {second.package}
    fleet.publish(targets=sign_draft(draft, [fleet.keys.targets]))
    assert device.permits(first.package)
    device.refresh(fleet.fetch, START)
    assert not device.permits(first.package)
    assert device.permits(second.package)
    with pytest.raises(VerificationError):
        device.verify(fleet.wish(2, first), START, fleet.fetch)
    with pytest.raises(VerificationError, match="only goes up"):
        withdraw(fleet.repository.draft_targets(), "iris", 1)


def test_a_withdrawn_release_that_is_listed_all_the_same(fleet: Fleet, device: DeviceTrust) -> None:
    """A draft from before the withdrawal, signed afterwards: the lowest release decides."""
    first = fleet.permit("v1")
    fleet.permit("v2")
    draft = fleet.repository.draft_targets()
    listed = dict(draft.targets)
    withdraw(draft, "iris", 2)
    draft.targets |= listed
    fleet.publish(targets=sign_draft(draft, [fleet.keys.targets]))
    with pytest.raises(RollbackError, match="withdrawn"):
        device.verify(fleet.wish(1, first), START, fleet.fetch)
    assert not device.permits(first.package)


# Freeze


def test_a_frozen_mirror_is_found_by_its_age(fleet: Fleet, device: DeviceTrust) -> None:
    first = fleet.permit("v1")
    device.verify(fleet.wish(1, first), START, fleet.fetch)
    mirror = Mirror(fleet)
    mirror.freeze("timestamp.json")
    fleet.clock.now += 3 * DAY_S
    with pytest.raises(ExpiredError, match="goes on running"):
        device.verify(fleet.wish(2, first), fleet.clock.now, mirror)
    assert device.permits(first.package), "what runs goes on"
    assert device.expired(fleet.clock.now) == ("timestamp",)
    fleet.publish()
    device.verify(fleet.wish(3, first), fleet.clock.now, fleet.fetch)


def test_without_a_connection_nothing_new_is_taken_on_under_old_metadata(
    fleet: Fleet, device: DeviceTrust
) -> None:
    module = fleet.permit("v1")
    device.refresh(fleet.fetch, START)
    fleet.clock.now += 3 * DAY_S
    with pytest.raises(ExpiredError):
        device.verify(fleet.wish(1, module), fleet.clock.now, None)
    assert device.verify(fleet.wish(1, module), START, None).generation == 1


def test_a_new_root_is_signed_by_its_own_keys_too(fleet: Fleet, device: DeviceTrust) -> None:
    """Else a rotation to keys that nobody has would lock everyone out."""
    draft = fleet.repository.draft_root()
    change_keys(draft, "root", [SigningKey.generate().public for _ in "123"])
    mirror = Mirror(fleet)
    mirror.instead["2.root.json"] = sign_draft(draft, fleet.keys.root)
    with pytest.raises(VerificationError, match="own keys"):
        device.refresh(mirror, START)
    assert device.versions["root"] == 1


def test_a_frozen_mirror_is_found_at_once_by_the_wish(fleet: Fleet, device: DeviceTrust) -> None:
    mirror = Mirror(fleet)
    mirror.freeze("timestamp.json")
    first = fleet.permit("v1")
    with pytest.raises(RollbackError, match="newer metadata"):
        device.verify(fleet.wish(1, first), START, mirror)


def test_a_clock_that_went_back_does_not_refresh_old_metadata(
    fleet: Fleet, device: DeviceTrust
) -> None:
    """The device saw metadata of later; that it is earlier now, it does not believe."""
    mirror = Mirror(fleet)
    mirror.freeze("timestamp.json")
    fleet.clock.now += 5 * DAY_S
    fleet.publish()
    device.refresh(fleet.fetch, START - 3650 * DAY_S)
    assert device.floor == fleet.clock.now
    with pytest.raises(RollbackError):
        device.refresh(mirror, START)


# Mix and match


@pytest.mark.parametrize("role", ["snapshot", "targets"])
def test_mixtures(fleet: Fleet, device: DeviceTrust, role: str) -> None:
    old = getattr(fleet.repository.trusted().documents, role)
    fleet.permit("v1")
    before = device.versions
    mirror = Mirror(fleet)
    mirror.instead[f"2.{role}.json"] = old
    with pytest.raises(VerificationError, match="mixture"):
        device.refresh(mirror, START)
    assert device.versions == before


def test_a_target_of_other_bytes(fleet: Fleet, device: DeviceTrust) -> None:
    """The name of a package is its digest, also where someone signed otherwise."""
    module = fleet.permit("v1")
    draft = fleet.repository.draft_targets()
    target = draft.targets[fields.path_of(module.package)]
    target.hashes["sha256"] = "0" * 64
    fleet.publish(targets=sign_draft(draft, [fleet.keys.targets]))
    with pytest.raises(VerificationError, match="another digest"):
        device.verify(fleet.wish(1, module), START, fleet.fetch)


def _lying(fleet: Fleet, named: int, meta: dict[str, MetaFile]) -> dict[str, bytes]:
    """What a thief of the online keys signs: a timestamp and a snapshot of his own choosing."""
    expires = fields.moment(START + DAY_S)
    snapshot = sign(Snapshot(version=7, expires=expires, meta=meta), [fleet.keys.snapshot])
    timestamp = Timestamp(
        version=7,
        expires=expires,
        snapshot_meta=MetaFile.from_data(named, snapshot, ["sha256"]),
    )
    signed = sign(timestamp, [fleet.keys.timestamp])
    return {f"{named}.snapshot.json": snapshot, "timestamp.json": signed}


def test_a_thief_of_the_online_keys_lies_about_versions(fleet: Fleet, device: DeviceTrust) -> None:
    """Of what is served under a higher number than it bears, the device could never go back."""
    fleet.permit("v1")
    targets = fleet.repository.trusted().documents.targets
    before = device.versions
    for named, of_targets in ((9, 2), (7, 9)):
        mirror = Mirror(fleet)
        meta = {"targets.json": MetaFile.from_data(of_targets, targets, ["sha256"])}
        mirror.instead |= _lying(fleet, named, meta)
        mirror.instead[f"{of_targets}.targets.json"] = targets
        with pytest.raises(VerificationError, match="was signed"):
            device.refresh(mirror, START)
        assert device.versions == before


def test_a_thief_of_the_online_keys_leaves_the_targets_out(
    fleet: Fleet, device: DeviceTrust
) -> None:
    before = device.versions
    mirror = Mirror(fleet)
    mirror.instead |= _lying(fleet, 7, {"others.json": MetaFile(1)})
    with pytest.raises(RollbackError, match="no longer names"):
        device.refresh(mirror, START)
    assert device.versions == before


# Fast-forward, key compromise


def test_one_root_key_alone_changes_nothing(fleet: Fleet, device: DeviceTrust) -> None:
    draft = fleet.repository.draft_root()
    thief = SigningKey.generate()
    change_keys(draft, "timestamp", [thief.public])
    forged = sign_draft(draft, [fleet.keys.root[0]])
    with pytest.raises(VerificationError, match="enough of its keys"):
        fleet.publish(root=forged)
    mirror = Mirror(fleet)
    mirror.instead["2.root.json"] = forged
    with pytest.raises(VerificationError, match="enough of its keys"):
        device.refresh(mirror, START)
    assert device.versions["root"] == 1


def test_a_stolen_timestamp_key_is_rotated_away_with_its_numbers(
    fleet: Fleet, device: DeviceTrust
) -> None:
    repository = fleet.repository
    held = repository.trusted().documents
    mirror = Mirror(fleet)
    fleet.clock.now += 3000 * DAY_S
    mirror.instead |= repository._online(
        held.targets, fleet.keys.snapshot, fleet.keys.timestamp, versions=(2**31, 2**31)
    )
    fleet.clock.now = START
    with pytest.raises(ExpiredError):  # by the thief's time everything else has expired
        device.refresh(mirror, START)
    assert device.versions["timestamp"] == 2**31
    assert device.floor > START
    with pytest.raises(RollbackError):
        device.refresh(fleet.fetch, START)
    _rotate_online(fleet)
    device.refresh(fleet.fetch, START)
    assert device.versions["root"] == 2
    assert device.versions["timestamp"] == 2
    assert device.floor == START
    device.verify(fleet.wish(1, fleet.permit("v1")), START, fleet.fetch)


def _rotate_online(fleet: Fleet) -> None:
    draft = fleet.repository.draft_root()
    fleet.keys.timestamp, fleet.keys.snapshot = SigningKey.generate(), SigningKey.generate()
    change_keys(draft, "timestamp", [fleet.keys.timestamp.public])
    change_keys(draft, "snapshot", [fleet.keys.snapshot.public])
    fleet.publish(root=sign_draft(draft, fleet.keys.root[:2]))


def test_root_keys_rotate_and_devices_follow_from_afar(
    fleet: Fleet, device: DeviceTrust, tmp_path: Path
) -> None:
    for _ in range(5):
        draft = fleet.repository.draft_root()
        new = [SigningKey.generate() for _ in "123"]
        change_keys(draft, "root", [key.public for key in new])
        fleet.publish(root=sign_draft(draft, [*fleet.keys.root[:2], *new[:2]]))
        fleet.keys.root = new
    module = fleet.permit("v1")
    device.verify(fleet.wish(1, module), START, fleet.fetch)
    assert device.versions["root"] == 6
    assert fleet.device(tmp_path / "device").versions["root"] == 6
    with pytest.raises(SigningKeyError, match="give as many"):
        change_keys(fleet.repository.draft_root(), "root", [new[0].public])


def test_a_root_is_not_skipped(fleet: Fleet, device: DeviceTrust) -> None:
    draft = fleet.repository.draft_root()
    draft.version += 1
    mirror = Mirror(fleet)
    mirror.instead["2.root.json"] = sign_draft(draft, fleet.keys.root)
    with pytest.raises(RollbackError):
        device.refresh(mirror, START)


def test_stolen_targets_keys_are_rotated_away(fleet: Fleet, device: DeviceTrust) -> None:
    bad = fleet.permit("malware")
    device.refresh(fleet.fetch, START)
    new = SigningKey.generate()
    root, targets = fleet.repository.draft_root(), fleet.repository.draft_targets()
    change_keys(root, "targets", [new.public])
    targets.targets.clear()
    fleet.publish(root=sign_draft(root, fleet.keys.root[:2]), targets=sign_draft(targets, [new]))
    with pytest.raises(VerificationError, match="permits"):
        device.verify(fleet.wish(1, bad), START, fleet.fetch)


def test_a_stolen_director_is_rotated_away_with_its_generations(
    fleet: Fleet, device: DeviceTrust
) -> None:
    module = fleet.permit("v1")
    device.verify(fleet.wish(2**40, module), START, fleet.fetch)
    stolen = fleet.wish(2**40 + 1, module)
    fleet.keys.director = SigningKey.generate()
    draft = fleet.repository.draft_targets()
    change_directors(draft, [fleet.keys.director.public])
    fleet.publish(targets=sign_draft(draft, [fleet.keys.targets]))
    assert device.verify(fleet.wish(1, module), START, fleet.fetch).generation == 1
    with pytest.raises(VerificationError, match="not signed by a director"):
        device.verify(stolen, START, fleet.fetch)


def test_a_director_that_is_rotated_away_while_its_wish_is_read(
    fleet: Fleet, device: DeviceTrust
) -> None:
    module = fleet.permit("v1")
    stolen = fleet.wish(1, module)
    draft = fleet.repository.draft_targets()
    change_directors(draft, [SigningKey.generate().public])
    fleet.publish(targets=sign_draft(draft, [fleet.keys.targets]))
    with pytest.raises(VerificationError, match="not signed by a director"):
        device.verify(stolen, START, fleet.fetch)
    assert device.state.generation == 0


# Compromised broker or server (the split of Uptane)


def test_a_stolen_controller_cannot_permit_what_the_offline_keys_did_not(
    fleet: Fleet, device: DeviceTrust
) -> None:
    online = [fleet.keys.director, fleet.keys.snapshot, fleet.keys.timestamp]
    draft = fleet.repository.draft_targets()
    package = digests.of_bytes(b"malware")
    permit(draft, {package: 7}, name="iris")
    with pytest.raises(VerificationError, match="enough of its keys"):
        fleet.publish(targets=sign_draft(draft, online))
    from edge.protocol.messages import Module

    with pytest.raises(VerificationError, match="permits"):
        device.verify(
            Director(*online).sign(fleet.desired(1, Module(package=package, release=1))),
            START,
            fleet.fetch,
        )


# Endless data, oversized payload


@pytest.mark.parametrize("role", ["timestamp", "root"])
def test_unnamed_metadata_has_a_largest_size(fleet: Fleet, device: DeviceTrust, role: str) -> None:
    mirror, asked = Mirror(fleet), []

    def endless(name: str, most_bytes: int) -> bytes | None:
        if role not in name:
            return mirror(name, most_bytes)
        asked.append(most_bytes)
        raise PayloadTooLargeError("endless")

    with pytest.raises(PayloadTooLargeError):
        device.refresh(endless, START)
    assert asked == [fields.MOST_BYTES[role]]


def test_named_metadata_has_its_signed_length(fleet: Fleet, device: DeviceTrust) -> None:
    fleet.permit("v1")
    asked: dict[str, int] = {}

    def fetch(name: str, most_bytes: int) -> bytes | None:
        asked[name] = most_bytes
        return fleet.fetch(name, most_bytes)

    device.refresh(fetch, START)
    for name in ("2.snapshot.json", "2.targets.json"):
        assert asked[name] == len(fleet.repository.get(name) or b"")


def test_a_fetch_that_does_not_keep_to_the_length_is_refused(
    fleet: Fleet, device: DeviceTrust
) -> None:
    fleet.permit("v1")

    def careless(name: str, most_bytes: int) -> bytes | None:
        data = fleet.repository.get(name)
        return data + b" " if data and "snapshot" in name else data

    with pytest.raises(VerificationError, match="longer"):
        device.refresh(careless, START)


# Bad clock


@pytest.mark.parametrize("years", [-10, 10])
def test_clocks_ten_years_off(fleet: Fleet, device: DeviceTrust, years: int) -> None:
    module, wrong = fleet.permit("v1"), START + years * 365 * DAY_S
    if years < 0:
        device.verify(fleet.wish(1, module), wrong, fleet.fetch)
        return
    with pytest.raises(ExpiredError, match="goes on running"):
        device.verify(fleet.wish(1, module), wrong, fleet.fetch)
    assert device.permits(module.package)
    device.verify(fleet.wish(1, module), START, fleet.fetch)


# What is on the device's disk


def test_a_flipped_bit_in_one_file_loses_nothing(
    fleet: Fleet, device: DeviceTrust, tmp_path: Path
) -> None:
    wish = fleet.wish(7, fleet.permit("v1"))
    device.verify(wish, START, fleet.fetch)
    for name in ("trust-a", "trust-b"):
        path = tmp_path / "device" / name
        whole = path.read_bytes()
        for at in range(0, len(whole), 997):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :])
            again = fleet.device(tmp_path / "device")
            assert again.recheck(wish).generation == 7
            assert not again.damaged
        path.write_bytes(whole)


@pytest.mark.parametrize("content", [b"", b"x" * 1000, b"\0" * 70000])
def test_both_files_lost_begins_again_from_the_first_root(
    fleet: Fleet, device: DeviceTrust, tmp_path: Path, content: bytes
) -> None:
    wish = fleet.wish(7, fleet.permit("v1"))
    device.verify(wish, START, fleet.fetch)
    _rotate_online(fleet)
    for name in ("trust-a", "trust-b"):
        (tmp_path / "device" / name).write_bytes(content)
    again = fleet.device(tmp_path / "device")
    assert again.damaged
    assert again.verify(wish, START, fleet.fetch).generation == 7
    assert again.versions["root"] == 2


def test_state_of_another_device_is_not_taken(
    fleet: Fleet, device: DeviceTrust, tmp_path: Path
) -> None:
    device.verify(fleet.wish(7), START, fleet.fetch)
    other = fleet.device(tmp_path / "device", name="door")
    assert other.state.generation == 0


# Bytes from a liar, and tuf's own client as the judge of what we publish


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["signed"].update(version="1"),
        lambda d: d["signed"].update(version=-1),
        lambda d: d["signed"].update(expires="soon"),
        lambda d: d["signed"].update(_type="targets"),
        lambda d: d["signed"].update({fields.SIGNED_AT: 1.5}),
        lambda d: d["signed"].update(meta={}),
        lambda d: d.update(signatures=[]),
        lambda d: d.update(signatures=d["signatures"] * 2),
        lambda d: d["signatures"][0].update(sig="00"),
        lambda d: d.update(signed=None),
    ],
)
def test_metadata_that_changed(
    fleet: Fleet, device: DeviceTrust, change: Callable[[dict[str, Any]], None]
) -> None:
    fleet.permit("v1")
    document = json.loads(fleet.repository.get("timestamp.json") or b"")
    change(document)
    mirror = Mirror(fleet)
    mirror.instead["timestamp.json"] = json.dumps(document).encode()
    with pytest.raises(VerificationError):
        device.refresh(mirror, START)


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"{}", b"null", b"\xff", b'{"signed":' * 1000, b"1" * 5000]
)
def test_what_is_no_metadata(fleet: Fleet, device: DeviceTrust, data: bytes) -> None:
    mirror = Mirror(fleet)
    mirror.instead["timestamp.json"] = data
    with pytest.raises(VerificationError):
        device.refresh(mirror, START)
    with pytest.raises(VerificationError):
        Trusted(Documents(root=data))


class _Fetcher(FetcherInterface):
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def _fetch(self, url: str) -> Any:
        data = self._fleet.repository.get(url.removeprefix("x://m/"))
        if data is None:
            raise DownloadHTTPError("not found", 404)
        return iter([data])


def test_tufs_own_client_reads_what_we_publish(tmp_path: Path) -> None:
    import time

    fleet = Fleet(tmp_path / "metadata")
    fleet.clock.now = time.time()
    _rotate_online(fleet)
    module = fleet.permit("v1")
    (tmp_path / "client").mkdir()
    updater = Updater(
        str(tmp_path / "client"),
        "x://m/",
        fetcher=_Fetcher(fleet),
        config=UpdaterConfig(),
        bootstrap=fleet.repository.root(1),
    )
    updater.refresh()
    target = updater.get_targetinfo(fields.path_of(module.package))
    assert target is not None
    assert target.custom == {"name": "iris", "release": 1}
    assert updater.get_targetinfo("packages/" + "0" * 64) is None
