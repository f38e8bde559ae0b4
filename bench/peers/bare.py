"""A peer: an ASGI application that sends answers that were recorded, on uvicorn; nothing is done for a request."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import uvicorn

ANSWERS = {
    f"/{name}": (status, [(key.encode(), value.encode()) for key, value in head], base64.b64decode(body))
    for name, (status, head, body) in json.loads(Path(sys.argv[2]).read_text()).items()
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    status, head, body = ANSWERS[scope["path"]]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


uvicorn.run(
    app,
    host="127.0.0.1",
    port=int(sys.argv[1]),
    loop="uvloop",
    http="httptools",
    lifespan="off",
    access_log=False,
    log_level="error",
    server_header=False,
)
