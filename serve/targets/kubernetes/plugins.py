"""Programs that give a login, as kubeconfigs of cloud providers name them (`exec`)."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from base64 import b64encode
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from scoring.errors import TargetError

if TYPE_CHECKING:
    from collections.abc import Mapping

_PLUGIN_S = 120.0
_PERSON_S = 600.0
"""For a person who logs in with a browser meanwhile."""

_SHOWN = 400
_WRONG = (OSError, subprocess.TimeoutExpired, msgspec.DecodeError, TypeError, AttributeError)


class Variable(msgspec.Struct, frozen=True):
    """Of the environment of a plugin."""

    name: str
    value: str


class Command(msgspec.Struct, frozen=True, rename="camel"):
    """A plugin, as a kubeconfig has it."""

    api_version: str
    command: str
    args: list[str] | None = None
    env: list[Variable] | None = None
    install_hint: str | None = None
    interactive_mode: Literal["Never", "IfAvailable", "Always"] = "IfAvailable"
    provide_cluster_info: bool = False

    def __repr__(self) -> str:
        return f"Command({self.command!r})"


def ask(command: Command, cluster: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a plugin; the `status` that it prints.

    Args:
        command: The plugin.
        cluster: See `cluster_info`.

    Raises:
        TargetError: It is not there, fails, or prints something else.
    """
    person = _has_person(command)
    try:
        done = subprocess.run(  # noqa: S603 - what the kubeconfig names, as kubectl runs it
            [command.command, *(command.args or ())],
            env=_environment(command, cluster, interactive=person),
            stdout=subprocess.PIPE,
            stderr=None if person else subprocess.PIPE,
            stdin=None if person else subprocess.DEVNULL,
            timeout=_PERSON_S if person else _PLUGIN_S,
            check=True,
        )
        return dict(msgspec.json.decode(done.stdout).get("status") or {})
    except FileNotFoundError as error:
        raise TargetError(
            f"The login plugin {command.command!r} of the kubeconfig is not installed.",
            hint=command.install_hint or "Install it, or log in another way.",
        ) from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or b"").decode(errors="replace").strip()[-_SHOWN:]
        raise TargetError(
            f"The login plugin {command.command!r} ended with {error.returncode}.",
            hint="Log in again with your provider's tool.",
            detail=said,
        ) from error
    except (
        OSError,
        subprocess.TimeoutExpired,
        msgspec.DecodeError,
        TypeError,
        AttributeError,
    ) as error:
        raise TargetError(
            f"The login plugin {command.command!r} gave no credential: {type(error).__name__}."
        ) from error


def _has_person(command: Command) -> bool:
    """Whether the plugin may ask whoever sits at the terminal: for a code, say."""
    mode = command.interactive_mode
    there = sys.stdin is not None and not sys.stdin.closed and sys.stdin.isatty()
    if mode == "Always" and not there:
        raise TargetError(
            f"The login plugin {command.command!r} asks at a terminal, and there is none.",
            hint="Log in with your provider's tool first, or run the command at a terminal.",
        )
    return there and mode != "Never"


def _environment(
    command: Command, cluster: Mapping[str, Any], *, interactive: bool
) -> dict[str, str]:
    spec: dict[str, Any] = {"interactive": interactive}
    if command.provide_cluster_info:
        spec["cluster"] = dict(cluster)
    info = {"apiVersion": command.api_version, "kind": "ExecCredential", "spec": spec}
    given = {each.name: each.value for each in command.env or ()}
    return {**os.environ, "KUBERNETES_EXEC_INFO": json.dumps(info), **given}


def cluster_info(cluster: Mapping[str, Any]) -> dict[str, Any]:
    """What a plugin is told of a cluster, from its entry in the kubeconfig."""
    found = {
        key: cluster[key]
        for key in (
            *("server", "tls-server-name", "insecure-skip-tls-verify", "proxy-url"),
            "certificate-authority-data",
        )
        if cluster.get(key)
    }
    authority = cluster.get("certificate-authority")
    if authority and "certificate-authority-data" not in found:
        with contextlib.suppress(OSError):  # whoever connects says so
            found["certificate-authority-data"] = b64encode(Path(authority).read_bytes()).decode()
    for each in cluster.get("extensions") or ():
        if each.get("name") == "client.authentication.k8s.io/exec":
            found["config"] = each.get("extension")
    return found
