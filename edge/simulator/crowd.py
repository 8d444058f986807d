"""A crowd of simulated devices at a broker: on one event loop, in one thread."""

from __future__ import annotations

import asyncio
import collections
import resource
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, Self

import msgspec

from edge.protocol.messages import Phase
from edge.security.trust import Fetch
from edge.simulator.device import Facts, Setting, SimulatedDevice
from edge.simulator.faults import Faults
from edge.simulator.memory import Disk
from edge.simulator.timing import LoopTime
from edge.simulator.wire import Access, Wire
from scoring.errors import UsageError

_THREADS: Final = 16
_SPARE_FILES: Final = 200
_DARK_S: Final = 2.0


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """A device as the fleet's records have it.

    Attributes:
        name: Of the device.
        site: Where it is.
        boot: Its boot counter, from which this simulation goes on.
        facts: What it tells of itself.
    """

    name: str
    site: str = "default"
    boot: int = 0
    facts: Facts = {}


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """How a crowd does.

    Attributes:
        devices: How many there are.
        connected: How many of them are connected.
        settled: How many have nothing on its way.
        phases: Phase of a module to how many are in it.
        packages: Digest to how many devices answer with it.
        cuts: Connections that were cut on purpose.
        reboots: Power cuts on purpose.
    """

    devices: int
    connected: int
    settled: int
    phases: dict[Phase, int]
    packages: dict[str, int]
    cuts: int
    reboots: int


class Crowd:
    """Devices that live until `close`, on a thread of their own.

    Args:
        known: Which ones.
        access: How they get to their broker.
        root: The root metadata that they are enrolled with.
        metadata: Gets signed metadata, for all of them.
        faults: What goes wrong.
        over_s: They connect spread over so many seconds.

    Raises:
        UsageError: So many connections may not be open here.
    """

    def __init__(
        self,
        known: Iterable[Known],
        access: Access,
        *,
        root: bytes,
        metadata: Fetch,
        faults: Faults | None = None,
        over_s: float = 0.0,
    ) -> None:
        self._known = tuple(known)
        raise_files(len(self._known) + _SPARE_FILES)
        self._access, self._root, self._metadata = access, root, metadata
        self._faults = faults or Faults()
        self._over_s = over_s
        self._loop = asyncio.new_event_loop()
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="connect")
        self._thread = threading.Thread(target=self._run, name="crowd", daemon=True)
        self._cuts = self._reboots = 0
        self.devices: dict[str, SimulatedDevice] = {}
        self.wires: dict[str, Wire] = {}

    def start(self) -> None:
        """Begins: returns when all devices are there, before they are connected."""
        self._thread.start()
        self.call(self._begin)

    def close(self) -> None:
        """Says goodbye for all of them, and ends."""
        if self._thread.is_alive():
            self.call(self._leave)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
        self._threads.shutdown(cancel_futures=True)
        if not self._loop.is_closed():
            self._loop.run_until_complete(asyncio.sleep(0))  # what was connecting is closed
            self._loop.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def tally(self) -> Tally:
        """How it does now."""
        found: list[Tally] = []
        self.call(lambda: found.append(self._tally()))
        return found[0]

    def call(self, act: Callable[[], object]) -> None:
        """Has something done on the thread of the devices, and waits for its end."""
        done: list[BaseException | None] = []
        over = threading.Event()

        def do() -> None:
            try:
                act()
            except BaseException as error:  # noqa: BLE001 - raised again where it was asked for
                done.append(error)
            over.set()

        self._loop.call_soon_threadsafe(do)
        over.wait()
        if done and done[0] is not None:
            raise done[0]

    # -- on the loop's thread

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_forever()

    def _begin(self) -> None:
        setting = Setting(LoopTime(self._loop.call_later), self._root, self._metadata, self._faults)
        pause = self._over_s / max(1, len(self._known))
        for number, one in enumerate(self._known):
            device = SimulatedDevice(
                setting, one.site, one.name, facts=one.facts, disk=Disk(one.boot)
            )
            wire = Wire(device, self._access, self._loop, self._threads)
            self.devices[one.name], self.wires[one.name] = device, wire
            device.begin()
            wire.connect(number * pause)
            self._plan_cut(device, wire)
            self._plan_reboot(device, wire)

    def _plan_cut(self, device: SimulatedDevice, wire: Wire) -> None:
        """A spell without a connection, sooner or later."""
        seconds = device.fate.online_s()
        if seconds is None:
            return

        def cut() -> None:
            self._cuts += 1
            wire.cut()
            self._loop.call_later(device.fate.offline_s(), back)

        def back() -> None:
            wire.connect()
            self._plan_cut(device, wire)

        self._loop.call_later(seconds, cut)

    def _plan_reboot(self, device: SimulatedDevice, wire: Wire) -> None:
        seconds = device.fate.power_s()
        if seconds is None:
            return

        def cut() -> None:
            self._reboots += 1
            wire.new_boot()
            device.cut_power()
            self._loop.call_later(_DARK_S, back)

        def back() -> None:
            device.begin()
            wire.connect()
            self._plan_reboot(device, wire)

        self._loop.call_later(seconds, cut)

    def _leave(self) -> None:
        for wire in self.wires.values():
            wire.leave()

    def _tally(self) -> Tally:
        phases: collections.Counter[Phase] = collections.Counter()
        packages: collections.Counter[str] = collections.Counter()
        for device in self.devices.values():
            for track in device.state.tracks.values():
                phases[track.phase] += 1
                if track.active is not None:
                    packages[track.active.package] += 1
        return Tally(
            devices=len(self.devices),
            connected=sum(wire.up for wire in self.wires.values()),
            settled=sum(device.settled for device in self.devices.values()),
            phases=dict(phases),
            packages=dict(packages),
            cuts=self._cuts,
            reboots=self._reboots,
        )


def raise_files(wanted: int) -> None:
    """Lets this process have so many files open.

    Raises:
        UsageError: It may not.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    try:
        top = hard if hard == resource.RLIM_INFINITY else max(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, top))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{wanted} files have to be open at once, and {hard} may be.",
            hint=f"Simulate fewer devices, or say 'ulimit -n {wanted}' as root first.",
        ) from error
