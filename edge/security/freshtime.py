"""Asking a director for the time: a question that cannot have been answered before."""

from __future__ import annotations

import secrets
from typing import Annotated, Final

import msgspec

from edge.protocol.messages import Message

MOST_WAIT_S: Final = 60.0
"""For an answer: half of it is how wrong the time may be."""

Nonce = Annotated[str, msgspec.Meta(min_length=32, max_length=64, pattern="^[0-9a-f]*$")]


class TimeAnswer(Message, kw_only=True):
    """Signed by a director.

    Attributes:
        nonce: Of the question.
        at: Seconds since the epoch.
    """

    nonce: Nonce
    at: float


def ask() -> str:
    """A question: 128 random bits, in hexadecimal."""
    return secrets.token_hex(16)
