"""A running embedded Crucible: its application, in the foreground, or shared by processes.

`python -m crucible_lineage.server.running FOLDER PORT` serves a folder until nobody uses it.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
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
from crucible_lineage.server.worker import Worker, next_ingestion

_ = (datasets, files, projects, uploads)  # whose routes are in the table once they are imported
LOCAL_USER_ID = 1
HOST = "127.0.0.1"
CLOSE_TIMEOUT_S = 5


_OPTIONS: dict[str, Any] = {
    "loop": "asyncio", "http": "httptools", "ws": "none", "lifespan": "off", "log_config": None,
    "log_level": "critical", "access_log": False, "server_header": False, "date_header": False,
    "timeout_keep_alive": 75,  # with uvicorn's 5 s, pooled connections fail when they are reused
    "timeout_graceful_shutdown": CLOSE_TIMEOUT_S,
}  # fmt: skip


class Serving(uvicorn.Server):
    """uvicorn with the application of a data folder, which calls `on_ready`, and keeps why it did not start.

    `around` may wrap the API in another application, which then answers the requests that the API does not.
    """

    def __init__(
        self,
        data_dir: Path | str,
        host: str = HOST,
        port: int = 0,
        api_key: str | None = None,
        around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
        **options: Any,
    ) -> None:
        self.folder = open_folder(data_dir)
        with FileLock(self.folder.lock):
            self.database = open_database(self.folder.database)
        local_key = self.folder.local_key.read_text(encoding="ascii").strip()
        self.api_key = api_key or local_key
        with self.database.write() as db:
            for accepted in {local_key, self.api_key}:
                register_key(db, accepted, LOCAL_USER_ID)
            secret = str(setting(db, "link_secret"))
        storage = ContentStore(self.folder)
        self._worker = Worker(self.database, storage)
        app = around(App(Service(self.database, storage, Links(secret), self._worker.wake), ROUTES))
        super().__init__(uvicorn.Config(app, host=host, port=port, **{**_OPTIONS, **options}))
        self.on_ready: Callable[[], None] = lambda: None
        self.error: str | None = None

    def run_quietly(self) -> None:
        """Answer requests until `should_exit`, then close the folder."""
        listen = f"The embedded Crucible could not listen on {self.config.host}:{self.config.port}"
        try:
            self.run()
        except SystemExit:
            self.error = f"{listen}: the address is in use or not one of this machine"
        except OSError as error:  # the certificate is missing or invalid
            self.error = f"{listen}: {error}"
        finally:
            self._worker.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_ready()

    @property
    def port(self) -> int:
        return int(self.servers[0].sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The address of the API."""
        host = self.config.host
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"{'https' if self.config.is_ssl else 'http'}://{shown}:{self.port}{PREFIX}"


def serve(data_dir: Path | str, *, on_ready: Callable[[str], None], **options: Any) -> None:
    """Serve with these options of `Serving` until Ctrl-C or SIGTERM; calls `on_ready` with the address once requests
    are answered. Raises RuntimeError if it cannot listen."""
    server = Serving(data_dir, **options)
    server.on_ready = lambda: on_ready(server.url)
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has stopped
        server.run_quietly()
    if server.error is not None:
        raise RuntimeError(server.error)


LINGER_S = 5.0  # chosen: the next command of a person or script still finds it
CHECK_EVERY_S = 0.5


class _Shared(Serving):
    """A server that announces its address, and stops when it has had no client for a while."""

    def __init__(self, root: Path, port: int) -> None:
        super().__init__(root, HOST, port, around=self._with_lease, timeout_keep_alive=1 << 30)
        self.on_ready = self._announce
        self._watching: asyncio.Task[None] | None = None

    def _with_lease(self, answers: ASGIApp) -> ASGIApp:
        identity = JSONResponse(identity_of(self.folder))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await (identity if scope["path"] == LEASE_PATH else answers)(scope, receive, send)

        return app

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
            elif self.server_state.connections or next_ingestion(self.database):
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
        for chosen in (port, 0):
            server = _Shared(root, chosen)
            server.run_quietly()
            if server.error is None:
                return
        raise RuntimeError(server.error)
    except (OSError, RuntimeError) as error:
        _report({"text": str(error)})
        raise SystemExit(1) from error


def _report(message: dict[str, object]) -> None:
    """Report the outcome of the start to the parent process, once, and close the pipe."""
    print(f"\n{json.dumps(message)}", flush=True)  # on a line of its own, whatever a library has printed before
    sys.stdout.close()


if __name__ == "__main__":
    os.umask(0o077)  # files are for their owner only
    main(Path(sys.argv[1]), int(sys.argv[2]))
