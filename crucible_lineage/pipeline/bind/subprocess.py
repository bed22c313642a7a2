"""A process with limits: killed with all it started when its time is up, and its output kept to a bounded log."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from crucible_lineage.errors import StepError

__all__ = ["LOG_LIMIT_BYTES", "run_limited"]

LOG_LIMIT_BYTES = 1 << 20  # half of it for the beginning, half for the end
_BLOCK_BYTES = 1 << 16


def run_limited(
    command: list[str],
    log: Path,
    timeout_s: float | None,
    name: str,
    *,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    said: bytes = b"",
) -> int:
    """The exit code of a command whose output goes to `log`. StepError if it takes longer than its time.

    `said` is what it reads from its standard input, `env` its whole environment (by default, ours). However it ends,
    nothing that it started in its session goes on.
    """
    reading, writing = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603 (a list of arguments; no shell sees it)
            command,
            stdin=subprocess.PIPE,
            stdout=writing,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=cwd,
            env=None if env is None else dict(env),
        )
    except OSError:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    reader = threading.Thread(target=_keep, args=(reading, log), name=f"log of {name}", daemon=True)
    reader.start()
    try:
        process.communicate(said, timeout=timeout_s)
        return process.returncode
    except subprocess.TimeoutExpired:
        message = f"step {name!r} took longer than its timeout of {timeout_s:g} s and was stopped"
        raise StepError(message, step=name, log=str(log)) from None
    finally:
        _kill(process)
        reader.join(10)  # one that left the session may hold the pipe open; it does not hold us


def _keep(reading: int, log: Path) -> None:
    """Beginning and end of what comes through the pipe are in the log, with a line that says what was left out."""
    with log.open("wb", buffering=0) as kept, open(reading, "rb", buffering=0) as stream:
        room, left_out = LOG_LIMIT_BYTES // 2, 0
        tail: deque[bytes] = deque()
        held = 0
        while block := stream.read(_BLOCK_BYTES):
            if room:
                kept.write(block[:room])
                room, block = max(0, room - len(block)), block[room:]
            if block:
                tail.append(block)
                held += len(block)
                while held - len(tail[0]) >= LOG_LIMIT_BYTES // 2:
                    held -= len(tail[0])
                    left_out += len(tail.popleft())
        if left_out:
            kept.write(f"\n[... {left_out} bytes are left out here ...]\n".encode())
        kept.write(b"".join(tail))


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The process and all that it started are gone."""
    if os.name == "posix":
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return
    elif process.poll() is None:
        process.kill()
    process.wait()
