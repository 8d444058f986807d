"""`fieldpost target …`: what targets want of those who run them."""

from __future__ import annotations

import click

from scoring.commands.output import common, show


@click.command(help="Print the least Role that deploying to a namespace needs.")
@click.option("--namespace", default="default", show_default=True, help="Where it deploys.")
@click.option(
    "--account", default="fieldpost", show_default=True, help="The ServiceAccount that gets it."
)
@common
def rbac(namespace: str, account: str, as_json: bool, workspace: str | None) -> None:  # noqa: ARG001
    """Prints a ServiceAccount, a Role and a RoleBinding, for `kubectl apply -f -`."""
    from serve.targets.kubernetes import texts
    from serve.targets.kubernetes.export.documents import stream
    from serve.targets.kubernetes.rbac import objects

    found = objects(
        texts.require_name("namespace", namespace), texts.require_name("account", account)
    )
    show(list(found), stream(found).decode().rstrip("\n"), as_json=as_json)
