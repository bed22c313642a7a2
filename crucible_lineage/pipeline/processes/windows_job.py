"""On Windows: a job object, which ends all its processes when the run that holds it ends, however that comes about.

Not tried on a machine with Windows; where it cannot be made, the process alone is ended. Source: JOBOBJECT_EXTENDED_
LIMIT_INFORMATION and JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE in Microsoft's documentation of job objects.
"""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["JobObject"]

SUSPENDED = 0x4  # CREATE_SUSPENDED
_KILL_ON_CLOSE, _EXTENDED_LIMITS = 0x2000, 9


class _Limits(ctypes.Structure):
    _fields_ = (
        ("per_process_user_time", ctypes.c_int64),
        ("per_job_user_time", ctypes.c_int64),
        ("flags", ctypes.c_uint32),
        ("minimum_working_set", ctypes.c_size_t),
        ("maximum_working_set", ctypes.c_size_t),
        ("active_processes", ctypes.c_uint32),
        ("affinity", ctypes.c_size_t),
        ("priority", ctypes.c_uint32),
        ("scheduling", ctypes.c_uint32),
        ("io", ctypes.c_uint64 * 6),
        ("process_memory", ctypes.c_size_t),
        ("job_memory", ctypes.c_size_t),
        ("peak_process_memory", ctypes.c_size_t),
        ("peak_job_memory", ctypes.c_size_t),
    )


class JobObject:
    """A command that runs in a job of its own, with all that it starts; `stdin` is what it reads from."""

    def __init__(self, command: list[str], output: int, cwd: Path | None, env: dict[str, str]) -> None:
        windows: Any = vars(ctypes)["windll"]
        self._kernel = windows.kernel32
        self._kernel.CreateJobObjectW.restype = ctypes.c_void_p
        self._process = subprocess.Popen(  # noqa: S603 (a list of arguments; no shell sees it)
            command,
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=cwd,
            env=env,
            bufsize=0,
            creationflags=SUSPENDED,  # it starts nothing before it belongs to the job
        )
        assert self._process.stdin is not None
        self.stdin = self._process.stdin
        handle, limits = ctypes.c_void_p(int(vars(self._process)["_handle"])), _Limits(flags=_KILL_ON_CLOSE)
        self._job = ctypes.c_void_p(self._kernel.CreateJobObjectW(None, None))
        self._kernel.SetInformationJobObject(self._job, _EXTENDED_LIMITS, ctypes.byref(limits), ctypes.sizeof(limits))
        self._kernel.AssignProcessToJobObject(self._job, handle)
        windows.ntdll.NtResumeProcess(handle)

    def end(self) -> None:
        """All processes in it are being ended."""
        self._kernel.TerminateJobObject(self._job, 1)

    def wait(self) -> int:
        """The command's exit code; what it has left is gone, too."""
        code = self._process.wait()
        self._kernel.CloseHandle(self._job)
        return code
