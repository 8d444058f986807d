"""The director: signs what devices are to do, and what time it is. Its key is on the controller.

Alone it decides nothing new: a device runs only what the offline keys permitted.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from edge.protocol import envelope, messages
from edge.protocol.messages import Command, Desired
from edge.security import keys
from edge.security.freshtime import TimeAnswer
from edge.security.keys import SigningKey
from scoring.errors import MalformedPayloadError

_NONCE: Final = re.compile(r"[0-9a-f]{32,64}", re.ASCII)


class Director:
    """Signs with one key, or with several where the metadata asks for a threshold.

    Args:
        *signers: The keys.
    """

    def __init__(self, *signers: SigningKey) -> None:
        self._signers = signers

    @classmethod
    def load(cls, folder: Path, password: str = "") -> Director:
        """The director whose key is `director.pem`; raises SigningKeyError where it is not."""
        return cls(keys.read(folder / "director.pem", password))

    def sign(self, message: Desired | Command | TimeAnswer) -> bytes:
        """The envelope, ready for its topic.

        Raises:
            PayloadTooLargeError: It is over the size of a message.
        """
        kind = _KINDS[type(message)]
        body = messages.encode(message)
        data = envelope.signed_bytes(kind, body)
        return envelope.encode(kind, body, tuple(key.sign(data) for key in self._signers))

    def tell_time(self, nonce: str, now: float) -> bytes:
        """The answer to a device's question.

        Raises:
            MalformedPayloadError: It is no question.
        """
        if not _NONCE.fullmatch(nonce):
            raise MalformedPayloadError("A question for the time is 32 to 64 hexadecimal digits.")
        return self.sign(TimeAnswer(nonce=nonce, at=now))


_KINDS: Final[dict[type, str]] = {Desired: "desired", Command: "command", TimeAnswer: "time"}
