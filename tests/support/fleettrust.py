"""A fleet's keys and signed metadata in a folder, a device that believes it, and liars between."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from edge.protocol.messages import Desired, Module
from edge.security.director import Director
from edge.security.drafts import permit, sign_draft
from edge.security.keys import SigningKey
from edge.security.metadatastore import FolderStore
from edge.security.repository import Repository, Roles
from edge.security.trust import DeviceTrust
from scoring import digest as digests

START = 1_800_000_000.0
DAY_S = 86400.0


@dataclass
class Clock:
    """A clock that stands until it is moved."""

    now: float = START

    def __call__(self) -> float:
        return self.now


@dataclass
class Keys:
    """Of all roles: two of three sign the root."""

    root: list[SigningKey] = field(default_factory=lambda: [SigningKey.generate() for _ in "123"])
    targets: SigningKey = field(default_factory=SigningKey.generate)
    snapshot: SigningKey = field(default_factory=SigningKey.generate)
    timestamp: SigningKey = field(default_factory=SigningKey.generate)
    director: SigningKey = field(default_factory=SigningKey.generate)

    @property
    def roles(self) -> Roles:
        return Roles(
            root=[key.public for key in self.root],
            targets=[self.targets.public],
            snapshot=[self.snapshot.public],
            timestamp=[self.timestamp.public],
            director=[self.director.public],
            root_threshold=2,
        )


@dataclass
class Fleet:
    """A controller's side in one folder."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    keys: Keys = field(default_factory=Keys)

    def __post_init__(self) -> None:
        self.repository = Repository(FolderStore(self.folder), clock=self.clock)
        if not self.repository.exists():
            self.repository.create(
                self.keys.roles,
                root=self.keys.root[:2],
                targets=[self.keys.targets],
                snapshot=self.keys.snapshot,
                timestamp=self.keys.timestamp,
            )

    @property
    def director(self) -> Director:
        return Director(self.keys.director)

    def fetch(self, name: str, most_bytes: int) -> bytes | None:
        data = self.repository.get(name)
        assert data is None or len(data) <= most_bytes
        return data

    def permit(self, text: str, *, name: str = "iris", release: int = 0) -> Module:
        """Permits a package that is named by the digest of a text; returns a module of it."""
        package = digests.of_bytes(text.encode())
        draft = self.repository.draft_targets()
        made = permit(draft, {package: len(text)}, name=name, release=release)
        self.publish(targets=sign_draft(draft, [self.keys.targets]))
        return Module(package=package, release=made.release)

    def publish(self, **what: bytes) -> None:
        self.repository.publish(self.keys.snapshot, self.keys.timestamp, **what)

    def desired(self, generation: int, module: Module | None = None, **changes: object) -> Desired:
        values: dict[str, object] = {
            "site": "hall",
            "device": "camera",
            "generation": generation,
            "issued_at": self.clock(),
            "modules": {} if module is None else {"main": module},
            "metadata": self.repository.trusted().versions(),
        }
        return Desired(**(values | changes))  # type: ignore[arg-type]

    def wish(self, generation: int, module: Module | None = None, **changes: object) -> bytes:
        """A signed wish for the device `hall/camera`."""
        return self.director.sign(self.desired(generation, module, **changes))

    def device(self, folder: Path, name: str = "camera") -> DeviceTrust:
        folder.mkdir(exist_ok=True)
        root = self.repository.root(1)
        return DeviceTrust(folder, site="hall", device=name, root=root, ticks=self.clock)
