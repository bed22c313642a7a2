"""The step whose fingerprint the tests look at; it reaches everything else in this folder."""

import functools
import math
import re
from functools import partial
from pathlib import Path

import numpy as np
from scipy.signal import savgol_filter as smooth

from crucible_lineage import step

from . import filters, registry
from .calibration import OFFSETS, Calibration, Device, Shift, tuned
from .filters import WINDOW as WIDTH
from .filters import baseline
from .spectra import Band, Kind, Spectrum, Unit, describe

SCALE = 2.5
LEVELS = {"low": 0.1, "high": {"start": 0.8, "end": 0.9}}
KERNEL = np.array([1.0, 2.0, 1.0])
PATTERN = re.compile(r"\d+")
CALIBRATION = Calibration(gain=1.5)
_cache: dict[str, float] = {}
_calls = 0
half = partial(filters.power, exponent=0.5)
double = lambda value: value * 2  # noqa: E731
first, second = (lambda value: value + 1), (lambda value: value + 2)


def unrelated(values):
    return sorted(values)


def also_unrelated(values):
    return max(values)


def make_filter(order):
    def apply(value):
        return value**order

    return apply


cubed = make_filter(3)


def timed(function):
    @functools.wraps(function)
    def wrapper(*args):
        return function(*args) + 0.0

    return wrapper


@timed
def decorated(value):
    return value + 1.0


@functools.lru_cache(maxsize=8)
def cached(value):
    return value * 1.1


def remembered(name):
    global _calls
    _calls += 1
    if name not in _cache:
        _cache[name] = float(len(name))
    return _cache[name]


def weigh(value, weight=lambda item: item / 3, bias=0.5):
    return weight(value) + bias


def numbers(values):
    for value in values:
        yield value * 2


async def fetch(value):
    return value + 4


if math.pi > 3:

    def chosen(value):
        return value + 5

else:

    def chosen(value):
        return value + 6


@step(measurement="Raman Spectroscopy", data_type="bands", keywords=["table"])
def analyze(
    spectrum: Path,
    neon: Path,
    *,
    degree: int = 3,
    label: str = "bands",
    method=filters.mean,
    out: Path,
) -> dict:
    """Everything at once."""
    # a comment in the step
    from .late import late_helper

    values = [double(value) for value in (1.0, 2.0) if value > 0.5]
    total: float = sum(values) * SCALE
    total += half(total) + cubed(total) + decorated(total) + cached(total) + weigh(total)
    total += first(total) + second(total) + chosen(total) + remembered(label)
    total += baseline(total) + filters.nested.median(total) + late_helper(total) + WIDTH
    total += CALIBRATION.apply(total) + OFFSETS["neon"] + Shift(2).value + Device.factor + tuned(total)
    total += registry.FITS[label](total) + float(smooth(KERNEL, 3, 1)[0]) + float(np.sum(KERNEL))
    total += Spectrum(1.0).area + Band(low=1.0).width + Kind.RAMAN.value + describe(2) + len(Unit.__members__)
    total += sum(numbers([1.0])) + LEVELS["high"]["start"] + math.sqrt(4) + len(PATTERN.findall("1 2"))
    names = {key: [item + key for item in (key, label)] for key in LEVELS}
    message = f"{label}: {total:.3f} of {len(names)!r}"

    def summarize(item):
        return item + 7

    (out / "bands.txt").write_text(f"{message} {summarize(degree)} {method([1.0])} {fetch}")
    return {"total": total}
