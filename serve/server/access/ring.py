"""The API keys of a running server."""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from scoring.errors import UsageError
from serve.server.access import keyfile, keys
from serve.server.access.principal import Principal
from serve.server.access.watched import Watched

if TYPE_CHECKING:
    from pathlib import Path

    from serve.server.access.rate import Limits

logger = logging.getLogger(__name__)


class KeyRing:
    """The API keys of a file, read again when it changes.

    Args:
        path: The file.
        limits: Where requests are counted.
    """

    def __init__(self, path: Path, limits: Limits) -> None:
        self._path = path
        self._limits = limits
        self._watched = Watched([path])
        self._keys = {key.id: key for key in keyfile.read(path).keys}
        self._principals: dict[str, Principal] = {}

    def changed(self) -> bool:
        """Reads the file if it is another one; whether there are other keys now."""
        if not self._watched.changed():
            return False
        try:
            found = {key.id: key for key in keyfile.read(self._path).keys}
        except UsageError as error:
            logger.error("The API keys stay as they were: %s", error)  # noqa: TRY400 - it says all
            return False
        logger.info("Read %d API keys", len(found))
        self._keys = found
        self._principals.clear()
        return True

    def principal(self, text: str) -> Principal:
        """The holder of a key; one value for all the ways in which the key may be sent.

        Raises:
            UnauthorizedError: There is no such key, or it is over.
        """
        key = keys.verify(text, self._keys, datetime.now(UTC))
        known = self._principals.get(key.id)
        if known is None:
            known = self._principals[key.id] = Principal(
                f"key:{key.id}",
                key.name,
                key.grants,
                expires=float("inf") if key.expires is None else key.expires.timestamp(),
                bucket=self._limits.bucket(f"key:{key.id}", key.rate, key.burst),
            )
        return known
