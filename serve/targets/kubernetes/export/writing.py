"""Writes an export: what was not asked for stays as it is."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from scoring import durable
from scoring.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from serve.targets.kubernetes.export.documents import Files


def write_files(files: Files, folder: Path) -> list[str]:
    """Writes each file whole or not at all; an earlier export is replaced.

    Args:
        files: Path below the folder to content.
        folder: Made where it is missing.

    Returns:
        The paths, in order.

    Raises:
        UsageError: The folder is a file.
        WorkspaceError: The disk does not take them.
    """
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file.", hint="Name a folder.", where=str(folder))
    with durable.storage_errors(f"the folder {folder}"):
        for path, content in sorted(files.items()):
            place = folder / path
            place.parent.mkdir(parents=True, exist_ok=True)
            durable.write_bytes(place, content)
    return sorted(files)


def next_steps(
    form: str,
    folder: Path,
    base: str,
    secrets: Iterable[str],
    secret: str,
    namespace: str | None = None,
) -> list[str]:
    """What a user does with an export, in sentences.

    Args:
        form: Of the export.
        folder: Where it is.
        base: The objects' name.
        secrets: The variables whose values are in no file.
        secret: The Secret that has to hold them.
        namespace: Where the objects are to be; None for the current one.
    """
    there, quoted = f" --namespace {namespace}" if namespace else "", shlex.quote(str(folder))
    commands = {
        "yaml": f"kubectl apply -f {quoted}",
        "kustomize": f"kubectl apply -k {quoted}",
        "helm": f"helm install {base} {quoted}{there}",
        "kserve": f"kubectl apply -f {quoted}",
        "ray": f"cd {quoted} && serve run serve.yaml",
    }
    found = []
    names = sorted(secrets)
    if names and form == "ray":
        found.append(f"set for Ray's workers, or by runtime_env in serve.yaml: {', '.join(names)}")
    elif names:
        literals = " ".join(f"--from-literal={name}=…" for name in names)
        found.append(f"kubectl create secret generic {secret}{there} {literals}")
    return [*found, commands[form]]
