"""The process behind an endpoint is killed at any moment: what was said holds when it is back."""

from __future__ import annotations

import contextlib
import os
import random
import threading
from pathlib import Path

from scoring.errors import FieldpostError
from serve.endpoints.service import Endpoints
from serve.endpoints.traffic import Traffic
from serve.targets.local import processes
from serve.targets.local.state import read_state
from tests.support.local import eventually, get, kill, site

ROUNDS = 60 if os.environ.get("FIELDPOST_TEST_LONG") else 5


def test_killed_at_any_moment_it_comes_back_with_the_last_wish(tmp_path: Path) -> None:
    chance = random.Random()
    with site(tmp_path) as opened:
        names = ("blue", "green")
        for name in names:
            opened.deploy(name, {"answer": name})
        endpoints = Endpoints(opened.registry)
        url = endpoints.create("ep", Traffic(weights={"blue": 1, "green": 0})).url
        folder = tmp_path / "endpoints" / "ep"
        try:
            for number in range(ROUNDS):
                state = read_state(folder)
                assert state is not None
                victims = [state.supervisor, *state.workers]
                victim = chance.choice(victims)
                timer = threading.Timer(chance.uniform(0, 0.05), kill, [victim.pid])
                timer.start()
                wish = names[number % 2]
                for name in (*names, wish):
                    # Where it could not be told, the record is written all the same.
                    with contextlib.suppress(FieldpostError):
                        endpoints.set_traffic("ep", Traffic(weights={name: 1}))
                timer.join()
                eventually(lambda gone=victim: not processes.is_alive(gone))  # type: ignore[misc]
                view = endpoints.start("ep")
                assert view.url == url
                eventually(lambda wanted=wish: get(url).startswith(wanted))  # type: ignore[misc]
                eventually(lambda: endpoints.get("ep").state == "running")
        finally:
            endpoints.delete("ep")
        assert not folder.exists()
