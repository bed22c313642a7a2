"""Helpers in another module of the package."""

from math import hypot as distance

from . import nested
from .nested import *  # noqa: F403

WINDOW = 11
_floor = 0.25


def baseline(value, floor=_floor):
    """The value above its baseline."""
    return distance(value, floor) + deepest(value) + starred(value)  # noqa: F405


def deepest(value):
    return nested.median(value) - _floor


def power(value, exponent=2):
    return value**exponent


def mean(values):
    return sum(values) / len(values)


def unused(value):
    return value
