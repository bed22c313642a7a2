"""Values of several kinds."""

from dataclasses import dataclass, field
from enum import Enum
from functools import singledispatch
from typing import NamedTuple, TypedDict

from pydantic import BaseModel


@dataclass(frozen=True)
class Spectrum:
    height: float
    width: float = 2.0
    tags: list = field(default_factory=list)

    @property
    def area(self) -> float:
        return self.height * self.width


class Band(BaseModel):
    low: float
    high: float = 5.0

    @property
    def width(self):
        return self.high - self.low


class Kind(Enum):
    RAMAN = 1
    INFRARED = 2


class Unit(Enum):
    NM = "nm"
    CM1 = "1/cm"


class Row(NamedTuple):
    name: str
    value: float = 1.5


class Entry(TypedDict):
    name: str


@singledispatch
def describe(value):
    return Row("other").value


@describe.register
def _(value: int):
    return value + 13


@describe.register
def _(value: str):
    return len(Entry(name=value))
