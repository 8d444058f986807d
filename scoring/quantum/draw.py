"""Circuits as pictures: text for terminals, SVG for pages. No numpy here.

Gates that share no wire stand above each other; what a control reaches over counts as taken, so
that no line crosses a box.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from scoring.quantum.circuit import Circuit, Gate, Model, OneVersusRest

_CELL_X, _CELL_Y = 12, 44
_BOX = 28
_CHARACTER = 7.3
_STYLE = (
    "text{font:12px ui-monospace,monospace;fill:#1b1b1f}"
    ".w{stroke:#8a8a94}.l{stroke:#2855c8}.c{fill:#2855c8}"
    ".b{fill:#eef3ff;stroke:#2855c8}.m{fill:#fff4e0;stroke:#b86e00}"
    "@media(prefers-color-scheme:dark){text{fill:#ececf1}.b{fill:#1d2a4d}.m{fill:#47330f}}"
)


@dataclass(frozen=True)
class _Column:
    """Gates that are drawn above each other: the label of each box, and who controls it."""

    gates: tuple[Gate, ...]
    labels: tuple[str, ...]

    @property
    def width(self) -> int:
        """Characters of the longest label."""
        return max(len(label) for label in self.labels)


def to_text(model: Model, *, angles: bool = True, width: int = 100) -> str:
    """A circuit as text, in several bands where it is long.

    Args:
        model: A circuit, or several that each tell one class from the rest.
        angles: Boxes hold the angles; otherwise the places of the parameters.
        width: Characters in a line.
    """
    if isinstance(model, OneVersusRest):
        pairs = zip(model.classes, model.circuits, strict=True)
        return "\n".join(
            f"{label}:\n{to_text(circuit, angles=angles, width=width)}" for label, circuit in pairs
        )
    columns = _columns(circuit := model, angles=angles)
    margin = len(f"q{circuit.qubits - 1}: ")
    bands: list[list[_Column]] = [[]]
    room = width - margin - 6
    for column in columns:
        if bands[-1] and sum(c.width + 2 for c in [*bands[-1], column]) > room:
            bands.append([])
        bands[-1].append(column)
    last = len(bands) - 1
    return "\n".join(_band(circuit, band, place == last) for place, band in enumerate(bands))


def _band(circuit: Circuit, columns: Sequence[_Column], is_last: bool) -> str:
    names = [f"q{qubit}: " for qubit in range(circuit.qubits)]
    margin = max(map(len, names))
    wires = [name.ljust(margin) for name in names]
    gaps = [" " * margin] * circuit.qubits
    for column in columns:
        cells = [_cell(column, qubit) for qubit in range(circuit.qubits)]
        links = [_is_linked(column, qubit) for qubit in range(circuit.qubits)]
        size = column.width + 2
        wires = [wire + cell.center(size, "─") for wire, cell in zip(wires, cells, strict=True)]
        middle = _middle(size)
        gaps = [
            gap + " " * middle + ("│" if link else " ") + " " * (size - middle - 1)
            for gap, link in zip(gaps, links, strict=True)
        ]
    ends = [_end(circuit, qubit) if is_last else "─" for qubit in range(circuit.qubits)]
    lines = []
    for wire, end, gap in zip(wires, ends, gaps, strict=True):
        lines += [f"{wire}─{end}".rstrip(), gap.rstrip()]
    return "\n".join(lines[:-1]) + "\n"


def _middle(size: int) -> int:
    """Where `str.center` puts a single character."""
    return len("x".center(size, "-").split("x", 1)[0])


def _cell(column: _Column, qubit: int) -> str:
    for gate, label in zip(column.gates, column.labels, strict=True):
        if qubit in gate.controls:
            return "●"
        if qubit == gate.target:
            return _boxed(gate, label)
        if min(gate.qubits) < qubit < max(gate.qubits):
            return "┼"
    return "─"


def _boxed(gate: Gate, label: str) -> str:
    """The label; an odd number of characters, so that a control's line meets its middle."""
    return label if len(label) % 2 or not gate.controls else label + "─"


def _is_linked(column: _Column, qubit: int) -> bool:
    """Whether a line goes down from this wire to the next."""
    return any(min(gate.qubits) <= qubit < max(gate.qubits) for gate in column.gates)


def _end(circuit: Circuit, qubit: int) -> str:
    if qubit not in circuit.measured:
        return "─"
    bit = circuit.measured.index(qubit)
    return "M" if len(circuit.measured) == 1 else f"M{bit}"


def _columns(circuit: Circuit, *, angles: bool) -> list[_Column]:
    """The gates in columns, each as far to the left as it can be."""
    free = [0] * circuit.qubits
    found: list[list[Gate]] = []
    for gate in circuit.gates:
        span = range(min(gate.qubits), max(gate.qubits) + 1)
        place = max(free[qubit] for qubit in span)
        for qubit in span:
            free[qubit] = place + 1
        if place == len(found):
            found.append([])
        found[place].append(gate)
    return [
        _Column(tuple(gates), tuple(_label(circuit, gate, angles=angles) for gate in gates))
        for gates in found
    ]


def _label(circuit: Circuit, gate: Gate, *, angles: bool) -> str:
    value = f"{circuit.parameters[gate.parameter]:.3g}" if angles else f"θ{gate.parameter}"
    return f"{'Ph' if gate.axis == 'I' else 'R' + gate.axis}({value})"


def to_svg(model: Model, *, angles: bool = True) -> str:
    """A circuit as an SVG document, several below each other; arguments as of `to_text`."""
    circuits = model.circuits if isinstance(model, OneVersusRest) else (model,)
    parts: list[str] = []
    top = width = 0
    for place, circuit in enumerate(circuits):
        title = f"{model.classes[place]}" if len(circuits) > 1 else ""
        body, right, height = _svg_circuit(circuit, title, angles=angles)
        parts.append(f'<g transform="translate(0,{top})">{body}</g>')
        top, width = top + height, max(width, right)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {top}" width="{width}" '
        f'height="{top}" role="img" aria-label="quantum circuit"><style>{_STYLE}</style>'
        f"{''.join(parts)}</svg>\n"
    )


def _svg_circuit(circuit: Circuit, title: str, *, angles: bool) -> tuple[str, int, int]:
    """The elements of one circuit, with its width and height."""
    head = 24 if title else 0
    left = 20 + round(_CHARACTER * len(f"q{circuit.qubits - 1}"))
    gates: list[str] = []
    x = float(left + _CELL_X)
    for column in _columns(circuit, angles=angles):
        size = column.width * _CHARACTER + 12
        for gate, label in zip(column.gates, column.labels, strict=True):
            gates.append(_svg_gate(gate, label, x + size / 2, head))
        x += size + _CELL_X
    right = round(x + _BOX + 16)
    wires = [_svg_wire(qubit, left, right, head) for qubit in range(circuit.qubits)]
    ends = [
        _svg_box(right - 24, _y(qubit, head), _BOX, _end(circuit, qubit), "m")
        for qubit in circuit.measured
    ]
    named = [f'<text x="8" y="16">{escape(title)}</text>'] if title else []
    height = head + _CELL_Y * circuit.qubits + 8
    return "".join([*named, *wires, *gates, *ends]), right, height


def _y(qubit: int, head: int) -> float:
    return head + _CELL_Y * (qubit + 0.5) + 4


def _svg_wire(qubit: int, left: int, right: int, head: int) -> str:
    y = _y(qubit, head)
    return (
        f'<text x="8" y="{y + 4:g}">q{qubit}</text>'
        f'<line class="w" x1="{left}" y1="{y:g}" x2="{right - 8}" y2="{y:g}"/>'
    )


def _svg_gate(gate: Gate, label: str, x: float, head: int) -> str:
    top, bottom = _y(min(gate.qubits), head), _y(max(gate.qubits), head)
    link = f'<line class="l" x1="{x:g}" y1="{top:g}" x2="{x:g}" y2="{bottom:g}"/>'
    dots = "".join(
        f'<circle class="c" cx="{x:g}" cy="{_y(control, head):g}" r="4"/>'
        for control in gate.controls
    )
    box = _svg_box(x, _y(gate.target, head), len(label) * _CHARACTER + 10, label, "b")
    return f"<g>{link if gate.controls else ''}{dots}{box}</g>"


def _svg_box(x: float, y: float, width: float, label: str, kind: str) -> str:
    return (
        f'<rect class="{kind}" x="{x - width / 2:g}" y="{y - _BOX / 2:g}" width="{width:g}" '
        f'height="{_BOX}" rx="4"/>'
        f'<text x="{x:g}" y="{y + 4:g}" text-anchor="middle">{escape(label)}</text>'
    )
