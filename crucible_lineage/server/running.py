"""A running embedded Crucible: its application, in a thread of this process, in the foreground, or shared by processes.

`python -m crucible_lineage.server.running FOLDER PORT` serves a folder until nobody uses it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from filelock import FileLock, Timeout
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from crucible_lineage.server import datasets, files, projects, uploads
from crucible_lineage.server.call import App, Service
from crucible_lineage.server.database import (
    PREFIX,
    open_database,
    open_folder,
    register_key,
    setting,
)
from crucible_lineage.server.http import ROUTES
from crucible_lineage.server.shared import LEASE_PATH, identity_of, lock_of
from crucible_lineage.server.storage import ContentStore, Links
from crucible_lineage.server.worker import Worker, has_ingestions

_ = (datasets, files, projects, uploads)  # whose routes are in the table once they are imported
LOCAL_USER_ID = 1
HOST = "127.0.0.1"
START_TIMEOUT_S = 30.0
CLOSE_TIMEOUT_S = 5


class RunningServer(contextlib.AbstractContextManager["RunningServer"]):
    """A server in a thread, with its address and a key for it. Close it, or use it as a context manager."""

    revive: Callable[[], bool] | None = None  # None: it lives as long as this process

    def __init__(self, data_dir: Path | str, port: int, api_key: str | None) -> None:
        service, self._worker, self.api_key = open_service(data_dir, api_key)
        self._server = Serving(App(service, ROUTES), HOST, port)
        self._thread = threading.Thread(target=self._server.run_quietly, name="crucible-server", daemon=True)
        self._thread.start()
        self._server.ready.wait(START_TIMEOUT_S)
        if not self._server.started:
            self.close()
            why = self._server.error or "no answer"
            raise RuntimeError(f"The embedded Crucible could not listen on {HOST}:{port}: {why}")
        self.url = _url(self._server, HOST, secure=False)
        atexit.register(self.close)

    def close(self) -> None:
        """Stop answering requests and close all files; closing twice is harmless."""
        self._server.should_exit = True
        self._thread.join(START_TIMEOUT_S)
        self._worker.close()
        atexit.unregister(self.close)

    def __exit__(self, *_: object) -> None:
        self.close()


def start_server(data_dir: Path | str, *, port: int = 0, api_key: str | None = None) -> RunningServer:
    """Serve `data_dir` in a thread of this process, for this machine only; returns once requests are answered.

    Several servers, in one or several processes, may share a data folder. `port` 0 picks a free one. `api_key` is
    registered as a key of the local user; without it, the data folder's own key is used.
    """
    return RunningServer(data_dir, port, api_key)


def serve(
    data_dir: Path | str,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    api_key: str | None = None,
    certfile: Path | str | None = None,
    keyfile: Path | str | None = None,
    around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
    on_ready: Callable[[str], None],
) -> None:
    """Serve until Ctrl-C or SIGTERM; calls `on_ready` with the address once requests are answered.

    `around` may wrap the API in another application, which then answers the requests that the API does not.
    """
    service, worker, _ = open_service(data_dir, api_key)
    files = {"ssl_certfile": certfile, "ssl_keyfile": keyfile and str(keyfile)}
    server = Serving(around(App(service, ROUTES)), host, port, **files)
    server.on_ready = lambda: on_ready(_url(server, host, secure=certfile is not None))
    try:
        with contextlib.suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has stopped
            server.run_quietly()
    finally:
        worker.close()
    if server.error is not None:
        raise RuntimeError(f"The embedded Crucible could not listen on {host}:{port}: {server.error}")


_OPTIONS: dict[str, Any] = {
    "loop": "asyncio", "http": "httptools", "ws": "none", "lifespan": "off", "log_config": None,
    "log_level": "critical", "access_log": False, "server_header": False, "date_header": False,
    "timeout_keep_alive": 75,  # with uvicorn's 5 s, pooled connections fail when they are reused
    "timeout_graceful_shutdown": CLOSE_TIMEOUT_S,
}  # fmt: skip


class Serving(uvicorn.Server):
    """uvicorn that tells when it is ready, and why it did not start."""

    def __init__(self, app: ASGIApp, host: str, port: int, **options: Any) -> None:
        super().__init__(uvicorn.Config(app, host=host, port=port, **{**_OPTIONS, **options}))
        self.ready = threading.Event()
        self.on_ready: Callable[[], None] = lambda: None
        self.error: str | None = None

    def run_quietly(self) -> None:
        try:
            self.run()
        except SystemExit:
            self.error = "the address is in use or not one of this machine"
        except OSError as error:  # the certificate is missing or invalid
            self.error = str(error)
        finally:
            self.ready.set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()
        self.on_ready()

    @property
    def port(self) -> int:
        return int(self.servers[0].sockets[0].getsockname()[1])


def open_service(data_dir: Path | str, api_key: str | None) -> tuple[Service, Worker, str]:
    """Open a data folder. Returns its service, the worker that ingests its files, and a key of the local user."""
    folder = open_folder(data_dir)
    with FileLock(folder.lock):
        database = open_database(folder.database)
    key = folder.local_key.read_text(encoding="ascii").strip()
    with database.write() as db:
        for accepted_key in {key, api_key or key}:
            register_key(db, accepted_key, LOCAL_USER_ID)
        secret = str(setting(db, "link_secret"))
    storage = ContentStore(folder)
    worker = Worker(database, storage)
    return Service(database, storage, Links(secret), worker.wake), worker, api_key or key


def _url(server: Serving, host: str, *, secure: bool) -> str:
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"{'https' if secure else 'http'}://{shown}:{server.port}{PREFIX}"


LINGER_S = 5.0  # chosen: the next command of a person or script still finds it
CHECK_EVERY_S = 0.5


class _Shared(Serving):
    """A server that announces its address, and stops when it has had no client for a while."""

    def __init__(self, service: Service, port: int) -> None:
        self.folder, self.database = service.storage.folder, service.database
        answers, identity = App(service, ROUTES), JSONResponse(identity_of(self.folder))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await (identity if scope["path"] == LEASE_PATH else answers)(scope, receive, send)

        super().__init__(app, HOST, port, timeout_keep_alive=1 << 30)
        self.on_ready = self._announce
        self._watching: asyncio.Task[None] | None = None

    def _announce(self) -> None:
        draft = self.folder.notice.with_suffix(".new")
        draft.write_text(json.dumps({"pid": os.getpid(), "port": self.port}), encoding="ascii")
        draft.replace(self.folder.notice)
        _report({"ready": self.port})
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        alone_since = time.monotonic()
        while not self.should_exit:
            await asyncio.sleep(CHECK_EVERY_S)
            if not self._is_announced():  # the folder was removed or has another server
                self.should_exit = True
            elif self.server_state.connections or has_ingestions(self.database):
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since >= LINGER_S:
                self._stop_if_alone()

    def _stop_if_alone(self) -> None:
        """Stop, unless a client is connecting."""
        with suppress(Timeout), lock_of(self.folder).acquire(timeout=0):
            if not self.server_state.connections:
                self.folder.notice.unlink(missing_ok=True)
                for server in self.servers:
                    server.close()
                self.should_exit = True

    def _is_announced(self) -> bool:
        try:
            notice = json.loads(self.folder.notice.read_text(encoding="ascii"))
        except (OSError, ValueError):
            return False
        return bool(notice.get("pid") == os.getpid())


def main(root: Path, port: int) -> None:
    """Serve the folder until nobody uses it, on this port if that is free, else on another.

    Raises SystemExit if the folder cannot be served.
    """
    try:
        service, worker, _ = open_service(root, None)
    except (OSError, RuntimeError) as error:
        _report({"text": str(error)})
        raise SystemExit(1) from error
    try:
        for chosen in (port, 0):
            server = _Shared(service, chosen)
            server.run_quietly()
            if server.error is None:
                return
        _report({"text": f"the embedded Crucible could not listen on this machine: {server.error}"})
    finally:
        worker.close()


def _report(message: dict[str, object]) -> None:
    """Report the outcome of the start to the parent process, once, and close the pipe."""
    print(f"\n{json.dumps(message)}", flush=True)  # on a line of its own, whatever a library has printed before
    sys.stdout.close()


if __name__ == "__main__":
    os.umask(0o077)  # files are for their owner only
    main(Path(sys.argv[1]), int(sys.argv[2]))
