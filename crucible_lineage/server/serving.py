"""The process of a shared server, `python -m crucible_lineage.server.serving FOLDER PORT`, until nobody uses it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path

from filelock import Timeout
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from crucible_lineage.server.app import build_app
from crucible_lineage.server.database import Database
from crucible_lineage.server.instance import DataFolder
from crucible_lineage.server.running import Serving, close_service, open_service, server_config
from crucible_lineage.server.shared import LEASE_PATH, identity_of, lock_of, notice_of

LINGER_S = 5.0  # chosen: the next command of a person or script still finds it
CHECK_EVERY_S = 0.5


class _Leases:
    """Middleware that answers requests for a lease; the application answers all others."""

    def __init__(self, app: ASGIApp, identity: dict[str, str | None]) -> None:
        self.app = app
        self.identity = identity

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = JSONResponse(self.identity) if scope.get("path") == LEASE_PATH else self.app
        await app(scope, receive, send)


class _Shared(Serving):
    """A server that announces its address, and stops when it has had no client for a while."""

    def __init__(self, folder: DataFolder, database: Database, app: ASGIApp, port: int) -> None:
        super().__init__(server_config(app, "127.0.0.1", port, keep_alive_s=1 << 30))
        self.folder = folder
        self.database = database
        self.on_ready = self._announce
        self._watching: asyncio.Task[None] | None = None

    def _announce(self) -> None:
        notice = notice_of(self.folder)
        draft = notice.with_suffix(".new")
        draft.write_text(json.dumps({"pid": os.getpid(), "port": self.port}), encoding="ascii")
        draft.replace(notice)
        _report({"ready": self.port})
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        alone_since = time.monotonic()
        while not self.should_exit:
            await asyncio.sleep(CHECK_EVERY_S)
            if not self._is_announced():  # the folder was removed or has another server
                self.stop()
            elif self.server_state.connections or self._has_ingestions():
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since >= LINGER_S:
                self._stop_if_alone()

    def _stop_if_alone(self) -> None:
        """Stop, unless a client is connecting."""
        with suppress(Timeout), lock_of(self.folder).acquire(timeout=0):
            if not self.server_state.connections:
                notice_of(self.folder).unlink(missing_ok=True)
                for server in self.servers:
                    server.close()
                self.stop()

    def _is_announced(self) -> bool:
        try:
            notice = json.loads(notice_of(self.folder).read_text(encoding="ascii"))
        except (OSError, ValueError):
            return False
        return bool(notice.get("pid") == os.getpid())

    def _has_ingestions(self) -> bool:
        with self.database.read() as db:
            sql = "SELECT 1 FROM ingestion_request WHERE status IN ('requested', 'started') LIMIT 1"
            return db.execute(sql).fetchone() is not None


def main(root: Path, port: int) -> None:
    """Serve the folder until nobody uses it, on this port if that is free, else on another.

    Raises SystemExit if the folder cannot be served.
    """
    try:
        service, worker, _ = open_service(root, None)
    except OSError as error:
        _report({"errno": error.errno, "text": error.strerror, "filename": error.filename})
        raise SystemExit(1) from error
    except RuntimeError as error:
        _report({"text": str(error)})
        raise SystemExit(1) from error
    folder = service.storage.folder
    app = _Leases(build_app(service), identity_of(folder))
    try:
        server = _Shared(folder, service.database, app, port)
        server.run_quietly()
        if server.error is not None and port:
            server = _Shared(folder, service.database, app, 0)
            server.run_quietly()
        if server.error is not None:
            _report({"text": f"the embedded Crucible could not listen on this machine: {server.error}"})
    finally:
        close_service(service.database, worker)


def _report(message: dict[str, object]) -> None:
    """Report the outcome of the start to the parent process, once, and close the pipe."""
    print(f"\n{json.dumps(message)}", flush=True)  # on a line of its own, whatever a library has printed before
    sys.stdout.close()


if __name__ == "__main__":
    os.umask(0o077)  # files are for their owner only
    main(Path(sys.argv[1]), int(sys.argv[2]))
