"""Who is measured: how each server is started, and how it is asked."""

from __future__ import annotations

import sysconfig
from collections.abc import Mapping
from dataclasses import replace

from benchmarks import payloads
from benchmarks.contender import Contender
from benchmarks.payloads import Ask
from benchmarks.peer_files import TRITON as TRITON_HOME
from benchmarks.peer_files import (
    TRITON_SITE,
    copy_script,
    mlserver_files,
    mlserver_in_process_files,
    triton_files,
)
from benchmarks.venvs import REPOSITORY

_SCORE, _V2, _LARGE = payloads.score_ask(), payloads.v2_ask(), payloads.large_ask()
_BINARY, _GRPC = payloads.binary_ask(), payloads.grpc_ask()
_PLAIN = {"score": _SCORE, "large": _LARGE}
_UVICORN = ("{python}", "-m", "uvicorn", "--port", "{http}", "--no-access-log")
_SHARED = ("numpy", "onnxruntime")
_LIBRARIES = sysconfig.get_config_var("LIBDIR")


def bare(kind: str, work: str, ask: Ask) -> Contender:
    """A sketch of the limit for one kind of payload."""
    command = ("{python}", "-m", "benchmarks.bare_http", kind, "{http}")
    return Contender(f"bare {kind} protocol", "", command, {work: ask})


BARE_SCORE = bare("score", "score", _SCORE)
BARE_V2 = bare("v2", "v2", _V2)
BARE_LARGE = bare("score", "large", _LARGE)
BARE_BINARY = bare("binary", "binary", _BINARY)
BARE_GRPC = Contender(
    "bare grpc.aio handler",
    "",
    ("{python}", "-m", "benchmarks.bare_grpc", "{model}", "{grpc}"),
    {"grpc": _GRPC},
    distributions=("grpcio",),
)
BARE_ASGI = Contender(
    "bare ASGI on uvicorn",
    "fastapi",
    (*_UVICORN, "benchmarks.peers.bare_asgi:app"),
    _PLAIN,
    distributions=("uvicorn", "uvloop", "httptools"),
)
FASTAPI = Contender(
    "FastAPI",
    "fastapi",
    (*_UVICORN, "benchmarks.peers.fastapi_app:app"),
    _PLAIN,
    distributions=("fastapi", "pydantic", "uvicorn", *_SHARED),
)
LITSERVE = Contender(
    "LitServe",
    "litserve",
    ("{python}", "-m", "benchmarks.peers.litserve_app", "{http}"),
    {name: ask.at("/predict") for name, ask in _PLAIN.items()},
    distributions=("litserve", *_SHARED),
)
BENTOML = Contender(
    "BentoML",
    "bentoml",
    ("{bin}/bentoml", "serve", "benchmarks.peers.bentoml_app:Scorer", "--port", "{http}"),
    _PLAIN,
    {"BENTOML_HOME": "{folder}", "BENTOML_DO_NOT_TRACK": "True"},
    distributions=("bentoml", *_SHARED),
)
AZUREML = Contender(
    "azureml-inference-server",
    "azure",
    ("{bin}/azmlinfsrv", "--entry_script", "script.py", "--port", "{http}"),
    {"score": _SCORE, "script": _SCORE},
    {"AZUREML_MODEL_DIR": "{folder}"},
    distributions=("azureml-inference-server-http", *_SHARED),
    prepare=copy_script,
)
MLSERVER = Contender(
    "MLServer",
    "mlserver",
    ("{bin}/mlserver", "start", "{folder}"),
    # It has no other form of a row than the protocol's.
    {"score": _V2, "v2": _V2, "grpc": _GRPC},
    distributions=("mlserver", *_SHARED),
    prepare=mlserver_in_process_files,
)
MLSERVER_AS_IT_COMES = replace(MLSERVER, name="MLServer as it comes", prepare=mlserver_files)
TRITON = Contender(
    "Triton (Python backend)",
    "pytriton",
    (
        *(str(TRITON_HOME / "bin" / "tritonserver"), "--model-repository"),
        *("{folder}/models", "--backend-directory", "{folder}/backends", "--http-port", "{http}"),
        *("--grpc-port", "{grpc}", "--allow-metrics=false", "--http-address", "127.0.0.1"),
    ),
    {"score": _V2, "v2": _V2, "binary": _BINARY, "grpc": _GRPC},
    {
        # The backend embeds the interpreter: it has to find this one's library, not the system's.
        "LD_LIBRARY_PATH": f"{_LIBRARIES}:{TRITON_SITE}/nvidia_pytriton.libs",
        "BENCH_PATH": f"{REPOSITORY}:{TRITON_SITE}",
    },
    distributions=("nvidia-pytriton", *_SHARED),
    prepare=triton_files,
)
PEERS = (BARE_ASGI, FASTAPI, LITSERVE, BENTOML, AZUREML, MLSERVER, TRITON)


def ours(environment: Mapping[str, str], headers: Mapping[str, str]) -> Contender:
    """Our server with a model, and these features on."""
    asks = {"score": _SCORE, "v2": _V2, "large": _LARGE, "binary": _BINARY, "grpc": _GRPC}
    return Contender(
        "ours",
        "",
        ("{bin}/fieldpost", "serve", "{model}", "--port", "{http}"),
        {name: ask.with_headers(headers) for name, ask in asks.items()},
        {"FIELDPOST_WORKSPACE": "{folder}/workspace", **environment},
        grpc=0,
    )


def our_script(environment: Mapping[str, str], headers: Mapping[str, str]) -> Contender:
    """Our server with the same script as Azure ML's."""
    return Contender(
        "ours",
        "",
        *(
            (
                "{bin}/fieldpost",
                "serve",
                "script.py",
                "--port",
                "{http}",
                "--model-dir",
                "{folder}",
            ),
        ),
        {"script": _SCORE.with_headers(headers)},
        {"FIELDPOST_WORKSPACE": "{folder}/workspace", **environment},
        prepare=copy_script,
    )
