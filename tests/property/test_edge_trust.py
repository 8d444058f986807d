"""A device between an honest fleet and a liar who may serve anything that was ever published."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge.protocol.messages import Module
from edge.security.director import Director
from edge.security.drafts import change_directors, change_keys, sign_draft, withdraw
from edge.security.keys import SigningKey
from edge.security.trust import DeviceTrust
from scoring.errors import FieldpostError
from tests.support.fleettrust import DAY_S, Fleet


class Between(RuleBasedStateMachine):
    """What was ever published is remembered, and served again as the liar likes."""

    def __init__(self) -> None:
        super().__init__()
        self._temporary = tempfile.TemporaryDirectory()
        self.folder = Path(self._temporary.name)
        self.fleet = Fleet(self.folder / "metadata")
        self.published: dict[str, list[bytes]] = {}
        self.modules: list[Module] = []
        self.wishes: list[bytes] = []
        self.generation = 0
        self.taken = 0
        self.good = 0
        self.versions: dict[str, int] = {}
        self.root = 1
        self.device = self._open()
        self._record()

    def _open(self) -> DeviceTrust:
        return self.fleet.device(self.folder / "device")

    def _record(self) -> None:
        for path in sorted(self.fleet.folder.iterdir()):
            held = self.published.setdefault(path.name, [])
            if path.read_bytes() not in held:
                held.append(path.read_bytes())

    def teardown(self) -> None:
        self._temporary.cleanup()

    @rule()
    def release(self) -> None:
        if len(self.modules) < 6:
            self.modules.append(self.fleet.permit(f"v{len(self.modules)}"))
            self._record()

    @rule()
    def renew(self) -> None:
        self.fleet.publish()
        self._record()

    @rule(days=st.sampled_from([0.5, 1.5, 10.0]))
    def pass_time(self, days: float) -> None:
        self.fleet.clock.now += days * DAY_S

    @rule()
    def withdraw_old(self) -> None:
        if len(self.modules) > 1:
            draft = self.fleet.repository.draft_targets()
            withdraw(draft, "iris", self.modules[-1].release)
            self.fleet.publish(targets=sign_draft(draft, [self.fleet.keys.targets]))
            self._record()

    @rule()
    def rotate_timestamp(self) -> None:
        if self.root < 3:
            draft = self.fleet.repository.draft_root()
            self.fleet.keys.timestamp = SigningKey.generate()
            change_keys(draft, "timestamp", [self.fleet.keys.timestamp.public])
            self.fleet.publish(root=sign_draft(draft, self.fleet.keys.root[:2]))
            self.root += 1
            self._record()

    @rule()
    def rotate_director(self) -> None:
        draft = self.fleet.repository.draft_targets()
        self.fleet.keys.director = SigningKey.generate()
        change_directors(draft, [self.fleet.keys.director.public])
        self.fleet.publish(targets=sign_draft(draft, [self.fleet.keys.targets]))
        self._record()

    @rule(which=st.integers(0, 9))
    def wish(self, which: int) -> None:
        if self.modules:
            self.generation += 1
            module = self.modules[which % len(self.modules)]
            self.wishes.append(self.fleet.wish(self.generation, module))

    @rule(which=st.integers(0, 99), data=st.data(), clock=st.sampled_from([0.0, -3650.0, 3650.0]))
    def hear(self, which: int, data: st.DataObject, clock: float) -> None:
        """Any wish of ever, with any documents of ever, at any time that the clock may claim."""
        if not self.wishes:
            return

        def lie(name: str, most_bytes: int) -> bytes | None:
            held = self.published.get(name)
            if not held or data.draw(st.integers(0, 9), label="withheld") == 0:
                return None
            return data.draw(st.sampled_from([held[-1], *held]), label=name)

        before, directors = self.device.state, set(self.device._trusted.directors())
        try:
            got = self.device.verify(
                self.wishes[which % len(self.wishes)], self.fleet.clock() + clock * DAY_S, lie
            )
        except FieldpostError:
            assert self.device.state.generation == before.generation
            return
        same = directors & set(self.device._trusted.directors())
        assert not same or got.generation >= before.generation
        for module in got.modules.values():
            if got.generation > before.generation and same:
                assert self.device.permits(module.package)
                assert module.release >= self.device.state.releases.get("iris", 0)

    @rule(which=st.integers(0, 9))
    def find_good(self, which: int) -> None:
        if self.modules:
            try:
                self.device.found_good(self.modules[which % len(self.modules)].package)
            except FieldpostError:
                return

    @rule()
    def restart(self) -> None:
        before = self.device.state
        self.device = self._open()
        assert self.device.state == before or before.count == 0

    @rule(which=st.integers(0, 9))
    def forge(self, which: int) -> None:
        if self.modules:
            desired = self.fleet.desired(self.generation + 1000, self.modules[0])
            before = self.device.state.generation
            try:
                self.device.verify(
                    Director(SigningKey.generate()).sign(desired), self.fleet.clock(), None
                )
            except FieldpostError:
                assert self.device.state.generation == before
            else:
                raise AssertionError("a forged wish was believed")

    @invariant()
    def nothing_goes_back(self) -> None:
        now = self.device.versions
        same_root = now["root"] == self.versions.get("root", now["root"])
        for role, version in self.versions.items():
            if same_root or role == "root":
                assert now.get(role, 0) >= version, role
        self.versions = now
        assert self.device.state.releases.get("iris", 0) >= self.good
        self.good = self.device.state.releases.get("iris", 0)

    @invariant()
    def all_belongs_together(self) -> None:
        trusted = self.device._trusted
        if trusted.timestamp and trusted.snapshot and trusted.targets:
            assert trusted.timestamp.snapshot_meta.version == trusted.snapshot.version
            assert trusted.snapshot.meta["targets.json"].version == trusted.targets.version


TestBetween = Between.TestCase
TestBetween.settings = settings(
    max_examples=12,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
