"""The IDs that the server makes up."""

from __future__ import annotations

import uuid

from scoring.azureml import identity


def test_ids_are_random_uuids() -> None:
    made = [identity.identify({}, strict=False).headers[0][1] for _ in range(200)]
    assert len(set(made)) == 200
    for text in made:
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.version, parsed.variant) == (text, 4, uuid.RFC_4122)
