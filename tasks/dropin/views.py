"""Origins of values of the flow's own code, where certain: views, rows and copies of known ones, never constants."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator
from itertools import islice
from types import CodeType, FunctionType
from typing import Any

from prefect.context import FlowRunContext

from crucible_lineage.tasks.dropin.origins import Origin, Origins

MOST_COMPARED = 50  # known tables or arrays to compare one value with

CONSTANTS = (str, bytes, int, float, complex, tuple, frozenset)


def source_of(value: object, origins: Origins) -> Origin | None:
    """Return the origin of which a value is a view, or a part by index and content; None if not certain."""
    numpy, pandas = sys.modules.get("numpy"), sys.modules.get("pandas")
    if numpy is not None and isinstance(value, numpy.ndarray):
        return _of_array(value, origins, numpy)
    if pandas is not None and isinstance(value, (pandas.DataFrame, pandas.Series)):
        return _of_table(value, origins, pandas)
    xarray = sys.modules.get("xarray")
    if numpy is not None and xarray is not None and isinstance(value, (xarray.DataArray, xarray.Dataset)):
        return _of_named(value, origins, xarray, numpy)
    return None


def is_constant(value: Any) -> bool:
    """Return whether an array or table repeats one value, such as zeros: it contains nothing of a result."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not hasattr(value, "shape") or not hasattr(value, "size"):
        return False
    array = numpy.asarray(value)
    return bool(array.size == 0 or (array == array.flat[0]).all())


def _of_array(value: Any, origins: Origins, numpy: Any) -> Origin | None:
    known = _first(origins.objects(numpy.ndarray))
    sharing = [(array, origin) for array, origin in known if numpy.may_share_memory(value, array)]
    if sharing:  # the smallest that contains all of it
        return min(sharing, key=lambda pair: (not _contains(pair[0], value, numpy), pair[0].nbytes))[1]
    if is_constant(value):
        return None
    return _only(origin for array, origin in known if _is_copy(value, array, numpy))


def _of_named(value: Any, origins: Origins, xarray: Any, numpy: Any) -> Origin | None:
    """Return the origin of the known xarray object whose memory contains this one's: a variable, slice or transpose."""
    parts = _arrays(value, numpy)
    sharing = [
        (sum(base.nbytes for base in bases), origin)
        for known, origin in _first(origins.objects((xarray.DataArray, xarray.Dataset)))
        if (bases := _arrays(known, numpy))
        and all(any(_contains(base, part, numpy) for base in bases) for part in parts)
    ]
    return min(sharing, key=lambda pair: pair[0])[1] if parts and sharing else None


def _arrays(value: Any, numpy: Any) -> list[Any]:
    arrays = [variable.data for variable in value.data_vars.values()] if hasattr(value, "data_vars") else [value.data]
    return [array for array in arrays if isinstance(array, numpy.ndarray)]


def _contains(known: Any, value: Any, numpy: Any) -> bool:
    low, high = numpy.lib.array_utils.byte_bounds(known)
    first, last = numpy.lib.array_utils.byte_bounds(value)
    return bool(low <= first and last <= high)


def _is_copy(value: Any, known: Any, numpy: Any) -> bool:
    """Return whether the values are the same in the same order, whatever the number type or shape."""
    if value.size != known.size or value.dtype.kind not in "iufc" or known.dtype.kind not in "iufcb":
        return False
    if known.dtype.kind == "c" != value.dtype.kind:
        return False
    return bool(numpy.array_equal(known.astype(value.dtype).ravel(), value.ravel()))


def _of_table(value: Any, origins: Origins, pandas: Any) -> Origin | None:
    """Return the origin of the table with these rows and columns by name; None if values are shared by many rows."""
    if value.size < 2 or is_constant(value):
        return None
    known = _first(origins.objects((pandas.DataFrame, pandas.Series)))
    return _only(origin for table, origin in known if _holds(table, value, pandas))


def _holds(known: Any, value: Any, pandas: Any) -> bool:
    try:
        if not known.index.is_unique or not value.index.isin(known.index).all():
            return False
        rows = known.loc[value.index]
        if isinstance(known, pandas.Series):
            return isinstance(value, pandas.Series) and bool((rows.to_numpy() == value.to_numpy()).all())
        if isinstance(value, pandas.Series):
            return value.name in known.columns and _same(rows[value.name], value)
        shared = [name for name in value.columns if name in known.columns]
        return len(shared) == len(value.columns) and all(_same(rows[name], value[name]) for name in shared)
    except Exception:  # labels that cannot be compared
        return False


def _same(left: Any, right: Any) -> bool:
    return bool(left.reset_index(drop=True).equals(right.reset_index(drop=True)))


def _first(objects: Any) -> list[tuple[Any, Origin]]:
    return list(islice(objects, MOST_COMPARED))


def _only(origins: Any) -> Origin | None:
    """Return the only origin among these; None if there are several."""
    distinct = {id(origin.future): origin for origin in origins}
    return next(iter(distinct.values())) if len(distinct) == 1 else None


def is_literal(value: object) -> bool:
    """Return whether this very object is a constant in the code of the running flow, or of a function that it calls."""
    if not isinstance(value, CONSTANTS):
        return False
    running = FlowRunContext.get()
    function = inspect.unwrap(running.flow.fn) if running is not None and running.flow is not None else None
    return isinstance(function, FunctionType) and id(value) in _literals(function)


@functools.lru_cache(maxsize=64)
def _literals(function: FunctionType) -> frozenset[int]:
    """Return the ids of the constants; they live as long as the function, which the cache keeps."""
    called = (function.__globals__.get(name) for name in function.__code__.co_names)
    codes = [function.__code__, *(callee.__code__ for callee in called if isinstance(callee, FunctionType))]
    return frozenset(id(constant) for code in codes for constant in _constants(code.co_consts))


def _constants(values: tuple[Any, ...] | frozenset[Any]) -> Iterator[object]:
    for constant in values:
        yield constant
        if isinstance(constant, (tuple, frozenset)):
            yield from _constants(constant)
        elif isinstance(constant, CodeType) and constant.co_name.startswith("<"):  # a comprehension, not a function
            yield from _constants(constant.co_consts)
