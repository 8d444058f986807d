"""Puts a device together from its folder: identity, trust, agent, link; and renews its identity."""

from __future__ import annotations

import contextlib
import logging
import ssl
import threading
import time
from pathlib import Path
from typing import Final, Self

from edge.agent import config as configs
from edge.agent.agent import Agent, Who
from edge.agent.clock import Clock
from edge.agent.config import Config
from edge.agent.link import Link, Login
from edge.agent.web import Web
from edge.security import joining
from edge.security.identity import Identity
from edge.security.trust import DeviceTrust
from scoring import durable
from scoring.errors import FieldpostError, UsageError, VerificationError

logger = logging.getLogger(__name__)

IDENTITY: Final = "identity"
TRUST: Final = "trust"
_LOOK_EVERY_S: Final = 600.0
_CLOCK_S: Final = 60.0
_YEAR_S: Final = 365 * 86400.0


class Device:
    """A device of a fleet.

    Args:
        config: How it is set up.

    Raises:
        NotFoundError: It was not enrolled.
        EnrolmentError: Its identity is damaged.
        UsageError: Its settings do not fit together.
        InUseError: Another agent is at work in its folder.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        state = Path(config.state)
        with durable.storage_errors(f"the device's folder {state}"):
            durable.make_folder(state, mode=0o700)
            durable.make_folder(state / TRUST, mode=0o700)
        self.identity = Identity(state / IDENTITY)
        self._require_same(config)
        where = self.identity.settings
        self._controller = config.controller or where.get("controller", "")
        broker = configs.broker(config.broker or where.get("broker", ""))
        self.trust = DeviceTrust(
            state / TRUST,
            site=self.identity.site,
            device=self.identity.device,
            root=self.identity.root,
        )
        who = Who(
            self.identity.site,
            self.identity.device,
            config.host,
            config.drain_s,
            shell=config.shell,
        )
        web = Web(contexts={"controller": self._tls()}, logins=_logins(config))
        fetch = self._fetch if self._controller else None
        self.agent = Agent(state, who, self.trust, web, config.telemetry, fetch)
        self.link = Link(
            broker,
            Login(self._tls, config.user, _secret(config.password_file)),
            site=who.site,
            device=who.device,
            boot=self.agent.journal.boot,
            came=self.agent.came,
            connected=self.agent.telling.connected,
            keepalive_s=config.keepalive_s,
        )
        self._stopping = threading.Event()
        self._renewer = threading.Thread(target=self._renew, name="renewer", daemon=True)

    def begin(self) -> None:
        """Starts what ran before, and only then looks for the network."""
        self.agent.begin()
        self.agent.speak(self.link)
        self.link.start()
        self._renewer.start()

    def close(self) -> None:
        """Drains the modules, says goodbye, and ends."""
        self._stopping.set()
        self.agent.close()
        self.link.close()
        self._renewer.join()

    def __enter__(self) -> Self:
        self.begin()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _require_same(self, config: Config) -> None:
        own = (self.identity.site, self.identity.device)
        if (config.site or own[0], config.device or own[1]) != own:
            raise UsageError(
                f"The settings are for {config.site}/{config.device}, and the identity is that of "
                f"{own[0]}/{own[1]}.",
                hint="Leave site and device out of agent.toml.",
            )

    def _tls(self) -> ssl.SSLContext:
        # A clock that is behind the certificate's own beginning is wrong, and known to be.
        return self.identity.tls(clock_is_wrong=time.time() < self.identity.issued_at)

    def _fetch(self, name: str, most_bytes: int) -> bytes | None:
        return joining.Controller(self._controller, self._tls()).fetch(name, most_bytes)

    def _learn_time(self) -> None:
        """Where the system's clock is known to be wrong: before certificates' dates count."""
        now = time.time()
        is_behind = now < self.identity.issued_at or self.agent.clock.behind_s() > _CLOCK_S
        if not self._controller or not (is_behind or now > self.identity.expires_at):
            return
        with contextlib.suppress(FieldpostError):
            ahead_s = learn_time(self._controller, self.identity, self.trust, self.agent.clock)
            where = "ahead of" if ahead_s > 0 else "behind"
            logger.warning("the system's clock is %.0f s %s the fleet's time", abs(ahead_s), where)

    def _renew(self) -> None:
        """Asks for the next certificate when two thirds of this one's life are over."""
        wait_s = 0.0
        while not self._stopping.wait(wait_s):
            wait_s = _LOOK_EVERY_S
            self._learn_time()
            now = self.agent.clock.now()
            if not self._controller or now < self.identity.renew_at:
                continue
            if now > self.identity.expires_at + 10 * _YEAR_S:
                continue  # such a clock lies
            with contextlib.suppress(FieldpostError):
                self.identity = joining.renew(self._controller, self.identity)
                logger.info("the device has its next certificate")


def learn_time(url: str, own: Identity, trust: DeviceTrust, clock: Clock) -> float:
    """Asks a director for the time, and goes by it from now on.

    Returns:
        By how many seconds the system's clock is ahead of it; behind, where negative.

    Raises:
        FieldpostError: Nobody answers, or the answer is not to be believed.
    """
    try:
        at = joining.ask_time(url, own, trust)
    except VerificationError:  # who may tell the time stands in metadata that is not here yet
        fetch = joining.Controller(url, own.tls(clock_is_wrong=True)).fetch
        trust.refresh(fetch, max(own.issued_at, trust.floor))
        at = joining.ask_time(url, own, trust)
    clock.saw_signed(at)
    return time.time() - at


def _secret(path: str) -> str:
    if not path:
        return ""
    try:
        return Path(path).read_text().strip()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.", where=path) from error


def _logins(config: Config) -> dict[str, tuple[str, str]]:
    found = {}
    for host, path in config.logins.items():
        user, _, password = _secret(path).partition(":")
        found[host] = (user, password)
    return found
