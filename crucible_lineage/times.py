"""Times in text, as records, options and answers have them; and whether it is known when data were taken."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

DEFAULTED = timedelta(seconds=1)  # between the two times that Crucible gives to a dataset of which nobody says when


def utc(value: str | datetime) -> datetime:
    """The time that `value` says, in ISO 8601 or already read; one without a time zone counts as UTC.

    ValueError if it is none.
    """
    time = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def taken(record: Mapping[str, object]) -> datetime | None:
    """When the data of a dataset were taken, by its record at Crucible; None where nobody has said it.

    There Crucible gives the time of the registration.
    """
    try:
        said = utc(str(record.get("timestamp") or ""))
    except ValueError:
        return None
    try:
        created = utc(str(record.get("creation_time") or ""))
    except ValueError:
        return said
    return None if abs(said - created) <= DEFAULTED else said


def as_known(record: Mapping[str, object]) -> Mapping[str, Any]:
    """The record without a `timestamp` that nobody has said."""
    return record if taken(record) else {name: value for name, value in record.items() if name != "timestamp"}


def moment_text(moment: datetime) -> str:
    """A moment as messages give it."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def span_text(seconds: float) -> str:
    """A length of time in its two greatest units: `2 d 4 h`."""
    left = round(seconds)
    if left < 60:
        return f"{seconds:.3g} s"
    parts: list[tuple[int, str]] = []
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60), ("s", 1)):
        amount, left = divmod(left, size)
        if amount or parts:
            parts.append((amount, unit))
    return " ".join(f"{amount} {unit}" for amount, unit in parts[:2] if amount)
