"""Which Crucible a task talks to. Only names cross task borders; keys are looked up where the task runs."""

from __future__ import annotations

import atexit
import threading
from pathlib import Path

from prefect.exceptions import PrefectException
from pydantic import BaseModel, ConfigDict, Field

from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import InputError
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, default_data_folder, resolve_settings
from crucible_lineage.tasks.credentials import CrucibleCredentials

__all__ = ["CrucibleConnection", "session_for", "share_session"]

_lock = threading.Lock()
_sessions: dict[tuple[Path, str | None, str | None], Session] = {}  # by data folder, address and block


class CrucibleConnection(BaseModel):
    """Where Crucible is. Without a block or an address, the environment and the configuration file of the machine that
    runs the flow decide. Never holds a key.
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
        """The connection that these settings describe."""
        return cls(data=str(settings.data), api_url=settings.api_url)

    def settled(self, settings: Settings) -> CrucibleConnection:
        """The same connection, with what was found out about it: it means the same in another process."""
        return self.model_copy(update={"data": str(settings.data), "api_url": settings.api_url})


def session_for(connection: CrucibleConnection | None = None) -> Session:
    """This process's session for that Crucible; all tasks of the process share it, and it is closed at exit."""
    connection = connection or CrucibleConnection()
    data = Path(connection.data).absolute() if connection.data else None
    if connection.block:
        return _session_of_block(connection.block, data or default_data_folder().expanduser().absolute())
    if connection.api_url:
        with _lock:
            known = _sessions.get((data or resolve_settings().data, connection.api_url, None))
        if known is not None:
            return known
    settings = resolve_settings(data=data, api_url=connection.api_url)
    with _lock:
        return _kept(Session(settings), None)


def share_session(session: Session) -> None:
    """Tasks that run in this process use this session, whoever opened it closes it."""
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


def _session_of_block(name: str, data: Path) -> Session:
    with _lock:
        for (folder, _, block), session in _sessions.items():
            if (folder, block) == (data, name):
                return session
        try:
            credentials = CrucibleCredentials.load(name, _sync=True)  # type: ignore[call-arg]  # also in an async flow
        except (ValueError, PrefectException) as error:
            raise InputError(
                f"there is no usable block crucible-credentials/{name} at this Prefect server: {error}\n"
                "make one in its UI, or correct the name"
            ) from error
        assert isinstance(credentials, CrucibleCredentials)
        return _kept(_BlockSession(data, name, credentials), name)


def _kept(session: Session, block: str | None) -> Session:
    """The session that this process keeps for these settings: an earlier one, if there is one."""
    key = (session.settings.data, session.settings.api_url, block)
    if key not in _sessions:
        _sessions[key] = session
        atexit.register(session.close)
    return _sessions[key]
