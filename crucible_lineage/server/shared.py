"""The embedded Crucible as a process of its own, shared by all that work in a data folder, and gone when they are.

So it does not share the interpreter's lock with steps. Who uses it holds a connection to it, the lease, which the
system closes when its holder dies; without leases and without files to ingest it ends by itself. Who comes and whether
it goes is decided under one lock, so that nobody is given an address that is about to be closed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from queue import SimpleQueue as Queue
from typing import Any, Self

from filelock import FileLock

from crucible_lineage.server.instance import DataFolder, instance_id, open_folder

PREFIX = "/api/v3"
LEASE_PATH = "/lease"
ANSWER_S = 20.0  # chosen: a machine that is busy; who listens and does not answer in that time is somebody else


class SharedServer:
    """A lease of the data folder's server: its address and a key for it. Close it, or use it as a context manager."""

    def __init__(self, folder: DataFolder, lease: HTTPConnection) -> None:
        self._folder = folder
        self._lease = lease
        self._lock = threading.Lock()
        self.api_key = folder.local_key.read_text(encoding="ascii").strip()

    @property
    def url(self) -> str:
        """The address of its API."""
        return f"http://127.0.0.1:{self._lease.port}{PREFIX}"

    def revive(self) -> bool:
        """True if the server is there again at its address, after it was found gone."""
        with self._lock:
            port = self._lease.port
            self._lease.close()
            self._lease = _leased_or_started(self._folder, port)
            return self._lease.port == port

    def close(self) -> None:
        """The lease is given back; closing twice does no harm."""
        with self._lock:
            self._lease.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def start_shared(data_dir: Path | str) -> Callable[[], SharedServer]:
    """Gives a lease of the folder's server, which is started now, if need be, while the caller does something else.

    What it gives raises OSError or RuntimeError, as `start_server` does, if the server cannot come up.
    """
    folder = DataFolder(Path(data_dir).expanduser().resolve())
    leases: Queue[HTTPConnection | BaseException] = Queue()

    def lease() -> None:
        try:
            open_folder(folder.root)
            leases.put(_leased_or_started(folder, 0))
        except BaseException as error:
            leases.put(error)

    threading.Thread(target=lease, name="crucible-start", daemon=True).start()

    def wait() -> SharedServer:
        found = leases.get()
        if isinstance(found, BaseException):
            raise found
        return SharedServer(folder, found)

    return wait


def running_shared(data_dir: Path | str) -> SharedServer | None:
    """A lease of the folder's server; None if there is none."""
    folder = DataFolder(Path(data_dir).expanduser().resolve())
    if not notice_of(folder).exists():
        return None
    with lock_of(folder):
        lease = _leased(folder)
    return SharedServer(folder, lease) if lease else None


def lock_of(folder: DataFolder) -> FileLock:
    """Held by who takes a lease, who starts the server, and by the server while it makes up its mind to go."""
    return FileLock(folder.root / ".serving.lock", mode=0o600)


def notice_of(folder: DataFolder) -> Path:
    """Where a running server says its process and port."""
    return folder.root / "serving.json"


def identity_of(folder: DataFolder) -> dict[str, str | None]:
    """Return what its server answers to who asks for a lease; a copy of the folder has another one."""
    return {"instance": instance_id(folder.root), "folder": str(folder.root)}


def _leased_or_started(folder: DataFolder, port: int) -> HTTPConnection:
    with lock_of(folder):
        return _leased(folder) or _started(folder, port)


def _leased(folder: DataFolder) -> HTTPConnection | None:
    """A connection to the server that the folder's notice names, if it is there and is this folder's."""
    try:
        port = int(json.loads(notice_of(folder).read_text(encoding="ascii"))["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        connection.request("GET", LEASE_PATH)
        told: Any = json.loads(connection.getresponse().read())
    except (OSError, HTTPException, ValueError):
        connection.close()
        return None
    if told == identity_of(folder):
        return connection
    connection.close()
    return None


def _started(folder: DataFolder, port: int) -> HTTPConnection:
    """A lease of a new server. OSError or RuntimeError if it did not come up."""
    log = folder.root / "serving.log"
    command = [sys.executable, "-P", "-m", "crucible_lineage.server.serving", str(folder.root), str(port)]
    apart: dict[str, Any] = {"start_new_session": True}  # so that Ctrl-C in a terminal does not reach it
    if sys.platform == "win32":
        apart = {"creationflags": subprocess.DETACHED_PROCESS | subprocess.CREATE_NEW_PROCESS_GROUP}
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as said:
        process = subprocess.Popen(  # noqa: S603  ourselves, and a folder
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said, cwd=folder.root, **apart
        )
    assert process.stdout is not None
    with process.stdout as ready:
        line = ready.readline()
    process.returncode = 0  # it outlives this process, and nobody waits for it
    if (lease := _leased(folder)) is not None:
        return lease
    refusal: Any = json.loads(line) if line else {"text": f"its process died; what it said is in {log}"}
    if "errno" in refusal:
        raise OSError(refusal["errno"], refusal["text"], refusal["filename"])
    raise RuntimeError(refusal["text"])
