"""The failure of a step's function: in one line with file and line number, and as a traceback without its callers."""

from __future__ import annotations

import inspect
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, TracebackType

from crucible_lineage.pipeline.processes.side_files import ReturnedError


def failed_here(error: BaseException) -> bool:
    """Return whether the function caused the error, and not a signal to end this process."""
    if isinstance(error, (Exception, SystemExit)):
        return True
    return threading.current_thread() is not threading.main_thread()  # only the main thread is interrupted


def failure_line(error: BaseException, function: Callable[..., object] | None) -> str:
    """Return the error with the last line of the function's file that led to it: `ValueError: no lamp, at steps.py:12`.

    For a returned value, the line at which the function begins. Without a function (it was not found), no line.
    """
    code = _code(function)
    if isinstance(error, ReturnedError) and code is not None:
        return f"{error}, in {Path(code.co_filename).name}:{code.co_firstlineno}"
    frames = traceback.extract_tb(error.__traceback__)
    file = _file(function)
    own = next((frame for frame in reversed(frames) if frame.filename == file), None)
    return _message(error) + (f", at {Path(own.filename).name}:{own.lineno}" if own else "")


def failure_traceback(error: BaseException, function: Callable[..., object] | None) -> str:
    """Return the traceback, starting at the function; empty if only the returned value is wrong."""
    if isinstance(error, ReturnedError):
        return ""
    file = _file(function)
    start: TracebackType | None = error.__traceback__
    while start is not None and start.tb_frame.f_code.co_filename != file:
        start = start.tb_next
    return "".join(traceback.format_exception(type(error), error, start or error.__traceback__))


def _message(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({'' if error.code is None else repr(error.code)}); a step ends by returning"
    if isinstance(error, ReturnedError):
        return str(error)
    try:
        text = str(error)
    except Exception:  # the class may be the step's own
        text = "its message cannot be shown"
    if isinstance(error, MemoryError) and not text:
        return "MemoryError: there was not enough memory"
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def _file(function: Callable[..., object] | None) -> str | None:
    code = _code(function)
    return code.co_filename if code else None


def _code(function: Callable[..., object] | None) -> CodeType | None:
    return getattr(inspect.unwrap(function), "__code__", None) if function else None
