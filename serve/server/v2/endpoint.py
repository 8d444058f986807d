"""What is made once for a model: how its requests are read and its answers written."""

from __future__ import annotations

from typing import TYPE_CHECKING

from serve.server.v2.answers import AnswerWriter
from serve.server.v2.inputs import Inputs, takes_any_float
from serve.server.v2.quick import quick_reader
from serve.server.v2.request import RequestReader

if TYPE_CHECKING:
    from serve.server.models.served import ServedModel


class Endpoint:
    """One version of a model, as the protocol sees it.

    Args:
        model: The model.
        max_depth: How deep a body may be nested.

    Attributes:
        model: See above.
        inputs: Its inputs.
        answers: Writes answers, and knows the outputs.
        reader: Reads requests.
        quick: See `serve.server.v2.quick`.
    """

    def __init__(self, model: ServedModel, max_depth: int) -> None:
        schema = model.schema
        self.model = model
        self.inputs = Inputs(schema, finite=not takes_any_float(model.format))
        self.answers = AnswerWriter(schema, model.name, model.version)
        outputs = {name: port.in_json for name, port in self.answers.ports.items()}
        self.reader = RequestReader(self.inputs, outputs, max_depth)
        self.quick = quick_reader(schema)
