"""The supervisor's server, one for this process, started when the first process of a step is."""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence

from crucible_lineage.pipeline.processes import supervisor

__all__ = ["ask"]

_lock = threading.Lock()
_channel: socket.socket | None = None
_server: subprocess.Popen[bytes] | None = None


def ask(request: Mapping[str, object], descriptors: Sequence[int]) -> None:
    """A supervisor was asked to start a process (supervisor.py has the form); a server that has died is replaced."""
    global _channel
    data = json.dumps(request).encode() + b"\n"
    with _lock:
        try:
            _send(_channel or _start(), data, descriptors)
        except (BrokenPipeError, ConnectionResetError):
            _send(_start(), data, descriptors)


def _send(channel: socket.socket, data: bytes, descriptors: Sequence[int]) -> None:
    sent = socket.send_fds(channel, [data], list(descriptors))
    channel.sendall(data[sent:])


def _start() -> socket.socket:
    global _channel, _server
    if _channel:
        _channel.close()
    if _server:
        _server.wait()
    _channel, theirs = socket.socketpair()
    with theirs:
        command = [sys.executable, "-I", "-S", supervisor.__file__, str(theirs.fileno())]
        _server = subprocess.Popen(  # noqa: S603 (this interpreter with a file of this package)
            command,
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    return _channel


@atexit.register
def _leave() -> None:
    """The server ends when nobody holds its channel any more; nobody waits for that."""
    if _channel:
        _channel.close()
    if _server:
        _server.returncode = 0


def _forget_after_fork() -> None:
    """A child of this process needs a server of its own: the one that is there watches over this process."""
    global _lock, _channel, _server
    _lock, _server = threading.Lock(), None
    if _channel:
        _channel.close()
        _channel = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
