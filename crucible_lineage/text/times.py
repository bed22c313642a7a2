"""Times as text in records, options and answers; and whether the time of a measurement is known."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta

LENGTH = r"^[0-9]+(\.[0-9]+)? ?(s|m|min|h|d|w)?$"
_UNITS_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
DEFAULTED = timedelta(seconds=1)  # most between the two times that Crucible gives to a dataset without a time


def utc(value: str | datetime) -> datetime:
    """Return a time, or that of a text in ISO 8601, by default in UTC. Raises ValueError for other texts."""
    time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def is_same_value(field: str, value: object, other: object) -> bool:
    """Return whether two values of a field of a dataset are equal; a `timestamp` may be spelled in several ways."""
    if field == "timestamp" and isinstance(value, str) and isinstance(other, str):
        with suppress(ValueError):
            return utc(value) == utc(other)
    return value == other and isinstance(value, bool) == isinstance(other, bool)


def measured_at(record: Mapping[str, object]) -> datetime | None:
    """Return when the data were measured; None if nobody gave a time, and Crucible put in that of registration."""
    try:
        measured = utc(str(record.get("timestamp") or ""))
    except ValueError:
        return None
    try:
        created = utc(str(record.get("creation_time") or ""))
    except ValueError:
        return measured
    return None if abs(measured - created) <= DEFAULTED else measured


def without_default_time(record: Mapping[str, object]) -> Mapping[str, object]:
    """Return the record without a `timestamp` that Crucible put in."""
    return record if measured_at(record) else {name: value for name, value in record.items() if name != "timestamp"}


def moment_text(moment: datetime) -> str:
    """Return a moment as messages show it."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def time_shown(text: str) -> str:
    """Return a time in a record as messages show it; other texts unchanged."""
    try:
        return moment_text(utc(text))
    except ValueError:
        return text


def seconds_in(text: str) -> float:
    """Return the seconds of a length of time, as 90, 90s, 10min, 2h, 3d or 1w. Raises ValueError for other texts."""
    found = re.match(LENGTH, text.strip())
    if found is None:
        raise ValueError("this is not a length of time; write seconds, or as in 90s, 10m, 2h, 3d, 1w")
    return float(text.strip().removesuffix(found[2] or "")) * _UNITS_S[found[2] or "s"]


def span_text(seconds: float) -> str:
    """Return the distance of two times, which readers compare with limits, in its two greatest units: `2 d 4 h`."""
    left = round(seconds)
    if left < 60:
        return f"{seconds:.3g} s"
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, size)
        if amount or parts:
            parts.append((amount, unit))
    return " ".join(f"{amount} {unit}" for amount, unit in parts[:2] if amount)
