"""The local target with the real worker: a scoring script, booted from a package's layers."""

from __future__ import annotations

import json
import ssl
import sys
import sysconfig
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest

import serve
from scoring import bundle
from scoring.bundle import Bundle, ScriptSpec
from scoring.errors import DeploymentFailedError, InUseError
from serve.targets.local import LocalTarget
from serve.targets.local.launch import LOG_FOLDER
from tests.support import local
from tests.support.certificates import Authority

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.support.local import Site

SCRIPT = """
import json, os, sys
def init():
    print("init of {answer} with", os.environ.get("TOKEN"), flush=True)
def run(data):
    body = json.loads(data)
    if body.get("die"):
        os._exit(7)
    return {{"answer": "{answer}", "x": body.get("x")}}
"""

BROKEN = "def init():\n    raise KeyError('no such model')\ndef run(data):\n    return 1\n"


class UnpackedTarget(LocalTarget):
    """Packages are roots that stand unpacked already; all else is the real thing."""

    def _unpack(self, package: str) -> Path:
        return self._context.cache_dir / package.partition(":")[2]


class RealSite(local.Site):
    """A workspace whose packages are scoring scripts."""

    target_type = UnpackedTarget

    def lay_out(self, root: Path, behaviour: dict[str, str]) -> None:
        source = Path(serve.__file__).parent.parent
        for folder in ("env", "runtime", "code", "model"):
            (root / folder).mkdir(parents=True)
        (root / "env/site-packages").symlink_to(sysconfig.get_path("purelib"))
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        document = {"python": python, "platform": "any"}
        (root / "env/environment.json").write_text(json.dumps(document))
        for name in ("scoring", "serve"):
            (root / "runtime" / name).symlink_to(source / name)
        (root / "code/score.py").write_text(behaviour["script"])
        described = Bundle(name="iris", runtime="script", script=ScriptSpec(entry="score.py"))
        (root / bundle.BUNDLE_FILE).write_bytes(bundle.encode(described))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    opened = RealSite(tmp_path)
    try:
        yield opened
    finally:
        opened.close()


def script(answer: str) -> dict[str, str]:
    return {"script": SCRIPT.format(answer=answer)}


class Scorer(threading.Thread):
    """Scores without a pause, on kept connections or fresh ones."""

    def __init__(self, url: str, *, keep_alive: bool) -> None:
        super().__init__()
        limits = httpx.Limits(max_keepalive_connections=1 if keep_alive else 0)
        self.client = httpx.Client(base_url=url, limits=limits, timeout=20)
        self.done = threading.Event()
        self.errors: list[str] = []
        self.answers: list[str] = []

    def run(self) -> None:
        number = 0
        with self.client:
            while not self.done.is_set():
                number += 1
                try:
                    response = self.client.post("/score", json={"x": number})
                    assert response.status_code == 200, response.text
                    assert response.json()["x"] == number
                    self.answers.append(response.json()["answer"])
                except Exception as error:  # noqa: BLE001 - any error is what is looked for
                    self.errors.append(repr(error))


def test_no_request_is_dropped_and_none_gets_anothers_answer(site: Site) -> None:
    url = site.deploy("iris", script("v1"), {"workers": "2"}).url
    scorers = [Scorer(url, keep_alive=keep) for keep in (True, False)]
    for scorer in scorers:
        scorer.start()
    try:
        for number, workers in ((2, "4"), (3, "1")):
            site.deploy("iris", script(f"v{number}"), {"workers": workers})
            answer = httpx.post(f"{url}/score", json={}).json()["answer"]
            assert answer == f"v{number}"
        with pytest.raises(DeploymentFailedError):
            site.deploy("iris", {"script": BROKEN})
    finally:
        for scorer in scorers:
            scorer.done.set()
        for scorer in scorers:
            scorer.join()
    assert [error for scorer in scorers for error in scorer.errors] == []
    assert all({"v1", "v3"} <= set(scorer.answers) for scorer in scorers)


def test_a_broken_script_fails_the_deploy_with_its_own_traceback(site: Site) -> None:
    url = site.deploy("iris", script("good"), {"env.TOKEN": "s3cret"}).url
    with pytest.raises(DeploymentFailedError) as caught:
        site.deploy("iris", {"script": BROKEN})
    assert "raise KeyError('no such model')" in caught.value.detail
    assert "score.py" in caught.value.detail
    assert "raise KeyError" in site.get("iris").revisions[1].detail
    assert httpx.post(f"{url}/score", json={"x": 1}).json() == {"answer": "good", "x": 1}
    logs = site.run_dir / "iris" / LOG_FOLDER
    assert any("init of good with s3cret" in file.read_text() for file in logs.iterdir())


def test_a_script_that_kills_its_worker_costs_one_request(site: Site) -> None:
    url = site.deploy("iris", script("alive")).url
    with pytest.raises(httpx.HTTPError):
        httpx.post(f"{url}/score", json={"die": True})
    assert httpx.post(f"{url}/score", json={"x": 5}, timeout=20).json()["x"] == 5
    status = site.status("iris")
    assert status.restarts == 1
    assert status.last_error is not None
    assert "status 7" in status.last_error["message"]


def test_a_killed_supervisor_takes_the_real_worker_along(site: Site) -> None:
    url = site.deploy("iris", script("one")).url
    local.kill(site.saved("iris").supervisor.pid)
    assert site.start("iris").url == url
    assert httpx.post(f"{url}/score", json={"x": 2}).json()["x"] == 2


def test_a_deployment_with_tls_has_an_https_url(site: Site, tmp_path: Path) -> None:
    authority = Authority()
    cert, key = authority.issue(tmp_path, "server")
    settings = {"tls_cert": str(cert), "tls_key": str(key), "workers": "2"}
    result = site.deploy("iris", script("secret"), settings)
    assert result.url.startswith("https://127.0.0.1:")
    assert (site.status("iris").url, site.get("iris").address) == (result.url, result.url)
    context = ssl.create_default_context(cafile=str(authority.write(tmp_path / "ca.pem")))
    answer = httpx.post(f"{result.url}/score", json={"x": 1}, verify=context)
    assert answer.json() == {"answer": "secret", "x": 1}
    site.stop("iris")
    assert site.start("iris").url == result.url

    plain = site.deploy("iris", script("open")).url
    assert plain == result.url.replace("https://", "http://")
    assert httpx.post(f"{plain}/score", json={"x": 1}).json()["answer"] == "open"


def test_jobs_belong_to_the_deployment(site: Site) -> None:
    one, other = (site.deploy(name, script(name)).url for name in ("one", "other"))
    place = httpx.post(f"{one}/score", json={"x": 1}, headers={"prefer": "respond-async"}).headers[
        "location"
    ]

    def status(url: str) -> str:
        return str(httpx.get(f"{url}{place}").json().get("status"))

    local.eventually(lambda: status(one) == "succeeded")
    assert httpx.get(f"{other}{place}").status_code == 404
    assert site.deploy("one", script("two")).url == one
    assert status(one) == "succeeded"
    site.stop("one")
    site.start("one")
    assert httpx.get(f"{one}{place}/result").json() == {"answer": "one", "x": 1}
    with pytest.raises(InUseError):
        site.target.remove(site.get("one"))
    site.stop("one")
    assert (site.run_dir / "one/jobs").is_dir()
    site.target.remove(site.get("one"))
    assert not (site.run_dir / "one").exists()


def test_the_access_log_stays_json_in_the_log(site: Site) -> None:
    settings = {"access_log": "-", "server.server_name": "triton"}
    url = site.deploy("iris", script("v1"), settings).url
    httpx.post(f"{url}/score", json={"x": 1})

    def lines() -> list[dict[str, object]]:
        return [json.loads(x) for x in site.log("iris").splitlines() if x.startswith("{")]

    local.eventually(lines)
    (line,) = lines()
    assert (line["path"], line["status"], line["source"]) == ("/score", 200, "r1/w0")
