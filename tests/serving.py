"""An embedded Crucible in a thread of the tests' process, where its calls can be counted, delayed and broken."""

from __future__ import annotations

import asyncio
import atexit
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from weakref import WeakSet

import uvicorn.server

from crucible_lineage.client import CrucibleClient
from crucible_lineage.server.running import Serving
from crucible_lineage.server.shared import SharedServer
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings

START_TIMEOUT_S = 30.0

# Uvicorn looks ten times a second whether it is to end, and then waits as long again: for hundreds of tests, minutes.
vars(uvicorn.server)["asyncio"] = SimpleNamespace(**{**vars(asyncio), "sleep": lambda s: asyncio.sleep(s / 5)})


class RunningServer(AbstractContextManager["RunningServer"]):
    """A server in a thread, with its address and a key for it. Close it, or use it as a context manager."""

    def __init__(self, data_dir: Path | str, port: int, api_key: str | None) -> None:
        self._server, ready = Serving(data_dir, port=port, api_key=api_key), threading.Event()
        self._server.on_ready = ready.set

        def run() -> None:
            self._server.run_quietly()
            ready.set()

        self._thread = threading.Thread(target=run, name="crucible-server", daemon=True)
        self._thread.start()
        ready.wait(START_TIMEOUT_S)
        if not self._server.started:
            self.close()
            raise RuntimeError(self._server.error or "the server does not answer")
        self.url, self.api_key = self._server.url, self._server.api_key
        atexit.register(self.close)

    def revive(self) -> bool:
        """Return that it lives no longer than its thread."""
        return False

    def close(self) -> None:
        """Stop answering requests and close all files; closing twice is harmless."""
        self._server.should_exit = True
        self._thread.join(START_TIMEOUT_S)
        atexit.unregister(self.close)

    def __exit__(self, *_: object) -> None:
        self.close()


def start_server(data_dir: Path | str, *, port: int = 0, api_key: str | None = None) -> RunningServer:
    """Serve `data_dir`; returns once requests are answered. Several servers may share a data folder."""
    return RunningServer(data_dir, port, api_key)


def serve_sessions_here() -> None:
    """Let sessions that tests open by `Session(Settings(folder))` have a server in this process, unless one runs.

    It is a service to them: each part of a dataset is a call.
    """
    of_product: Any = Session._start_embedded
    connect = Session._connect
    served = WeakSet[Session]()

    def start(session: Session) -> Callable[[], SharedServer | RunningServer]:
        folder = session.settings.data / "crucible"
        if session.settings.source != Settings.source or (folder / "serving.json").exists():
            return of_product(session)  # type: ignore[no-any-return]
        served.add(session)
        return lambda: start_server(folder)

    def of_service(client: CrucibleClient) -> CrucibleClient:
        another = client.another
        client._connection.is_embedded = False
        client.another = lambda retry: of_service(another(retry))  # type: ignore[method-assign]
        return client

    def as_of_a_service(session: Session) -> CrucibleClient:
        client = connect(session)
        return of_service(client) if session in served else client

    Session._start_embedded = start  # type: ignore[method-assign, assignment]
    Session._connect = as_of_a_service  # type: ignore[method-assign]
