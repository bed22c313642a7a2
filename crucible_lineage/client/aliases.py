"""Other names under which an argument is accepted: those of Crucible's documentation and of its official client."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from crucible_lineage.errors import InputError

__all__ = ["also_called"]

Function = TypeVar("Function", bound=Callable[..., Any])


def also_called(**names: str) -> Callable[[Function], Function]:
    """A method that takes each argument `old` also under the name `new`, given as `old="new"`; never both at once."""

    def decorate(function: Function) -> Function:
        @functools.wraps(function)
        def renamed(*args: Any, **kwargs: Any) -> Any:
            for name in kwargs.keys() & names.keys():
                if names[name] in kwargs:
                    raise InputError(f"{function.__name__} got both {name} and {names[name]}, which mean the same")
                kwargs[names[name]] = kwargs.pop(name)
            return function(*args, **kwargs)

        return cast(Function, renamed)

    return decorate
