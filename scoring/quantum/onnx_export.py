"""Compiled circuits as ONNX models of standard operators, which any ONNX runtime serves.

A row's length does not matter to a circuit, so that rows enter as they are, and the squares of the
result are divided by the squares of the row. Where the squares of a row would over- or underflow,
or a row is all zeros (which stands for |0…0⟩), another branch of the graph first divides by the
largest feature, and takes the encoding's steps in a wider range than that of floats. That branch
costs nothing while it is not taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from scoring.quantum.circuit import Circuit, Label, Model, OneVersusRest
from scoring.quantum.compile.choose import Part
from scoring.quantum.compile.compiler import FloatName
from scoring.quantum.compile.program import Layout, Program, Stage
from scoring.quantum.document import digest
from scoring.quantum.onnx_encoding import add_steps, add_zeros
from scoring.quantum.onnx_graph import Scope
from scoring.quantum.onnx_wide import add_wide_steps
from scoring.quantum.pure import METADATA_KEY, embedded

if TYPE_CHECKING:
    from numpy.typing import NDArray

INPUT, LABELS, PROBABILITIES = "X", "predictions", "probabilities"
_MANY = 1e30
"""More than rows."""
_NARROW = 64
_MAX_NOTE = 1 << 20
_CHUNK_BYTES = 1 << 21


def to_onnx(model: Model, parts: Sequence[Part], dtype: FloatName = "float64") -> bytes:
    """Writes a model's compiled parts as one ONNX file.

    Args:
        model: The circuit, or the circuits of one against rest.
        parts: Each circuit in the form that serves, in the model's order.
        dtype: Of the rows that it takes and the probabilities that it answers.

    Returns:
        The file's bytes. It takes `X` and answers `predictions` (labels) and `probabilities`.
    """
    scope = Scope(dtype)
    if isinstance(model, OneVersusRest):
        inner = [
            _shares(scope, part, scope.name(), f"circuit{place}_")
            for place, part in enumerate(parts)
        ]
        scope.add("Identity", _against_rest(scope, inner), to=PROBABILITIES)
    else:
        _shares(scope, parts[0], PROBABILITIES, "")
    text = _add_labels(scope, model.classes)
    features = parts[0].circuit.encoding.features
    return scope.model(
        [scope.value(INPUT, ["rows", features])],
        [
            scope.value(LABELS, ["rows"], "string" if text else "int64"),
            scope.value(PROBABILITIES, ["rows", len(model.classes)]),
        ],
        _notes(model, parts),
    )


def _notes(model: Model, parts: Sequence[Part]) -> dict[str, str]:
    """What the file tells of the circuit: its digest, and itself where it is not too long."""
    notes = {
        "fieldpost.circuit": digest(model),
        "fieldpost.form": ", ".join(part.form for part in parts),
    }
    text = embedded(model)
    return notes | ({METADATA_KEY: text} if len(text) <= _MAX_NOTE else {})


def _add_labels(scope: Scope, classes: Sequence[Label]) -> bool:
    """Adds the label of the first largest probability; returns whether labels are strings."""
    plain = list(classes) == list(range(len(classes)))
    place = scope.add("ArgMax", PROBABILITIES, to=LABELS if plain else "", axis=1, keepdims=0)
    text = isinstance(classes[0], str)
    if not plain:
        names = np.array(classes, dtype=object if text else np.int64)
        scope.add("Gather", scope.constant(names), place, to=LABELS)
    return text


def _against_rest(scope: Scope, inner: Sequence[str]) -> str:
    """Each circuit's probability of its own class, divided by their sum."""
    own = [scope.add("Gather", shares, scope.ints([1]), axis=1) for shares in inner]
    return _normalised(scope, scope.add("Concat", *own, axis=1), len(own))


def _normalised(scope: Scope, values: str, count: int) -> str:
    sums = scope.add("MatMul", values, scope.floats(np.ones((count, count))))
    return _divided(scope, values, sums, count)


def _divided(scope: Scope, values: str, sums: str, count: int) -> str:
    """Values by their sums; equal shares where a sum is zero."""
    some = scope.add("Greater", sums, scope.floats(0))
    divided = scope.add("Div", values, scope.add("Where", some, sums, scope.floats(1)))
    return scope.add("Where", some, divided, scope.floats(1 / count))


def _shares(scope: Scope, part: Part, name: str, prefix: str) -> str:
    """The class probabilities of one circuit, under a name: the shape (rows, classes)."""
    rows = add_steps(scope, part.circuit.encoding, INPUT)
    if isinstance(part.compiled, Program):
        safe = _kept_in_range(scope, part, rows, prefix)
        result = _quotient(scope, part, _scaled(scope, safe, part))
    else:
        result = _guarded(scope, part, rows, prefix)
    circuit = part.circuit
    if circuit.is_binary:
        # By a matrix: to spread one column over two costs several times as much.
        both, shift = scope.floats([[-1, 1]]), scope.floats([1 - circuit.bias, circuit.bias])
        result = scope.add("Gemm", result, both, shift)
    return scope.add("Clip", result, scope.floats(0), scope.floats(1), to=name)


def _kept_in_range(scope: Scope, part: Part, rows: str, prefix: str) -> str:
    """Encoded rows; where the steps left the range of floats, all of them but for factors."""
    encoding = part.circuit.encoding
    if not encoding.steps:
        return rows
    sizes = scope.add("Abs", rows)
    totals = scope.add("ReduceSum", sizes, scope.ints([1]), keepdims=1)
    inverses = scope.add("Reciprocal", totals)
    plain, careful = scope.inside(), scope.inside()
    same, wide = plain.add("Identity", rows), add_wide_steps(careful, encoding, INPUT)
    shape = [None, encoding.width()]
    return scope.add(
        "If",
        _are_exact(scope, totals, inverses, 1),
        then_branch=plain.graph(prefix + "steps", [], [plain.value(same, shape)]),
        else_branch=careful.graph(prefix + "wide_steps", [], [careful.value(wide, shape)]),
    )


def _guarded(scope: Scope, part: Part, rows: str, prefix: str) -> str:
    """The quotient as it is where squares are exact, else that of scaled rows."""
    above, below = _squares(scope, part, rows)
    inverse = scope.add("Reciprocal", below)
    plain, careful = scope.inside(), scope.inside()
    quick = plain.add("Mul", above, inverse)
    encoding = part.circuit.encoding
    safe = add_wide_steps(careful, encoding, INPUT) if encoding.steps else rows
    slow = _quotient(careful, part, _scaled(careful, safe, part))
    width = 1 if part.circuit.is_binary else len(part.circuit.classes)
    return scope.add(
        "If",
        _are_exact(scope, below, inverse, width),
        then_branch=plain.graph(prefix + "exact", [], [plain.value(quick, [None, width])]),
        else_branch=careful.graph(prefix + "scaled", [], [careful.value(slow, [None, width])]),
    )


def _are_exact(scope: Scope, values: str, inverses: str, width: int) -> str:
    """Whether no value is zero, infinite, or too small to have an inverse.

    Every product of a value and its inverse is then about 1; of others it is NaN or infinite, and
    so is the sum, which is not less than anything.
    """
    if width == 1:
        total = scope.add("Gemm", values, inverses, transA=1)
    else:
        total = scope.add("ReduceSum", scope.add("Mul", values, inverses), keepdims=0)
    return scope.add("Less", total, scope.floats(_MANY if width > 1 else [[_MANY]]))


def _scaled(scope: Scope, rows: str, part: Part) -> str:
    """Rows divided by their largest feature; rows of zeros become the first basis state."""
    largest = scope.add("ReduceMax", scope.add("Abs", rows), scope.ints([1]), keepdims=1)
    zero = scope.add("Equal", largest, scope.floats(0))
    divisor = scope.add("Where", zero, scope.floats(1), largest)
    first = np.zeros((1, part.circuit.encoding.width()))
    first[0, 0] = 1
    extra = scope.add("Where", zero, scope.floats(first), scope.floats(np.zeros_like(first)))
    return scope.add("Add", scope.add("Div", rows, divisor), extra)


def _quotient(scope: Scope, part: Part, rows: str) -> str:
    above, below = _squares(scope, part, rows)
    if part.circuit.is_binary:
        return scope.add("Div", above, below)
    return _divided(scope, above, below, len(part.circuit.classes))


def _squares(scope: Scope, part: Part, rows: str) -> tuple[str, str]:
    """Numerators and denominators, of one shape.

    Of a binary circuit the probability of one, (rows, 1); else those of the classes, whose
    denominators are repeated: a product with ones costs less than to spread one column.
    """
    squares, each = _sums(scope, part, rows)
    circuit = part.circuit
    if circuit.is_binary:
        norms = _squared_lengths(scope, rows, circuit.encoding.width())
        above = (
            scope.add("ReduceSum", squares, scope.ints([1]), keepdims=1) if each > 1 else squares
        )
        return above, norms
    classes = len(circuit.classes)
    above = scope.add("MatMul", squares, scope.floats(np.repeat(np.eye(classes), each, axis=0)))
    ones = np.ones((classes * each, classes))
    return above, scope.add("MatMul", squares, scope.floats(ones))


def _squared_lengths(scope: Scope, rows: str, width: int) -> str:
    """The squared length of each row, by what is faster for its width."""
    if width > _NARROW:
        return scope.add("ReduceSumSquare", rows, scope.ints([1]), keepdims=1)
    return scope.add("ReduceSum", scope.add("Mul", rows, rows), scope.ints([1]), keepdims=1)


def _sums(scope: Scope, part: Part, rows: str) -> tuple[str, int]:
    """Squares of the outcomes, one outcome after another, and how many each of them has."""
    if isinstance(part.compiled, Program):
        return _run_in_chunks(scope, part.circuit, part.compiled, rows), 1
    folded = part.compiled
    product = scope.add("MatMul", rows, scope.floats(folded.matrix.T))
    each = len(folded.matrix) // folded.outcomes
    if len(folded.matrix) <= _NARROW:
        return scope.add("Mul", product, product), each
    parted = scope.add("Reshape", product, scope.ints([-1, folded.outcomes, each]))
    return scope.add("ReduceSumSquare", parted, scope.ints([2]), keepdims=0), 1


def _run_in_chunks(scope: Scope, circuit: Circuit, steps: Program, rows: str) -> str:
    """Runs the stages on a few rows at a time, so that their states stay in the cache."""
    width = circuit.encoding.width()
    count = scope.add("Shape", rows, start=0, end=1)
    some = scope.add("Max", count, scope.ints([1]))
    chunk = scope.add("Min", some, scope.ints([_chunk(steps.qubits)]))
    rounded = scope.add("Add", some, scope.add("Sub", chunk, scope.ints([1])))
    turns = scope.add("Div", rounded, chunk)
    missing = scope.add("Sub", scope.add("Mul", turns, chunk), count)
    pads = scope.add("Concat", scope.ints([0, 0]), missing, scope.ints([0]), axis=0)
    shape = scope.add("Concat", turns, chunk, scope.ints([width]), axis=0)
    parted = scope.add("Reshape", scope.add("Pad", rows, pads), shape)
    body = _body(scope, steps, width)
    found = scope.add("Scan", parted, body=body, num_scan_inputs=1)
    flat = scope.add("Reshape", found, scope.ints([-1, steps.outcomes]))
    return scope.add("Slice", flat, scope.ints([0]), count, scope.ints([0]))


def _chunk(qubits: int) -> int:
    return max(1, _CHUNK_BYTES >> (qubits + 4))


def _body(outer: Scope, steps: Program, width: int) -> object:
    scope = outer.inside()
    rows = scope.name()
    state = scope.add("Transpose", add_zeros(scope, rows, 2**steps.qubits - width), perm=[1, 0])
    layout = steps.layout
    for stage in steps.stages:
        state, layout = _stage(scope, stage, state, layout)
    total = 2 ** len(layout) * len(steps.stages[-1].matrix) >> len(steps.stages[-1].result)
    each = total // steps.outcomes
    # The rows of the circuit are the last axis, whose length is not known here.
    parted = scope.add("Reshape", state, scope.ints([steps.outcomes, each, -1]))
    sums = scope.add("ReduceSumSquare", parted, scope.ints([1]), keepdims=0)
    result = scope.add("Transpose", sums, perm=[1, 0])
    return scope.graph(
        "stages",
        [scope.value(rows, [None, width])],
        [scope.value(result, [None, steps.outcomes])],
    )


def _stage(scope: Scope, stage: Stage, state: str, layout: Layout) -> tuple[str, Layout]:
    """What `program._apply` does, in operators; states go in and out as (amplitudes, rows)."""
    moved = layout.moved((*stage.axes, *stage.outer))
    sizes, order = layout.permutation(moved)
    if order != tuple(range(len(order))):
        state = scope.add("Reshape", state, scope.ints([*sizes, -1]))
        state = scope.add("Transpose", state, perm=[*order, len(order)])
    columns = stage.matrix.shape[1]
    # Every axis but one is told by number: with rows of another count, -1 is what they change.
    flat = scope.add("Reshape", state, scope.ints([columns, -1]))
    result = scope.add("MatMul", scope.floats(stage.matrix), flat)
    if stage.outer:
        result = _controlled(scope, stage, flat, result)
    behind = moved[len(stage.axes) :]
    size = len(stage.matrix) * 2 ** len(behind)
    return (
        scope.add("Reshape", result, scope.ints([size, -1])),
        Layout((*stage.result, *behind)),
    )


def _controlled(scope: Scope, stage: Stage, before: str, change: str) -> str:
    """Adds the change where all outer controls are one."""
    states = 2 ** len(stage.outer)
    where: NDArray[np.float64] = np.zeros((1, states, 1))
    where[0, -1, 0] = 1
    shape = scope.ints([len(stage.matrix), states, -1])
    added = scope.add("Mul", scope.add("Reshape", change, shape), scope.floats(where))
    return scope.add("Add", scope.add("Reshape", before, shape), added)
