"""A session: one Crucible and one data folder, opened when they are first needed.

The embedded Crucible is started, and the service connected to, only when something asks for the client; a question
that the local store can answer costs neither.
"""

from __future__ import annotations

import hashlib
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from crucible_lineage.core.datasets import no_project
from crucible_lineage.core.journal import Journal
from crucible_lineage.core.mirror import Mirror
from crucible_lineage.core.statement_effects import StatementEffects
from crucible_lineage.core.store import Store
from crucible_lineage.disk import private_folder, storage_error
from crucible_lineage.errors import (
    TRANSIENT,
    ConflictError,
    CrucibleError,
    InputError,
    NotFoundError,
    RefusedError,
    StorageError,
)
from crucible_lineage.ids import PROJECT_ID_RULE, is_project_id, new_mfid
from crucible_lineage.local.attempts import Attempts
from crucible_lineage.local.file_cache import FileCache, limit_from_environment
from crucible_lineage.local.machine import machine_id
from crucible_lineage.marks import KEY
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.outbox import Outbox
from crucible_lineage.server import instance_id
from crucible_lineage.service import FREE_METADATA
from crucible_lineage.settings import Settings, retries_from_environment

if TYPE_CHECKING:
    from filelock import FileLock

    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.server import RunningServer
    from crucible_lineage.server.shared import SharedServer

Found = TypeVar("Found")
Remake = Callable[["Session", str, str], Path]
"""A file of a dataset, by its SHA-256, made again. InputError if that cannot be, or gives other bytes."""
HEARD_FOR_S = 10.0  # chosen: how old what steps of a flow know of statements may be


class Session:
    """The Crucible and the data folder in use. Threads may share it; close it, or use it as a context manager.

    With `patience_s` a call is repeated for that time, unless the environment says for how long.
    """

    def __init__(self, settings: Settings, *, patience_s: float | None = None) -> None:
        self.settings = settings
        self._patience_s = patience_s
        self.is_away = False  # what is not known here is not asked for
        self.remake: Remake | None = None  # makes a file again that Crucible has lost; whoever opens it may give one
        self.cache = FileCache(settings.data / "cache", limit_from_environment())
        self._stack = ExitStack()
        self._lock = threading.RLock()
        self._who_lock, self._project_lock = threading.Lock(), threading.Lock()  # held while the service is asked
        self._client: CrucibleClient | None = None
        self._store: Store | None = None
        self._agent: dict[str, Any] | None = None
        self._is_tried = False  # whether the service takes our metadata
        self._machine: str | None = None
        self._projects: set[str] = set()
        self._journal: Journal | None = None
        self._outbox: Outbox | None = None
        self._mirror: Mirror | None = None
        self._attempts: Attempts | None = None
        self._hear_again = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """The client, the embedded server and the store are closed."""
        with self._lock:
            self._stack.close()
            self._client = self._store = self._journal = self._outbox = self._mirror = self._attempts = None

    @property
    def client(self) -> CrucibleClient:
        """The client; the first call starts the embedded Crucible, if that is the one used."""
        with self._lock:
            if self._client is None:
                self._client = self._stack.enter_context(self._connect())
            return self._client

    def connect(self, *, at_most_s: float) -> CrucibleClient:
        """One more client, with connections of its own, that gives up a call after that time, or sooner. Close it.

        Sooner where the environment says that calls are repeated for less.
        """
        client = self.client
        from crucible_lineage.client import RetryPolicy

        given = retries_from_environment()
        limits = {name: min(at_most_s, given.get(name, at_most_s)) for name in ("total_s", "asked_total_s")}
        return client.another(RetryPolicy(**{**given, **limits}))

    @contextmanager
    def offline(self) -> Iterator[None]:
        """Go by what is known on this machine in this block: the service is away, and what needs it fails at once."""
        self.is_away = True
        try:
            with self.client.repeating(0.0):
                yield
        finally:
            self.is_away = False

    def at_once(self, calls: Iterable[Callable[[], Found]]) -> list[Found]:
        """Make these calls, side by side if the service is far away, as far as is known."""
        client = None if self.settings.embedded else self._client
        return [call() for call in calls] if client is None else client.at_once(*calls)

    @property
    def store(self) -> Store:
        """The local store, as far as it concerns this Crucible."""
        with self._lock:
            if self._store is None:
                self._store = Store(self.settings.data / "store.sqlite", self._instance())
                self._stack.callback(self._store.close)
            return self._store

    @property
    def mirror(self) -> Mirror:
        """Return what this account has read of this Crucible."""
        with self._lock:
            if self._mirror is None:
                who = f"{self.store.instance}\n{self.settings.api_key or ''}"  # what one may see, another one may not
                name = hashlib.sha256(who.encode()).hexdigest()[:16]
                path = self.settings.data / "mirror" / f"{name}.sqlite"
                embedded = self.settings.data / "crucible" if self.settings.embedded else None
                self._mirror = Mirror(path, lambda: self.client, self.settings.describe(), embedded)
                self._stack.callback(self._mirror.close)
            return self._mirror

    @property
    def attempts(self) -> Attempts:
        """Return the folders in which steps are executed."""
        with self._lock:
            if self._attempts is None:
                self._attempts = Attempts(self.settings.data / "work")
                self._stack.callback(self._attempts.close)
            return self._attempts

    @property
    def stated(self) -> StatementEffects:
        """Return the statements about datasets, as of now."""
        return StatementEffects(self.mirror, self._waiting, is_away=self.is_away)

    def _waiting(self, mfid: str) -> DatasetRef | None:
        return self._outbox.find(mfid) if self._outbox is not None else None

    def refresh_statements(self) -> None:
        """Bring up to date what is stated, unless that was done some seconds ago."""
        with self._lock:
            if self.is_away or time.monotonic() < self._hear_again:
                return
            self._hear_again = time.monotonic() + HEARD_FOR_S
        self.mirror.sync_statements()

    @property
    def journal(self) -> Journal:
        """The journal, as far as it concerns this Crucible and this account."""
        with self._lock:
            if self._journal is None:
                path = self.settings.data / "journal.sqlite"
                self._journal = Journal(path, self.store.instance, lambda: self.account)
                self._stack.callback(self._journal.close)
            return self._journal

    @property
    def outbox(self) -> Outbox:
        """Return the outbox: what is made here and not yet at this Crucible."""
        with self._lock:
            if self._outbox is None:
                # A power cut takes from the embedded Crucible what it took last, too.
                self._outbox = Outbox(self.settings.data, self.journal, durable=not self.settings.embedded)
            return self._outbox

    @property
    def account(self) -> str:
        """The id of the account in use. The service is asked once for each key; the embedded Crucible has one account.

        Raises UnreachableError if the service is away and was never asked.
        """
        if self.settings.embedded:
            return ""
        return str((self.journal.agent_of(self._key) or self.agent)["unique_id"])

    def known(self, mfid: str) -> DatasetRef | None:
        """The dataset, if it is known to be complete at Crucible, or waits here to be."""
        return self.mirror.known(mfid) or self.outbox.find(mfid)

    @property
    def defers_delivery(self) -> bool:
        """True if what is made may be used before it is delivered: the service is sure to keep its id."""
        return self.mirror.service.accepts_client_ids

    @property
    def agent(self) -> dict[str, Any]:
        """Return who registers: the account of the key in use. One call a session; in an outage, as answered last.

        Raises UnreachableError if the service is away and was never asked.
        """
        client = self.client
        with self._who_lock:
            if self._agent is None:
                self._agent = self._ask_who(client)
            return self._agent

    def _ask_who(self, client: CrucibleClient) -> dict[str, Any]:
        from crucible_lineage.provenance.environment import agent  # only what registers is asked who it is

        try:
            account = client.account.whoami()
        except TRANSIENT:
            if (known := self.journal.agent_of(self._key)) is not None:
                return agent(known)
            raise
        user = account.user_info.model_dump() if account.user_info else {}
        found = agent({**user, "unique_id": account.user_unique_id})
        if not self.settings.embedded:
            self.journal.note_agent(self._key, found)
        return found

    @property
    def _key(self) -> str:
        """Return a digest of the key in use."""
        return hashlib.sha256((self.settings.api_key or "").encode()).hexdigest()[:16]

    def set_agent(self, agent: dict[str, Any]) -> None:
        """Another process with this key has asked already who registers."""
        with self._who_lock:
            self._agent = self._agent or agent

    @property
    def machine(self) -> str:
        """Return what tells registrations from this data folder from others; those within it take turns (`turn`)."""
        with self._lock:
            if self._machine is None:
                self._machine = machine_id(self.settings.data)
            return self._machine

    def turn(self, name: str) -> FileLock:
        """A lock for what one process at a time may do; `name` is a plain file name."""
        # Only what registers pays for this import.
        from filelock import FileLock

        return FileLock(private_folder(self.settings.data / "locks") / f"{name}.lock", mode=0o600)

    def ensure_project(self, project: str, title: str | None = None) -> None:
        """Ensure that results can be registered in the project. In the embedded Crucible it is made if need be.

        Elsewhere raises InputError if it is not there, and RefusedError if the service takes no provenance records.
        """
        self.require_project(project, title)
        self.require_usable()

    def require_project(self, project: str, title: str | None = None) -> None:
        """Ensure that the project is there: the embedded Crucible makes it, elsewhere it is an InputError."""
        client = self.client
        with self._project_lock:
            if project in self._projects:
                return
            if client.projects.find(project) is None:
                self._create_project(project, title)
            self._projects.add(project)

    def require_usable(self) -> None:
        """RefusedError, before anything is made, if the service is known or found to take no provenance records."""
        self._try_metadata()
        self.client.service.require_usable()

    def prepare(self, project: str, title: str | None = None) -> None:
        """The project is there, and it is known who registers: what every run asks that has something to make."""
        self.client.at_once(lambda: self.ensure_project(project, title), lambda: self.agent, _import_what_registers)

    def _try_metadata(self) -> None:
        """Find out, before anything is made, whether an unknown service refuses our keys whatever they are for."""
        if self._is_tried or self.client.service.holds(FREE_METADATA) is not None:
            return
        self._is_tried = True
        merge, nothing = self.client.metadata.merge, new_mfid()
        try:
            merge(nothing, {KEY: {"status": "incomplete"}})
        except NotFoundError:
            return
        except RefusedError as refusal:
            try:
                merge(nothing, {})
            except NotFoundError:  # so it was about the key, and not about the dataset that is not there
                self.client.service.note(FREE_METADATA, False, str(refusal))
            except CrucibleError:
                return
        except CrucibleError:
            return

    def _create_project(self, project: str, title: str | None) -> None:
        if not self.settings.embedded:
            raise no_project(self.client, project, self.settings.describe())
        if not is_project_id(project):
            raise InputError(f"no project can be called {project!r}: {PROJECT_ID_RULE}; correct `project:`")
        try:
            lead = str(self.agent["unique_id"])
            self.client.projects.create(project_id=project, organization="local", title=title, project_lead=lead)
        except ConflictError:  # another process was faster
            return

    def _connect(self) -> CrucibleClient:
        embedded = self._embedded() if self.settings.api_url is None else None
        # httpx takes a tenth of a second to import, which a question to the local store does not need.
        from crucible_lineage.client import CrucibleClient, RetryPolicy
        from crucible_lineage.client.http.loopback import RestartingTransport

        patient = {} if self._patience_s is None else {"total_s": self._patience_s, "attempts": math.inf}
        uploads, retry = self.settings.data / "uploads", RetryPolicy(**{**patient, **retries_from_environment()})
        if self.settings.api_url is not None and self.settings.api_key is not None:
            return CrucibleClient(
                self.settings.api_url,
                self.settings.api_key,
                retry=retry,
                state_folder=uploads,
                service=self.mirror.service,
            )
        assert embedded is not None
        try:
            server: SharedServer | RunningServer = embedded()
            self._stack.callback(server.close)
        except OSError as error:
            raise storage_error(error, self.settings.data / "crucible") or error from error
        except RuntimeError as error:  # its database is damaged, or of a newer version; it says what to do
            raise StorageError(str(error)) from error
        wire = RestartingTransport(server.revive) if server.revive else None
        return CrucibleClient(
            server.url, server.api_key, retry=retry, transport=wire, state_folder=uploads, service=self.mirror.service
        )

    def _embedded(self) -> Callable[[], SharedServer | RunningServer]:
        """Gives the embedded Crucible, which comes up in its own process meanwhile, if it is to have one."""
        from crucible_lineage.server.shared import running_shared, start_shared

        folder = private_folder(self.settings.data) / "crucible"
        if self.settings.own_process:
            return start_shared(folder)
        shared = running_shared(folder)
        if shared is not None:
            return lambda: shared
        from crucible_lineage.server import start_server  # FastAPI, a third of a second

        return lambda: start_server(folder)

    def _instance(self) -> str:
        if self.settings.api_url is not None:
            return self.settings.api_url
        folder = self.settings.data / "crucible"
        if instance_id(folder) is None:
            _ = self.client  # the first start gives the folder its identity
        return str(instance_id(folder))


def _import_what_registers() -> None:
    """Import what is needed next and takes time, while the service is asked."""
    import crucible_lineage.provenance.schema
    import crucible_lineage.registration.register  # noqa: F401
