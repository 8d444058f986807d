"""Mirrors: asked before the registry itself, and nobody depends on them."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, TypeVar

from scoring.errors import DigestMismatchError, NotFoundError, RegistryError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable

    from serve.distribution.hosts import Hosts, Place
    from serve.distribution.reference import Reference

_Result = TypeVar("_Result")
_log = logging.getLogger(__name__)


def ask_first(reference: Reference, hosts: Hosts, question: Callable[[Place], _Result]) -> _Result:
    """What the first place answers that has an answer; the registry itself decides.

    Args:
        reference: What is asked about.
        hosts: This machine's configuration, which names the mirrors.
        question: Asks one place.

    Raises:
        RegistryDeniedError: The configuration blocks the registry.
        FieldpostError: What the question to the registry itself raises.
    """
    for place in hosts.places(reference):
        try:
            return question(place)
        except (NotFoundError, UnreachableError, RegistryError, DigestMismatchError) as error:
            if not place.mirror:
                raise
            _log.warning("the mirror %s has failed: %s", place.reference.name, error.message)
    raise AssertionError("the registry itself is the last of the places")
