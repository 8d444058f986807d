"""The main job in one run: train, register, compile, package, deploy, score over HTTP, clean up.

`make demo` calls this. The data is the UCI digits set that ships in scikit-learn. The last line is
one JSON object; everything before it is progress.
"""

import http.client
import json
import sys
import tempfile
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

CONNECTIONS = 4
SECONDS = 3.0


class Progress:
    """One line a step: redrawn while it runs on a terminal, printed when done elsewhere."""

    def __init__(self) -> None:
        self.terminal = sys.stdout.isatty()
        self.begun = time.perf_counter()
        self.text = ""

    def step(self, text: str) -> None:
        self.text, self.begun = text, time.perf_counter()
        if self.terminal:
            print(f"  … {text}", end="", flush=True)

    def done(self, result: str) -> None:
        seconds = time.perf_counter() - self.begun
        start = "\r\033[K" if self.terminal else ""
        print(f"{start}  ✓ {self.text}: {result} ({seconds:.1f} s)", flush=True)


def train() -> tuple[Any, Any, Any, Any]:
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import train_test_split
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    x, y = load_digits(return_X_y=True)
    x_train, x_test, y_train, y_test = train_test_split(x, y, random_state=0, stratify=y)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.fit(x_train, y_train)
    return model, x_train, x_test, y_test


def ask(url: str, bodies: list[bytes], share: int, until: float) -> tuple[dict[int, object], int]:
    """Scores every row of one connection's share, then again until the time is over."""
    address = urlsplit(url)
    connection = http.client.HTTPConnection(address.netloc, timeout=30)
    answers: dict[int, object] = {}
    requests = 0
    mine = range(share, len(bodies), CONNECTIONS)
    while len(answers) < len(mine) or time.perf_counter() < until:
        for row in mine:
            connection.request("POST", "/score", bodies[row], {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = json.loads(response.read())
            if response.status != http.client.OK:
                raise SystemExit(f"The server answered {response.status}: {answer}")
            answers[row] = answer["predictions"][0]
            requests += 1
    connection.close()
    return answers, requests


def score_all(url: str, rows: Any) -> tuple[list[object], int, float]:
    """One row a request, over a few connections at once."""
    bodies = [json.dumps({"data": [row.tolist()]}).encode() for row in rows]
    begun = time.perf_counter()
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        parts = list(
            pool.map(lambda share: ask(url, bodies, share, begun + SECONDS), range(CONNECTIONS))
        )
    seconds = time.perf_counter() - begun
    answers = {row: answer for part, _ in parts for row, answer in part.items()}
    return [answers[row] for row in range(len(bodies))], sum(n for _, n in parts), seconds


def main() -> None:
    import joblib

    from serve import Workspace

    progress = Progress()
    with tempfile.TemporaryDirectory(prefix="fieldpost-demo-") as folder:
        progress.step("train a classifier on the UCI digits")
        model, x_train, x_test, y_test = train()
        path = Path(folder) / "digits.joblib"
        joblib.dump(model, path)
        in_process = float((model.predict(x_test) == y_test).mean())
        progress.done(f"accuracy {in_process:.4f} on {len(x_test)} held-out rows")

        with Workspace(Path(folder) / "workspace") as workspace:
            progress.step("register it, compile it to ONNX, compare the two")
            version = workspace.models.register(
                "digits", path, sample=x_train[:100], trust_pickle=True
            )
            progress.done(f"{version.ref}, serves {version.serves}")

            progress.step("package it with its environment")
            package = workspace.packages.build(version.ref)
            progress.done(package.digest)

            progress.step("deploy it on this machine")
            deployment = workspace.deploy("digits", package.digest)
            progress.done(deployment.url)
            try:
                progress.step("score every held-out row over HTTP")
                answers, requests, seconds = score_all(deployment.url, x_test)
                over_http = float((y_test == answers).mean())
                progress.done(f"accuracy {over_http:.4f}, {requests / seconds:.0f} requests/s")
            finally:
                progress.step("clean up")
                workspace.deployments.stop("digits")
                progress.done("nothing left behind")
    result = {
        "accuracy_http": over_http,
        "accuracy_in_process": in_process,
        "requests": requests,
        "requests_per_s": round(requests / seconds, 1),
        "package_digest": package.digest,
    }
    print(json.dumps(result))
    if over_http != in_process:
        raise SystemExit("The accuracy over HTTP differs from the one in process.")


if __name__ == "__main__":
    main()
