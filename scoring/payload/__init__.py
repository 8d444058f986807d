"""Request bodies to arrays by a model's schema, and answers to JSON.

document.py     bytes to Python values, and the rules of JSON that orjson leaves open
orientation.py  which of the accepted forms a body has: rows, records, split, named inputs
arrays.py       values to one array: the fast way, and the exact one that finds the wrong place
places.py       where in the body something stands, as a sender reads it
codec.py        all of it, made once for a schema
"""

from scoring.payload.codec import Codec, Decoded

__all__ = ["Codec", "Decoded"]
