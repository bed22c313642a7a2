"""Constants of a flow's own code: equal ones of a file are one object, so that identity proves nothing."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from types import CodeType, FunctionType
from typing import Any

from prefect.context import FlowRunContext

__all__ = ["is_literal"]

CONSTANTS = (str, bytes, int, float, complex, tuple, frozenset)


def is_literal(value: object) -> bool:
    """Return whether this very object stands in the code of the running flow, or of a function that it calls."""
    if not isinstance(value, CONSTANTS):
        return False
    running = FlowRunContext.get()
    function = inspect.unwrap(running.flow.fn) if running is not None and running.flow is not None else None
    return isinstance(function, FunctionType) and id(value) in _literals(function)


@functools.lru_cache(maxsize=64)
def _literals(function: FunctionType) -> frozenset[int]:
    """Return the ids of the constants; they live as long as the function, which the cache keeps."""
    called = (function.__globals__.get(name) for name in function.__code__.co_names)
    codes = [function.__code__, *(one.__code__ for one in called if isinstance(one, FunctionType))]
    return frozenset(id(constant) for code in codes for constant in _constants(code.co_consts))


def _constants(found: tuple[Any, ...] | frozenset[Any]) -> Iterator[object]:
    for constant in found:
        yield constant
        if isinstance(constant, (tuple, frozenset)):
            yield from _constants(constant)
        elif isinstance(constant, CodeType) and constant.co_name.startswith("<"):  # a comprehension, not a function
            yield from _constants(constant.co_consts)
