"""When a file says that it was measured, and with what, as far as its words leave no doubt."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

__all__ = ["acquired", "read_time"]

# Times without a place for doubt: day and month cannot be taken for each other. A date alone is no moment.
_FORMS = (
    "%a %b %d %H:%M:%S %Y",  # Mon Jun 04 14:15:57 2012, as C and SPEC write it
    "%d-%b-%Y %H:%M:%S",
    "%d-%b-%Y %H:%M",
    "%d %b %Y %H:%M:%S",
    "%d %B %Y %H:%M:%S",
    "%b %d, %Y %H:%M:%S",
    "%B %d, %Y %H:%M:%S",
    "%Y/%m/%d %H:%M:%S",
    "%Y:%m:%d %H:%M:%S",  # as EXIF writes it
)
_ISO = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d([.,]\d+)?)? ?(Z|[+-]\d\d:?\d\d)?")
_TIMES = (
    "start_time", "start", "timestamp", "date_time", "datetime", "acquisition_time", "acquisition_date", "acquired",
    "measured", "measurement_time", "measurement_date", "collected", "date", "time_of_measurement",
)  # fmt: skip
_INSTRUMENTS = ("instrument", "instrument_name", "instrument_model", "spectrometer", "microscope", "diffractometer")


def acquired(facts: Mapping[str, object]) -> dict[str, str]:
    """`timestamp` and `instrument_name` where the facts say them, at the top or in a group of their own."""
    groups = list(_groups(facts))
    found = {"timestamp": _first(_time(group) for group in groups), "instrument_name": _instrument(groups)}
    return {name: value for name, value in found.items() if value}


def read_time(text: object, zone: str = "") -> str | None:
    """The moment that text names, as ISO 8601; None for what is no moment or could be two.

    A time without zone is that of this machine, which is mostly the instrument's.
    """
    text = " ".join(f"{text} {zone}".split())
    moment: datetime | None = None
    if _ISO.fullmatch(text):
        moment = _parsed(datetime.fromisoformat, text.replace(",", ".").replace(" +", "+").replace(" Z", "Z"))
    for form in (*_FORMS, *(f"{form} %z" for form in _FORMS)):
        moment = moment or _parsed(lambda value, form=form: datetime.strptime(value, form), text)
    try:
        return moment.astimezone().isoformat() if moment else None
    except (OverflowError, OSError, ValueError):  # a year that the system's calendar does not know
        return None


def _parsed(read: Any, text: str) -> datetime | None:
    try:
        found: datetime = read(text)
    except ValueError:
        return None
    return found


def _groups(facts: Mapping[str, object], depth: int = 2) -> Iterator[dict[str, Any]]:
    """The facts with their names in one spelling, and those of each group below."""
    yield {re.sub(r"[\W_]+", "_", name).strip("_").lower(): value for name, value in facts.items()}
    if depth:
        for value in facts.values():
            if isinstance(value, Mapping):
                yield from _groups(value, depth - 1)


def _time(group: Mapping[str, object]) -> str | None:
    for name in _TIMES:
        value = group.get(name)
        if isinstance(value, str):
            clock = group.get("time") if name == "date" else None
            if found := read_time(value) or (read_time(f"{value} {clock}") if isinstance(clock, str) else None):
                return found
    return None


def _instrument(groups: list[dict[str, Any]]) -> str | None:
    for group in groups:
        for name in _INSTRUMENTS:
            if isinstance(group.get(name), str) and group[name].strip():
                return str(group[name]).strip()
    for group in groups:
        made = [group.get(name) for name in ("manufacturer", "model")]
        if all(isinstance(part, str) and part.strip() for part in made):
            return " ".join(str(part).strip() for part in made)
    return None


def _first(values: Iterator[str | None]) -> str | None:
    return next((value for value in values if value), None)
