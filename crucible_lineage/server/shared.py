"""The embedded Crucible in a process of its own, shared by all processes that work in a data folder.

It does not compete with steps for the interpreter lock. Each user holds a connection to it, the lease, which the
system closes when the user's process dies. Without leases and without files to ingest, the server stops. Taking a
lease and stopping use the same lock, so that nobody gets an address that is about to close.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from filelock import FileLock

from crucible_lineage.server.database import PREFIX, DataFolder, instance_id, open_folder

LEASE_PATH = "/lease"
ANSWER_S = 20.0  # chosen: long enough on a busy machine; a later answer means another program has the port


class SharedServer:
    """A lease of the data folder's server, with its address and key, until it is closed."""

    def __init__(self, folder: DataFolder, lease: HTTPConnection) -> None:
        self._folder = folder
        self._lease = lease
        self._lock = threading.Lock()
        self.api_key = folder.local_key.read_text(encoding="ascii").strip()

    @property
    def url(self) -> str:
        """The address of the API."""
        return f"http://127.0.0.1:{self._lease.port}{PREFIX}"

    def revive(self) -> bool:
        """Restart a server that has stopped. Returns whether it answers at the same address again."""
        with self._lock:
            port = self._lease.port
            self._lease.close()
            self._lease = _lease_or_start(self._folder, port)
            return self._lease.port == port

    def close(self) -> None:
        """Return the lease; closing twice is harmless."""
        with self._lock:
            self._lease.close()


def start_shared(data_dir: Path | str) -> Callable[[], SharedServer]:
    """Start the folder's server if necessary, while the caller does something else; returns a function that leases it.

    That function raises OSError or RuntimeError if the server cannot start.
    """
    folder = DataFolder(Path(data_dir).expanduser().resolve())

    def lease() -> SharedServer:
        open_folder(folder.root)
        return SharedServer(folder, _lease_or_start(folder, 0))

    pool = ThreadPoolExecutor(1, thread_name_prefix="crucible-start")
    leased = pool.submit(lease)
    pool.shutdown(wait=False)
    return leased.result


def lock_of(folder: DataFolder) -> FileLock:
    """Return the lock for taking a lease, starting the server, and deciding to stop it."""
    return FileLock(folder.root / ".serving.lock", mode=0o600)


def identity_of(folder: DataFolder) -> dict[str, str | None]:
    """Return the server's answer to a request for a lease; a copy of the folder has a different one."""
    return {"instance": instance_id(folder.root), "folder": str(folder.root)}


def _lease_or_start(folder: DataFolder, port: int) -> HTTPConnection:
    with lock_of(folder):
        return _lease_running(folder) or _start(folder, port)


def _lease_running(folder: DataFolder) -> HTTPConnection | None:
    """Connect to the server that the folder's notice names; None unless it runs and serves this folder."""
    try:
        port = int(json.loads(folder.notice.read_text(encoding="ascii"))["port"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    connection = HTTPConnection("127.0.0.1", port, timeout=ANSWER_S)
    try:
        connection.request("GET", LEASE_PATH)
        identity: Any = json.loads(connection.getresponse().read())
    except (OSError, HTTPException, ValueError):
        connection.close()
        return None
    if identity == identity_of(folder):
        return connection
    connection.close()
    return None


def _start(folder: DataFolder, port: int) -> HTTPConnection:
    """Start a server and lease it. Raises OSError or RuntimeError if it does not start."""
    log = folder.root / "serving.log"
    command = [sys.executable, "-P", "-m", "crucible_lineage.server.running", str(folder.root), str(port)]
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as log_file:
        process = subprocess.Popen(  # noqa: S603  this package, on a folder
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log_file, cwd=folder.root,
            start_new_session=True,  # so that Ctrl-C in a terminal does not reach it
            env={**os.environ, "PYDANTIC_DISABLE_PLUGINS": "__all__"},  # it would look for them in all packages
        )  # fmt: skip
    assert process.stdout is not None
    with process.stdout as pipe:
        report = next((json.loads(line) for line in pipe if line.startswith((b'{"ready"', b'{"text"'))), None)
    process.returncode = 0  # it outlives this process; do not wait for it
    if (lease := _lease_running(folder)) is not None:
        return lease
    refusal = report or {"text": f"its process died; its output is in {log}"}
    raise RuntimeError(refusal["text"])
