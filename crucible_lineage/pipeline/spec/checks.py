"""Checks of results and inputs: a condition each, and what follows where it does not hold."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field, field_validator

from crucible_lineage.condition import parse_condition
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.spec.declared import Declared

__all__ = ["FAIL", "HOLD", "WARN", "Check", "Reproduce", "Verdict"]

FAIL, HOLD, WARN = "fail", "hold", "warn"
PARTS = ("results", "params", "metadata")


@dataclass(frozen=True)
class Verdict:
    """Whether a check held for a dataset, and the values that it went by."""

    passed: bool
    values: Mapping[str, Any]

    @property
    def told(self) -> str:
        """The values in words."""
        return ", ".join(
            f"{name} is {value if value is not None else 'not there'}" for name, value in self.values.items()
        )


class Reproduce(Declared):
    """How a result that is made again is compared: the tolerance of numbers, the kind of files, what does not count."""

    rtol: float | None = Field(default=None, ge=0, lt=1)
    files: dict[str, Literal["numbers", "picture", "bytes"]] = Field(default_factory=dict)
    ignore: tuple[str, ...] = ()


class Check(Declared):
    """A condition in the language of tables, over `results.NAME`, `params.NAME` and `metadata.NAME`.

    Where it does not hold, the dataset is put on hold, or gets a flag, or the step has failed as well.
    """

    that: str
    otherwise: Literal["fail", "hold", "warn"] = Field(default="warn", alias="else")

    @field_validator("that")
    @classmethod
    def _is_understood(cls, text: str) -> str:
        try:
            condition = parse_condition(text)
        except InputError as error:
            raise ValueError(str(error)) from error
        for name in condition.names:
            if name.partition(".")[0] not in PARTS or "." not in name:
                raise ValueError(f"a check goes by results.NAME, params.NAME and metadata.NAME, not by {name!r}")
        if not condition.names:
            raise ValueError("a check goes by a value, as in results.rms < 0.03")
        return text

    def of(self, results: Mapping[str, Any], params: Mapping[str, Any], metadata: Mapping[str, Any]) -> Verdict:
        """Return whether it holds for these values. What cannot be compared does not hold."""
        parts = {"results": results, "params": params, "metadata": metadata}
        condition = parse_condition(self.that)

        def value_of(name: str) -> Any:
            head, _, rest = name.partition(".")
            return parts[head].get(rest)

        try:
            passed = condition.holds(value_of, "it")
        except InputError:
            passed = False
        return Verdict(passed, {name: _plain(value_of(name)) for name in condition.names})


def _plain(value: Any) -> Any:
    """Return a value as a statement can hold it."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)[:200]
