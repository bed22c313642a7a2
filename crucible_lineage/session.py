"""A session: one Crucible and one data folder, opened when they are first needed.

The embedded Crucible is started, and the service connected to, only when something asks for the client; a question
that the local store can answer costs neither.
"""

from __future__ import annotations

import threading
from contextlib import ExitStack
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from crucible_lineage.errors import ConflictError, InputError
from crucible_lineage.local.file_cache import FileCache, limit_from_environment
from crucible_lineage.local.store import Store
from crucible_lineage.provenance.record import agent
from crucible_lineage.registration.claim import machine_id
from crucible_lineage.server import instance_id
from crucible_lineage.settings import Settings

if TYPE_CHECKING:
    from filelock import FileLock

    from crucible_lineage.client import CrucibleClient

__all__ = ["Session"]


class Session:
    """What flows, tasks and commands work with. Threads may share it; close it, or use it as a context manager."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.cache = FileCache(settings.data / "cache", limit_from_environment())
        self._stack = ExitStack()
        self._lock = threading.RLock()
        self._client: CrucibleClient | None = None
        self._store: Store | None = None
        self._agent: dict[str, Any] | None = None
        self._machine: str | None = None
        self._projects: set[str] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """The client, the embedded server and the store are closed."""
        with self._lock:
            self._stack.close()
            self._client = self._store = None

    @property
    def client(self) -> CrucibleClient:
        """The client; the first call starts the embedded Crucible, if that is the one used."""
        with self._lock:
            if self._client is None:
                self._client = self._stack.enter_context(self._connect())
            return self._client

    @property
    def store(self) -> Store:
        """The local store, as far as it concerns this Crucible."""
        with self._lock:
            if self._store is None:
                self._store = Store(self.settings.data / "store.sqlite", self._instance())
                self._stack.callback(self._store.close)
            return self._store

    @property
    def agent(self) -> dict[str, Any]:
        """Who registers: the account of the key in use. One call a session."""
        with self._lock:
            if self._agent is None:
                account = self.client.account.whoami()
                user = account.user_info.model_dump() if account.user_info else {}
                self._agent = agent({**user, "unique_id": account.user_unique_id})
            return self._agent

    @property
    def machine(self) -> str:
        """What tells registrations from this data folder from others; those within it take turns (`turn`)."""
        with self._lock:
            if self._machine is None:
                self._machine = machine_id(self.settings.data)
            return self._machine

    def turn(self, name: str) -> FileLock:
        """A lock for what one process at a time may do; `name` is a plain file name."""
        # Only what registers pays for this import.
        from filelock import FileLock

        folder = self.settings.data / "locks"
        folder.mkdir(parents=True, exist_ok=True)
        return FileLock(folder / f"{name}.lock")

    def ensure_project(self, project: str, title: str | None = None) -> None:
        """The project is there. In the embedded Crucible it is made if need be; elsewhere InputError says it is not."""
        with self._lock:
            if project in self._projects:
                return
            if self.client.projects.find(project) is None:
                self._create_project(project, title)
            self._projects.add(project)

    def _create_project(self, project: str, title: str | None) -> None:
        if not self.settings.embedded:
            raise InputError(
                f"there is no project {project!r} at {self.settings.api_url} that this key may see; nothing was "
                "changed. Ask for the project to be made, or correct `project:`"
            )
        try:
            lead = str(self.agent["unique_id"])
            self.client.projects.create(project_id=project, organization="local", title=title, project_lead=lead)
        except ConflictError:  # another process was faster
            return

    def _connect(self) -> CrucibleClient:
        # httpx and FastAPI take a third of a second to import; a question to the local store needs neither.
        from crucible_lineage.client import CrucibleClient
        from crucible_lineage.server import start_server

        uploads = self.settings.data / "uploads"
        if self.settings.api_url is not None and self.settings.api_key is not None:
            return CrucibleClient(self.settings.api_url, self.settings.api_key, state_folder=uploads)
        server = self._stack.enter_context(start_server(self.settings.data / "crucible"))
        return CrucibleClient(server.url, server.api_key, state_folder=uploads)

    def _instance(self) -> str:
        if self.settings.api_url is not None:
            return self.settings.api_url
        folder = self.settings.data / "crucible"
        if instance_id(folder) is None:
            _ = self.client  # the first start gives the folder its identity
        return str(instance_id(folder))
