"""Azure ML's own inference server and ours, side by side, on the same scripts and requests.

Under `strict` every status, body and header has to be the same. The peer is installed once, into
`.build/azureml-peer`; where that cannot be done these tests are skipped. Deselect them with
`-m "not slow"`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.support.peers import python_with

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

CORPUS = Path(__file__).parent / "azureml_corpus"
PEER = ("azureml-inference-server-http==1.5.1", "inference-schema", "numpy", "pandas")
JSON = "application/json"
FORM = "application/x-www-form-urlencoded"
UUID = re.compile(r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$")
MILLISECONDS = re.compile(r"^\d+\.\d{3}$")
# The server's own, whoever it is.
FRAMING = {"server", "date", "connection", "content-length", "transfer-encoding"}

Spec = dict[str, Any]


class Answer(NamedTuple):
    status: int
    body: str
    headers: list[tuple[str, str]]


def ask(
    method: str,
    target: str = "/score",
    body: str | bytes = "",
    content_type: str = "",
    **headers: str,
) -> Spec:
    content = body.encode() if isinstance(body, str) else body
    sent = [("Host", "localhost:5001")]
    if content_type:
        sent.append(("Content-Type", content_type))
    if content or method in {"POST", "PUT", "PATCH"}:
        sent.append(("Content-Length", str(len(content))))
    sent += [(name.replace("_", "-"), value) for name, value in headers.items()]
    return {"method": method, "target": target, "headers": sent, "body": content.decode("latin-1")}


def post(document: Any, **headers: str) -> Spec:
    return ask("POST", body=json.dumps(document), content_type=JSON, **headers)


def multipart(*parts: tuple[str, str, str]) -> Spec:
    """Parts are a field's name, the rest of its headers, and its content."""
    text = "".join(
        f'--edge\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n{content}\r\n'
        for name, more, content in parts
    )
    return ask(
        "POST", body=f"{text}--edge--\r\n", content_type="multipart/form-data; boundary=edge"
    )


def posts(*documents: Any, **headers: str) -> list[Spec]:
    return [post(document, **headers) for document in documents]


LONG = "i" * 101
ROUTES = [
    ask("GET", "/"),
    ask("HEAD", "/"),
    ask("OPTIONS", "/"),
    ask("POST", "/", body="x"),
    ask("GET", "/", X_Request_Id="abc", TraceId="t-1"),
    ask("GET", "/", X_Request_Id=LONG, TraceId="t-1"),
    ask("GET", "/nothing", X_Request_Id="abc"),
    ask("GET", "/score/"),
    ask("GET", "//score?a=1"),
    ask("GET", "///"),
    ask("GET", "//nothing"),
    ask("GET", "/./score"),
    ask("GET", "/score%3Fa"),
    ask("PUT", "/score", body="x"),
    ask("DELETE", "/score", X_Request_Id="abc"),
    ask("PATCH", "/swagger.json", body="x"),
    ask("OPTIONS", "/nothing"),
    ask("OPTIONS", "/score"),
    ask("HEAD", "/score"),
    ask("HEAD", "/swagger.json"),
    ask("OPTIONS", "/swagger.json"),
]
SWAGGER = [ask("GET", "/swagger.json")] + [
    ask("GET", f"/swagger.json?version={version}")
    for version in ("2", "2.0", "3", "3.0", "3.1", "1", "", "2&version=3", "three")
]
IDENTITIES = [
    post(1, X_Request_Id="abc"),
    post(1, X_Request_Id="i" * 100),
    post(1, X_Request_Id=LONG),
    post(1, X_Request_Id=""),
    post(1, X_Ms_Request_Id="old"),
    post(1, X_Ms_Client_Request_Id="client"),
    post(1, X_Ms_Request_Id="old", X_Ms_Client_Request_Id="client", X_Request_Id="abc"),
    post(1, X_Ms_Request_Id=LONG),
    post(1, X_Ms_Client_Request_Id=LONG, X_Request_Id="abc"),
    post(1, X_Ms_Request_Id="", X_Ms_Client_Request_Id=""),
    post(1, TraceId="office"),
    post(1, traceid="lower"),
]
BODIES = [
    ask("POST", body=body, content_type=content_type)
    for body in ("", '{"data": [1]}', "not json", "a=1&b=2", "süß")
    for content_type in ("", JSON, "text/plain", FORM, f"{FORM}; charset=utf-8", "a/b+json")
] + [
    ask("POST", body=b"\xff\xfe", content_type=JSON),
    ask("POST", body=b"\xff\xfe", content_type=FORM),
    ask("POST", body=b"\xef\xbb\xbf{}", content_type=JSON),
    multipart(("a", "", "1")),
    ask("POST", body="x", content_type="multipart/form-data"),
    ask("POST", body="x", content_type="multipart/form-data; boundary=edge"),
    ask("POST", body="--edge\r\nbroken", content_type="multipart/form-data; boundary=edge"),
    ask("POST", body="a=" + "1" * 600_000, content_type=FORM),
    multipart(("a", "", "1" * 600_000)),
    ask("POST", body="[" + "1, " * 300_000 + "1]", content_type="text/plain"),
]
QUERIES = [
    ask("GET", f"/score{query}")
    for query in (
        "",
        "?",
        "?a=1&b=[1,2]&c=a&d=null",
        "?foo=bar1&foo=bar2&x=y",
        "?a=1&a=x&a=",
        "?empty=&bare",
        "?q=s%C3%BC%C3%9F+and%20blank&%61=encoded",
        "?bad=%FF%41&half=%2",
        "?semi=1;2",
        "?nan=NaN&big=123456789012345678901234567890",
        "?data=[[0.1,1.2,2.3]]",
    )
]
CORS = [
    ask(method, target, Origin=origin, **more)
    for origin in ("https://a.example", "HTTPS://A.EXAMPLE", "https://evil.example", "null")
    for method, target, more in (
        ("POST", "/score", {}),
        ("GET", "/", {}),
        ("GET", "/nothing", {}),
        ("OPTIONS", "/score", {"Access_Control_Request_Method": "POST"}),
        (
            "OPTIONS",
            "/score",
            {
                "Access_Control_Request_Method": "GET",
                "Access_Control_Request_Headers": "x-b, Content-Type,x-a",
            },
        ),
        ("OPTIONS", "/score", {"Access_Control_Request_Method": "PUT"}),
        ("OPTIONS", "/", {"Access_Control_Request_Private_Network": "true"}),
    )
] + [ask("GET", "/"), ask("OPTIONS", "/score")]

NUMPY = posts(
    {"data": [[1, 2, 3]]},
    {"data": [[1, 2, 3], [4.5, 5, 6]], "extra": 1},
    {"data": [["1", "2", "3"]]},
    {"data": [[1, 2]]},
    {"data": [[1, 2, 3], [1]]},
    {"data": [1, 2, 3]},
    {"data": [[1, 2, "x"]]},
    {"data": [[1, 2, None]]},
    {"data": []},
    {"data": None},
    {"data": {"a": 1}},
    {"data": "text"},
    {},
    [],
    [[1, 2, 3]],
    "text",
    None,
) + [
    ask("POST", body=body, content_type=JSON)
    for body in (
        "",
        "{",
        '{"data": [[1, 2, 3]]',
        '{"data": [[NaN, 1, Infinity]]}',
        '{"data": [[1, 2, 3]], "data": [[1, 1, 1]]}',
        " \n",
        '{"data": [[1, 2, 3]]} trailing',
        b"\xef\xbb\xbf" + b'{"data": [[1, 2, 3]]}',
        b'{"data": "\xff"}',
        '{"data": [[1, 2, 3]]}'.encode("utf-16"),
        '{"data": ' + "[" * 100_000 + "]" * 100_000 + "}",
    )
]
ROW = {"age": 40, "bmi": 2.5, "city": "Bonn", "when": "2024-01-03"}
PANDAS = posts(
    {"data": [ROW]},
    {"data": [ROW, ROW | {"bmi": 3}]},
    {"data": [ROW | {"when": 1704240000000}]},
    {"data": [{"age": 1}]},
    {"data": [ROW | {"more": 1}]},
    {"data": [ROW | {"age": "x"}]},
    {"data": [ROW | {"bmi": None}]},
    {"data": {"age": [1]}},
    {"data": []},
    {"data": 3},
    {"data": [3]},
)
SPLIT = posts(
    {"table": {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}},
    {"table": {"columns": ["a", "b"], "index": [5], "data": [[1, 2]]}},
    {"table": {"columns": ["a"], "data": [[1]]}},
    {"table": {"columns": ["a", "b"], "data": [[1]]}},
    {"table": [[1, 2]]},
)
PYTHON = [
    *posts(
        {"text": "ab", "factor": 2.5},
        {"text": "ab", "factor": 2, "count": 3, "flag": True},
        {"text": "ab", "factor": "2"},
        {"text": 3, "factor": 2.0},
        {"text": "ab", "factor": 1.0, "count": 2.5},
        {"text": "ab", "factor": 1.0, "flag": 1},
        {"text": "ab", "factor": None},
        {"text": "ab"},
        {"text": "ab", "factor": 1.0, "request_headers": {"X-Agent": "forged"}},
        X_Agent="me",
    ),
    ask("GET", "/score?text=ab&factor=2.5", X_Agent="me"),
    ask("GET", "/score?text=1&factor=2.5"),
]
INPUTS = {"array": [[1, 2]], "table": [{"a": 1, "b": "x"}], "name": "n", "plain": "any"}
NESTED = posts(
    {"Inputs": INPUTS},
    {"Inputs": INPUTS, "several": [[1, 2], [3, 4]], "GlobalParameters": {"any": "thing"}},
    {"Inputs": {"array": [[1, 2]], "table": [{"a": 1, "b": "x"}]}},
    {"Inputs": {"array": [[1, 2]]}},
    {"Inputs": INPUTS | {"array": [[1]]}},
    {"Inputs": INPUTS | {"table": [{"a": "x", "b": "x"}]}},
    {"Inputs": INPUTS | {"name": 3}},
    {"Inputs": INPUTS, "several": [[1, 2], [3]]},
    {"Inputs": INPUTS, "several": {"a": 1}},
    {"Inputs": [INPUTS]},
)
OPTIONAL = posts(
    {"input_data": {"input_string": ["b"]}},
    {"input_data": {"input_string": ["b"]}, "params": {"k": 2}},
    {"input_data": {"input_string": ["b"]}, "params": {}},
    {"input_data": {"input_string": ["b"]}, "params": "text"},
    {"params": {"k": 2}},
)
UPLOADS = [
    multipart(
        ("image", '; filename="a.bin"\r\nContent-Type: image/png', "\x00\x01PNG"),
        ("note", "", "two words"),
        ("other", '; filename="b.txt"', "text"),
    ),
    ask("POST", "/score?a=1&a=2&b=s%C3%BC%C3%9F", body="k=v&k=w&e=", content_type=FORM),
    ask("POST", body=b"\x00\xff\xfe", content_type="application/octet-stream"),
    post({"a": [1]}, Cookie="k=v; l=w", Accept="*/*", X_Custom="1"),
    ask("POST", body="{", content_type=JSON),
    ask("GET", "/score?x=1"),
    ask("HEAD", "/score"),
    ask("OPTIONS", "/score"),
    ask("PUT", "/score", body="x"),
]
RETURNED = [
    "none",
    "text",
    "unicode",
    "json",
    "list",
    "tuple",
    "keys",
    "nan",
    "wide",
    "float64",
    "array",
    "int64",
    "bytes",
    "set",
    "date",
    "tuple_key",
    "flask_style",
    "subclass",
    "zero",
    "empty",
    "false",
    "cycle",
]
RESPONSES = [
    "bytes",
    "text",
    "none",
    "json",
    "json_type",
    "lower_type",
    "headers",
    "failed",
    "teapot",
    "error",
    "unavailable",
    "stream",
    "chunks",
    "flask",
    "flask_500",
    "flask_stream",
    "cookie",
    "redirect",
    "no_content",
    "not_modified",
    "own_ids",
    "unencodable",
    "jsonify",
    "abort",
    "proxy",
]

REQUESTS: dict[str, list[Spec]] = {
    "plain": [post({"data": [[1, 2], [3, 4]]}), post({"rows": []}), ask("POST"), *ROUTES, *SWAGGER],
    "echo_text": [*BODIES, *QUERIES, *IDENTITIES],
    "catches": [post({"data": [1, 2]}), post({}), ask("POST", body="{")],
    "returns": [post(case) for case in RETURNED],
    "raises": [post({"kind": kind}) for kind in ("key", "timeout", "assert", "value")],
    "slow": [post({"seconds": 0}), post({"seconds": 30}), post({"seconds": 0.01})],
    "headers_arg": [
        post(1, X_Agent="me", x_lower="1", X_2fa_code="1", Accept="*/*", Cookie="a=b"),
        ask("GET", "/score?a=1", X_Agent="me"),
        ask("POST", body="{}", content_type=FORM),
    ],
    "schema_numpy": [*NUMPY, *QUERIES, *BODIES, *SWAGGER, ask("OPTIONS"), ask("HEAD")],
    "schema_numpy_ints": [
        post({"rows": [[1, 2, 3]]}),
        post({"rows": [[1.7]], "loose": ["a", 1]}),
        post({"rows": [["x"]]}),
        post({"rows": [[1]], "loose": 3}),
        *SWAGGER,
    ],
    "schema_pandas": [*PANDAS, *SWAGGER],
    "schema_pandas_split": [*SPLIT, *SWAGGER],
    "schema_python": [*PYTHON, *SWAGGER],
    "schema_nested": [*NESTED, *SWAGGER],
    "schema_optional": [*OPTIONAL, *SWAGGER],
    "schema_mixed": [post({"items": [1]}), *SWAGGER],
    "raw_echo": [
        ask("GET", "/score?a=1&b=%20"),
        ask("POST", body=b"\x00\xff", content_type="image/jpeg"),
        ask("POST", body="a=1", content_type=FORM),
        ask("OPTIONS"),
        ask("HEAD"),
        *SWAGGER,
    ],
    "raw_request": UPLOADS,
    "raw_fails": [
        ask(method, f"/score?kind={kind}", content_type=JSON if method == "POST" else "")
        for method in ("GET", "POST")
        for kind in ("missing", "json", "abort", "200", "x")
    ],
    "responses": [post(case, X_Agent="me") for case in RESPONSES],
    "driver": [post("x"), *SWAGGER],
    "output_only": [post({"body": "b"}), post("b"), *SWAGGER],
    "coroutine": [post("x")],
    "cors_list": CORS,
    "cors_any": CORS,
    "cors_one": CORS,
    "cors_pattern": CORS,
    "user_swagger": SWAGGER,
    "named": SWAGGER,
    "main": [post(1)],
}
SCRIPT_OF = {
    "cors_list": "echo_text",
    "cors_any": "echo_text",
    "cors_one": "raw_echo",
    "cors_pattern": "echo_text",
    "user_swagger": "echo_text",
    "named": "schema_numpy",
    "main": "echo_text",
}
VARIABLES = {
    "slow": {"SCORING_TIMEOUT_MS": "200"},
    "plain": {"AZUREML_SOURCE_DIRECTORY": "lib"},
    "cors_list": {"AML_CORS_ORIGINS": "https://b.example, https://a.example"},
    "cors_any": {"AML_CORS_ORIGINS": "*"},
    "cors_one": {"AML_CORS_ORIGINS": "https://a.example"},
    "cors_pattern": {"AML_CORS_ORIGINS": r"https://.*\.example$"},
    "named": {
        "SERVICE_NAME": "digits",
        "SERVICE_VERSION": "7",
        "SERVICE_PATH_PREFIX": "/api/v1/",
    },
}
EXTRA_FILES = {
    "plain": {
        "lib/weighting.py": "def weighted(row, weights):\n"
        "    return sum(a * b for a, b in zip(row, weights))\n",
        "models/m/1/weights.json": "[0.5, 2]",
    },
    "driver": {
        "real_script.py": "def init():\n    pass\n\n\n"
        "def run(raw_data):\n    return ['real', raw_data]\n"
    },
    "user_swagger": {
        "swagger.json": '{"swagger": "2.0", "own": 2}',
        "swagger2.json": '{"own": "not this one"}',
        "swagger3.json": '{"openapi": "3.0.0", "own": 3}',
    },
}


def lay_out(folder: Path, name: str) -> dict[str, str]:
    """An app root with the script in it, and the environment that names it."""
    source = CORPUS / "scripts" / f"{SCRIPT_OF.get(name, name)}.py.txt"
    file = "main.py" if name == "main" else "score.py"
    files = {file: source.read_text()} | EXTRA_FILES.get(name, {})
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    named = {} if name == "main" else {"AZUREML_ENTRY_SCRIPT": "score.py"}
    return {
        "AML_APP_ROOT": str(folder),
        "AZUREML_MODEL_DIR": str(folder / "models" / "m" / "1"),
        "HTTP_X_MS_SERVER_VERSION": "peer/1",
        **named,
        **VARIABLES.get(name, {}),
    }


def lay_out_all(folder: Path) -> dict[str, dict[str, str]]:
    return {name: lay_out(folder / name, name) for name in REQUESTS}


def clean_environment() -> dict[str, str]:
    hidden = ("AML_", "AZUREML_", "SERVICE_", "COV_", "PYTEST_")
    return {k: v for k, v in os.environ.items() if not k.startswith(hidden)}


def send(port: int, spec: Spec) -> Answer:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as client:
        client.putrequest(spec["method"], spec["target"], skip_host=True, skip_accept_encoding=True)
        for name, value in spec["headers"]:
            client.putheader(name, value)
        client.endheaders(spec["body"].encode("latin-1"))
        response = client.getresponse()
        return Answer(response.status, response.read().decode("latin-1"), response.getheaders())


def peer_answers(environments: dict[str, dict[str, str]], log: Path) -> dict[str, list[Answer]]:
    command = [str(python_with("azureml-peer", *PEER)), str(CORPUS / "peer_host.py")]
    with (
        log.open("w") as stderr,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=clean_environment(),
        ) as host,
    ):
        assert host.stdin is not None
        assert host.stdout is not None
        host.stdin.write(json.dumps(environments) + "\n")
        host.stdin.flush()
        line = host.stdout.readline()
        assert line, log.read_text()[-3000:]
        ports: dict[str, int] = json.loads(line)
        try:
            return {
                name: [send(ports[name], spec) for spec in requests]
                for name, requests in REQUESTS.items()
            }
        except OSError as error:
            error.add_note(log.read_text()[-3000:])
            raise


def own_answers(environments: dict[str, dict[str, str]], log: Path) -> dict[str, list[Answer]]:
    work = {
        name: {"environment": environments[name], "requests": requests}
        for name, requests in REQUESTS.items()
    }
    with log.open("w") as stderr:
        done = subprocess.run(
            [sys.executable, str(CORPUS / "own_host.py")],
            input=json.dumps(work),
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            check=False,
            env=clean_environment(),
            timeout=120,
        )
    assert done.returncode == 0, log.read_text()[-3000:]
    results = json.loads(done.stdout)
    assert all(isinstance(answers, list) for answers in results.values()), results
    return {
        name: [Answer(s, b, [(n, v) for n, v in h]) for s, b, h in answers]
        for name, answers in results.items()
    }


def comparable(answer: Answer, spec: Spec) -> dict[str, Any]:
    headers = sorted(
        (name.lower(), normal(name.lower(), value))
        for name, value in answer.headers
        if name.lower() not in FRAMING
    )
    body: Any = "" if spec["method"] == "HEAD" else answer.body
    if spec["target"].startswith("/swagger.json") and answer.status == 200 and body:
        body = json.loads(body)
    return {"status": answer.status, "headers": headers, "body": body}


def difference(expected: dict[str, Any], found: dict[str, Any]) -> str:
    """What only one of the two answers has."""
    lines = [f"  {key}: {expected[key]!r} -> {found[key]!r}" for key in ("status", "body")]
    lines += [
        f"  lacks {header}" for header in expected["headers"] if header not in found["headers"]
    ]
    lines += [
        f"  adds {header}" for header in found["headers"] if header not in expected["headers"]
    ]
    return "\n".join(lines)


def normal(name: str, value: str) -> str:
    if UUID.match(value):
        return "<uuid>"
    if name == "x-ms-run-fn-exec-ms" and MILLISECONDS.match(value):
        return "<milliseconds>"
    if name == "allow":  # Werkzeug has it in the order of a set.
        return ", ".join(sorted(value.split(", ")))
    if name == "set-cookie":
        return re.sub(r"Expires=[^;]+", "Expires=<date>", value)
    return value


@pytest.fixture(scope="module")
def answers(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[dict[str, list[Answer]], dict[str, list[Answer]]]:
    folder = tmp_path_factory.mktemp("azureml-parity")
    peers = peer_answers(lay_out_all(folder / "peer"), folder / "peer.log")
    return peers, own_answers(lay_out_all(folder / "own"), folder / "own.log")


@pytest.mark.parametrize("name", sorted(REQUESTS))
def test_strict_answers_are_azures_own(
    name: str, answers: tuple[dict[str, list[Answer]], dict[str, list[Answer]]]
) -> None:
    peers, ours = answers
    differences = []
    for spec, peer, own in zip(REQUESTS[name], peers[name], ours[name], strict=True):
        expected, found = comparable(peer, spec), comparable(own, spec)
        if expected != found:
            differences.append(f"{spec}\n{difference(expected, found)}")
    assert not differences, "\n\n".join(differences)[:6000]


def test_the_corpus_has_answers_of_every_kind(
    answers: tuple[dict[str, list[Answer]], dict[str, list[Answer]]],
) -> None:
    """Guards against a corpus in which everything fails alike."""
    peers, _ = answers
    statuses = {answer.status for all_of_one in peers.values() for answer in all_of_one}
    assert statuses >= {200, 201, 204, 302, 400, 404, 405, 413, 415, 418, 431, 500, 503}
    for name, all_of_one in peers.items():
        if name not in {"raises", "coroutine"}:
            assert any(200 <= answer.status < 300 for answer in all_of_one), name
