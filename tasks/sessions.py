"""The Crucible that a task uses (a connection, a block, or a block's name) and its session in this process."""

from __future__ import annotations

import atexit
import hashlib
import os
import threading
from pathlib import Path
from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.exceptions import PrefectException
from prefect.runtime import flow_run, task_run
from prefect.tasks import Task
from pydantic import BaseModel, ConfigDict, Field

from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import TRANSIENT, InputError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, default_data_folder, resolve_settings
from crucible_lineage.tasks.credentials import CrucibleCredentials

_lock = threading.Lock()
_inherited: list[object] = []  # sessions of the parent process, which a fork must neither use nor close
_sessions: dict[tuple[Path, str | None, str | None], Session] = {}  # by data folder, address and block


class CrucibleConnection(BaseModel):
    """Where Crucible is. Without a block or an address, environment and configuration file of the machine that
    runs the flow decide. Never contains a key.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | None = Field(
        default=None, title="Data folder", description="Alone, it means the Crucible embedded in that folder."
    )
    api_url: str | None = Field(default=None, title="API address", description="Its key is CRUCIBLE_API_KEY.")
    block: str | None = Field(
        default=None, title="Block", description="The name of a Crucible Credentials block: address and key."
    )

    @classmethod
    def of(cls, settings: Settings) -> CrucibleConnection:
        """Return the connection that these settings describe."""
        return cls(data=str(settings.data), api_url=settings.api_url)

    def settled(self, settings: Settings) -> CrucibleConnection:
        """Return the connection with data folder and address filled in: it means the same in another process."""
        return self.model_copy(update={"data": str(settings.data), "api_url": settings.api_url})


def _forget() -> None:
    """Drop inherited sessions: connections and open databases cannot be used in a forked process."""
    _inherited.append(dict(_sessions))
    _sessions.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)

Crucible = CrucibleConnection | CrucibleCredentials | str
"""What tasks take as `crucible`: a connection, a block, or a block's name."""


def connection_of(crucible: CrucibleConnection | str | None) -> CrucibleConnection:
    """Return the connection itself, or the one for a block's name; by default the one of this machine."""
    if isinstance(crucible, str):
        return CrucibleConnection(block=crucible)
    return crucible or CrucibleConnection()


def session_for(crucible: Crucible | None = None) -> Session:
    """Return this process's session for that Crucible; all tasks of the process share it, and it is closed at exit."""
    if isinstance(crucible, CrucibleCredentials):
        return _session_of_block(crucible, _data_folder(None))
    connection = connection_of(crucible)
    data = Path(connection.data).absolute() if connection.data else None
    if connection.block:
        return _session_of_name(connection.block, _data_folder(data))
    if connection.api_url:
        with _lock:
            known = _sessions.get((data or resolve_settings().data, connection.api_url, None))
        if known is not None:
            return known
    settings = resolve_settings(data=data, api_url=connection.api_url)
    with _lock:
        return _shared(Session(settings), None)


def share_session(session: Session) -> None:
    """Let tasks in this process use this session. Its opener closes it."""
    with _lock:
        _sessions[session.settings.data, session.settings.api_url, None] = session


class _BlockSession(Session):
    """A session whose client is the block's."""

    def __init__(self, data: Path, name: str, credentials: CrucibleCredentials) -> None:
        key = credentials.api_key.get_secret_value()
        super().__init__(Settings(data, credentials.url, key, source=f"block {name}"))
        self.credentials = credentials

    def _connect(self) -> CrucibleClient:
        return self.credentials.get_client(self.settings.data / "uploads")


def _session_of_name(name: str, data: Path) -> Session:
    with _lock:
        for (folder, _, block), session in _sessions.items():
            if (folder, block) == (data, name):
                return session
        try:
            credentials = CrucibleCredentials.load(name, _sync=True)  # type: ignore[call-arg]  # also in an async flow
        except (ValueError, PrefectException) as error:
            raise InputError(
                f"there is no usable block crucible-credentials/{name} at this Prefect server: {error}\n"
                "create one in its UI, or correct the name"
            ) from error
        assert isinstance(credentials, CrucibleCredentials)
        return _shared(_BlockSession(data, name, credentials), name)


def _session_of_block(credentials: CrucibleCredentials, data: Path) -> Session:
    """Return the session of a block. Blocks with different keys have different sessions, whatever their names."""
    digest = hashlib.sha256(credentials.api_key.get_secret_value().encode()).hexdigest()
    with _lock:
        name = f"sha256:{digest}"
        known = _sessions.get((data, credentials.url, name))
        return known or _shared(_BlockSession(data, "given to the task", credentials), name)


def _data_folder(data: Path | None) -> Path:
    return data or default_data_folder().expanduser().absolute()


def _shared(session: Session, block: str | None) -> Session:
    """Return this process's session for these settings: an existing one, else this one."""
    key = (session.settings.data, session.settings.api_url, block)
    if key not in _sessions:
        _sessions[key] = session
        atexit.register(session.close)
    return _sessions[key]


def is_transient(task: Task[..., Any], run: TaskRun, state: State[object]) -> bool:  # noqa: ARG001 (Prefect's signature)
    """Return whether a failed call may succeed when repeated."""
    return isinstance(_error_of(state), TRANSIENT)


REPEATED: JsonObject = {
    "cache_policy": NO_CACHE,  # Crucible, not a cache, knows what exists
    "retries": 3,
    "retry_delay_seconds": [1, 5, 20],
    "retry_condition_fn": is_transient,
}
"""Options of tasks that call Crucible."""


def run_ids() -> dict[str, str]:
    """Return engine, flow run and task run of a step that Prefect executes now, for its record."""
    ids = {"flow_run_id": str(flow_run.get_id() or ""), "task_run_id": str(task_run.get_id() or "")}
    return {"engine": "prefect", **ids}


def is_worth_a_retry(task: Task[..., Any], run: TaskRun, state: State[object]) -> bool:  # noqa: ARG001 (likewise)
    """Return whether a step with retries is to be retried: not if it cannot succeed, nor if its run was stopped."""
    from crucible_lineage.pipeline.engines.local import is_worth_another  # most tasks make no steps

    error = _error_of(state)
    return error is not None and is_worth_another(error)


def _error_of(state: State[object]) -> Exception | None:
    try:
        state.result()
    except Exception as error:
        return error
    return None
