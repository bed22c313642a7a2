"""Which Crucible a task talks to. Only names cross task borders; keys are looked up where the task runs."""

from __future__ import annotations

import atexit
import threading
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, resolve_settings

__all__ = ["CrucibleConnection", "session_for", "share_session"]

_lock = threading.Lock()
_sessions: dict[tuple[Path, str | None], Session] = {}


class CrucibleConnection(BaseModel):
    """Where Crucible is. Without an address, the environment and the configuration file decide; never holds a key."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str | None = None
    api_url: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> CrucibleConnection:
        """The connection that these settings describe."""
        return cls(data=str(settings.data), api_url=settings.api_url)


def session_for(connection: CrucibleConnection | None = None) -> Session:
    """This process's session for that Crucible; all tasks of the process share it, and it is closed at exit."""
    connection = connection or CrucibleConnection()
    data = Path(connection.data) if connection.data else None
    if connection.api_url:
        key = (data.absolute() if data else resolve_settings().data, connection.api_url)
        with _lock:
            if key in _sessions:
                return _sessions[key]
    settings = resolve_settings(data=data, api_url=connection.api_url)
    with _lock:
        session = _sessions.get((settings.data, settings.api_url))
        if session is None:
            session = Session(settings)
            _sessions[settings.data, settings.api_url] = session
            atexit.register(session.close)
        return session


def share_session(session: Session) -> None:
    """Tasks that run in this process use this session, whoever opened it closes it."""
    with _lock:
        _sessions[session.settings.data, session.settings.api_url] = session
