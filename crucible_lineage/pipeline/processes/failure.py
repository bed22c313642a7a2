"""How a step's function failed: in one line that names the place, and as a traceback without what called it."""

from __future__ import annotations

import inspect
import threading
import traceback
from collections.abc import Callable
from pathlib import Path
from types import CodeType, TracebackType

from crucible_lineage.pipeline.processes.side_files import ReturnedError


def failed_here(error: BaseException) -> bool:
    """True if the function is to blame; False if something told this process to end while it ran."""
    if isinstance(error, (Exception, SystemExit)):
        return True
    return threading.current_thread() is not threading.main_thread()  # only the main thread is interrupted


def failure_line(error: BaseException, function: Callable[..., object] | None) -> str:
    """`ValueError: no lamp, at steps.py:12`: the last line of the function's own file on the way to the error.

    Of a value that it returned, the line at which the function begins. No function: it could not even be found.
    """
    code = _code(function)
    if isinstance(error, ReturnedError) and code is not None:
        return f"{error}, in {Path(code.co_filename).name}:{code.co_firstlineno}"
    frames = traceback.extract_tb(error.__traceback__)
    file = _file(function)
    place = next((frame for frame in reversed(frames) if frame.filename == file), None)
    return _what(error) + (f", at {Path(place.filename).name}:{place.lineno}" if place else "")


def failure_traceback(error: BaseException, function: Callable[..., object] | None) -> str:
    """Return the traceback from the function on; empty if it returned, and only its value is at fault."""
    if isinstance(error, ReturnedError):
        return ""
    file = _file(function)
    start: TracebackType | None = error.__traceback__
    while start is not None and start.tb_frame.f_code.co_filename != file:
        start = start.tb_next
    return "".join(traceback.format_exception(type(error), error, start or error.__traceback__))


def _what(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"it called sys.exit({'' if error.code is None else repr(error.code)}); a step ends by returning"
    if isinstance(error, ReturnedError):
        return str(error)
    try:
        said = str(error)
    except Exception:  # its class is the step's own
        said = "its message cannot be shown"
    if isinstance(error, MemoryError) and not said:
        return "MemoryError: there was not enough memory"
    return f"{type(error).__name__}: {said}".removesuffix(": ")


def _file(function: Callable[..., object] | None) -> str | None:
    code = _code(function)
    return code.co_filename if code else None


def _code(function: Callable[..., object] | None) -> CodeType | None:
    return getattr(inspect.unwrap(function), "__code__", None) if function else None
