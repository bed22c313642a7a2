"""A session: one Crucible and one data folder, opened when they are first needed.

Only the first use of the client starts the embedded Crucible or connects to the service. Questions that the local
store can answer need neither.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from crucible_lineage.core.datasets import no_project
from crucible_lineage.core.folders import FileCache, limit_from_environment, machine_id
from crucible_lineage.core.journal import Journal
from crucible_lineage.core.mirror import Mirror
from crucible_lineage.core.sql import LocalDatabase
from crucible_lineage.core.store import Store
from crucible_lineage.errors import (
    TRANSIENT,
    ConflictError,
    InputError,
    StorageError,
)
from crucible_lineage.ids import PROJECT_ID_RULE, is_project_id
from crucible_lineage.machine.disk import private_folder, storage_error
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.outbox import Outbox
from crucible_lineage.server.database import DataFolder, instance_id
from crucible_lineage.settings import Settings, retries_from_environment
from crucible_lineage.statements.effects import StatementEffects
from crucible_lineage.text.masking import learn

if TYPE_CHECKING:
    from filelock import FileLock

    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.server.shared import SharedServer

Result = TypeVar("Result")
STATEMENTS_LAST_S = 10.0  # chosen: how old the statements may be that steps of a flow rely on


class Session:
    """The Crucible and the data folder in use. Threads may share it; close it, or use it as a context manager.

    With `patience_s` a call is repeated for that time, unless the environment sets another one.
    """

    def __init__(self, settings: Settings, *, patience_s: float | None = None) -> None:
        self.settings = settings
        learn([settings.api_key])
        self._patience_s = patience_s
        self.is_away = False  # whether to work without the service
        stored = None if settings.api_url else DataFolder(settings.data / "crucible").content
        self.cache = FileCache(settings.data / "cache", limit_from_environment(), stored)
        self._stack = ExitStack()
        self._lock = threading.RLock()
        self._who_lock, self._project_lock = threading.Lock(), threading.Lock()  # held during calls to the service
        self._opened: dict[str, Any] = {}
        self._agent: dict[str, object] | None = None
        self._projects: set[str] = set()
        self._refresh_at = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the client, the embedded server and the store."""
        with self._lock:
            self._stack.close()
            self._opened.clear()

    def _once(self, name: str, opening: Callable[[], Result]) -> Result:
        """Return a part of the session, which is opened when it is first needed."""
        with self._lock:
            if name not in self._opened:
                self._opened[name] = opened = opening()
                if isinstance(opened, LocalDatabase):
                    self._stack.callback(opened.close)
            known: Result = self._opened[name]
            return known

    @property
    def client(self) -> CrucibleClient:
        """The client; the first use starts the embedded Crucible, if that is in use."""
        return self._once("client", lambda: self._stack.enter_context(self._connect()))

    def connect(self, *, at_most_s: float) -> CrucibleClient:
        """Return another client, to be closed, whose calls give up after that time, or the environment's if shorter."""
        client = self.client
        from crucible_lineage.client import RetryPolicy

        configured = retries_from_environment()
        limits = {name: min(at_most_s, configured.get(name, at_most_s)) for name in ("total_s", "asked_total_s")}
        return client.another(RetryPolicy(**{**configured, **limits}))

    @contextmanager
    def offline(self) -> Iterator[None]:
        """Work from local data in this block: the service is away, and calls that need it fail at once."""
        self.is_away = True
        try:
            with self.client.repeating(0.0):
                yield
        finally:
            self.is_away = False

    def at_once(self, calls: Iterable[Callable[[], Result]]) -> list[Result]:
        """Make these calls, concurrently if the service is known to be far away."""
        client = None if self.settings.embedded else self._opened.get("client")
        return [call() for call in calls] if client is None else client.at_once(*calls)

    @property
    def store(self) -> Store:
        """The local store for this Crucible."""
        return self._once("store", lambda: Store(self.settings.data / "store.sqlite", self._instance()))

    @property
    def mirror(self) -> Mirror:
        """The mirror: what this account has read from this Crucible."""

        def opening() -> Mirror:
            reader = f"{self.store.instance}\n{self.settings.api_key or ''}"  # accounts see different datasets
            path = self.settings.data / "mirror" / f"{hashlib.sha256(reader.encode()).hexdigest()[:16]}.sqlite"
            embedded = self.settings.data / "crucible" if self.settings.embedded else None
            return Mirror(path, lambda: self.client, self.settings.describe(), embedded)

        return self._once("mirror", opening)

    @property
    def effects(self) -> StatementEffects:
        """The effects of the statements about datasets, as of now."""
        return StatementEffects(self.mirror, self._waiting, is_away=self.is_away)

    def _waiting(self, mfid: str) -> DatasetRef | None:
        outbox: Outbox | None = self._opened.get("outbox")
        return outbox.find(mfid) if outbox is not None else None

    def refresh_statements(self) -> None:
        """Sync the statements, unless that was done less than `STATEMENTS_LAST_S` ago."""
        with self._lock:
            if self.is_away or time.monotonic() < self._refresh_at:
                return
            self._refresh_at = time.monotonic() + STATEMENTS_LAST_S
        self.mirror.sync_statements()

    @property
    def journal(self) -> Journal:
        """The journal for this Crucible and this account."""
        path = self.settings.data / "journal.sqlite"
        return self._once("journal", lambda: Journal(path, self.store.instance, lambda: self.account))

    is_open_to_all = False

    @property
    def ran_here(self) -> tuple[Journal, Path]:
        """The journal that knows how runs ended, and the data folder that they ran in."""
        return self.journal, self.settings.data

    @property
    def outbox(self) -> Outbox:
        """The outbox: results made here that this Crucible does not have yet."""
        durable = not self.settings.embedded  # in a power cut the embedded one, too, loses what it received last
        return self._once("outbox", lambda: Outbox(self.settings.data, self.journal, durable=durable))

    @property
    def account(self) -> str:
        """The id of the account in use, from one call per key; empty for the embedded Crucible, which has one account.

        Raises UnreachableError if the service is away and has never answered.
        """
        if self.settings.embedded:
            return ""
        return str((self.store.mark(self._key) or self.agent)["unique_id"])

    def known(self, mfid: str) -> DatasetRef | None:
        """Return a dataset that is known to be complete at Crucible, or waits in the outbox."""
        return self.mirror.known(mfid) or self.outbox.find(mfid)

    @property
    def agent(self) -> dict[str, object]:
        """The account of the key in use, from one call per session; in an outage, from the last answer.

        Raises UnreachableError if the service is away and has never answered.
        """
        client = self.client
        with self._who_lock:
            if self._agent is not None:
                return self._agent
            from crucible_lineage.provenance.environment import agent  # needed only to register

            try:
                account = client.account.whoami()
            except TRANSIENT:
                if not (stored := self.store.mark(self._key)):
                    raise
                self._agent = agent(stored)
                return self._agent
            user = account.user_info.model_dump() if account.user_info else {}
            self._agent = agent({**user, "unique_id": account.user_unique_id})
            if not self.settings.embedded:
                self.store.set_mark(self._key, self._agent)
            return self._agent

    @property
    def _key(self) -> str:
        """The name under which the store has the account of the key in use."""
        return f"account {hashlib.sha256((self.settings.api_key or '').encode()).hexdigest()[:16]}"

    def set_agent(self, agent: dict[str, object]) -> None:
        """Set the account, which another process with this key has already looked up."""
        with self._who_lock:
            self._agent = self._agent or agent

    @property
    def machine(self) -> str:
        """The id of this data folder in registrations; processes within it take turns (`turn`)."""
        return self._once("machine", lambda: machine_id(self.settings.data))

    def turn(self, name: str) -> FileLock:
        """Return a lock for something that one process at a time may do; `name` is a plain file name."""
        # This import is slow, and needed only to register.
        from filelock import FileLock

        return FileLock(private_folder(self.settings.data / "locks") / f"{name}.lock", mode=0o600)

    def ensure_project(self, project: str, title: str | None = None) -> None:
        """Ensure that the project exists: create it in the embedded Crucible, or raise InputError."""
        client = self.client
        with self._project_lock:
            if project in self._projects:
                return
            if client.projects.find(project) is None:
                if not self.settings.embedded:
                    raise no_project(client, project, self.settings.describe())
                if not is_project_id(project):
                    raise InputError(f"no project can be called {project!r}: {PROJECT_ID_RULE}; correct `project:`")
                lead = str(self.agent["unique_id"])
                with suppress(ConflictError):  # another process was faster
                    client.projects.create(project_id=project, organization="local", title=title, project_lead=lead)
            self._projects.add(project)

    def prepare(self, project: str) -> None:
        """Ensure that the project exists and the account is known, as every run with missing results requires."""

        def import_modules() -> None:  # slow ones that are needed next
            import crucible_lineage.provenance.schema
            import crucible_lineage.registration.register  # noqa: F401

        self.client.at_once(lambda: self.ensure_project(project), lambda: self.agent, import_modules)

    def _connect(self) -> CrucibleClient:
        leased = self._start_embedded() if self.settings.embedded else None
        # httpx takes a tenth of a second to import, and questions to the local store do not need it.
        from crucible_lineage.client import CrucibleClient, RetryPolicy
        from crucible_lineage.client.client import RestartingTransport

        patience = {} if self._patience_s is None else {"total_s": self._patience_s, "attempts": math.inf}
        uploads, retry = self.settings.data / "uploads", RetryPolicy(**{**patience, **retries_from_environment()})
        url, key = self.settings.api_url, self.settings.api_key
        transport: RestartingTransport | None = None
        if leased is not None:
            try:
                server = leased()
                self._stack.callback(server.close)
            except OSError as error:
                raise storage_error(error, self.settings.data / "crucible") or error from error
            except RuntimeError as error:  # its database is damaged, or of a newer version; the message says what to do
                raise StorageError(str(error)) from error
            url, key = server.url, server.api_key
            transport = RestartingTransport(server.revive)
        return CrucibleClient(url, key, retry=retry, transport=transport, state_folder=uploads)

    def _start_embedded(self) -> Callable[[], SharedServer]:
        """Return a function that waits for the embedded Crucible, which starts now."""
        from crucible_lineage.server.shared import start_shared

        return start_shared(private_folder(self.settings.data) / "crucible")

    def _instance(self) -> str:
        if self.settings.api_url is not None:
            return self.settings.api_url
        folder = self.settings.data / "crucible"
        if instance_id(folder) is None:
            _ = self.client  # the first start gives the folder its identity
        return str(instance_id(folder))
