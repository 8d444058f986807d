"""Where a script is and how it is served: command line > environment > `config.json`."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from scoring import __version__
from scoring.errors import EntryScriptError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from scoring.bundle import Bundle

DEFAULT_APP_ROOT = "/var/azureml-app"
CONFIG_FILE = "config.json"

_VARIABLES = {
    "app_root": "AML_APP_ROOT",
    "entry_script": "AZUREML_ENTRY_SCRIPT",
    "source_directory": "AZUREML_SOURCE_DIRECTORY",
    "model_dir": "AZUREML_MODEL_DIR",
    "service_name": "SERVICE_NAME",
    "service_version": "SERVICE_VERSION",
    "service_path_prefix": "SERVICE_PATH_PREFIX",
    "scoring_timeout_ms": "SCORING_TIMEOUT_MS",
    "cors_origins": "AML_CORS_ORIGINS",
    "log_level": "AZUREML_LOG_LEVEL",
}
# Azure's server looks these two up under no name in the file, and so never finds them there.
_LOST_IN_FILES = frozenset({"app_root", "cors_origins"})
# Settings of Azure's server that mean nothing here: telemetry to Application Insights and such.
_OTHER_KEYS = frozenset(
    {
        "AML_APP_INSIGHTS_ENABLED",
        "AML_APP_INSIGHTS_KEY",
        "AML_MODEL_DC_STORAGE_ENABLED",
        "APP_INSIGHTS_LOG_RESPONSE_ENABLED",
        "AZUREML_DEBUG_PORT",
        "HOSTNAME",
        "WORKSPACE_NAME",
    }
)

logger = logging.getLogger("azmlinfsrv")


class ScriptSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a script is and how it is served.

    Attributes:
        app_root: `AML_APP_ROOT`: what the other paths are relative to; joins `sys.path`.
        entry_script: The script; empty means the module `main`.
        source_directory: A folder below `app_root` that joins `sys.path`; empty for none.
        model_dir: What scripts find in `AZUREML_MODEL_DIR`; empty leaves the environment alone.
        service_name: Title of the OpenAPI documents.
        service_version: Version in the OpenAPI documents.
        service_path_prefix: Put before the paths in the OpenAPI documents, and nowhere else.
        scoring_timeout_ms: Longest time that one `run()` may take; 0 for no limit.
        cors_origins: Comma-separated origins that browsers may call from; empty for none.
        log_level: The lowest level of the script's own logging that is shown.
        server_version: The header `x-ms-server-version`; empty for none.
        strict: Answer as Azure's server does even where it is plainly wrong.
    """

    app_root: str
    entry_script: str = ""
    source_directory: str = ""
    model_dir: str = ""
    service_name: str = "ML service"
    service_version: str = "1.0"
    service_path_prefix: str = ""
    scoring_timeout_ms: int = 3_600_000
    cors_origins: str = ""
    log_level: str = "INFO"
    server_version: str = f"fieldpost/{__version__}"
    strict: bool = False

    def __post_init__(self) -> None:
        if self.scoring_timeout_ms < 0:
            raise EntryScriptError(
                f"The scoring timeout is {self.scoring_timeout_ms} ms.",
                hint="Give SCORING_TIMEOUT_MS as a number of milliseconds, or 0 for no limit.",
                where="SCORING_TIMEOUT_MS",
            )

    @property
    def script_path(self) -> Path | None:
        """The script's file; None where the module `main` is to be imported."""
        if not self.entry_script:
            return None
        return Path(self.app_root) / self.entry_script

    @classmethod
    def read(
        cls,
        *,
        arguments: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        app_root: str = DEFAULT_APP_ROOT,
    ) -> ScriptSettings:
        """Reads the settings under Azure's names.

        Args:
            arguments: By field name, as a command line gave them; None values do not count.
            environ: The environment; the process's own by default.
            app_root: What `AML_APP_ROOT` is where nothing sets it. A command line gives the
                working directory here, as Azure's does.

        Raises:
            EntryScriptError: A value or the `config.json` is not valid.
        """
        environ = os.environ if environ is None else environ
        given = {k: v for k, v in (arguments or {}).items() if v is not None}
        values = {f: environ[v] for f, v in _VARIABLES.items() if v in environ} | given
        values.setdefault("server_version", _server_version(environ))
        root = str(values.get("app_root", app_root))
        path = _config_file(environ, root, str(values.get("entry_script", "")))
        if path:
            strict = bool(values.get("strict", False))
            values = _file_values(path, strict=strict) | values
        values.setdefault("app_root", app_root)
        return _convert(values)

    @classmethod
    def for_package(
        cls, root: Path, bundle: Bundle, *, environ: Mapping[str, str] | None = None, **given: Any
    ) -> ScriptSettings:
        """The settings of the script in an unpacked package; the environment fills in the rest.

        Args:
            root: The package's root (see `scoring.bundle`).
            bundle: Its description.
            environ: The environment; the process's own by default.
            **given: Fields that the server's own settings fix, such as `strict`.

        Raises:
            EntryScriptError: The package holds no script, or a setting is not valid.
        """
        if bundle.script is None:
            raise EntryScriptError(f"The package at {root} holds no scoring script.")
        # The folders themselves and not links to them: the script's own paths are in its
        # tracebacks, and what it finds beside its folder is where it is for the user.
        fixed = {
            "app_root": str((root / "code").resolve()),
            "entry_script": bundle.script.entry,
            "source_directory": bundle.script.source_directory,
            "model_dir": str((root / "model" / bundle.model_dir).resolve())
            if bundle.model_dir
            else None,
        }
        environ = os.environ if environ is None else environ
        # Azure's server knows no other name than the variable's.
        own_name = "SERVICE_NAME" in environ or given.get("strict")
        named = {} if own_name else {"service_name": bundle.name}
        return cls.read(arguments=named | fixed | given, environ=environ)


def _server_version(environ: Mapping[str, str]) -> str:
    if environ.get("SERVER_VERSION_LOG_RESPONSE_ENABLED", "true").lower() != "true":
        return ""
    return environ.get("HTTP_X_MS_SERVER_VERSION", f"fieldpost/{__version__}")


def _config_file(environ: Mapping[str, str], app_root: str, entry_script: str) -> Path | None:
    candidates = [Path(app_root) / CONFIG_FILE]
    if named := environ.get("AZUREML_CONFIG_FILE"):
        candidates.insert(0, Path(named))
    if entry_script:
        candidates.append((Path(app_root) / entry_script).parent / CONFIG_FILE)
    return next((path for path in candidates if _has_content(path)), None)


def _has_content(path: Path) -> bool:
    try:
        return path.is_file() and path.stat().st_size > 0
    except OSError:
        return False


def _file_values(path: Path, *, strict: bool) -> dict[str, Any]:
    try:
        document = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (OSError, msgspec.DecodeError) as error:
        raise EntryScriptError(
            f"The configuration file {path} cannot be read: {error}.",
            hint="Write one JSON object with the names of the environment variables as keys.",
            where=str(path),
        ) from error
    unknown = sorted(document.keys() - _VARIABLES.values() - _OTHER_KEYS)
    if unknown:
        logger.warning("%s has keys that mean nothing here: %s", path, ", ".join(unknown))
    lost = _LOST_IN_FILES if strict else frozenset[str]()
    return {
        field: document[name]
        for field, name in _VARIABLES.items()
        if field not in lost and document.get(name) is not None
    }


def _convert(values: Mapping[str, Any]) -> ScriptSettings:
    try:
        # Lax, since the environment has text only.
        return msgspec.convert(dict(values), ScriptSettings, strict=False)
    except msgspec.ValidationError as error:
        field = str(error).rpartition("$.")[2].rstrip("`")
        name = _VARIABLES.get(field, field)
        raise EntryScriptError(f"The setting {name} is not valid: {error}.", where=name) from error
