"""What the JSON of an infer request says, checked; the tensors' values are read by it.

Clients send the same JSON before other bytes again and again, so that of requests with binary
tensors alone it is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from scoring.errors import WrongShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from serve.server.v2.inputs import InputPort, Inputs


class Wanted(msgspec.Struct, frozen=True):
    """One output that a request asks for.

    Attributes:
        name: Of the output.
        binary: As bytes behind the JSON.
        classes: How many of its top classes in its place; 0 for the output itself.
    """

    name: str
    binary: bool
    classes: int = 0


class InferRequest(msgspec.Struct):
    """A decoded request.

    Attributes:
        inputs: One array for each input of the model.
        id: To be echoed; empty for none.
        wanted: The outputs in the order of the answer.
        is_plain: All outputs are wanted in JSON.
    """

    inputs: dict[str, Any]
    id: str
    wanted: tuple[Wanted, ...]
    is_plain: bool = False


class Part(msgspec.Struct, frozen=True):
    """One tensor of a request.

    Attributes:
        port: Of the model.
        where: Its place in the request.
        datatype: Of the protocol.
        shape: As the model's input has it.
        size: Of its bytes behind the JSON; None where the JSON has its values.
        values: Those.
        plain: No boolean and no NaN can stand in them.
    """

    port: Any  # InputPort; msgspec would look for the name at run time
    where: str
    datatype: str
    shape: list[int]
    size: int | None = None
    values: Any = None
    plain: bool = False

    def array(self, raw: bytes | memoryview) -> NDArray[Any]:
        """The tensor's array.

        Args:
            raw: Its bytes, where they are behind the JSON.

        Raises:
            InputError: What is wrong with it, with its place.
        """
        port: InputPort = self.port
        if self.size is not None:
            return port.from_raw(raw, self.shape, self.datatype, self.where)
        return port.from_values(self.values, self.shape, f"{self.where}.data", plain=self.plain)


class Plan(msgspec.Struct, frozen=True):
    """The JSON of a request.

    Attributes:
        parts: The tensors, in the order of their bytes.
        id: Of the request.
        wanted: The outputs in the order of the answer.
        is_plain: All outputs are wanted in JSON.
    """

    parts: tuple[Part, ...]
    id: str
    wanted: tuple[Wanted, ...]
    is_plain: bool

    @property
    def lasts(self) -> bool:
        """Whether other requests may have the same JSON: it holds no values and no id."""
        return not self.id and all(part.size is not None for part in self.parts)

    def read(self, raw: bytes | memoryview, inputs: Inputs) -> InferRequest:
        """The request.

        Args:
            raw: The bytes behind the JSON.
            inputs: Of the model.

        Raises:
            InputError: What is wrong with a tensor, with its place.
        """
        arrays: dict[str, NDArray[Any]] = {}
        begin = 0
        for part in self.parts:
            end = begin + (part.size or 0)
            if end > len(raw):
                raise _too_few(part, len(raw) - begin)
            if not part.port.unused:
                arrays[part.port.name] = part.array(raw[begin:end])
            begin = end
        if begin != len(raw):
            raise WrongShapeError(
                f"Behind the inputs there are {len(raw) - begin} bytes of binary data that none of "
                "them takes.",
                hint="Give each binary input its size in parameters.binary_data_size.",
                where="inputs",
            )
        return InferRequest(inputs.complete(arrays), self.id, self.wanted, self.is_plain)


def _too_few(part: Part, there: int) -> WrongShapeError:
    return WrongShapeError(
        f"{part.where} says that it has {part.size} bytes of binary data; {there} are there.",
        hint="Send the bytes behind the JSON, and its length as Inference-Header-Content-Length.",
        where=f"{part.where}.parameters.binary_data_size",
    )
