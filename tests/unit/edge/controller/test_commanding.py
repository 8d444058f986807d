"""Commands that nobody has answered yet, while others change the records."""

from __future__ import annotations

import pytest

from edge.controller.commanding import Commanding
from edge.controller.entities import CommandRecord, Device
from edge.protocol import envelope, messages
from edge.protocol.messages import Command, CommandResult
from edge.security.director import Director
from edge.security.keys import SigningKey

NOW = 1000.0
CAMERA = Device(name="camera", site="hall")


def record(id_: str) -> CommandRecord:
    return CommandRecord(id=id_, device="camera", verb="logs", deadline=NOW + 60, key=id_)


@pytest.fixture
def commanding() -> Commanding:
    return Commanding(Director(SigningKey.generate()))


def sent(commanding: Commanding) -> list[str]:
    bodies = (envelope.decode(one).body() for one in commanding.due(CAMERA, NOW))
    return [messages.decode(body, Command).id for body in bodies]


def states(commanding: Commanding) -> dict[str, str]:
    return {one.id: one.state for one in commanding.changed()}


def test_what_was_not_written_was_not_sent_and_is_sent_later(commanding: Commanding) -> None:
    commanding.take({"a": record("a")})
    assert sent(commanding) == ["a"]
    # Somebody asks for another one before that is written: nothing of it was said.
    commanding.take({name: record(name) for name in "ab"})
    assert commanding.waiting() == {"camera"}
    assert sent(commanding) == ["a", "b"]
    assert states(commanding) == {"a": "sent", "b": "sent"}
    commanding.answer(CommandResult(device="camera", id="a", output="x"))
    assert states(commanding) == {"a": "done", "b": "sent"}


def test_what_was_answered_meanwhile_stays_so(commanding: Commanding) -> None:
    commanding.take({"a": record("a")})
    assert sent(commanding) == ["a"]
    commanding.written()
    commanding.answer(CommandResult(device="camera", id="a", output="x"))
    commanding.take({"a": record("a")})
    assert sent(commanding) == []
    assert states(commanding) == {"a": "done"}
