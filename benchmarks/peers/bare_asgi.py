"""The least that an ASGI application can be: `uvicorn benchmarks.peers.bare_asgi:app`."""

from __future__ import annotations

from typing import Any

import numpy as np
import orjson

from benchmarks.peers.model import Model

model = Model()


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        return
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            break
    answer = score(b"".join(parts))
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def score(body: bytes) -> bytes:
    label, probabilities = model(np.array(orjson.loads(body)["data"], dtype=np.float32))
    document = {"predictions": label, "probabilities": probabilities}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
