"""Packages and registries: the part of `Packages` that pushes, pulls and shares.

What talks to registries is imported where that is done: listing needs none of it.
"""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

from scoring.errors import RegistryError, UnreachableError, VerificationError
from serve.workspace.vouching import Vouching

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.packaging.sharedcache import SharedCache
    from serve.registry.records import Package
    from serve.workspace.transfers import Pulled, PullPlanned, Pushed, PushPlanned, Transfers

CACHE_VARIABLE = "FIELDPOST_CACHE"
_CACHE_SETTING = "cache"
_log = logging.getLogger(__name__)


class Distributing(Vouching):
    """Brings the packages of a workspace to registries and back."""

    def push(
        self,
        package: Package | str,
        to: str,
        *,
        base: str | None = None,
        platform: str | None = None,
        bare: bool = False,
        attach: bool = True,
        plain_http: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Pushed:
        """Brings a package's image to a registry: only what it lacks, its tag last.

        Interrupted at any moment, the same call goes on where it was.

        Args:
            package: A package, or a reference to one.
            to: `REGISTRY/NAME:TAG`.
            base: As for `image`.
            platform: As for `image`.
            bare: Push the package by itself, without a base: Fieldpost runs it, engines do not.
            attach: Attach SBOMs and provenance to the image, and the package's own signatures.
            plain_http: Ask the registry without TLS, wherever it is.
            progress: Called with the number of bytes that were sent since the last call.

        Raises:
            InvalidNameError: `to` has not the form of a reference.
            RegistryDeniedError: The registry wants another login.
            RegistryError: It refuses something.
            UnreachableError, RegistryBusyError: It does not answer, or not now.
            DigestMismatchError: A stored blob is damaged.
        """
        return self._transfers(plain_http).push(
            self._named(package),
            to,
            base=base,
            platform=platform,
            bare=bare,
            attach=attach,
            progress=progress,
        )

    def plan_push(
        self,
        package: Package | str,
        to: str,
        *,
        base: str | None = None,
        platform: str | None = None,
        bare: bool = False,
        plain_http: bool = False,
    ) -> PushPlanned:
        """What `push` would send, after the same checks; raises like it."""
        return self._transfers(plain_http).plan(
            self._named(package), to, base=base, platform=platform, bare=bare
        )

    def pull(
        self,
        reference: str,
        *,
        platform: str | None = None,
        plain_http: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> Pulled:
        """Brings a package from a registry into the workspace, checked; its base is left there.

        The signatures and documents of the package come along; `verify` says what they are worth.

        Args:
            reference: `REGISTRY/NAME[:TAG][@DIGEST]` of what `push` has pushed.
            platform: Of a package of several platforms, only this one.
            plain_http: As for `push`.
            progress: Called with the number of bytes that were received since the last call.

        Raises:
            NotFoundError: There is no such image, or none for the platform.
            PackagingError: The image was not made of a package.
            DigestMismatchError: Bytes are not what their digest says; none of them is kept.
            StorageFullError: No space is left.
            RegistryError, UnreachableError: As for `push`.
        """
        done = self._transfers(plain_http).pull(reference, platform=platform, progress=progress)
        try:
            self.fetch_attached(reference, done.package, plain_http=plain_http)
        except (RegistryError, UnreachableError, VerificationError) as error:
            _log.warning("what is attached to %s was not pulled: %s", reference, error.message)
        return done

    def plan_pull(
        self, reference: str, *, platform: str | None = None, plain_http: bool = False
    ) -> PullPlanned:
        """What `pull` would fetch; nothing is stored. Raises like it."""
        return self._transfers(plain_http).plan_pull(reference, platform=platform)

    @property
    def cache(self) -> str:
        """`REGISTRY/NAME` where this workspace shares environment layers; empty for none."""
        return self._registry.settings.get(_CACHE_SETTING, str) or ""

    @cache.setter
    def cache(self, repository: str) -> None:
        """Sets it; the empty text takes it away. Raises InvalidNameError."""
        from serve.distribution.reference import parse_reference  # noqa: PLC0415

        if repository:
            self._registry.settings.set(_CACHE_SETTING, parse_reference(repository).name)
        else:
            self._registry.settings.remove(_CACHE_SETTING)

    def _shared_cache(self, named: str | None) -> SharedCache | None:
        repository = named or os.environ.get(CACHE_VARIABLE) or self.cache
        if not repository:
            return None
        from serve.packaging.sharedcache import open_cache  # noqa: PLC0415

        return open_cache(repository, self._registry.blobs)

    def _transfers(self, plain_http: bool) -> Transfers:
        from serve.workspace.transfers import Transfers  # noqa: PLC0415

        return Transfers(self._registry, plain_http=plain_http)
