"""Whom a device believes: `DeviceTrust` turns signed bytes into what the device is to do.

Everything is checked before a message is read: its signature under the keys that offline-signed
metadata names, that it is for this device, that it is no replay, that the metadata is fresh, and
that each package is permitted with the release that it claims. What already runs is never judged
by freshness: nothing here stops a model.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

import msgspec

from edge.protocol import envelope as envelopes
from edge.protocol import messages
from edge.protocol.envelope import Envelope
from edge.protocol.messages import Command, Desired, Module
from edge.security import fields
from edge.security.freshtime import MOST_WAIT_S, TimeAnswer
from edge.security.trusted import Documents, Trusted, length_of
from edge.security.truststore import Keeper, State, TrustStore
from scoring import digest as digests
from scoring.errors import (
    ExpiredError,
    FieldpostError,
    RollbackError,
    VerificationError,
)

logger = logging.getLogger(__name__)

MOST_AHEAD_S: Final = 86400.0
"""A command's deadline may be this far away: for so long its key has to be remembered."""

_RETRY_S: Final = 30.0
"""Between two refreshes that nothing but a bad signature asks for."""


class Fetch(Protocol):
    """Gets a metadata document, from whoever has it: it is not believed for that."""

    def __call__(self, name: str, most_bytes: int) -> bytes | None:
        """The document; None where there is none of that name.

        Args:
            name: `2.root.json`, `timestamp.json`, `5.snapshot.json`, `7.targets.json`.
            most_bytes: What is longer is refused before it is read.

        Raises:
            FieldpostError: Nobody answers, or with too many bytes.
        """
        ...


class DeviceTrust:
    """What one device believes.

    Args:
        folder: Where it keeps that; or what keeps it.
        site: Of the device.
        device: Its name.
        root: The root metadata that it was enrolled with: where all belief begins, and begins
            again when the files are damaged.
        ticks: A clock that goes forward only, in seconds.

    Raises:
        VerificationError: The root is none.
    """

    def __init__(
        self,
        folder: Path | Keeper,
        *,
        site: str,
        device: str,
        root: bytes,
        ticks: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = TrustStore(folder) if isinstance(folder, Path) else folder
        self._ticks = ticks
        self._retry_at = 0.0
        self.damaged = False
        fresh = State(site=site, device=device, documents=Documents(root=root))
        self._state = self._read() or fresh
        self._trusted = self._load(fresh)

    def _read(self) -> State | None:
        try:
            return self._store.read()
        except VerificationError as error:
            logger.error("trust lost reason=%s", error)  # noqa: TRY400 - no defect of ours
            self.damaged = True
            return None

    def _load(self, fresh: State) -> Trusted:
        same = (self._state.site, self._state.device) == (fresh.site, fresh.device)
        if same:
            try:
                return Trusted(self._state.documents)
            except VerificationError as error:
                logger.error("trust lost reason=%s", error)  # noqa: TRY400 - no defect of ours
                self.damaged = True
        self._state = fresh
        return Trusted(fresh.documents)

    @property
    def state(self) -> State:
        """What is remembered."""
        return self._state

    @property
    def floor(self) -> float:
        """It is not earlier than this, whatever the clock says; seconds since the epoch."""
        return self._state.floor

    @property
    def versions(self) -> dict[str, int]:
        """Role to version of the metadata that is believed."""
        return self._trusted.versions()

    def expired(self, now: float) -> tuple[str, ...]:
        """The roles whose metadata is no longer fresh, or missing: an alarm, and no more."""
        return self._trusted.expired(self._at(now))

    def _at(self, now: float) -> float:
        return max(now, self._state.floor)

    def verify(
        self,
        data: bytes,
        now: float,
        fetch: Fetch | None = None,
        runs: Mapping[str, str] = MappingProxyType({}),
    ) -> Desired:
        """A wish that this device may take on, remembered on disk before it is returned.

        The same wish may come again (it is retained) and is returned again.

        Args:
            data: The envelope, from anyone.
            now: Seconds since the epoch, by the device's clock.
            fetch: Gets newer metadata where it is needed; None while there is no connection.
            runs: Module to the package that is good there and runs. A wish that leaves it as it is
                takes nothing back, whatever of the same name runs in another module.

        Raises:
            MalformedPayloadError: It is no wish.
            VerificationError: It is not signed by a director, is for another device, or wishes for
                a package that nothing offline-signed permits.
            RollbackError: A replay, or a release older than one that was good here.
            ExpiredError: The metadata is not fresh; fetch it, or mend the clock.
            StorageFullError: It cannot be remembered; nothing was changed.
        """
        body = self._signed_body(data, "desired", now, fetch)
        desired = messages.decode(body, Desired)
        self._require_ours(desired.site, desired.device)
        digest = digests.of_bytes(body)
        self._require_no_replay(desired.generation, digest)
        if (desired.generation, digest) == (self._state.generation, self._state.accepted):
            return desired
        if self._require_fresh(desired, now, fetch):  # the directors may be others now
            self._verify_signature(self._envelope(data, "desired"), body)
            self._require_no_replay(desired.generation, digest)
        for name, module in desired.modules.items():
            self._require_permitted(name, module, stays=runs.get(name) == module.package)
        self._remember(desired.generation, digest)
        return desired

    def recheck(self, data: bytes) -> Desired:
        """A wish that was taken on before, read from the device's own disk at boot.

        Freshness is not asked for, so that a device starts years later, without a connection.

        Raises:
            MalformedPayloadError: It is no wish.
            VerificationError: It is damaged, or another device's.
            RollbackError: It is not the wish that was taken on last.
        """
        envelope = self._envelope(data, "desired")
        body = envelope.body()
        if digests.of_bytes(body) != self._state.accepted:
            self._verify_signature(envelope, body)
        desired = messages.decode(body, Desired)
        self._require_ours(desired.site, desired.device)
        self._require_no_replay(desired.generation, digests.of_bytes(body))
        return desired

    def verify_command(self, data: bytes, now: float, fetch: Fetch | None = None) -> Command:
        """A command that may be begun now.

        Whoever does it keeps its `key` until the deadline, and does it once.

        Raises:
            MalformedPayloadError: It is no command.
            VerificationError: It is not signed by a director, is for another device, or its
                deadline is further away than keys are kept.
            ExpiredError: Its deadline is over.
        """
        body = self._signed_body(data, "command", now, fetch)
        command = messages.decode(body, Command)
        self._require_ours(command.site, command.device)
        left = command.deadline - self._at(now)
        if not left > 0:
            raise ExpiredError(
                f"The command {command.id[:64]!a} had to begin {-left:.0f} s ago.",
                hint="Send it again with a later deadline; check the device's clock.",
            )
        if left > MOST_AHEAD_S:
            raise VerificationError(
                f"The command's deadline is {left:.0f} s away; {MOST_AHEAD_S:.0f} are the most.",
                hint="Give a nearer deadline; check the device's clock.",
            )
        return command

    def verify_time(self, data: bytes, nonce: str, waited_s: float) -> float:
        """What time it is, by a director: for a device whose clock lies.

        Args:
            data: The answer to `freshtime.ask`.
            nonce: Of the question; an answer to another is a replay.
            waited_s: Between question and answer, by a clock that goes forward only.

        Returns:
            Seconds since the epoch, half the waiting added.

        Raises:
            VerificationError: It is not signed, or no answer to this question.
            ExpiredError: It took so long that it says nothing.
        """
        envelope = self._envelope(data, "time")
        body = envelope.body()
        self._verify_signature(envelope, body)
        answer = messages.decode(body, TimeAnswer)
        if answer.nonce != nonce:
            raise VerificationError("The signed time answers another question.")
        if not 0 <= waited_s <= MOST_WAIT_S:
            raise ExpiredError(f"The signed time came after {waited_s:.0f} s: ask again.")
        return answer.at + waited_s / 2

    def refresh(self, fetch: Fetch, now: float) -> bool:
        """Gets newer metadata; returns whether there was any.

        Raises:
            VerificationError: What was fetched is not signed, or a mixture.
            RollbackError: It is older than what is here.
            ExpiredError: Nothing fresh is to be had.
            FieldpostError: Whatever `fetch` raises.
        """
        before = self._trusted.documents
        self._refresh_root(fetch)
        timestamp = fetch("timestamp.json", fields.MOST_BYTES["timestamp"])
        if timestamp is None:
            raise VerificationError("There is no timestamp metadata.", hint="Publish it first.")
        self._refresh_rest(fetch, timestamp)
        expired = self.expired(now)
        if expired:
            raise _not_fresh(expired)
        return self._trusted.documents != before

    def _refresh_root(self, fetch: Fetch) -> None:
        for _ in range(fields.MOST_ROOTS):
            version = self._trusted.root.version + 1
            data = fetch(f"{version}.root.json", fields.MOST_BYTES["root"])
            if data is None:
                return
            new = self._trusted.with_root(data)
            reset = new.timestamp is None
            self._keep(
                new,
                seen_timestamp=0 if reset else self._state.seen_timestamp,
                floor=0.0 if reset else self._state.floor,
            )
        raise VerificationError(f"There are more than {fields.MOST_ROOTS} rotations to follow.")

    def _refresh_rest(self, fetch: Fetch, data: bytes) -> None:
        timestamp = self._trusted.check_timestamp(data, self._state.seen_timestamp)
        held = self._trusted.timestamp
        if held is not None and held.version == timestamp.version:
            return
        if timestamp.version > self._state.seen_timestamp:
            self._write(seen_timestamp=timestamp.version)
        meta = timestamp.snapshot_meta
        snapshot = self._document(
            fetch, f"{meta.version}.snapshot.json", length_of(meta, "snapshot")
        )
        named = self._trusted.named_targets(snapshot, timestamp)
        targets = self._document(
            fetch, f"{named.version}.targets.json", length_of(named, "targets")
        )
        new = self._trusted.with_new(data, snapshot, targets)
        self._keep(
            new,
            seen_timestamp=timestamp.version,
            floor=max(self._state.floor, fields.signed_at(timestamp)),
        )

    @staticmethod
    def _document(fetch: Fetch, name: str, most_bytes: int) -> bytes:
        data = fetch(name, most_bytes)
        if data is None:
            raise VerificationError(f"Signed metadata names {name}, and it is not there.")
        if len(data) > most_bytes:
            raise VerificationError(
                f"{name} is longer than the {most_bytes} bytes that are signed."
            )
        return data

    def _keep(self, trusted: Trusted, *, seen_timestamp: int, floor: float) -> None:
        self._write(documents=trusted.documents, seen_timestamp=seen_timestamp, floor=floor)
        self._trusted = trusted

    def _write(self, **changes: object) -> None:
        self._state = self._store.write(msgspec.structs.replace(self._state, **changes))

    def permits(self, package: str) -> bool:
        """Whether a package that was good here may run again, by what is known offline.

        Freshness is not asked for. Where no metadata is left at all, nothing speaks against it.
        """
        if self._trusted.targets is None:
            return True
        try:
            self._trusted.release(package)
        except FieldpostError:
            return False
        return True

    def manifest_length(self, package: str) -> int:
        """How many bytes the manifest of a permitted package has, as signed.

        Raises:
            VerificationError: Nothing signed permits the package.
        """
        return self._trusted.manifest_length(package)

    def found_good(self, package: str) -> None:
        """Remembers the release of a package that was found good: no lower one comes after it.

        Raises:
            VerificationError: Nothing signed names the package.
            StorageFullError: It cannot be remembered.
        """
        release = self._trusted.release(package)
        if release.release > self._state.releases.get(release.name, 0):
            self._write(releases=self._state.releases | {release.name: release.release})

    @staticmethod
    def _envelope(data: bytes, kind: str) -> Envelope:
        envelope = envelopes.decode(data)
        if envelope.type != kind:
            raise VerificationError(f"A message of the type {envelope.type} came as {kind}.")
        return envelope

    def _verify_signature(self, envelope: Envelope, body: bytes) -> None:
        signed = envelopes.signed_bytes(envelope.type, body)
        self._trusted.verify_director(signed, envelope.signatures)

    def _signed_body(self, data: bytes, kind: str, now: float, fetch: Fetch | None) -> bytes:
        envelope = self._envelope(data, kind)
        body = envelope.body()
        try:
            self._verify_signature(envelope, body)
        except VerificationError:
            if fetch is None or self._ticks() < self._retry_at:
                raise
            # The director may have a new key. A forger makes us look for it now and then only.
            self._retry_at = self._ticks() + _RETRY_S
            self.refresh(fetch, now)
            self._verify_signature(envelope, body)
        return body

    def _require_ours(self, site: str, device: str) -> None:
        if (site, device) != (self._state.site, self._state.device):
            raise VerificationError(
                f"The message is for {site}/{device}, and this is "
                f"{self._state.site}/{self._state.device}."
            )

    def _require_no_replay(self, generation: int, digest: str) -> None:
        known = self._state.generation
        if not self._trusted.directors() & set(self._state.directors):
            return  # other directors count anew: a thief's numbers end with the thief's key
        if generation < known:
            raise RollbackError(f"Generation {generation} was wished for before {known}: a replay.")
        if generation == known and digest != self._state.accepted:
            raise RollbackError(f"Generation {generation} was wished for twice, differently.")

    def _require_fresh(self, desired: Desired, now: float, fetch: Fetch | None) -> bool:
        """Refreshes where that is needed and possible; returns whether it did."""
        refreshed = False
        behind = self._behind(desired)
        missing = any(not self.permits(one.package) for one in desired.modules.values())
        if fetch is not None and (behind or missing or self.expired(now)):
            self.refresh(fetch, now)
            refreshed, behind = True, self._behind(desired)
        expired = self.expired(now)
        if expired:
            raise _not_fresh(expired)
        if behind:
            raise RollbackError(
                f"The wish was made under newer metadata than is to be had ({', '.join(behind)}).",
                hint="The mirror is behind, or someone holds metadata back.",
            )
        return refreshed

    def _behind(self, desired: Desired) -> list[str]:
        held = self.versions
        return [role for role, named in desired.metadata.items() if held.get(role, 0) < named]

    def _require_permitted(self, name: str, module: Module, *, stays: bool) -> None:
        signed = self._trusted.release(module.package)
        if module.release != signed.release:
            raise VerificationError(
                f"The wish says release {module.release} of {module.package}; signed is "
                f"{signed.release}.",
                where=f"modules.{name}",
            )
        good = self._state.releases.get(signed.name, 0)
        if signed.release < good and not stays:
            raise RollbackError(
                f"Release {signed.release} of {signed.name} is older than {good}, which was good "
                "here.",
                hint="To go back on purpose, sign the older package again, as a newer release.",
                where=f"modules.{name}",
            )

    def _remember(self, generation: int, digest: str) -> None:
        directors = tuple(sorted(self._trusted.directors()))
        state = self._state
        if (state.generation, state.accepted, state.directors) != (generation, digest, directors):
            self._write(generation=generation, accepted=digest, directors=directors)


def _not_fresh(expired: tuple[str, ...]) -> ExpiredError:
    return ExpiredError(
        f"The signed metadata is not fresh: {', '.join(expired)}. What runs goes on running.",
        hint="Check that the controller publishes and that the device's clock is right.",
    )
