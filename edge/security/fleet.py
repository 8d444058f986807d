"""A fleet's keys and documents in one place: what a controller and its operator work with.

    FOLDER/authority.pem, authority.key     devices, brokers and controllers are known by it
    FOLDER/snapshot.pem, timestamp.pem      sign that metadata is fresh
    FOLDER/director.pem                     signs wishes and commands
    OFFLINE/root-1.pem ... targets.pem      to be taken away from the controller

Certificates, claims and metadata are in the workspace's database: a controller is moved by copying
FOLDER, and several may run at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from edge.security import authority as authorities
from edge.security import drafts, fields, keys
from edge.security.authority import Authority
from edge.security.director import Director
from edge.security.endpoint import Endpoint
from edge.security.enrol import Enrolment
from edge.security.keys import SigningKey
from edge.security.metadatastore import TableStore
from edge.security.repository import Repository, RoleName, Roles
from edge.security.trusted import Trusted
from edge.workspace import Database
from scoring.errors import (
    AlreadyExistsError,
    InUseError,
    NotFoundError,
    UsageError,
    VerificationError,
)

ONLINE: Final = ("snapshot", "timestamp", "director")
_MOST_ROOT_KEYS: Final = 9


class Initial(NamedTuple):
    """What was made for a new fleet.

    Attributes:
        offline: Files that are to be taken away from the controller.
        online: Files that stay.
        threshold: How many root keys have to sign.
    """

    offline: tuple[Path, ...]
    online: tuple[Path, ...]
    threshold: int


class FleetSecurity:
    """The security of one fleet.

    Args:
        folder: Of the online keys and the authority.
        database: Of the workspace.
        password: Of the key files; empty where they have none.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        folder: Path,
        database: Database,
        *,
        password: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.folder = folder
        self._database = database
        self._password = password
        self._clock = clock
        self.repository = Repository(TableStore(database), clock=clock)

    def exists(self) -> bool:
        """Whether the fleet has signed metadata."""
        return self.repository.exists()

    def init(
        self,
        offline: Path,
        *,
        root_keys: int = 3,
        threshold: int = 2,
        authority: Authority | None = None,
    ) -> Initial:
        """Makes all keys and the first metadata.

        Args:
            offline: Where the keys go that are to be taken away.
            root_keys: How many.
            threshold: How many of them sign.
            authority: The user's own; a new one by default, or the one in the folder.

        Raises:
            UsageError: The threshold cannot be met.
            AlreadyExistsError: There are keys, or metadata: nothing is overwritten.
        """
        if not 1 <= threshold <= root_keys <= _MOST_ROOT_KEYS:
            raise UsageError(
                f"Of {root_keys} root keys {threshold} cannot be needed.",
                hint=f"At most {_MOST_ROOT_KEYS} keys, and no more needed than there are.",
            )
        if self.exists():
            raise AlreadyExistsError(
                "This fleet has signed metadata.",
                hint="To change keys: 'fieldpost fleet trust rotate'.",
            )
        names = [*(f"root-{number + 1}" for number in range(root_keys)), "targets"]
        offline_paths = tuple(offline / f"{name}.pem" for name in names)
        online_paths = tuple(self._path(name) for name in ONLINE)
        _require_free((*offline_paths, *online_paths))
        self.ensure_authority(authority)
        made = {path: SigningKey.generate() for path in (*offline_paths, *online_paths)}
        for path, key in made.items():
            keys.write(key, path, self._password)
        roots = [made[path] for path in offline_paths[:-1]]
        self._create(roots, made[offline_paths[-1]], threshold)
        return Initial(offline_paths, online_paths, threshold)

    def _create(self, roots: Sequence[SigningKey], targets: SigningKey, threshold: int) -> None:
        online = {name: self._key(name) for name in ONLINE}
        roles = Roles(
            root=[key.public for key in roots],
            targets=[targets.public],
            snapshot=[online["snapshot"].public],
            timestamp=[online["timestamp"].public],
            director=[online["director"].public],
            root_threshold=threshold,
        )
        self.repository.create(
            roles,
            root=roots,
            targets=[targets],
            snapshot=online["snapshot"],
            timestamp=online["timestamp"],
        )

    def ensure_authority(self, own: Authority | None = None) -> Authority:
        """The authority; made, or taken from the user, where the folder has none."""
        if not (self.folder / authorities.CERTIFICATE_FILE).exists():
            (own or Authority.create(self._clock())).save(self.folder, self._password)
        return self.authority

    @property
    def authority(self) -> Authority:
        """Signs certificates; raises SigningKeyError where there is none."""
        return Authority.load(self.folder, self._password)

    @property
    def director(self) -> Director:
        """Signs wishes and commands; raises SigningKeyError where its key is not."""
        return Director(self._key("director"))

    def enrolment(self, settings: Mapping[str, str] | None = None) -> Enrolment:
        """Lets devices in.

        Args:
            settings: For devices: `broker`, `controller`.
        """
        return Enrolment(
            self._database, self.authority, self.repository, settings=settings, clock=self._clock
        )

    def endpoint(self, settings: Mapping[str, str] | None = None) -> Endpoint:
        """Answers devices over HTTPS."""
        return Endpoint(self.enrolment(settings), self.repository, self.director, clock=self._clock)

    def publish(self, *, targets: bytes = b"", root: bytes = b"") -> Trusted:
        """Makes signed metadata known; alone renews that it is fresh. See `Repository.publish`."""
        return self.repository.publish(
            self._key("snapshot"), self._key("timestamp"), targets=targets, root=root
        )

    def refresh(self) -> bool:
        """Renews what is past half of its life; for a controller, every hour or so.

        Returns:
            Whether anything was renewed by this call.
        """
        if not self.exists() or not self.repository.refresh_due():
            return False
        try:
            self.publish()
        except InUseError:  # another controller was faster
            return False
        return True

    def permit(
        self,
        packages: Mapping[str, int],
        *,
        name: str,
        signers: Sequence[SigningKey],
        release: int = 0,
    ) -> tuple[fields.Release, bytes]:
        """Signs that a release may run.

        Args:
            packages: Digest of a manifest to how many bytes that has; several for several
                platforms.
            name: Of the line.
            signers: Keys of the role `targets`.
            release: The counter; 0 for the next.

        Returns:
            The release, and the metadata to `publish`.
        """
        draft = self.repository.draft_targets()
        made = drafts.permit(draft, packages, name=name, release=release)
        return made, drafts.sign_draft(draft, signers)

    def withdraw(
        self, name: str, below: int, *, signers: Sequence[SigningKey]
    ) -> tuple[list[str], bytes]:
        """Signs that releases below one may no longer run.

        Returns:
            The packages that this withdraws, and the metadata to `publish`.
        """
        draft = self.repository.draft_targets()
        gone = drafts.withdraw(draft, name, below)
        return gone, drafts.sign_draft(draft, signers)

    def rotate(
        self, role: RoleName, new: Sequence[SigningKey], *, signers: Sequence[SigningKey]
    ) -> tuple[bytes, bytes]:
        """Gives a role other keys.

        Args:
            role: Whose.
            new: All keys that it has from now on.
            signers: Of the director, keys of `targets`; else keys of the root, as many as sign.

        Returns:
            Root and targets metadata to `publish`; one of them may be empty.
        """
        if role == "director":
            targets = self.repository.draft_targets()
            drafts.change_directors(targets, [key.public for key in new])
            return b"", drafts.sign_draft(targets, signers)
        root = self.repository.draft_root()
        drafts.change_keys(root, role, [key.public for key in new])
        signed = [*signers, *(new if role == "root" else ())]
        permits = b""
        if role == "targets":
            permits = drafts.sign_draft(self.repository.draft_targets(), new)
        return drafts.sign_draft(root, signed), permits

    def replace_online(self, role: RoleName, key: SigningKey) -> Path:
        """Puts a rotated online key in the old one's place; the old one stays beside it.

        Raises:
            UsageError: The role is not online.
        """
        if role not in ONLINE:
            raise UsageError(f"The keys of {role} are not on the controller.")
        path = self._path(role)
        if path.exists():
            old = keys.read(path, self._password)
            aside = path.with_name(f"{role}-{old.keyid[:12]}.old")
            if not aside.exists():
                keys.write_secret(aside, path.read_bytes())
            path.unlink()
        keys.write(key, path, self._password)
        return path

    def read_package(self, content: bytes, digest: str) -> dict[str, int]:
        """The manifests that a package is: itself, and of several platforms each.

        Args:
            content: Of its manifest or index.
            digest: Of that.

        Raises:
            VerificationError: It is neither.
        """
        try:
            document = msgspec.json.decode(content, type=_Manifest)
        except (msgspec.DecodeError, RecursionError) as error:
            raise VerificationError(f"{digest} is no package: {error}.") from error
        return {digest: len(content)} | {one.digest: one.size for one in document.manifests}

    def _key(self, name: str) -> SigningKey:
        path = self._path(name)
        if not path.exists():
            raise NotFoundError(
                f"The key {path} is not here.",
                hint="Run 'fieldpost fleet trust init', or copy the folder from the controller.",
            )
        return keys.read(path, self._password)

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.pem"


class _Child(msgspec.Struct, frozen=True):
    digest: str
    size: int


class _Manifest(msgspec.Struct, frozen=True):
    manifests: tuple[_Child, ...] = ()


def _require_free(paths: Sequence[Path]) -> None:
    for path in paths:
        if path.exists() or path.is_symlink():
            raise AlreadyExistsError(
                f"{path} is there already.", hint="Keys are not overwritten: move it away first."
            )
