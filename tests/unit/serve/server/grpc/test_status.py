"""Errors as gRPC tells them."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

import grpc
import pytest
from hpack import Decoder

from scoring import errors as e
from serve.server.grpc import status
from serve.server.status import STATUS

if TYPE_CHECKING:
    from collections.abc import Iterator


def told(block: bytes) -> dict[str, str]:
    return {str(k): str(v) for k, v in Decoder().decode(block)}


def kinds(root: type[e.FieldpostError]) -> Iterator[type[e.FieldpostError]]:
    yield root
    for kind in root.__subclasses__():
        yield from kinds(kind)


def test_every_error_is_mapped() -> None:
    ours = {kind for kind in kinds(e.FieldpostError) if kind.__module__.startswith("s")}
    assert set(status.CODES) >= {kind for kind in ours if kind in STATUS}
    assert set(status.CODES) <= set(STATUS)


def test_codes_are_grpcs() -> None:
    for code in grpc.StatusCode:
        assert getattr(status, code.name) == code.value[0]


def test_both_protocols_agree_on_whose_fault_it_is() -> None:
    server = {status.INTERNAL, status.UNAVAILABLE, status.DEADLINE_EXCEEDED, status.DATA_LOSS}
    for kind, http in STATUS.items():
        assert (status.CODES[kind] in server) == (http >= 500 or http == 408) or (
            kind is e.StorageFullError or http in {501, 505}
        ), kind


def test_a_class_of_a_plugin_has_its_ancestors_code() -> None:
    class Odd(e.WrongShapeError):
        pass

    assert status.code_of(Odd("x")) == status.INVALID_ARGUMENT
    assert status.code_of(KeyError("x")) == status.INTERNAL


def test_an_error_has_its_message_hint_code_and_place() -> None:
    error = e.WrongShapeError("It is 100 % wrong.", hint="Mend\nit.", where="inputs[0]")
    fields = told(status.refusal(error))
    assert fields[":status"] == "200"
    assert fields["content-type"] == "application/grpc"
    assert fields["grpc-status"] == "3"
    assert fields["grpc-message"] == "It is 100 %25 wrong. Mend%0Ait."
    assert fields["fieldpost-code"] == "wrong_shape"
    assert fields["fieldpost-where"] == "inputs[0]"
    assert ":status" not in told(status.trailers(error))


def test_failures_of_ours_tell_nothing() -> None:
    fields = told(status.trailers(KeyError("secret")))
    assert fields["grpc-status"] == "13"
    assert "secret" not in str(fields)


@pytest.mark.parametrize("text", ["", "plain", "grüße 東京\t\r\n\0", "100%", "\ud800", "ü" * 5000])
def test_messages_are_escaped_and_not_endless(text: str) -> None:
    quoted = status.quoted(text)
    assert quoted.isascii()
    assert b"\n" not in quoted
    back = unquote_to_bytes(quoted).decode()
    assert (
        back.removesuffix(" ...")
        == text.encode("utf-8", "replace").decode()[: len(back)][: len(back.removesuffix(" ..."))]
    )
    assert len(quoted) < 7000
