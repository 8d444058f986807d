"""A broker whose queues are full drops messages without a word: the controller finds out."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge.agent.config import Broker
from edge.controller.asking import Asking
from edge.simulator import roster
from edge.simulator.crowd import Crowd
from edge.simulator.wire import Access
from tests.support import controllers
from tests.support.controllers import eventually


def test_what_was_dropped_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "edge.controller.controller.Asking", lambda: Asking(first_s=0.5, last_s=8, most=5)
    )
    # The broker keeps two messages of each device, and queues five of all for the controller.
    with controllers.site(tmp_path, settings=("max_queued_messages 5",)) as site:
        metadata = roster.Metadata(site.trust.repository)
        access = Access(Broker("127.0.0.1", site.broker.port, False))
        known = roster.enlist(site.fleet, roster.names("sim", 60), "default")
        with Crowd(known, access, root=metadata.root, metadata=metadata) as crowd:
            eventually(lambda: crowd.tally().connected == 60)
            site.controller()
            eventually(lambda: all(one.online and one.facts for one in site.fleet.devices()))
            assert "are being dropped" in site.broker.log()
