"""The entry point `fieldpost`, and the one place where errors meet a user's terminal."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import TYPE_CHECKING

import click

from scoring import __version__
from scoring.commands import OutputError
from scoring.commands.lazy import Entry, LazyGroup
from scoring.errors import FieldpostError
from serve.cli import exits

if TYPE_CHECKING:
    from collections.abc import Sequence

_COLLECTED = 50_000  # objects more than before
_MODEL = {
    "register": Entry("serve.cli.model:register", "Register a model file or folder."),
    "list": Entry("serve.cli.model:list_models", "List models and their versions."),
    "show": Entry("serve.cli.model:show", "Show all that is known of a version."),
    "tag": Entry("serve.cli.model:tag", "Set or remove tags of a version."),
    "diff": Entry("serve.cli.model:diff", "Compare two versions."),
    "download": Entry("serve.cli.model:download", "Copy a version's files out, checked."),
    "delete": Entry("serve.cli.model:delete", "Delete a version that nothing uses."),
}
_ENVIRONMENT = {
    "register": Entry("serve.cli.environment:register", "Lock and register an environment."),
    "list": Entry("serve.cli.environment:list_environments", "List environments."),
    "show": Entry("serve.cli.environment:show", "Show an environment and its lock."),
    "lock": Entry("serve.cli.environment:lock", "Print the lock of a requirements file."),
}
_PACKAGE = {
    "build": Entry("serve.cli.package:build", "Build the package of a model or a script."),
    "list": Entry("serve.cli.package:list_packages", "List packages."),
    "show": Entry("serve.cli.package:show", "Show a package: its layers, model, environment."),
    "dockerfile": Entry(
        "serve.cli.dockerfile:dockerfile", "Write a Dockerfile and its build context."
    ),
    "push": Entry("serve.cli.images:push", "Push a package's image to a registry."),
    "pull": Entry("serve.cli.images:pull", "Pull a package from a registry."),
    "export": Entry("serve.cli.export:export", "Write a package's image to a file or an engine."),
    "sign": Entry(
        "serve.cli.provenance:sign", "Sign a package, here or in a registry, as cosign does."
    ),
    "verify": Entry(
        "serve.cli.provenance:verify", "Check every digest, signature and document of a package."
    ),
    "sbom": Entry(
        "serve.cli.provenance:sbom", "Print what is in a package: an SBOM in SPDX or CycloneDX."
    ),
    "provenance": Entry(
        "serve.cli.provenance:provenance", "Print from what and when a package was built (SLSA)."
    ),
}
_DEPLOYMENT = {
    "list": Entry("serve.cli.deployment:list_deployments", "List deployments as they are."),
    "show": Entry("serve.cli.deployment:show", "Show a deployment: revisions, workers, URL."),
    "logs": Entry("serve.cli.deployment:logs", "Print or follow a deployment's logs."),
    "start": Entry("serve.cli.deployment:start", "Start a stopped or lost deployment again."),
    "stop": Entry("serve.cli.deployment:stop", "Stop a deployment; its records stay."),
    "scale": Entry("serve.cli.deployment:scale", "Change how many workers answer."),
    "rollback": Entry("serve.cli.deployment:rollback", "Return to an earlier revision."),
    "export": Entry(
        "serve.cli.deployment_export:export",
        "Write a deployment for Kubernetes' or Ray's own tools.",
    ),
    "delete": Entry("serve.cli.deployment:delete", "Delete a stopped deployment's records."),
}
_KUBERNETES = {
    "rbac": Entry(
        "serve.cli.target:rbac", "Print the least Role that deploying to a namespace needs."
    ),
}
_TARGET = {
    "kubernetes": Entry("serve.cli.main:kubernetes", "What deploying to Kubernetes needs."),
}
_BATCH = {
    "score": Entry("serve.cli.batch:score", "Score a dataset: one result for each row."),
    "list": Entry("serve.cli.batch:list_runs", "List batch runs as they are."),
    "show": Entry("serve.cli.batch:show", "Show how far a batch run is."),
    "cancel": Entry("serve.cli.batch:cancel", "End a batch run; it can be gone on with."),
}
_ENDPOINT = {
    "create": Entry("serve.cli.endpoint:create", "Put a stable URL in front of deployments."),
    "traffic": Entry("serve.cli.endpoint:traffic", "Spread an endpoint's requests otherwise."),
    "promote": Entry("serve.cli.endpoint:promote", "Promote a deployment step by step."),
    "list": Entry("serve.cli.endpoint:list_endpoints", "List endpoints as they are."),
    "show": Entry("serve.cli.endpoint:show", "Show an endpoint: traffic, deployments, promotion."),
    "start": Entry("serve.cli.endpoint:start", "Start an endpoint again that is down."),
    "delete": Entry("serve.cli.endpoint:delete", "Delete an endpoint; its deployments stay."),
}
_KEY = {
    "create": Entry("serve.cli.key:create", "Make an API key; it is printed once."),
    "rotate": Entry("serve.cli.key:rotate", "Make a second key for a holder; both are taken."),
    "list": Entry("serve.cli.key:list_keys", "List API keys; their secrets are nowhere."),
    "revoke": Entry("serve.cli.key:revoke", "End an API key."),
}
_SIGNING_KEY = {
    "create": Entry(
        "serve.cli.provenance:create",
        "Make a pair of keys to sign packages with, as cosign reads them.",
    ),
    "show": Entry("serve.cli.provenance:show", "Show the fingerprints of public keys."),
}
_QUANTUM = {
    "train": Entry("serve.cli.quantum:train", "Learn a circuit from labelled rows."),
    "compile": Entry(
        "serve.cli.quantum:compile_", "Compile a circuit to ONNX, or write it as OpenQASM 3 or Q#."
    ),
    "evaluate": Entry("serve.cli.quantum:evaluate", "Tell how a circuit does on labelled rows."),
    "draw": Entry("serve.cli.quantum:draw", "Draw a circuit as text or as SVG."),
}
_WORKSPACE = {
    "show": Entry("serve.cli.workspace:show", "Show where the workspace is and what it holds."),
    "policy": Entry(
        "serve.cli.workspace:policy", "Show or set whose signature deployments require."
    ),
    "cache": Entry("serve.cli.images:cache", "Share environment layers through a registry."),
    "gc": Entry("serve.cli.workspace:gc", "Free bytes that nothing needs any more."),
}


def _group(name: str, entries: dict[str, Entry], text: str) -> LazyGroup:
    return LazyGroup(name, entries=entries, help=text)


model = _group("model", _MODEL, "Models: registered files with versions.")
environment = _group("env", _ENVIRONMENT, "Environments: locked sets of dependencies.")
package = _group("package", _PACKAGE, "Packages: a model with its environment, as an OCI image.")
deployment = _group("deployment", _DEPLOYMENT, "Deployments: named, running packages.")
kubernetes = _group("kubernetes", _KUBERNETES, "What deploying to Kubernetes needs.")
target = _group("target", _TARGET, "Targets: what they want of those who run them.")
batch = _group("batch", _BATCH, "Batch scoring: datasets in, one result for each row out.")
endpoint = _group("endpoint", _ENDPOINT, "Endpoints: stable URLs in front of deployments.")
key = _group("key", _KEY, "API keys: who may ask a server.")
signing_key = _group("signing-key", _SIGNING_KEY, "Signing keys: who vouches for packages.")
quantum = _group("quantum", _QUANTUM, "Quantum classifiers: trained, compiled, drawn.")
workspace = _group("workspace", _WORKSPACE, "The workspace: records and bytes.")

COMMANDS = {
    "serve": Entry("serve.cli.foreground:serve", "Answer HTTP for a model, in the foreground."),
    "deploy": Entry("serve.cli.deployment:deploy", "Run a package on a target, under a name."),
    "score": Entry("serve.cli.score:score", "Send a scoring request and print the answer."),
    "model": Entry("serve.cli.main:model", "Models: registered files with versions."),
    "env": Entry("serve.cli.main:environment", "Environments: locked sets of dependencies."),
    "package": Entry("serve.cli.main:package", "Packages: a model with its environment."),
    "deployment": Entry("serve.cli.main:deployment", "Deployments: named, running packages."),
    "endpoint": Entry("serve.cli.main:endpoint", "Endpoints: stable URLs in front of deployments."),
    "target": Entry("serve.cli.main:target", "Targets: what they want of those who run them."),
    "batch": Entry("serve.cli.main:batch", "Batch scoring: datasets in, results out."),
    "key": Entry("serve.cli.main:key", "API keys: who may ask a server."),
    "signing-key": Entry("serve.cli.main:signing_key", "Signing keys: who vouches for packages."),
    "quantum": Entry("serve.cli.main:quantum", "Quantum classifiers: trained, compiled, drawn."),
    "workspace": Entry("serve.cli.main:workspace", "The workspace: records and bytes."),
}

root = LazyGroup(
    "fieldpost",
    entries=COMMANDS,
    help="From a model file to an answer anywhere.",
    extensible=True,
)
click.version_option(__version__, prog_name="fieldpost")(root)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line and leaves with its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if arguments is None and given[:1] != ["serve"]:
        # A command is over before it has left much to collect; to look for it, again and again
        # while modules are imported, takes a tenth of a short command's time.
        gc.set_threshold(_COLLECTED)
    status = run(given)
    # A server's scripts may have threads and finalizers of their own, which have to come to an end.
    if arguments is None and given[:1] != ["serve"] and _flushed():
        os._exit(status)
    sys.exit(status)


def _flushed() -> bool:
    """Writes out what is left, so that the process may end without freeing all that it holds.

    To take libraries and models apart takes as long as many a command; the system frees them at
    once.
    """
    try:
        atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter calls at its end
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        return False  # the ordinary end tells what is wrong with them
    return True


def run(arguments: Sequence[str]) -> int:
    """Runs the command line; a traceback is shown only with `--debug`."""
    debug = "--debug" in arguments
    try:
        status = root.main(list(arguments), prog_name="fieldpost", standalone_mode=False)
    except click.exceptions.Exit as leave:
        return leave.exit_code
    except click.ClickException as error:
        _report_usage(error, as_json="--json" in arguments)
        return exits.USAGE
    except (KeyboardInterrupt, click.Abort):
        click.echo("Interrupted.", err=True)
        return exits.INTERRUPTED
    except BrokenPipeError:
        _drop_output()
        return exits.DONE
    except OutputError as error:
        _drop_output()
        click.echo(f"Error: The output cannot be written: {error}.", err=True)
        return exits.FAILED
    except FieldpostError as error:
        if debug:
            raise
        report(error, as_json="--json" in arguments)
        return exits.exit_status(type(error))
    except Exception as error:
        if debug:
            raise
        _report_defect(error, as_json="--json" in arguments)
        return exits.FAILED
    return status if isinstance(status, int) else exits.DONE


def report(error: FieldpostError, *, as_json: bool) -> None:
    """Writes an error: one JSON document on stdout where asked, the sentences on stderr."""
    if as_json:
        _write_json({"error": error.to_dict()})
    where = f" (at {error.where})" if error.where and error.where not in error.message else ""
    click.echo(f"Error: {error.message}{where}", err=True)
    if error.detail:
        click.echo(error.detail.rstrip(), err=True)
    if error.hint:
        click.echo(f"Try:   {error.hint}", err=True)


def _report_usage(error: click.ClickException, *, as_json: bool) -> None:
    if as_json:
        _write_json({"error": {"code": "usage", "message": error.format_message()}})
    error.show()


def _report_defect(error: Exception, *, as_json: bool) -> None:
    sentence = f"{type(error).__name__}: {error}"
    if as_json:
        _write_json({"error": {"code": "internal", "message": sentence}})
    click.echo(f"Error: {sentence}", err=True)
    click.echo("This is a defect of Fieldpost; '--debug' shows where it happened.", err=True)


def _write_json(document: dict[str, object]) -> None:
    from scoring.commands.output import write_json

    try:
        write_json(document)
    except (BrokenPipeError, OutputError):  # stderr still says what went wrong
        _drop_output()


def _drop_output() -> None:
    # The reader of our output went away (`| head`), which is no failure, or nothing can be written:
    # what is left in the buffer would fail once more at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
