from __future__ import annotations

import uuid

import pytest

from scoring.azureml import identity


def identify(headers: dict[str, str], strict: bool = False) -> tuple[dict[str, str], str]:
    who = identity.identify(identity.pick(list(headers.items())), strict=strict)
    return dict(who.headers), who.fault


def test_without_ids_one_is_made_for_both() -> None:
    headers, fault = identify({})
    assert uuid.UUID(headers["x-request-id"]).version == 4
    assert headers["x-ms-request-id"] == headers["x-request-id"]
    assert "x-ms-client-request-id" not in headers
    assert not fault


@pytest.mark.parametrize(
    ("sent", "legacy", "client"),
    [
        ({"x-ms-request-id": "old"}, "old", "old"),
        ({"x-ms-client-request-id": "new"}, "new", "new"),
        ({"x-ms-request-id": "old", "x-ms-client-request-id": "new"}, "old", "new"),
    ],
)
def test_each_client_id_stands_in_for_the_other(
    sent: dict[str, str], legacy: str, client: str
) -> None:
    headers, _ = identify({"x-request-id": "r"} | sent)
    assert headers == {
        "x-request-id": "r",
        "x-ms-request-id": legacy,
        "x-ms-client-request-id": client,
    }


@pytest.mark.parametrize("name", ["x-request-id", "x-ms-request-id", "x-ms-client-request-id"])
def test_over_a_hundred_characters_is_a_fault_that_names_the_header(name: str) -> None:
    headers, fault = identify({name: "i" * 101, "traceid": "t"})
    assert name in fault
    assert headers["TraceId"] == "t"
    assert "i" * 101 not in headers.values()
    assert not identify({name: "i" * 100})[1]


def test_an_empty_id_is_replaced_unless_strict() -> None:
    assert identify({"x-request-id": ""})[0]["x-request-id"]
    assert identify({"x-request-id": ""}, strict=True)[0] == {}
