"""Azure's module names, answered by our own modules where scripts import them.

Four leaf modules are always ours, also where an Azure package is installed: its `rawhttp` would
mark a flag that nobody here reads. Their parent packages, and `azureml.core` with the one function
that scoring scripts need of it, are made up only where nothing installed provides them.
"""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType

_OURS = {
    "azureml.contrib.services.aml_request": "scoring.azureml.aml_request",
    "azureml.contrib.services.aml_response": "scoring.azureml.aml_response",
    "azureml_inference_server_http.api.aml_request": "scoring.azureml.aml_request",
    "azureml_inference_server_http.api.aml_response": "scoring.azureml.aml_response",
    "azureml_inference_server_http.log_config": "scoring.azureml.log_config",
}
_STAND_INS = {
    "azureml.core.model": "scoring.azureml.aml_model",
}
_PARENTS = frozenset(
    {
        "azureml",
        "azureml.contrib",
        "azureml.core",
        "azureml.contrib.services",
        "azureml_inference_server_http",
        "azureml_inference_server_http.api",
    }
)


class _Alias(Loader):
    """Puts one of our modules under another name; it is imported only now."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:  # noqa: ARG002  -- fixed
        return None

    def exec_module(self, module: ModuleType) -> None:
        # A module may replace itself in sys.modules: the import system reads it back from there.
        name = module.__name__
        ours = _OURS.get(name) or _STAND_INS[name]
        sys.modules[name] = importlib.import_module(ours)


class _Empty(Loader):
    """A package with nothing in it, but for the class that `azureml.core` has at its top."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:  # noqa: ARG002  -- fixed
        return None

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == "azureml.core":
            module.__dict__["Model"] = importlib.import_module("azureml.core.model").Model


class LeafFinder(MetaPathFinder):
    """Finds the modules that are ours; stands before all other finders."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  -- the signature is the import system's
        target: ModuleType | None = None,  # noqa: ARG002  -- likewise
    ) -> ModuleSpec | None:
        """The spec of an alias; None for every other name."""
        return ModuleSpec(fullname, _Alias()) if fullname in _OURS else None


class ParentFinder(MetaPathFinder):
    """Finds the parents of those modules, and stand-ins; stands behind all other finders."""

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002  -- the signature is the import system's
        target: ModuleType | None = None,  # noqa: ARG002  -- likewise
    ) -> ModuleSpec | None:
        """The spec of a made-up module; None for every other name."""
        if fullname in _STAND_INS:
            return ModuleSpec(fullname, _Alias())
        return ModuleSpec(fullname, _Empty(), is_package=True) if fullname in _PARENTS else None


def install() -> None:
    """Makes Azure's module names importable in this process; a second call changes nothing."""
    if not any(isinstance(finder, LeafFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, LeafFinder())
        sys.meta_path.append(ParentFinder())


def remove() -> None:
    """Undoes `install` and forgets what was imported through it."""
    sys.meta_path[:] = [f for f in sys.meta_path if not isinstance(f, LeafFinder | ParentFinder)]
    for name in (*_OURS, *_STAND_INS, *_PARENTS):
        sys.modules.pop(name, None)
    for name in {*_OURS.values(), *_STAND_INS.values()}:
        sys.modules.pop(name, None)
