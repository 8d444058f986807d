"""The fleet's signed metadata (TUF), on the side of those who sign.

Root and targets are signed offline, by a threshold of keys; snapshot and timestamp by keys that
the controller has. Targets name packages by the digest of their manifest, each with its release
counter, and the director's keys, by a delegation without paths.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal

import msgspec
from securesystemslib.signer import Key
from tuf.api.exceptions import RepositoryError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    MetaFile,
    Root,
    Snapshot,
    Targets,
    Timestamp,
)

from edge.security import fields
from edge.security.keys import SigningKey
from edge.security.metadatastore import TIMESTAMP, MetadataStore
from edge.security.trusted import Documents, Trusted
from scoring import digest as digests
from scoring.errors import (
    AlreadyExistsError,
    NotFoundError,
    VerificationError,
)

DAY_S: Final = 86400.0
LIFETIME_S: Final[dict[str, float]] = {
    "root": 730 * DAY_S,
    "targets": 365 * DAY_S,
    "snapshot": 7 * DAY_S,
    "timestamp": 2 * DAY_S,
}
"""How long metadata is fresh. The controller makes the lower two anew long before."""

RoleName = Literal["root", "targets", "snapshot", "timestamp", "director"]


class Roles(msgspec.Struct, frozen=True, kw_only=True):
    """Who signs what: public keys, and how many of them have to.

    Attributes:
        root: Offline.
        targets: Offline: they permit packages.
        snapshot: Online.
        timestamp: Online.
        director: Online.
        root_threshold: How many of the root's keys have to sign.
        targets_threshold: How many of the targets' keys have to.
    """

    root: Sequence[Key]
    targets: Sequence[Key]
    snapshot: Sequence[Key]
    timestamp: Sequence[Key]
    director: Sequence[Key]
    root_threshold: int = 1
    targets_threshold: int = 1


class Repository:
    """The signed metadata of one fleet.

    Args:
        store: Where it is.
        clock: Seconds since the epoch.
    """

    def __init__(self, store: MetadataStore, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._clock = clock

    def exists(self) -> bool:
        """Whether anything was published."""
        return self._store.get(TIMESTAMP) is not None

    def get(self, name: str) -> bytes | None:
        """A document for whoever asks: none of it is secret; None where there is none."""
        return self._store.get(name)

    def root_version(self) -> int:
        """The newest root's; 0 where there is none."""
        ends = ".root.json"
        names = [name for name in self._store.names() if name.endswith(ends)]
        return max((int(name.removesuffix(ends)) for name in names), default=0)

    def root(self, version: int = 0) -> bytes:
        """Root metadata.

        Args:
            version: Which; 0 for the newest.

        Raises:
            NotFoundError: There is none.
        """
        data = self._store.get(f"{version or self.root_version()}.root.json")
        if data is None:
            raise NotFoundError(
                "This fleet has no signed metadata yet.", hint="Run 'fieldpost fleet trust init'."
            )
        return data

    def trusted(self) -> Trusted:
        """What a device believes that has seen everything.

        Raises:
            NotFoundError: Nothing was published.
            VerificationError: The stored metadata is damaged.
        """
        timestamp = self._store.get(TIMESTAMP)
        root = self.root()
        if timestamp is None:
            raise NotFoundError("Nothing was published yet.")
        version = _parse(timestamp, Timestamp).signed.snapshot_meta.version
        snapshot = self._need(f"{version}.snapshot.json")
        named = _parse(snapshot, Snapshot).signed.meta["targets.json"].version
        targets = self._need(f"{named}.targets.json")
        return Trusted(
            Documents(root=root, timestamp=timestamp, snapshot=snapshot, targets=targets)
        )

    def _need(self, name: str) -> bytes:
        data = self._store.get(name)
        if data is None:
            raise VerificationError(f"The stored metadata lacks {name}: restore it from a copy.")
        return data

    def create(
        self,
        roles: Roles,
        *,
        root: Iterable[SigningKey],
        targets: Iterable[SigningKey],
        snapshot: SigningKey,
        timestamp: SigningKey,
    ) -> Trusted:
        """Publishes the first metadata: no package is permitted by it.

        Raises:
            AlreadyExistsError: There is some.
            VerificationError: Too few of the root's or the targets' keys were given.
        """
        if self.exists():
            raise AlreadyExistsError(
                "This fleet has signed metadata.",
                hint="To change keys: 'fieldpost fleet trust rotate'.",
            )
        first = sign(self._new_root(roles), root)
        permits = sign(self._new_targets(roles), targets)
        # A root that is not signed by its threshold would lock everyone out: it is read back.
        Trusted(Documents(root=first))
        documents = {"1.root.json": first} | self._online(
            permits, snapshot, timestamp, versions=(1, 1)
        )
        self._put(first, documents, over=None)
        return self.trusted()

    def _new_root(self, roles: Roles) -> Root:
        root = Root(expires=self._expires("root"), consistent_snapshot=True)
        for role in fields.TOP_LEVEL:
            for key in getattr(roles, role):
                root.add_key(key, role)
        root.roles["root"].threshold = roles.root_threshold
        root.roles["targets"].threshold = roles.targets_threshold
        return root

    def _new_targets(self, roles: Roles) -> Targets:
        targets = Targets(expires=self._expires("targets"))
        keyids = [key.keyid for key in roles.director]
        role = DelegatedRole(fields.DIRECTOR, keyids, 1, terminating=False, paths=[])
        targets.delegations = Delegations(
            {key.keyid: key for key in roles.director}, {fields.DIRECTOR: role}
        )
        return targets

    def draft_targets(self) -> Targets:
        """The permitted packages, of the next version, to be changed and signed."""
        held = self.trusted().targets
        assert held is not None
        draft: Targets = _parse(self._need(f"{held.version}.targets.json"), Targets).signed
        draft.version += 1
        draft.expires = self._expires("targets")
        return draft

    def draft_root(self) -> Root:
        """The keys of all roles, of the next version, to be changed and signed."""
        draft: Root = _parse(self.root(), Root).signed
        draft.version += 1
        draft.expires = self._expires("root")
        return draft

    def publish(
        self,
        snapshot: SigningKey,
        timestamp: SigningKey,
        *,
        targets: bytes = b"",
        root: bytes = b"",
    ) -> Trusted:
        """Makes new metadata known, with a new snapshot and timestamp; alone these are renewed.

        What would leave devices behind is refused: everything is checked as a device checks it.

        Args:
            snapshot: Signs the snapshot.
            timestamp: Signs the timestamp.
            targets: Newly signed; the one here by default.
            root: Newly signed, the next version; the one here by default.

        Raises:
            VerificationError: Too few keys signed, or keys that do not have the role.
            RollbackError: It is not the next version.
            InUseError: Someone else has published meanwhile.
        """
        held, over = self.trusted(), self._store.get(TIMESTAMP)
        after = held.with_root(root) if root else held
        assert held.timestamp is not None
        assert held.snapshot is not None
        versions = (held.snapshot.version + 1, held.timestamp.version + 1)
        documents = self._online(
            targets or held.documents.targets, snapshot, timestamp, versions=versions
        )
        if root:
            documents[f"{after.root.version}.root.json"] = root
        self._put(after.documents.root, documents, over=over, held=after)
        return self.trusted()

    def _put(
        self,
        root: bytes,
        documents: Mapping[str, bytes],
        *,
        over: bytes | None,
        held: Trusted | None = None,
    ) -> None:
        parts = [
            next(data for name, data in documents.items() if name.endswith(f"{role}.json"))
            for role in ("timestamp", "snapshot", "targets")
        ]
        (held or Trusted(Documents(root=root))).with_new(*parts)
        self._store.put(documents, over=over)

    def _online(
        self,
        targets: bytes,
        snapshot: SigningKey,
        timestamp: SigningKey,
        *,
        versions: tuple[int, int],
    ) -> dict[str, bytes]:
        """A snapshot of the targets and a timestamp of that."""
        named = _parse(targets, Targets).signed.version
        whole = Snapshot(
            version=versions[0],
            expires=self._expires("snapshot"),
            meta={"targets.json": MetaFile.from_data(named, targets, ["sha256"])},
        )
        signed = sign(whole, [snapshot])
        last = Timestamp(
            version=versions[1],
            expires=self._expires("timestamp"),
            snapshot_meta=MetaFile.from_data(versions[0], signed, ["sha256"]),
            unrecognized_fields={fields.SIGNED_AT: int(self._clock())},
        )
        return {
            f"{named}.targets.json": targets,
            f"{versions[0]}.snapshot.json": signed,
            TIMESTAMP: sign(last, [timestamp]),
        }

    def refresh_due(self) -> bool:
        """Whether the snapshot or the timestamp is past half of its life."""
        trusted, now = self.trusted(), self._clock()
        return bool(
            trusted.timestamp
            and trusted.snapshot
            and (
                trusted.timestamp.expires < fields.moment(now + LIFETIME_S["timestamp"] / 2)
                or trusted.snapshot.expires < fields.moment(now + LIFETIME_S["snapshot"] / 2)
            )
        )

    def _expires(self, role: str) -> Any:
        return fields.moment(self._clock() + LIFETIME_S[role]).replace(microsecond=0)


def releases(targets: Targets) -> dict[str, fields.Release]:
    """Package to what is permitted."""
    found = {}
    for path, target in targets.targets.items():
        package = digests.from_hex(path.removeprefix("packages/"))
        found[package] = fields.release_of(target, package)
    return found


def sign(signed: Root | Targets | Snapshot | Timestamp, signers: Iterable[SigningKey]) -> bytes:
    """Metadata with the signatures of some keys."""
    metadata: Metadata[Any] = Metadata(signed)
    for key in signers:
        metadata.sign(key.signer, append=True)
    return metadata.to_bytes()


def _parse(data: bytes, _kind: type[Any]) -> Metadata[Any]:
    try:
        return Metadata.from_bytes(data)
    except RepositoryError as error:
        raise VerificationError(f"The metadata cannot be read: {error}.") from error


def kind_of(data: bytes) -> str:
    """The role of metadata; raises VerificationError where it is none."""
    return str(_parse(data, Root).signed.type)


def describe(trusted: Trusted) -> dict[str, Any]:
    """What is published, for people and for `--json`."""
    held = (trusted.root, trusted.targets, trusted.snapshot, trusted.timestamp)
    roles = {
        one.type: {
            "version": one.version,
            "expires": one.expires.isoformat(),
            "keys": list(trusted.root.roles[one.type].keyids),
            "threshold": trusted.root.roles[one.type].threshold,
        }
        for one in held
        if one is not None
    }
    permitted = releases(trusted.targets) if trusted.targets else {}
    return {
        "roles": roles,
        "directors": sorted(trusted.directors()),
        "packages": {
            package: {"name": one.name, "release": one.release}
            for package, one in sorted(permitted.items(), key=lambda item: item[1].release)
        },
        "floors": fields.floors_of(trusted.targets) if trusted.targets else {},
    }
