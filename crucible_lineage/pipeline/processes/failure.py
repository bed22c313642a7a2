"""How a step's function failed: in one line that names the place, and as a traceback without what called it."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from crucible_lineage.step import Step

__all__ = ["failure_line", "failure_traceback", "without_secrets"]


def failure_line(error: BaseException, function: Callable[..., Any] | None) -> str:
    """`ValueError: no lamp, at steps.py:12`: the last line of the function's own file on the way to the error.

    No function: it could not even be found.
    """
    frames = traceback.extract_tb(error.__traceback__)
    file = _file(function)
    place = next((frame for frame in reversed(frames) if frame.filename == file), None)
    return f"{type(error).__name__}: {error}" + (f", at {Path(place.filename).name}:{place.lineno}" if place else "")


def failure_traceback(error: BaseException, function: Callable[..., Any] | None) -> str:
    """The traceback from the function on."""
    file = _file(function)
    start: TracebackType | None = error.__traceback__
    while start is not None and start.tb_frame.f_code.co_filename != file:
        start = start.tb_next
    return "".join(traceback.format_exception(type(error), error, start or error.__traceback__))


def without_secrets(text: str, step: Step[..., Any], given: Mapping[str, Any]) -> str:
    """The text with the values of secret parameters blotted out: what failed may have had one in its message."""
    for parameter in step.parameters:
        value = given.get(parameter.name)
        if parameter.secret and isinstance(value, str) and value:
            text = text.replace(value, "***")
    return text


def _file(function: Callable[..., Any] | None) -> str | None:
    code = getattr(inspect.unwrap(function), "__code__", None) if function else None
    return code.co_filename if code else None
