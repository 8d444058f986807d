"""What the leader tells devices when what is signed changes."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from edge.controller.entities import Member, Plan
from edge.controller.leader import Leader
from edge.controller.ledger import Lease, Ledger
from edge.controller.permits import SignedPermits
from edge.controller.records import Fleet
from edge.protocol import envelope, messages
from edge.protocol.messages import Desired, Failure, Module, ModuleState, Reported
from edge.protocol.topics import topic
from scoring.errors import RollbackError, VerificationError
from serve.registry import Registry
from tests.support import fleettrust

NOW = fleettrust.START


class Place:
    """A fleet of one device, and the leader of it; between two looks at a clock, `step_s` go by."""

    def __init__(self, folder: Path, step_s: float = 100.0) -> None:
        self.trust = fleettrust.Fleet(folder / "metadata")
        self.registry = Registry(str(folder / "workspace"))
        self.fleet = Fleet(self.registry.database, clock=lambda: NOW)
        self.fleet.add_device("camera", "hall")
        self.device = self.trust.device(folder / "camera")
        lease = Lease(self.registry.database, "one")
        assert lease.keep()
        self.ledger = Ledger(self.registry.database, lease)
        ticks = itertools.count(0.0, step_s)
        permits = SignedPermits(self.trust.repository, ticks=lambda: next(ticks))
        director = self.trust.director
        self.leader = Leader(self.ledger.load(), signer=director, permits=permits, now=NOW)
        self.seq = 0

    def deploy(self, module: Module, plan: Plan | None = None) -> None:
        self.fleet.deploy("iris", {"main": module}, condition="*", plan=plan)
        self.reload()
        self.tick()
        self.save()

    def reload(self) -> None:
        self.leader.reload(self.ledger.load(), NOW)
        self.save()

    def save(self) -> None:
        changes = self.leader.changes()
        if changes is not None:
            assert self.ledger.write(changes, self.leader.seen)
            self.leader.written()

    def tick(self) -> None:
        self.leader.tick(NOW)
        self.leader.tick(NOW)

    def told(self) -> bytes:
        """The newest wish, and none before it any more."""
        payloads = [one.payload for one in self.leader.outgoing if one.to.kind == "desired"]
        self.leader.outgoing = []
        return payloads[-1] if payloads else b""

    def report(self, generation: int, refused: Failure | None = None) -> None:
        self.seq += 1
        report = Reported(
            device="camera", boot=1, seq=self.seq, generation=generation, at=NOW, refused=refused
        )
        self.leader.reported(topic("hall", "camera", "reported"), report, NOW, retained=False)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.registry.close()


def wish(data: bytes) -> Desired:
    return messages.decode(envelope.decode(data).body(), Desired)


def test_a_package_that_is_signed_anew_is_told_anew_to_who_refused_it(place: Place) -> None:
    first, second = place.trust.permit("v1"), place.trust.permit("v2")
    place.device.refresh(place.trust.fetch, NOW)
    place.device.found_good(second.package)  # it runs the second, and is to go back to the first
    place.deploy(first)
    data = place.told()
    with pytest.raises(RollbackError):
        place.device.verify(data, NOW, place.trust.fetch)
    failure = Failure(code="rollback", message="Older.", generation=wish(data).generation)
    place.report(wish(data).generation - 1, failure)
    place.tick()
    assert place.told() == b""
    again = place.trust.permit("v1")
    place.tick()
    data = place.told()
    assert wish(data).modules["main"].release == again.release == 3
    assert (
        place.device.verify(data, NOW, place.trust.fetch).modules["main"].package == first.package
    )


def test_a_wish_that_was_under_way_while_its_package_was_signed_anew(place: Place) -> None:
    first = place.trust.permit("v1")
    place.deploy(first)
    data = place.told()
    place.trust.permit("v1")
    place.device.refresh(place.trust.fetch, NOW)
    with pytest.raises(VerificationError, match="signed is 2"):
        place.device.verify(data, NOW, place.trust.fetch)
    place.tick()
    newer = place.device.verify(place.told(), NOW, place.trust.fetch)
    assert newer.generation == wish(data).generation + 1
    assert newer.modules["main"].release == 2


def test_what_was_taken_on_is_not_told_anew(place: Place) -> None:
    place.deploy(place.trust.permit("v1"))
    taken = wish(place.told())
    place.report(taken.generation)
    place.trust.permit("v1")
    place.tick()
    assert place.told() == b""


def test_a_package_that_is_signed_late_is_told_then(place: Place) -> None:
    place.trust.permit("other")
    module = fleettrust.Fleet(place.trust.folder.parent / "elsewhere").permit("v1")
    place.deploy(module)
    assert place.told() == b""
    place.trust.permit("v1")
    place.tick()
    assert wish(place.told()).modules["main"].package == module.package


def test_what_is_signed_just_before_it_is_deployed_is_told_so(tmp_path: Path) -> None:
    place = Place(tmp_path, step_s=0.0)
    place.trust.permit("v1")
    place.tick()
    place.deploy(place.trust.permit("v1"))
    data = place.told()
    assert wish(data).modules["main"].release == 2
    place.device.verify(data, NOW, place.trust.fetch)
    place.registry.close()


def test_a_refusal_of_an_older_wish_is_not_held_against_a_device(place: Place) -> None:
    place.deploy(place.trust.permit("v1"))
    old = wish(place.told())
    place.trust.permit("v1")
    place.tick()
    new = wish(place.told())
    failure = Failure(code="verification_failed", message="Anew.", generation=old.generation)
    place.report(old.generation - 1, failure)
    place.tick()
    assert [one.state for one in place.leader._courses["iris:1"].members] == ["started"]
    failure = Failure(code="verification_failed", message="Anew.", generation=new.generation)
    place.report(old.generation - 1, failure)
    assert [one.state for one in place.leader._courses["iris:1"].members] == ["failed"]


WAIT = Plan(waves=("100%",), offline="wait")


def run(place: Place, module: Module, generation: int) -> None:
    """The device says that it took a wish on, and runs it well."""
    place.seq += 1
    state = ModuleState(phase="good", wanted=module.package, package=module.package, healthy=True)
    report = Reported(
        device="camera", boot=1, seq=place.seq, generation=generation, at=NOW,
        modules={"main": state},
    )  # fmt: skip
    place.leader.reported(topic("hall", "camera", "reported"), report, NOW, retained=False)
    place.save()


def member_of(place: Place, ref: str) -> Member:
    found = place.fleet.rollout(ref).member("camera")
    assert found is not None
    return found


@pytest.mark.parametrize("first", ["complete", "superseded"])
def test_a_device_that_was_away_counts_for_what_it_went_back_to(place: Place, first: str) -> None:
    older, newer = place.trust.permit("v1"), place.trust.permit("v2")
    place.deploy(older, plan=WAIT if first == "complete" else Plan(waves=("100%",)))
    place.deploy(newer, plan=WAIT if first == "complete" else Plan(waves=("100%",)))
    if first == "complete":
        assert place.fleet.deployments()[0][0].stable == 2
        place.deploy(place.trust.permit("v3"), plan=Plan(waves=("100%",)))
        ref, aborted, module = "iris:2", "iris:3", newer
    else:
        ref, aborted, module = "iris:1", "iris:2", older
    assert place.fleet.rollout(ref).rollout.state == first
    assert member_of(place, ref).state == "started"
    place.fleet.abort(aborted)
    place.reload()
    last = wish(place.told())
    assert last.modules["main"].package == module.package
    run(place, module, last.generation)
    assert member_of(place, ref).state == "good"
    assert member_of(place, aborted).state == "withdrawn"


def test_a_device_that_keeps_what_was_aborted_is_still_good_for_what_it_had(place: Place) -> None:
    older, newer = place.trust.permit("v1"), place.trust.permit("v2")
    for module in (older, newer):
        place.deploy(module, plan=Plan(waves=("100%",), observe_s=1e6 * (module is newer)))
        run(place, module, wish(place.told()).generation)
        place.tick()
        place.save()
    place.fleet.abort("iris:2")
    place.reload()
    assert place.told() == b""
    assert (member_of(place, "iris:1").state, member_of(place, "iris:2").state) == ("good", "good")
