"""Starts Azure ML's own server once for each script; run by the Python of the peer's venv.

Standard input has one line, `{name: {variable: value}}`: the environment of each server. One line
comes back, `{name: port}`, all on loopback. The servers end when standard input does.

This does what `azmlinfsrv` does after it has parsed its command line, except that the sockets are
bound here (that program listens on all interfaces), and that the libraries under the server are
imported once and shared by forking.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
from pathlib import Path

LIBRARIES = (
    "gunicorn.app.wsgiapp",
    "gunicorn.workers.sync",
    "flask_cors",
    "pydantic_settings",
    "azure.monitor.opentelemetry.exporter",
    "opentelemetry.sdk.trace.export",
    "opentelemetry.sdk._logs.export",
    "inference_schema.schema_decorators",
    "numpy",
    "pandas",
)


def serve(listener: socket.socket, environment: dict[str, str]) -> None:
    """Becomes a server: a gunicorn master with one worker, as `azmlinfsrv` makes it."""
    os.environ.update(environment)
    os.chdir(environment["AML_APP_ROOT"])
    sys.path.append(environment["AML_APP_ROOT"])
    log_config = importlib.import_module("azureml_inference_server_http.log_config")
    package = importlib.import_module("azureml_inference_server_http")
    log_config.load_logging_config(str(Path(str(package.__file__)).parent))
    sys.argv = ["gunicorn", "-b", f"fd://{listener.fileno()}", "-w", "1", "--timeout", "300"]
    sys.argv += ["--access-logfile", "-", "--error-logfile", "/dev/null"]
    sys.argv.append("azureml_inference_server_http.server.entry:app")
    importlib.import_module("gunicorn.app.wsgiapp").WSGIApplication("%(prog)s").run()


def main() -> None:
    environments = json.loads(sys.stdin.readline())
    for name in LIBRARIES:
        importlib.import_module(name)
    ports, children = {}, []
    for name, environment in environments.items():
        listener = socket.create_server(("127.0.0.1", 0))
        ports[name] = listener.getsockname()[1]
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(2, 1)
            serve(listener, environment)
            os._exit(1)
        listener.close()
        children.append(child)
    print(json.dumps(ports), flush=True)
    sys.stdin.read()
    for child in children:
        os.kill(child, signal.SIGQUIT)
    for child in children:
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
