"""A way from a thread into an ASGI application of the same process, as a transport for httpx: no socket, no TLS."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping
from concurrent.futures import CancelledError
from typing import Any
from urllib.parse import unquote

import httpx
from starlette.types import ASGIApp

__all__ = ["Bridge"]


class Bridge(httpx.BaseTransport):
    """Sends requests to `app`, which runs in `loop`; to be used from other threads than the loop's."""

    def __init__(self, app: ASGIApp, loop: asyncio.AbstractEventLoop) -> None:
        self._app = app
        self._loop = loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The application's answer, whole."""
        if self._loop.is_closed():
            raise RuntimeError("the server has stopped")
        waiting = asyncio.run_coroutine_threadsafe(_answer(self._app, _scope(request), request.read()), self._loop)
        try:
            status, headers, body = waiting.result(request.extensions.get("timeout", {}).get("read"))
        except (TimeoutError, CancelledError) as cause:
            waiting.cancel()
            raise httpx.ReadTimeout("the server did not answer itself in time", request=request) from cause
        return httpx.Response(status, headers=headers, content=body, request=request)


async def _answer(
    app: ASGIApp, scope: MutableMapping[str, object], body: bytes
) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    start: Mapping[str, Any] = {}
    parts: list[bytes] = []
    done = asyncio.Event()
    was_read = False

    async def receive() -> Mapping[str, object]:
        nonlocal was_read
        if was_read:
            await done.wait()
            return {"type": "http.disconnect"}
        was_read = True
        return {"type": "http.request", "body": body}

    async def send(message: Mapping[str, Any]) -> None:
        nonlocal start
        if message["type"] == "http.response.start":
            start = message
        elif message["type"] == "http.response.body":
            parts.append(message.get("body", b""))
            if not message.get("more_body"):
                done.set()

    await app(scope, receive, send)  # type: ignore[arg-type]  # Mapping will do for the messages
    return start["status"], list(start["headers"]), b"".join(parts)


def _scope(request: httpx.Request) -> dict[str, Any]:
    path, _, query = (request.extensions.get("target") or request.url.raw_path).partition(b"?")
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": request.url.scheme,
        "path": unquote(path.decode("ascii")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "client": None,
        "server": (request.url.host, request.url.port),
        "extensions": {},
    }
