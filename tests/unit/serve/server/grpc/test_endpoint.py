"""Infer messages to arrays and back: what plans do is what the long way does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from scoring.bundle import Bundle
from scoring.errors import InputError, MissingValueError
from scoring.schema import DType
from serve.server.grpc.endpoint import Endpoint
from serve.server.grpc.messages import ModelInferRequest, ModelInferResponse
from serve.server.jobs import Jobs
from serve.server.models.served import ServedModel
from serve.server.settings import ServerSettings
from tests.support.echo import DATATYPES, NUMBERS, Echo, example


def endpoint(dtype: DType = "float32", form: str = "onnx", **more: Any) -> Endpoint:
    jobs = Jobs(lambda *_: None, 1)
    bundle = Bundle(name="m", model_version=3, runtime="onnx", format=form)
    model = ServedModel(
        Echo(dtype, **more), bundle, jobs, ServerSettings(), lambda *_: None, inline=True
    )
    return Endpoint(model, 64)


def request(array: np.ndarray[Any, Any], datatype: str = "FP32", **more: Any) -> Any:
    made = ModelInferRequest(model_name="m", **more)
    made.inputs.add(name="given", datatype=datatype, shape=array.shape)
    made.raw_input_contents.append(array.tobytes())
    return made


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("final", [True, False], ids=["final", "only"])
def test_the_first_and_the_second_time_are_alike(dtype: DType, final: bool) -> None:
    made, given = endpoint(dtype), example(dtype)
    sent = request(given, DATATYPES[dtype], id="ü7")
    answers = []
    for _ in range(3):
        array = made.decode(sent)["given"]
        np.testing.assert_array_equal(array, given)
        assert array.dtype == given.dtype
        answers.append(made.encode({"same": array}, made.wanted(sent), "ü7", final=final))
    first, second, third = map(ModelInferResponse.FromString, answers)
    assert first == second == third
    assert (first.model_name, first.model_version, first.id) == ("m", "3", "ü7")
    assert first.outputs[0].datatype == DATATYPES[dtype]
    assert list(first.outputs[0].shape) == list(given.shape)
    assert first.raw_output_contents[0] == given.tobytes()
    assert ("triton_final_response" in first.parameters) == final


def test_plans_are_for_one_shape_each() -> None:
    made = endpoint()
    for shape in ((1, 2), (2, 1), (2, 2), (1, 4), (4, 1)) * 2:
        given = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        np.testing.assert_array_equal(made.decode(request(given))["given"], given)
    wrong = request(np.zeros((2, 2), np.float32))
    wrong.raw_input_contents[0] = b"\0" * 12
    with pytest.raises(InputError, match="12 bytes"):
        made.decode(wrong)


def test_plans_are_not_endless() -> None:
    made = endpoint("uint8")
    for rows in range(1, 600):
        given = np.zeros((rows, 1), np.uint8)
        sent = request(given, "UINT8")
        made.encode({"same": made.decode(sent)["given"]}, made.wanted(sent), "")
    assert len(made._input_plans) < 300
    assert len(made._output_plans) < 300


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_is_refused_by_models_of_tables_each_time(value: float) -> None:
    made = endpoint(form="sklearn")
    right, wrong = np.ones((1, 2), np.float32), np.array([[1, value]], np.float32)
    for _ in range(3):
        made.decode(request(right))
        with pytest.raises(MissingValueError, match="element 1"):
            made.decode(request(wrong))
    assert endpoint(form="sklearn", missing=True).decode(request(wrong))


def test_large_numbers_are_no_infinities() -> None:
    made = endpoint(form="sklearn")
    large = np.full((1, 3), np.finfo(np.float32).max, np.float32)
    for _ in range(3):
        np.testing.assert_array_equal(made.decode(request(large))["given"], large)


def test_answers_have_the_datatypes_of_their_arrays() -> None:
    """A model that answers another dtype than its schema says is told as it is."""
    made = endpoint()
    for array in (np.ones((1, 2), np.float64), np.ones((1, 2), np.float32), np.ones((1, 2), ">f4")):
        for _ in range(2):
            answer = made.encode({"same": array}, made.wanted(request(array)), "")
            response = ModelInferResponse.FromString(answer)
            datatype = "FP64" if array.dtype.itemsize == 8 else "FP32"
            assert response.outputs[0].datatype == datatype
            got = np.frombuffer(response.raw_output_contents[0], f"<f{array.dtype.itemsize}")
            np.testing.assert_array_equal(got, array.ravel())


def test_arrays_that_are_parts_of_others_are_written_row_by_row() -> None:
    made = endpoint()
    whole = np.arange(12, dtype=np.float32).reshape(3, 4)
    for array in (whole[1:2], whole[:, ::2], np.asfortranarray(whole)):
        for _ in range(2):
            answer = made.encode({"same": array}, made.wanted(request(array)), "")
            raw = ModelInferResponse.FromString(answer).raw_output_contents[0]
            np.testing.assert_array_equal(np.frombuffer(raw, np.float32), array.ravel())
