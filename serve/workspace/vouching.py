"""Who vouches for a package, and what is in it: the part of `Packages` that says so.

What signs and verifies is imported where that is done: it needs libraries that are optional.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serve.provenance.checks import Verdict
    from serve.provenance.documents import Documents
    from serve.provenance.keys import PrivateKey, PublicKey
    from serve.provenance.remote import Remote
    from serve.registry import Registry
    from serve.registry.records import Package


class Vouching:
    """Signs and verifies the packages of a workspace."""

    _registry: Registry

    def verify(self, package: Package | str, keys: Sequence[PublicKey] = ()) -> Verdict:
        """Reads every blob and compares it with its digest, and checks what is attached.

        Args:
            package: A package, or a reference to one.
            keys: Public keys that are trusted (`serve.provenance.keyfiles.load_public`): one of
                them must have signed. None to check bytes and documents only.

        Raises:
            DigestMismatchError: A blob is damaged.
            UnsignedError: A key was given, and there is no signature.
            VerificationError: A signature or a document does not match.
        """
        from serve.provenance import local  # noqa: PLC0415

        return local.verify(self._registry, self._named(package).digest, keys)

    def sign(
        self, package: Package | str, key: PrivateKey, *, reference: str = ""
    ) -> tuple[str, ...]:
        """Signs a package and the statements about it; the signatures are attached to it.

        Args:
            package: A package, or a reference to one.
            key: What signs (`serve.provenance.keyfiles.load_private`).
            reference: What the signature calls it: `REGISTRY/NAME`, by default the model's name.

        Returns:
            The digests of what was signed: of a package for several platforms, each and the whole.

        Raises:
            DigestMismatchError: It is damaged, and nothing was signed.
        """
        from serve.provenance import local  # noqa: PLC0415

        found = self._named(package)
        return local.sign(
            self._registry, found.digest, key, reference=reference or found.model or ""
        )

    def sign_image(
        self, reference: str, key: PrivateKey, *, plain_http: bool = False
    ) -> tuple[str, ...]:
        """Signs an image in a registry, as `cosign verify` reads it, and the packages in it.

        Args:
            reference: `REGISTRY/NAME:TAG` or `REGISTRY/NAME@DIGEST`.
            key: What signs.
            plain_http: Ask the registry without TLS, wherever it is.

        Returns:
            The digests of what was signed.

        Raises:
            NotFoundError: There is no such image.
            RegistryError: The registry refuses; `RegistryDeniedError` where a login is missing.
        """
        with self._remote(reference, plain_http=plain_http, writing=True) as remote:
            return remote.sign(key)

    def verify_image(
        self,
        reference: str,
        keys: Sequence[PublicKey] = (),
        *,
        whole: bool = True,
        plain_http: bool = False,
    ) -> Verdict:
        """Checks an image in a registry: signature, manifests, package, layers, documents.

        Args:
            reference: `REGISTRY/NAME:TAG` or `REGISTRY/NAME@DIGEST`.
            keys: Public keys that are trusted: one of them must have signed.
            whole: Download every layer to hash it; nothing of it is kept.
            plain_http: Ask the registry without TLS, wherever it is.

        Raises:
            NotFoundError: There is no such image, or a part of it is gone.
            DigestMismatchError: The registry's bytes are others than their digest says.
            UnsignedError: A key was given, and there is no signature.
            VerificationError: Something does not match.
        """
        with self._remote(reference, plain_http=plain_http) as remote:
            return remote.verify(keys, whole=whole)

    def attach_to_image(self, reference: str, *, plain_http: bool = False) -> int:
        """Attaches SBOMs and provenance to a pushed image, and signatures to its package.

        Args:
            reference: `REGISTRY/NAME:TAG` or `REGISTRY/NAME@DIGEST`.
            plain_http: Ask the registry without TLS, wherever it is.

        Returns:
            How many bytes that were; 0 where all was there.
        """
        with self._remote(reference, plain_http=plain_http, writing=True) as remote:
            return remote.attach(self._registry)

    def fetch_attached(
        self, reference: str, package: Package | str, *, plain_http: bool = False
    ) -> int:
        """Brings the signatures and documents of a pulled package; returns how many are new."""
        with self._remote(reference, plain_http=plain_http) as remote:
            return remote.fetch(self._registry, self._named(package).digest)

    def _remote(self, reference: str, *, plain_http: bool, writing: bool = False) -> Remote:
        from serve.distribution.hosts import Hosts  # noqa: PLC0415
        from serve.distribution.options import Options  # noqa: PLC0415
        from serve.distribution.reference import parse_reference  # noqa: PLC0415
        from serve.provenance.remote import Remote  # noqa: PLC0415

        options = Options(hosts=Hosts(plain_http=plain_http))
        return Remote(parse_reference(reference), options, writing=writing)

    def documents(self, package: Package | str) -> Documents:
        """The SBOMs and the provenance of a package; a JSON document each."""
        from serve.provenance import local  # noqa: PLC0415

        return local.documents(self._registry, self._named(package).digest)

    def provenance(self, package: Package | str) -> bytes:
        """The provenance statement of a package, as it was recorded when it was built.

        Raises:
            NotFoundError: It has none.
        """
        from serve.provenance.recording import provenance_of  # noqa: PLC0415

        return provenance_of(self._registry, self._named(package).digest)

    def _named(self, package: Package | str) -> Package:
        return self._registry.packages.get(package) if isinstance(package, str) else package
