"""Compressed answers, for clients that ask for one coding. Pure.

A client that names just one coding wants it, as Triton's clients do when they are told to. The
lists that HTTP libraries send with every request by themselves (`gzip, deflate, br`) ask for
nothing: compressing tensors for those would cost more than it spares.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from scoring.http import Response

_WINDOW_BITS = {"gzip": 31, "deflate": 15}
_LEVEL = 1
"""Tensors hardly shrink more at higher levels, and take ten times as long."""


def wanted_coding(accepted: str) -> str:
    """The coding that an `Accept-Encoding` header asks for; empty for none."""
    coding, _, weight = accepted.strip().lower().partition(";")
    coding = coding.strip()
    if coding not in _WINDOW_BITS:
        return ""
    quality = weight.strip().removeprefix("q=").rstrip("0")
    return "" if weight and quality in {"", "0", "0."} else coding


def compress(response: Response, coding: str) -> Response:
    """The same answer with its body in a coding."""
    squeezer = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW_BITS[coding])
    body = cast("bytes", response.body)
    response.body = squeezer.compress(body) + squeezer.flush()
    response.headers.append(("content-encoding", coding))
    return response
