"""Classes with behaviour, and instances of them."""

from abc import ABC, abstractmethod
from functools import cached_property

OFFSETS = dict(neon=0.5, argon=0.75)  # noqa: C408 (a call is what is tested)


class Corrected:
    bias = 0.125

    def corrected(self, value):
        return value - self.bias


class Calibration(Corrected):
    """A gain and a memory."""

    limit = 100

    def __init__(self, gain):
        self.gain = gain
        self.seen = []

    def apply(self, value):
        self.seen.append(value)
        return min(self.corrected(value) * self.gain + self.offset, self.limit)

    @cached_property
    def offset(self):
        return 0.0625

    @property
    def doubled(self):
        return self.gain * 2

    @staticmethod
    def parse(text):
        return float(text)

    @classmethod
    def unit(cls):
        return cls(1)


class Shifting(ABC):
    @abstractmethod
    def shifted(self): ...


class Shift(Shifting):
    __slots__ = ("amount",)

    def __init__(self, amount):
        self.amount = amount

    def shifted(self):
        return self.amount + 1

    @property
    def value(self):
        return self.shifted()


class Device:
    pass


Device.factor = 4


class Tuner:
    def __call__(self, value):
        return value * self.strength


tuned = Tuner()
tuned.strength = 0.5
