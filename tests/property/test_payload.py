"""Any valid array comes back; anything else is an InputError; the quick way is the exact one."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scoring.errors import InputError
from scoring.payload import Codec
from scoring.payload.arrays import Converter
from scoring.payload.places import ArrayPlace
from scoring.runtimes.base import NUMPY_DTYPES
from scoring.schema import DType, Layout, ModelSchema, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

NUMBERS: list[DType] = [
    *("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "float32", "float64", "bool"),
]
OUT = (TensorSpec("y", "float32", (None,)),)

words = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)


@st.composite
def tensors(draw: st.DrawFn) -> tuple[TensorSpec, Any]:
    """An input and an array that fits it."""
    dtype = draw(st.sampled_from([*NUMBERS, "string"]))
    shape = draw(hnp.array_shapes(min_dims=1, max_dims=4, min_side=1, max_side=4))
    free = draw(st.lists(st.booleans(), min_size=len(shape), max_size=len(shape)))
    spec = TensorSpec(
        "x",
        dtype,
        tuple(None if is_free else size for is_free, size in zip(free, shape, strict=True)),
    )
    elements = (
        words
        if dtype == "string"
        else hnp.from_dtype(NUMPY_DTYPES[dtype], allow_nan=False, allow_infinity=False)
    )
    return spec, draw(hnp.arrays(NUMPY_DTYPES[dtype], shape, elements=elements))


@given(tensors())
def test_any_valid_array_comes_back(tensor: tuple[TensorSpec, Any]) -> None:
    spec, array = tensor
    codec = Codec(ModelSchema((spec,), (spec,)))
    body = codec.encode({"x": array}, "outputs")
    value = json.loads(body)["outputs"]["x"]
    for document in ({"data": value}, {"inputs": {"x": value}}, value):
        decoded = codec.decode(json.dumps(document).encode()).inputs["x"]
        assert decoded.dtype == array.dtype
        np.testing.assert_array_equal(decoded, array)


@given(tensors())
def test_the_fast_and_the_exact_conversion_agree(tensor: tuple[TensorSpec, Any]) -> None:
    spec, array = tensor
    converter = Converter(spec)
    value = json.loads(Codec(ModelSchema((spec,), (spec,))).encode({"x": array}, "outputs"))
    value = value["outputs"]["x"]
    exact = converter.exact(value, ArrayPlace("data"))
    fast = converter.array(value, ArrayPlace("data"), plain=spec.dtype != "bool")
    assert exact.dtype == fast.dtype
    np.testing.assert_array_equal(exact, fast)


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats()
    | st.sampled_from(["1", "", "NaN", "a"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["a", "b", "x", "data"]), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(st.sampled_from(NUMBERS), st.booleans(), json_values)
def test_the_fast_way_takes_nothing_that_the_exact_one_refuses(
    dtype: DType, missing: bool, value: Any
) -> None:
    """Without booleans in the value, as its caller makes sure."""
    converter = Converter(TensorSpec("x", dtype, (None, 2), missing))
    if "true" in json.dumps(value) or "false" in json.dumps(value):
        return
    fast = converter.fast(value)
    if fast is not None:
        np.testing.assert_array_equal(fast, converter.exact(value, ArrayPlace("data")))


columns = st.lists(st.sampled_from(["a", "b", "c", "d", "0", "1", "2"]), max_size=4)
bodies = st.one_of(
    json_values,
    st.fixed_dictionaries(
        {},
        optional={
            key: json_values | st.lists(st.lists(st.integers(-9, 9), max_size=4), max_size=3)
            for key in (
                "data", "instances", "inputs", "input_data", "columns", "index",
                "dataframe_split", "dataframe_records",
            )
        },
    ),
    st.fixed_dictionaries(
        {"columns": columns | json_values, "data": json_values}, optional={"index": json_values}
    ),
    st.builds(
        lambda key, split: {key: split},
        st.sampled_from(["dataframe_split", "input_data"]),
        st.fixed_dictionaries({"columns": columns, "data": json_values}),
    ),
)  # fmt: skip
SCHEMAS = [
    ModelSchema((TensorSpec("x", "float32", (None, 3)),), OUT, features=("a", "b", "c")),
    ModelSchema((TensorSpec("x", "int8", (None, 2), missing=True),), OUT),
    ModelSchema((TensorSpec("x", "string", (None, None)),), OUT),
    ModelSchema((TensorSpec("a", "float32", (None,)), TensorSpec("b", "bool", (2, None))), OUT),
    ModelSchema(
        (
            TensorSpec("a", "float64", (None, 1), missing=True),
            TensorSpec("b", "string", (None, 1), missing=True),
            TensorSpec("c", "bool", (None, 1)),
        ),
        OUT,
        layout="table",
    ),
]


@settings(max_examples=300)
@given(st.sampled_from(SCHEMAS), bodies)
def test_any_document_is_taken_or_an_input_error(schema: ModelSchema, body: Any) -> None:
    judge(schema, json.dumps(body).encode())


@settings(max_examples=300)
@given(
    st.sampled_from(SCHEMAS),
    st.sampled_from(
        [
            b'{"data": [[1, 2.5, -3e2], [4, 5, 6]]}',
            b'{"inputs": {"a": [1], "b": ["x"], "c": [true]}}',
            b'[{"a": 1.5, "b": "\\u00e9", "c": false}]',
            b'{"columns": ["c", "b", "a"], "index": [0], "data": [[1, 2, 3]]}',
        ]
    ),
    st.data(),
)
def test_any_mutation_is_taken_or_an_input_error(
    schema: ModelSchema, body: bytes, data: st.DataObject
) -> None:
    mutated = bytearray(body)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(mutated)))
        end = data.draw(st.integers(start, min(start + 5, len(mutated))))
        piece = data.draw(
            st.binary(max_size=3)
            | st.sampled_from([b"null", b"NaN", b"-", b"1e999", b"[", b"}", b'"', b"\\ud800", b"["])
        )
        mutated[start:end] = piece
    judge(schema, bytes(mutated))


@given(st.sampled_from(SCHEMAS), st.binary(max_size=40))
def test_any_bytes_are_an_input_error(schema: ModelSchema, body: bytes) -> None:
    judge(schema, body)


def judge(schema: ModelSchema, body: bytes) -> None:
    """Either arrays that keep what the schema promises, or an error that can be sent."""
    codec = Codec(schema)
    try:
        inputs = codec.decode(body).inputs
    except InputError as error:
        refusal = error
    else:
        require_promises(schema, inputs)
        return
    assert json.dumps(refusal.to_dict()).encode()
    assert codec.quick(body) is None


def require_promises(schema: ModelSchema, inputs: Mapping[str, NDArray[Any]]) -> None:
    for spec in schema.inputs:
        array = inputs[spec.name]
        assert array.dtype == NUMPY_DTYPES[spec.dtype]
        assert len(array.shape) == len(spec.shape)
        sizes = zip(array.shape, spec.shape, strict=True)
        assert all(size == wanted or wanted is None for size, wanted in sizes)
        assert array.size
        if array.dtype.kind == "f":
            assert not np.isinf(array).any()
            assert spec.missing or not np.isnan(array).any()


@pytest.mark.parametrize("layout", ["tensors", "table"])
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), words), min_size=1, max_size=5), st.randoms())
def test_the_order_of_columns_in_a_split_does_not_matter(
    layout: Layout, rows: list[tuple[float, str]], random: Any
) -> None:
    if layout == "table":
        schema = SCHEMAS[4]
        full = [[number, text, True] for number, text in rows]
    else:
        schema = SCHEMAS[0]
        full = [[number, 1.0, 2.0] for number, _ in rows]
    order = [0, 1, 2]
    random.shuffle(order)
    names = ["a", "b", "c"]
    split = {
        "columns": [names[place] for place in order],
        "data": [[row[place] for place in order] for row in full],
    }
    codec = Codec(schema)
    straight = codec.decode(json.dumps({"data": full}).encode()).inputs
    moved = codec.decode(json.dumps(split).encode()).inputs
    for name, array in straight.items():
        np.testing.assert_array_equal(array, moved[name])
