"""Conditions over the columns of a table, such as `params.degree > 2 and results.rms < 0.5`; nothing is executed.

The text is parsed as a Python expression. A small subset is supported: names, numbers, texts, lists, and, or, not,
comparisons, `in`, arithmetic, and a few functions. A missing value is None, for which `<` and `>` are never met.
"""

from __future__ import annotations

import ast
import operator
import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from crucible_lineage.errors import InputError, nearest
from crucible_lineage.text.amounts import is_equal

LONGEST = 2000  # characters
HIGHEST = 64  # exponent: keeps numbers in the range of measurements
Names = Callable[[str], Any]
Value = Callable[[Names], Any]

FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "abs": abs,
    "len": len,
    "lower": lambda text: str(text).lower(),
    "max": max,
    "median": statistics.median,
    "min": min,
    "round": round,
    "startswith": lambda text, head: str(text).startswith(head),
}
ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}


@dataclass(frozen=True)
class Condition:
    """A parsed condition: its text, and the names of its columns."""

    text: str
    names: tuple[str, ...]
    _value: Value

    def is_met(self, value_of: Names, row: str) -> bool:
        """Return whether it is met for these columns. Raises InputError, naming the row, if they cannot be compared."""
        try:
            return bool(self._value(value_of))
        except InputError:
            raise
        except (TypeError, ValueError, ArithmeticError) as error:
            values = ", ".join(f"{name} is {value_of(name)!r:.40}" for name in self.names)
            where = f", where {values}" if values else ""
            raise InputError(f"condition {self.text!r}: {error}, in {row}{where}") from error


def parse_condition(text: str) -> Condition:
    """Parse a condition. Raises InputError with the column of an unsupported part."""
    if len(text) > LONGEST:
        raise InputError(f"the condition has {len(text)} characters; at most {LONGEST} are supported")
    try:
        names: dict[str, None] = {}
        value = _Reader(text.strip(), names).value(ast.parse(text.strip(), mode="eval").body)
        return Condition(text.strip(), tuple(names), value)
    except SyntaxError as error:
        raise _fault(text.strip(), (error.offset or 1) - 1, f"{error.msg}; write it as in {_EXAMPLE}") from None
    except (RecursionError, MemoryError, ValueError):
        raise InputError(
            f"condition {text[:40]!r}...: it is nested too deeply, or contains invalid characters"
        ) from None


_EXAMPLE = "params.degree > 2 and results.rms < 0.5"


def _fault(text: str, column: int, message: str) -> InputError:
    return InputError(f"condition {text!r}, column {column + 1}: {message}")


class _Reader:
    """Turns the parts of a parsed text into functions, and collects the names in them."""

    def __init__(self, text: str, names: dict[str, None]) -> None:
        self.text = text
        self.names = names

    def value(self, part: ast.expr) -> Value:
        reader = getattr(self, f"_{type(part).__name__.lower()}", None)
        if reader is None:
            raise self._unsupported(part)
        value: Value = reader(part)
        return value

    def _constant(self, part: ast.Constant) -> Value:
        value = part.value
        if not isinstance(value, str | int | float | None):
            raise self._unsupported(part)
        return lambda _: value

    def _name(self, part: ast.expr) -> Value:
        name = self._dotted(part)
        self.names[name] = None
        return lambda names: names(name)

    _attribute = _subscript = _name

    def _list(self, part: ast.List | ast.Tuple | ast.Set) -> Value:
        members = [self.value(member) for member in part.elts]
        return lambda names: [member(names) for member in members]

    _tuple = _set = _list

    def _boolop(self, part: ast.BoolOp) -> Value:
        values = [self.value(value) for value in part.values]
        if isinstance(part.op, ast.And):
            return lambda names: all(value(names) for value in values)
        return lambda names: any(value(names) for value in values)

    def _unaryop(self, part: ast.UnaryOp) -> Value:
        value = self.value(part.operand)
        if isinstance(part.op, ast.Not):
            return lambda names: not value(names)
        if isinstance(part.op, ast.USub | ast.UAdd):
            sign = operator.neg if isinstance(part.op, ast.USub) else operator.pos
            return lambda names: None if (operand := value(names)) is None else sign(operand)
        raise self._unsupported(part)

    def _binop(self, part: ast.BinOp) -> Value:
        left, right = self.value(part.left), self.value(part.right)
        operation = _power if isinstance(part.op, ast.Pow) else ARITHMETIC.get(type(part.op))
        if operation is None:
            raise self._unsupported(part)

        def calculated(names: Names) -> object:
            value, other = left(names), right(names)
            return None if value is None or other is None else operation(_number(value), _number(other))

        return calculated

    def _compare(self, part: ast.Compare) -> Value:
        values = [self.value(value) for value in (part.left, *part.comparators)]
        tests = [TESTS[type(kind)] for kind in part.ops]

        def compared(names: Names) -> bool:
            operands = [value(names) for value in values]
            return all(test(operands[at], operands[at + 1]) for at, test in enumerate(tests))

        return compared

    def _call(self, part: ast.Call) -> Value:
        name = part.func.id if isinstance(part.func, ast.Name) else ""
        function = FUNCTIONS.get(name)
        if part.keywords:
            raise self._unsupported(part)
        if function is None:
            unknown = ast.unparse(part.func)
            raise _fault(self.text, part.col_offset, f"no function {unknown!r} is known; {nearest(unknown, FUNCTIONS)}")
        values = [self.value(value) for value in part.args]

        def called(names: Names) -> object:
            arguments = [value(names) for value in values]
            return None if any(value is None for value in arguments) else function(*arguments)

        return called

    def _dotted(self, part: ast.expr) -> str:
        """Return the column in `results.rms`, or in `results["rms (cm-1)"]` if it is not a name."""
        if isinstance(part, ast.Name):
            return part.id
        if isinstance(part, ast.Attribute):
            return f"{self._dotted(part.value)}.{part.attr}"
        if isinstance(part, ast.Subscript) and isinstance(part.slice, ast.Constant):
            return f"{self._dotted(part.value)}.{part.slice.value!s}"
        raise self._unsupported(part)

    def _unsupported(self, part: ast.expr) -> InputError:
        source = ast.get_source_segment(self.text, part) or type(part).__name__
        return _fault(self.text, part.col_offset, f"{source!r} is not supported; write for example {_EXAMPLE}")


def _is_in(value: Any, other: Any) -> bool:
    """Return whether a value is in a list, or a text in a text."""
    if isinstance(other, list | tuple):
        return any(is_equal(value, each) for each in other)
    return other is not None and value in other


def _order(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    """Return a comparison that is not met if a value is missing."""
    return lambda value, other: value is not None and other is not None and bool(compare(value, other))


TESTS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: is_equal,
    ast.Is: is_equal,
    ast.NotEq: lambda value, other: not is_equal(value, other),
    ast.IsNot: lambda value, other: not is_equal(value, other),
    ast.In: _is_in,
    ast.NotIn: lambda value, other: not _is_in(value, other),
    ast.Lt: _order(operator.lt),
    ast.LtE: _order(operator.le),
    ast.Gt: _order(operator.gt),
    ast.GtE: _order(operator.ge),
}


def _number(value: object) -> object:
    """Return a number. Raises TypeError for other values: multiplied texts would fill the memory."""
    if isinstance(value, bool | int | float):
        return value
    raise TypeError(f"{value!r:.40} is not a number")


def _power(base: Any, exponent: Any) -> Any:
    if abs(exponent) > HIGHEST:
        raise ValueError(f"an exponent may be at most {HIGHEST}")
    return float(base) ** exponent
