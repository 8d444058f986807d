"""Request bodies to arrays by a model's schema, and answers to JSON.

document.py     bytes to Python values, and the rules of JSON that orjson leaves open
orientation.py  which of the accepted forms a body has: rows, records, split, named inputs
walk.py         nested lists element by element: the exact way, which finds the wrong place
arrays.py       values to one array: the fast way, and the exact one
places.py       where in the body something stands, as a sender reads it
codec.py        all of it, made once for a schema
plain.py        the same for one matrix of doubles, without numpy
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scoring.payload.codec import Codec, Decoded


def __getattr__(name: str) -> object:
    """The codec imports numpy, which devices may not have."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from scoring.payload import codec  # noqa: PLC0415 - see above

    return getattr(codec, name)


__all__ = ["Codec", "Decoded"]
