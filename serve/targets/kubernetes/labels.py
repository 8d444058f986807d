"""Labels and annotations: whose an object is, and what it runs.

`SELECTOR` never changes for a deployment; the rest follows its revisions.
"""

from __future__ import annotations

import hashlib
import re

PREFIX = "fieldpost.dev/"
DEPLOYMENT = PREFIX + "deployment"
WORKSPACE = PREFIX + "workspace"
REVISION = PREFIX + "revision"
PACKAGE = PREFIX + "package"
MODEL = PREFIX + "model"
VERSION = PREFIX + "version"
IMAGE = PREFIX + "image"

APP_NAME = "app.kubernetes.io/name"
APP_INSTANCE = "app.kubernetes.io/instance"
APP_VERSION = "app.kubernetes.io/version"
APP_MANAGER = "app.kubernetes.io/managed-by"

MANAGER = "fieldpost"

_MOST = 63
_HASH = 8
_VALUE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?", re.ASCII)


def label_value(text: str) -> str:
    """The text itself where it can be a label's value, else the nearest with a hash."""
    if not text or (len(text) <= _MOST and _VALUE.fullmatch(text)):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:_HASH]
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("._-")
    return f"{plain[: _MOST - _HASH - 1]}-{digest}".lstrip("-")


def package_value(digest: str) -> str:
    """A digest as a label: 63 of its 64 digits; the annotation has it whole."""
    return digest.partition(":")[2][:_MOST]


def selector(base: str) -> dict[str, str]:
    """What finds the pods of a deployment, in all revisions of it.

    Args:
        base: See `names.Names`.
    """
    return {APP_NAME: MANAGER, APP_INSTANCE: base}


def owned(workspace: str, deployment: str) -> dict[str, str]:
    """What is on every object of a deployment, and on no other.

    Args:
        workspace: The workspace's identity; empty for objects that were exported.
        deployment: The deployment's name.
    """
    labels = {DEPLOYMENT: label_value(deployment)}
    if workspace:  # what leaves our hands is managed by others
        labels |= {APP_MANAGER: MANAGER, WORKSPACE: label_value(workspace)}
    return labels
