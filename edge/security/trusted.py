"""The signed metadata that a device believes: the rules of TUF's client, without I/O or a clock.

Unlike tuf's own updater it takes the time from its caller (a device's clock lies), tells expired
apart from forged (what runs goes on running), and changes all at once or not at all, so that a
device never has a timestamp of one day beside the targets of another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec
from securesystemslib.signer import Signature as TufSignature
from tuf.api.exceptions import DownloadError, RepositoryError
from tuf.api.metadata import Metadata, MetaFile, Root, Signed, Snapshot, Targets, Timestamp

from edge.protocol.envelope import Signature
from edge.security import fields
from scoring.errors import RollbackError, UnsignedError, VerificationError

_BROKEN: Final = (RepositoryError, DownloadError, ValueError, KeyError, TypeError, AttributeError)

S = TypeVar("S", Root, Timestamp, Snapshot, Targets)


class Documents(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Metadata as bytes: what is kept on disk, and read with all checks but freshness.

    Attributes:
        root: The newest root that is believed.
        timestamp: Empty before the first refresh, as the two below.
        snapshot: The one that the timestamp names.
        targets: The one that the snapshot names.
    """

    root: bytes
    timestamp: bytes = b""
    snapshot: bytes = b""
    targets: bytes = b""


class Trusted:
    """A root, and beside it nothing, or a timestamp, snapshot and targets that belong together.

    Args:
        documents: Checked against the root; the root against itself alone, since whoever gives it
            answers for it.

    Raises:
        VerificationError: They are not what the root's keys signed, or do not belong together.
    """

    def __init__(self, documents: Documents) -> None:
        self.documents = documents
        self.root, _ = _load(Root, documents.root)
        _verify_self(self.root, documents.root)
        self.timestamp: Timestamp | None = None
        self.snapshot: Snapshot | None = None
        self.targets: Targets | None = None
        if documents.timestamp:
            self.timestamp = _signed(Timestamp, documents.timestamp, self.root)
            self.snapshot = _snapshot(documents.snapshot, self.root, self.timestamp)
            self.targets = _targets(documents.targets, self.root, self.snapshot)

    def with_root(self, data: bytes) -> Trusted:
        """This set after one rotation: signed by the old root's keys and the new root's.

        What the old root's keys signed for another role stays only while that role has them still:
        a thief's version numbers end with the thief's key.

        Raises:
            VerificationError: It is not signed by a threshold of both.
            RollbackError: It is not the very next version.
        """
        root = _signed(Root, data, self.root)  # and by its own keys: what is made below checks
        if root.version != self.root.version + 1:
            raise RollbackError(
                f"Root metadata has version {root.version}, not {self.root.version + 1}."
            )
        if self.rotated(root):
            return Trusted(Documents(root=data))
        return Trusted(msgspec.structs.replace(self.documents, root=data))

    def rotated(self, root: Root) -> bool:
        """Whether a root gives one of the lower roles other keys than this one's."""
        return any(
            set(root.roles[role].keyids) != set(self.root.roles[role].keyids)
            or root.roles[role].threshold != self.root.roles[role].threshold
            for role in fields.TOP_LEVEL[1:]
        )

    def check_timestamp(self, data: bytes, floor: int = 0) -> Timestamp:
        """A newer timestamp, or the same again.

        Args:
            data: Not to be believed yet.
            floor: The highest version that was ever seen.

        Raises:
            VerificationError: It is not signed.
            RollbackError: It, or the snapshot that it names, is older than what is known.
        """
        timestamp = _signed(Timestamp, data, self.root)
        known = self.timestamp
        _no_older("timestamp", timestamp.version, max(floor, known.version if known else 0))
        if known is not None:
            old, new = known.snapshot_meta, timestamp.snapshot_meta
            _no_older("snapshot", new.version, old.version)
        return timestamp

    def with_new(self, timestamp: bytes, snapshot: bytes, targets: bytes) -> Trusted:
        """This set with three that belong together.

        Raises:
            VerificationError: They are not signed, or do not belong together.
            RollbackError: One of them is older than the one here.
        """
        self.check_timestamp(timestamp)
        new = Trusted(
            Documents(
                root=self.documents.root, timestamp=timestamp, snapshot=snapshot, targets=targets
            )
        )
        assert new.snapshot is not None
        self._require_no_older(new.snapshot)
        return new

    def named_targets(self, data: bytes, timestamp: Timestamp) -> MetaFile:
        """What a new snapshot says of the targets; raises like `with_new`."""
        snapshot = _snapshot(data, self.root, timestamp)
        self._require_no_older(snapshot)
        if "targets.json" not in snapshot.meta:
            raise VerificationError("The signed snapshot names no targets.")
        return snapshot.meta["targets.json"]

    def _require_no_older(self, snapshot: Snapshot) -> None:
        for name, known in (self.snapshot.meta if self.snapshot else {}).items():
            if name not in snapshot.meta:
                raise RollbackError(f"The new snapshot no longer names {name}.")
            _no_older(name.removesuffix(".json"), snapshot.meta[name].version, known.version)

    def expired(self, at: float) -> tuple[str, ...]:
        """The roles whose metadata has expired at a time, or that are not there at all."""
        moment = fields.moment(at)
        held: Mapping[str, Signed | None] = {
            "root": self.root,
            "timestamp": self.timestamp,
            "snapshot": self.snapshot,
            "targets": self.targets,
        }
        return tuple(role for role, one in held.items() if one is None or one.is_expired(moment))

    def versions(self) -> dict[str, int]:
        """Role to version, of what is there."""
        held = (self.root, self.timestamp, self.snapshot, self.targets)
        return {one.type: one.version for one in held if one is not None}

    def directors(self) -> frozenset[str]:
        """The keys that may sign wishes and commands."""
        if self.targets is None or self.targets.delegations is None:
            return frozenset()
        roles = self.targets.delegations.roles or {}
        role = roles.get(fields.DIRECTOR)
        return frozenset(role.keyids) if role else frozenset()

    def verify_director(self, data: bytes, signatures: tuple[Signature, ...]) -> None:
        """Checks what a director signed.

        Raises:
            VerificationError: No director, or not enough of them, signed these bytes.
        """
        if not signatures:
            raise UnsignedError("The message carries no signature.")
        if self.targets is None or not self.directors():
            raise VerificationError(
                "No signed metadata says yet who may direct this device.",
                hint="The controller has to publish its metadata ('fieldpost fleet trust show').",
            )
        made = {one.keyid: TufSignature(one.keyid, one.sig) for one in signatures}
        try:
            self.targets.verify_delegate(fields.DIRECTOR, data, made)
        except _BROKEN as error:
            raise VerificationError(
                "The message is not signed by a director whom the signed metadata names.",
                detail=str(error),
            ) from error

    def release(self, package: str) -> fields.Release:
        """What is signed about a package.

        Raises:
            VerificationError: Nothing: it may not run.
            RollbackError: Its release has been withdrawn.
        """
        target = self.targets.targets.get(fields.path_of(package)) if self.targets else None
        if target is None or self.targets is None:
            raise VerificationError(
                f"No signed metadata permits {package}.",
                hint="Sign it with 'fieldpost fleet trust sign', and publish.",
            )
        found = fields.release_of(target, package)
        floor = fields.floors_of(self.targets).get(found.name, 0)
        if found.release < floor:
            raise RollbackError(
                f"Release {found.release} of {found.name} is withdrawn: {floor} is the lowest."
            )
        return found

    def manifest_length(self, package: str) -> int:
        """How many bytes a package's manifest has, as signed; raises like `release`."""
        self.release(package)
        assert self.targets is not None
        return self.targets.targets[fields.path_of(package)].length


def length_of(meta: MetaFile, role: str) -> int:
    """How many bytes to read at most of a document that signed metadata names."""
    return min(meta.length or fields.MOST_BYTES[role], fields.MOST_BYTES[role])


def _snapshot(data: bytes, root: Root, timestamp: Timestamp) -> Snapshot:
    _require_named(timestamp.snapshot_meta, data, "snapshot")
    snapshot = _signed(Snapshot, data, root)
    _require_version("snapshot", snapshot.version, timestamp.snapshot_meta.version)
    return snapshot


def _targets(data: bytes, root: Root, snapshot: Snapshot) -> Targets:
    meta = snapshot.meta.get("targets.json")
    if meta is None:
        raise VerificationError("The signed snapshot names no targets.")
    _require_named(meta, data, "targets")
    targets = _signed(Targets, data, root)
    _require_version("targets", targets.version, meta.version)
    return targets


def _require_named(meta: MetaFile, data: bytes, role: str) -> None:
    try:
        meta.verify_length_and_hashes(data)
    except _BROKEN as error:
        raise VerificationError(
            f"The {role} metadata is not the one that signed metadata names: a mixture.",
            detail=str(error),
        ) from error


def _require_version(role: str, found: int, named: int) -> None:
    if found != named:
        raise VerificationError(f"The {role} metadata has version {found}; {named} was signed.")


def _no_older(role: str, new: int, known: int) -> None:
    if new < known:
        raise RollbackError(
            f"The {role} metadata went back from version {known} to {new}.",
            hint="Someone serves old metadata, or the repository was restored from a backup: "
            "publish under higher versions.",
        )


def _signed(kind: type[S], data: bytes, root: Root) -> S:
    """Metadata that a threshold of the keys signed that the root gives to its role."""
    signed, metadata = _load(kind, data)
    try:
        root.verify_delegate(kind.type, metadata.signed_bytes, metadata.signatures)
    except _BROKEN as error:
        raise VerificationError(
            f"The {kind.type} metadata is not signed by enough of its keys.", detail=str(error)
        ) from error
    return signed


def _verify_self(root: Root, data: bytes) -> None:
    metadata = Metadata[Root].from_bytes(data)
    try:
        root.verify_delegate(Root.type, metadata.signed_bytes, metadata.signatures)
    except _BROKEN as error:
        raise VerificationError(
            "The root metadata is not signed by enough of its own keys.", detail=str(error)
        ) from error


def _load(kind: type[S], data: bytes) -> tuple[S, Metadata[Any]]:
    if len(data) > fields.MOST_BYTES[kind.type]:
        raise VerificationError(f"The {kind.type} metadata is larger than it may be.")
    try:
        metadata: Metadata[Any] = Metadata[Any].from_bytes(data)
    except (*_BROKEN, RecursionError) as error:
        raise VerificationError(
            f"The {kind.type} metadata cannot be read.", detail=str(error)
        ) from error
    if not isinstance(metadata.signed, kind):
        raise VerificationError(
            f"Metadata of the type {metadata.signed.type!r} was given as {kind.type}."
        )
    return metadata.signed, metadata
