from __future__ import annotations

import pytest

from scoring.errors import UsageError
from serve.targets.base import DeployRequest, find_target, target_names
from serve.targets.local import LocalTarget


def test_the_local_target_is_found_by_its_entry_point() -> None:
    assert find_target("local") is LocalTarget
    assert find_target("local").name == "local"


def test_an_unknown_target_lists_those_that_there_are() -> None:
    with pytest.raises(UsageError, match="no target 'locl'") as caught:
        find_target("locl")
    for name in target_names():
        assert name in caught.value.hint


def test_a_request_shows_no_secrets() -> None:
    request = DeployRequest(
        name="iris", revision=1, package="sha256:0", settings={"env.TOKEN": "s3cret", "port": "1"}
    )
    assert "s3cret" not in repr(request)
    assert "iris" in repr(request)
