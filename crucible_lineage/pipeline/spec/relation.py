"""How a declaration relates data in time: `nearest: before`, `take: [before, after]`, `within: 3d`, `else: none`."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from crucible_lineage.pipeline.spec.declared import Declared

__all__ = [
    "AFTER",
    "BEFORE",
    "EARLIEST",
    "EITHER",
    "NEAREST",
    "NONE",
    "REGISTERED",
    "SKIP",
    "Distance",
    "InTime",
    "Side",
]

BEFORE, AFTER, EITHER = "before", "after", "either"
NEAREST, EARLIEST, NONE = "nearest", "earliest", "none"
SKIP, REGISTERED = "skip", "registered"
_UNITS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_DISTANCE = r"^[0-9]+(\.[0-9]+)? ?(s|m|min|h|d|w)$"


def _distance(value: object) -> Any:
    if not isinstance(value, str):
        return value
    found = re.match(_DISTANCE, value.strip())
    if not found:
        raise ValueError("this is not a length of time; write it as in 90s, 10min, 2h, 3d or 1w, or in seconds")
    return float(value.strip().removesuffix(found[2])) * _UNITS[found[2]]


Distance = Annotated[
    float,
    BeforeValidator(_distance),
    Field(ge=0),
    WithJsonSchema({"anyOf": [{"type": "number", "minimum": 0}, {"type": "string", "pattern": _DISTANCE}]}),
]
Side = Literal["before", "after"]


class InTime(Declared):
    """Which data belong to others by their times of measurement.

    `take` gives a partner on each side, in that order. Nothing is taken from beyond `within`. Where nothing fits,
    `otherwise` says what then: without it, what needs the partner is blocked. `undated` is for data without a time:
    `skip` leaves them out, `registered` goes by the moment in their ids.
    """

    nearest: Literal["before", "after", "either"] | None = None
    take: Annotated[tuple[Side, ...], Field(min_length=1, max_length=2)] | None = None
    within: Distance | None = None
    otherwise: Literal["nearest", "earliest", "none"] | None = Field(default=None, alias="else")
    undated: Literal["skip", "registered"] | None = None

    @model_validator(mode="after")
    def _one_rule(self) -> Self:
        if self.nearest and self.take:
            raise ValueError("`nearest` gives one partner, `take` one on each side; give one of them")
        if self.take and len(set(self.take)) != len(self.take):
            raise ValueError("`take` names each side once, as in [before, after]")
        return self

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides on which a partner is taken, in this order."""
        return self.take or (self.nearest or BEFORE,)
