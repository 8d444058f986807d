"""What `fieldpost key` does to a file of keys: one change at a time, each of them whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

import msgspec

from scoring import durable
from scoring.errors import AlreadyExistsError, InUseError, NotFoundError
from serve.server.access import keyfile
from serve.server.access.keys import Key, KeyFile, Scope, make
from serve.server.access.principal import INFER

if TYPE_CHECKING:
    from pathlib import Path

Result = TypeVar("Result")
_MOST_OF_A_NAME = 2


class Keychain:
    """A file of keys, which need not exist yet. Servers that read it see a change within a second.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def list(self) -> Sequence[Key]:
        """All keys, those that are over included, in the order of their making.

        Raises:
            UsageError: The file is no file of keys.
        """
        return keyfile.read(self.path).keys if self.path.exists() else ()

    def create(
        self,
        name: str,
        *,
        scopes: Iterable[Scope] = (INFER,),
        models: Iterable[str] | None = None,
        expires: datetime | None = None,
        rate: float | None = None,
        burst: int | None = None,
        dry_run: bool = False,
    ) -> tuple[Key, str]:
        """Makes a key for a new holder.

        Args:
            name: Of the holder.
            scopes: What the key may do.
            models: The models that it is for; None for all.
            expires: From when on it is not taken.
            rate: Requests a second; None for the server's limit, 0 for none.
            burst: Requests that may come at once; None for the server's.
            dry_run: Check, and change nothing.

        Returns:
            What is kept, and the text for the holder, which is nowhere else.

        Raises:
            AlreadyExistsError: The holder has a key.
            UsageError: The name or the scopes are empty, or the file is no file of keys.
        """

        def add(keys: Sequence[Key]) -> tuple[Sequence[Key], tuple[Key, str]]:
            if _active(keys, name):
                raise AlreadyExistsError(
                    f"There is a key named {name!r}.",
                    hint=f"Make its successor with 'fieldpost key rotate {name}'.",
                    where=name,
                )
            made = make(name, scopes=scopes, models=models, expires=expires, rate=rate, burst=burst)
            return [*keys, made[0]], made

        return self._change(add, dry_run)

    def rotate(self, name: str, *, dry_run: bool = False) -> tuple[Key, str]:
        """Makes a second key for a holder, with what the first may do; both are taken.

        Args:
            name: Of the holder.
            dry_run: Check, and change nothing.

        Raises:
            NotFoundError: The holder has no key that is taken.
            InUseError: There are two already.
        """

        def add(keys: Sequence[Key]) -> tuple[Sequence[Key], tuple[Key, str]]:
            active = _active(keys, name)
            if not active:
                raise NotFoundError(
                    f"There is no key named {name!r} that is taken.",
                    hint="'fieldpost key list' shows what there is.",
                    where=name,
                )
            if len(active) >= _MOST_OF_A_NAME:
                raise InUseError(
                    f"{name!r} has {len(active)} keys already.",
                    hint=f"End the old one first: fieldpost key revoke {active[0].id}.",
                    where=name,
                )
            made = _successor(active[-1])
            return [*keys, made[0]], made

        return self._change(add, dry_run)

    def revoke(self, identifier: str, *, dry_run: bool = False) -> Key:
        """Ends a key; what is known of it stays for the record.

        Args:
            identifier: Of the key.
            dry_run: Check, and change nothing.

        Raises:
            NotFoundError: There is none, or it has ended.
        """

        def end(keys: Sequence[Key]) -> tuple[Sequence[Key], Key]:
            found = next((key for key in keys if key.id == identifier and not key.revoked), None)
            if found is None:
                raise NotFoundError(
                    f"There is no key {identifier!r} that is taken.",
                    hint="'fieldpost key list' shows the ids.",
                    where=identifier,
                )
            ended = msgspec.structs.replace(found, revoked=_now())
            return [ended if key is found else key for key in keys], ended

        return self._change(end, dry_run)

    def _change(
        self,
        change: Callable[[Sequence[Key]], tuple[Sequence[Key], Result]],
        dry_run: bool,
    ) -> Result:
        if dry_run:
            return change(self.list())[1]
        with durable.storage_errors(f"the folder {self.path.parent}"):
            durable.make_folder(self.path.parent)
        with keyfile.locked(self.path):
            keys, result = change(self.list())
            keyfile.write(self.path, KeyFile(tuple(keys)))
        return result


def _active(keys: Sequence[Key], name: str) -> list[Key]:
    now = datetime.now(UTC)
    return [key for key in keys if key.name == name and key.state(now) == "active"]


def _successor(key: Key) -> tuple[Key, str]:
    """A key for the same, and for as long as the one before was made for."""
    now = _now()
    return make(
        key.name,
        scopes=key.scopes,
        models=key.models,
        expires=None if key.expires is None else now + (key.expires - key.created),
        rate=key.rate,
        burst=key.burst,
    )


def _now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)
