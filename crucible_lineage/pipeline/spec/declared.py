"""Common parts of declarations: strict frozen models, matching in time, and checks of results and inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema

from crucible_lineage.condition import Condition, parse_condition
from crucible_lineage.errors import InputError
from crucible_lineage.times import LENGTH, seconds_in


class DeclaredModel(BaseModel):
    """Base of the declaration models: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


Folder = SkipJsonSchema[Path]  # set by the reader, not declared


BEFORE, AFTER, EITHER = "before", "after", "either"
NEAREST, EARLIEST, NONE = "nearest", "earliest", "none"
SKIP, REGISTERED = "skip", "registered"


def _length(value: object) -> object:
    return seconds_in(value) if isinstance(value, str) else value


_LENGTH = BeforeValidator(_length, json_schema_input_type=float | Annotated[str, Field(pattern=LENGTH)])
Distance = Annotated[float, _LENGTH, Field(ge=0)]
Seconds = Annotated[float, _LENGTH, Field(gt=0)]


def _listed(value: object) -> object:
    return (value,) if isinstance(value, str) else value


OneOrMore = BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])  # a single text is a list of one
Fields = Annotated[tuple[str, ...], OneOrMore, Field(min_length=1)]
Side = Literal["before", "after"]


def _distinct(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(value)) != len(value):
        raise ValueError("`take` names each side once, as in [before, after]")
    return value


Sides = Annotated[tuple[Side, ...], Field(min_length=1, max_length=2), AfterValidator(_distinct)]


class TimeMatch(DeclaredModel):
    """Rule that matches datasets by their times of measurement."""

    nearest: Literal["before", "after", "either"] | None = Field(
        default=None,
        description="the partner in time: the nearest before, after or on either side of what the step is about",
    )
    take: Sides | None = Field(default=None, description="partners on both sides: [before, after]")
    within: Distance | None = Field(default=None, description="the largest distance, as in 90s, 10min, 2h, 3d")
    otherwise: Literal["nearest", "earliest", "none"] | None = Field(
        default=None,
        alias="else",
        description="if nothing fits: nearest, earliest, none (no partner); without it, blocked",
    )
    undated: Literal["skip", "registered"] | None = Field(
        default=None,
        description="data without a time of measurement: skip them, or use the time in their ids (registered)",
    )

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.nearest and self.take:
            raise ValueError("`nearest` gives one partner, `take` one on each side; give one of them")
        return self

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides on which to look for a partner, in order."""
        return self.take or (self.nearest or BEFORE,)


FAIL, HOLD, WARN = "fail", "hold", "warn"
PARTS = ("results", "params", "metadata")


@dataclass(frozen=True)
class Verdict:
    """Outcome of a check on a dataset, with the values that it used."""

    passed: bool
    values: Mapping[str, object]

    @property
    def values_text(self) -> str:
        """The values in words."""
        return ", ".join(
            f"{name} is {value if value is not None else 'not there'}" for name, value in self.values.items()
        )


class Reproduce(DeclaredModel):
    """How a remade result is compared."""

    rtol: float | None = Field(default=None, ge=0, lt=1, description="the relative tolerance of numbers (1e-9)")
    files: dict[str, Literal["numbers", "picture", "bytes"]] = Field(default={}, description="by name or pattern")
    ignore: tuple[str, ...] = Field(default=(), description="names of values that do not count, as created_at")


class Check(DeclaredModel):
    """A condition on a dataset, and what happens if it does not hold."""

    that: str = Field(description="a condition as in `table`, over results.NAME, params.NAME and metadata.NAME")
    otherwise: Literal["fail", "hold", "warn"] = Field(
        default="warn", alias="else", description="if it does not hold: warn (flag it), hold, or fail (the step, too)"
    )

    @field_validator("that")
    @classmethod
    def _is_understood(cls, text: str) -> str:
        condition = declared_condition(text)
        for name in condition.names:
            if name.partition(".")[0] not in PARTS or "." not in name:
                raise ValueError(f"a check may use results.NAME, params.NAME and metadata.NAME, not {name!r}")
        if not condition.names:
            raise ValueError("a check must use a value, as in results.rms < 0.03")
        return text

    def of(
        self, results: Mapping[str, object], params: Mapping[str, object], metadata: Mapping[str, object]
    ) -> Verdict:
        """Evaluate the condition for these values. It fails if they cannot be compared."""
        condition = parse_condition(self.that)
        value = partial(value_of, {"results": results, "params": params, "metadata": metadata})
        try:
            passed = condition.holds(value, "it")
        except InputError:
            passed = False
        return Verdict(passed, {name: _plain(value(name)) for name in condition.names})


def declared_condition(text: str) -> Condition:
    """Parse a condition. Raises ValueError, as validators do."""
    try:
        return parse_condition(text)
    except InputError as error:
        raise ValueError(str(error)) from error


def value_of(fields: Mapping[str, object], name: str) -> object:
    """Return the value of a field such as `instrument_name` or `metadata.laser_nm`; None if it is absent.

    A name with points is a key as a whole, or leads into nested mappings.
    """
    if name in fields:
        return fields[name]
    head, _, rest = name.partition(".")
    inner = fields.get(head)
    return value_of(inner, rest) if rest and isinstance(inner, Mapping) else None


def _plain(value: object) -> object:
    """Return a value in a form that a statement can hold."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, str | int | float | bool | None) else str(value)[:200]
