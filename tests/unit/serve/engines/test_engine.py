"""The maintained client's errors in our words, and what of an image an engine lacks."""

from __future__ import annotations

from typing import Any

import pytest
import requests
from docker import errors

from scoring.errors import FieldpostError, NotFoundError, TargetError, UnreachableError
from serve.engines import images
from serve.engines.engine import Engine
from serve.engines.faults import ConflictError, PortTakenError, refusal, translated


def raised(error: Exception) -> FieldpostError:
    with pytest.raises(FieldpostError) as caught, translated("do it", "The engine"):
        raise error
    return caught.value


def api_error(status: int, text: str) -> errors.APIError:
    response = requests.Response()
    response.status_code = status
    return errors.APIError("failed", response=response, explanation=text)


@pytest.mark.parametrize(
    ("status", "text", "kind"),
    [
        (404, "No such container: x", NotFoundError),
        (409, "Conflict. The name is already in use", ConflictError),
        (
            500,
            'creating container storage: the container name "x" is already in use by 1',
            ConflictError,
        ),
        (500, "Bind for 127.0.0.1:80 failed: port is already allocated", PortTakenError),
        (500, "listen tcp 127.0.0.1:80: bind: address already in use", PortTakenError),
        (404, "network nowhere not found", TargetError),
        (500, "write /x: no space left on device", TargetError),
        (500, "could not select device driver with capabilities: [[gpu]]", TargetError),
        (500, "something else\nin two lines.", TargetError),
    ],
)
def test_refusals(status: int, text: str, kind: type[FieldpostError]) -> None:
    error = raised(api_error(status, text))
    assert type(error) is kind
    assert error.message.startswith("The engine cannot do it: ")
    assert "\n" not in error.message
    assert not error.message.endswith("..")


def test_ways_that_break() -> None:
    for error in (requests.ConnectionError("reset"), requests.Timeout("slow"), BrokenPipeError()):
        found = raised(error)
        assert isinstance(found, UnreachableError)
        assert found.retryable
    assert type(raised(errors.DockerException("odd"))) is TargetError
    own = NotFoundError("ours")
    assert raised(own) is own


def test_hints_say_what_to_do() -> None:
    assert "docker system df" in refusal("no space left on device", "load", "It").hint
    assert "container toolkit" in refusal("could not select device driver", "start", "It").hint
    assert "network create" in refusal("network a not found", "start", "It").hint


class Client:
    """The part of the client that looking for layers needs."""

    def __init__(self, layers: dict[str, list[str] | None]) -> None:
        self._layers = layers
        self.asked: list[str] = []

    def images(self, filters: object) -> list[dict[str, Any]]:
        return [{"Id": name} for name in self._layers]

    def inspect_image(self, name: str) -> dict[str, Any]:
        self.asked.append(name)
        return {"Id": name, "RootFS": {"Layers": self._layers[name]}}


def missing(layers: dict[str, list[str] | None], wanted: str) -> str:
    engine = Engine(Client(layers), "unix:///x", "docker", {})
    return "".join(images.missing_layers(engine, list(wanted)))


def test_an_engine_has_the_longest_beginning_that_images_share() -> None:
    there: dict[str, list[str] | None] = {"1": ["a", "x"], "2": ["a", "b"], "3": None, "4": ["b"]}
    assert missing(there, "abcd") == "cd"
    assert missing(there, "ab") == ""
    assert missing(there, "cab") == "cab"
    assert missing({}, "ab") == "ab"


def test_the_search_ends_where_all_is_found() -> None:
    client = Client({"1": ["a", "b"], "2": ["a"]})
    assert not images.missing_layers(Engine(client, "unix:///x", "docker", {}), ["a", "b"])
    assert client.asked == ["1"]


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        ([["Backing Filesystem", "extfs"]], "docker", True),
        ([["driver-type", "io.containerd.snapshotter.v1"]], "docker", False),
        ([], "podman", False),
        (None, "docker", True),
    ],
)
def test_stores_that_want_every_layer(status: Any, kind: Any, expected: bool) -> None:
    class Informed:
        def info(self) -> dict[str, Any]:
            return {"DriverStatus": status}

    assert Engine(Informed(), "unix:///x", kind, {}).loads_incrementally is expected


def test_addresses_of_published_ports() -> None:
    assert Engine(None, "unix:///x", "docker", {}).address == ""
    assert Engine(None, "tcp://there:2376", "docker", {}).address == "there"
    assert Engine(None, "ssh://me@far:22", "docker", {}).address == "far"
