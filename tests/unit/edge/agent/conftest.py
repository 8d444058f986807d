"""What the tests of the agent share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support import blob_source


@pytest.fixture(autouse=True)
def closed_connections() -> Iterator[None]:
    """Ends the connections that fetching has kept for later."""
    yield
    while blob_source.WEBS:
        blob_source.WEBS.pop().close()
