"""Controllers that die, brokers that forget, devices that lie: rollouts go on all the same."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from edge.controller.entities import Plan
from edge.protocol import messages
from edge.protocol.messages import Desired, Failure, Phase, Reported
from tests.support.controllers import Site, eventually, site

SHORT = Plan(waves=("1", "100%"), timeout_s=60.0)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Site]:
    with site(tmp_path) as made:
        yield made


def test_a_broken_version_halts_and_the_others_keep_theirs(place: Site) -> None:
    def breaks(name: str, desired: Desired) -> Phase:
        return "reverted" if desired.modules["m0"].package == bad else "good"

    bad = ""
    for number in range(6):
        place.device(f"d{number}", breaks)
    place.controller()
    place.deploy("one")
    assert place.until("complete") == {"good": 6}
    bad = place.permit("two").package
    place.deploy("two")
    counts = place.until("halted")
    assert counts == {"failed": 1, "pending": 5}
    told = [one for one in place.devices.values() if len(one.wishes) > 1]
    assert len(told) == 1
    assert "It broke." in place.fleet.rollout("iris").rollout.note

    back = place.fleet.abort("iris")
    assert back == [told[0].name]
    eventually(lambda: told[0].wishes[-1].modules["m0"].package == place.permit("one").package)
    assert [one.rollout for one in told[0].wishes] == ["iris:1", "iris:2", "iris:1"]


def test_retry_makes_devices_try_again(place: Site) -> None:
    ill = {"d1"}

    def behave(name: str, _desired: Desired) -> Phase:
        return "failed" if name in ill else "good"

    for number in range(3):
        place.device(f"d{number}", behave)
    place.controller()
    place.deploy("one", plan=Plan(waves=("100%",)))
    assert place.until("halted") == {"failed": 1, "good": 2}
    ill.clear()
    assert place.fleet.retry("iris") == ["d1"]
    assert place.until("complete") == {"good": 3}
    assert [len(one.wishes) for one in place.devices.values()] == [1, 2, 1]


def test_a_device_that_was_off_catches_up(place: Site) -> None:
    place.device("d0")
    place.fleet.add_device("away")
    place.controller()
    place.deploy("one", plan=Plan(waves=("1", "100%"), offline="wait", timeout_s=60))
    assert place.until("complete") == {"good": 1, "started": 1}
    from tests.support.fakedevices import FakeDevice

    place.devices["away"] = FakeDevice("away", place.broker.port).start()
    eventually(lambda: place.fleet.rollout("iris").counts() == {"good": 2})


def test_silence_halts(place: Site) -> None:
    place.device("d0", lambda *_: None)
    place.device("d1", lambda *_: None)
    place.controller()
    place.deploy("one", plan=Plan(waves=("1", "100%"), timeout_s=11.0))
    assert place.until("halted") == {"pending": 1, "silent": 1}


@pytest.mark.parametrize("persistent", [False, True])
def test_brokers_come_and_go(tmp_path: Path, persistent: bool) -> None:
    with site(tmp_path, persistent=persistent) as place:
        for number in range(4):
            place.device(f"d{number}")
        place.controller()
        place.deploy("one", plan=SHORT)
        place.broker.kill()
        place.broker.start()
        assert place.until("complete") == {"good": 4}
        place.broker.kill()
        place.deploy("two", plan=SHORT)
        place.broker.start()
        assert place.until("complete") == {"good": 4}


def test_a_wish_that_the_broker_lost_is_said_again(place: Site) -> None:
    device = place.device("d0")
    place.controller()
    place.deploy("one", plan=SHORT)
    place.until("complete")
    device.stop()
    eventually(lambda: not place.fleet.device("d0").online)
    other = Client(CallbackAPIVersion.VERSION2)
    other.connect("127.0.0.1", place.broker.port)
    other.loop_start()
    other.publish(device.topic("desired"), b"", 1, retain=True).wait_for_publish(10)
    other.disconnect()
    other.loop_stop()
    from tests.support.fakedevices import FakeDevice

    again = place.devices["d0"] = FakeDevice("d0", place.broker.port, boot=2).start()
    eventually(lambda: again.desired is not None)


def test_another_controller_takes_over(place: Site) -> None:
    for number in range(6):
        place.device(f"d{number}")
    first = place.controller()
    assert first.connected.wait(20)
    second = place.controller()
    place.deploy("one", plan=Plan(waves=("1", "2", "3", "100%"), between_s=0.5, timeout_s=60))
    eventually(lambda: place.fleet.rollout("iris").counts().get("good"))
    place.stop(first)
    assert place.until("complete") == {"good": 6}
    assert second.connected.is_set()
    assert [len(one.wishes) for one in place.devices.values()] == [1] * 6


def test_a_controller_whose_machine_was_asleep_says_nothing_to_a_new_broker(place: Site) -> None:
    device = place.device("d0")
    asleep = place.controller(lease_s=600.0)  # no time has gone by, as far as it knows
    place.deploy("one", plan=SHORT)
    place.until("complete")
    told = len(device.told)
    with place.registry.database.write() as connection:
        connection.execute("UPDATE fleet_lease SET holder = 'another', term = term + 1")
    place.broker.kill()
    place.broker.start()
    eventually(lambda: not asleep.state().leads)
    assert eventually(device.client.is_connected)
    place.broker.kill()  # whatever it was told has come to its devices
    assert len(device.told) == told


def test_reports_that_are_old_or_of_strangers_change_nothing(place: Site) -> None:
    device = place.device("d0")
    place.controller()
    place.deploy("one", plan=SHORT)
    place.until("complete")
    other = Client(CallbackAPIVersion.VERSION2)
    other.connect("127.0.0.1", place.broker.port)
    other.loop_start()

    def say(topic: str, boot: int, seq: int, name: str = "d0") -> None:
        lie = Reported(
            device=name,
            boot=boot,
            seq=seq,
            generation=0,
            at=0,
            refused=Failure(code="x", message="lies"),
        )
        other.publish(topic, messages.encode(lie), 1).wait_for_publish(10)

    say(device.topic("reported"), 1, 0)  # older than what is known
    say("fleet/v1/elsewhere/d0/reported", 1, 99)
    say(device.topic("reported"), 1, 99, "d9")
    say("fleet/v1/default/stranger/reported", 1, 99, "stranger")
    for junk in (b"{", b"\0" * 100, b'{"v":2}', b"x\x9c", b"[" * 60000):
        other.publish(device.topic("reported"), junk, 1).wait_for_publish(10)
    eventually(lambda: [one for one in place.fleet.events() if one.subject == "stranger"])
    other.disconnect()
    other.loop_stop()
    assert place.fleet.device("d0").refused is None
    assert place.fleet.rollout("iris").counts() == {"good": 1}
    security = [one for one in place.fleet.events() if one.kind == "security"]
    assert len(security) == 3


def test_a_boot_counter_that_goes_back_is_told(place: Site) -> None:
    place.device("d0", boot=5)
    place.controller()
    eventually(lambda: place.fleet.device("d0").boot == 5)
    from tests.support.fakedevices import FakeDevice

    clone = FakeDevice("d0", place.broker.port, boot=2)
    place.devices["clone"] = clone.start()
    eventually(lambda: place.fleet.device("d0").resets)
    assert any("boot counter" in one.text for one in place.fleet.events())


def test_tags_bring_a_deployment_and_take_it_away(place: Site) -> None:
    device = place.device("d0")
    place.controller()
    place.deploy("one", condition="tags.area = 'yard'", plan=SHORT)
    assert place.until("complete") == {}
    assert device.desired is None
    place.fleet.tag_device("d0", {"area": "yard"})
    eventually(lambda: device.desired is not None and device.desired.modules)
    place.fleet.tag_device("d0", {}, ["area"])
    eventually(lambda: device.desired is not None and not device.desired.modules)


def test_what_is_not_permitted_is_not_sent(place: Site) -> None:
    device = place.device("d0")
    place.controller()
    module = messages.Module(package="sha256:" + "e" * 64)
    place.fleet.deploy("iris", {"main": module}, condition="*", plan=SHORT)
    assert place.until("halted") == {"failed": 1}
    assert "permits" in place.fleet.rollout("iris").rollout.note
    assert device.desired is None


def test_commands_are_answered_in_parts_and_expire(place: Site) -> None:
    device = place.device("d0")
    place.fleet.add_device("away")
    place.controller()
    asked = place.fleet.request("d0", "logs", {"tail": 5})
    late = place.fleet.request("away", "logs", timeout_s=1)
    done = eventually(lambda: (c := place.fleet.command(asked.id)).state == "done" and c)
    assert done.output == "what it said"
    assert device.commands[0].arguments == {"tail": 5}
    gone = eventually(lambda: (c := place.fleet.command(late.id)).state == "expired" and c)
    assert "was not there" in gone.failure.message
