"""Our messages are the protocol's, field by field, and live beside those of tritonclient."""

from __future__ import annotations

from typing import Any

import pytest
from tritonclient.grpc import model_config_pb2, service_pb2

from scoring.errors import MalformedPayloadError
from serve.server.grpc import messages
from serve.server.grpc.descriptors import FILES

THEIRS = {
    **dict(service_pb2.DESCRIPTOR.message_types_by_name),
    **dict(model_config_pb2.DESCRIPTOR.message_types_by_name),
}
OURS = messages.POOL.FindFileByName("inference.proto")
# Parts of Triton's messages that say what we have nothing to say about.
LEFT_OUT = {"ModelConfig", "ModelInput", "ModelOutput", "ModelStatistics"}
# What ours say beside that; Triton's clients pass over it. Its number and form are MLServer's.
ADDED = {"ModelMetadataResponse": {"parameters": "ParametersEntry"}}


def fields(descriptor: Any) -> dict[str, tuple[Any, ...]]:
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.message_type.full_name if field.message_type else "",
            field.enum_type.full_name if field.enum_type else "",
            field.containing_oneof.name if field.containing_oneof else "",
        )
        for field in descriptor.fields
    }


def compare(ours: Any, theirs: Any) -> None:
    added = ADDED.get(ours.name, {})
    mine, reference = fields(ours), fields(theirs)
    assert not added.keys() & reference.keys()
    mine = {name: field for name, field in mine.items() if name not in added}
    assert {name: reference.get(name) for name in mine} == mine
    if ours.name not in LEFT_OUT:
        assert mine.keys() == reference.keys()
    for nested in ours.nested_types:
        if nested.name in added.values():
            continue
        compare(nested, theirs.nested_types_by_name[nested.name])


@pytest.mark.parametrize("name", sorted(OURS.message_types_by_name))
def test_fields_are_those_of_tritons_clients(name: str) -> None:
    compare(OURS.message_types_by_name[name], THEIRS[name])


def test_datatypes_are_those_of_tritons_clients() -> None:
    ours = {v.name: v.number for v in OURS.enum_types_by_name["DataType"].values}
    assert ours == dict(model_config_pb2.DataType.items())


def test_methods_are_those_of_tritons_clients() -> None:
    ours = OURS.services_by_name["GRPCInferenceService"].methods_by_name
    theirs = service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
    for name, method in ours.items():
        other = theirs[name]
        assert method.input_type.full_name == other.input_type.full_name
        assert method.output_type.full_name == other.output_type.full_name
        assert method.client_streaming == other.client_streaming
        assert method.server_streaming == other.server_streaming
    without = {name for name in theirs if name not in ours}
    assert {name.replace("Cuda", "System") for name in without} == {
        "SystemSharedMemoryStatus", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister",
        "TraceSetting", "LogSettings",
    }  # fmt: skip


def test_both_read_what_the_other_writes() -> None:
    sent = service_pb2.ModelInferRequest(model_name="m", id="7")
    sent.inputs.add(name="x", datatype="FP32", shape=[1, 2]).contents.fp32_contents.extend([1, 2])
    sent.parameters["p"].string_param = "v"
    got = messages.parse(messages.ModelInferRequest, sent.SerializeToString())
    assert got.SerializeToString(deterministic=True) == sent.SerializeToString(deterministic=True)
    assert not isinstance(got, service_pb2.ModelInferRequest)


def test_other_bytes_are_refused() -> None:
    with pytest.raises(MalformedPayloadError, match=r"inference\.ModelInferRequest"):
        messages.parse(messages.ModelInferRequest, b"\xff")


def test_every_file_is_there() -> None:
    assert sorted(FILES) == ["health.proto", "inference.proto", "reflection.proto"]


def test_the_descriptors_are_those_of_the_files() -> None:
    tools = pytest.importorskip("grpc_tools", reason="grpcio-tools is not installed")
    assert tools
    from serve.server.grpc import make_messages

    assert {name: make_messages.describe(name) for name in FILES} == FILES
