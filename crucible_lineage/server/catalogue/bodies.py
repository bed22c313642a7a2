"""The JSON bodies of requests, as far as several routes share their parts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, Field

from crucible_lineage.server.http import MAX_ROW_ID, Form, Loose

EARLIEST_YEAR, LATEST_YEAR = 1000, 9000  # chosen: far from the ends of Python's calendar, where zones overflow it


def moment(text: str) -> datetime:
    """The moment that ISO 8601 text says, in UTC if it says no zone; ValueError for one that no calendar here bears."""
    parsed = datetime.fromisoformat(text)
    try:
        utc = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        utc = None
    if utc is None or not EARLIEST_YEAR <= utc.year <= LATEST_YEAR:
        raise ValueError(f"must lie between the years {EARLIEST_YEAR} and {LATEST_YEAR}")
    return utc


def _as_given(text: str) -> str:
    moment(text)
    return text


Text = Annotated[str, Field(max_length=10_000)]
Moment = Annotated[str, Field(max_length=64), AfterValidator(_as_given)]
Count = Annotated[int, Field(ge=0, le=MAX_ROW_ID)]


class _New(Loose):
    unique_id: str | None = None
    public: bool = False
    owner: str | None = None
    owner_orcid: str | None = None
    project_id: str | None = None
    project_mfid: str | None = None
    timestamp: Moment | None = None
    scientific_metadata: dict[str, object] | None = None


class DatasetBody(_New):
    dataset_name: Text | None = None
    measurement: Text | None = None
    data_type: Text | None = None
    data_format: Text | None = None
    session_name: Text | None = None
    size: Count | None = None
    instrument_name: Text | None = None
    instrument_id: str | None = None
    instrument_mfid: str | None = None


class NewSample(_New):
    sample_name: Text | None = None
    sample_type: Text | None = None
    description: Text | None = None


class DatasetPatch(Form):
    dataset_name: Text | None = None
    measurement: Text | None = None
    data_type: Text | None = None
    data_format: Text | None = None
    session_name: Text | None = None
    timestamp: Moment | None = None
    size: Count | None = None
    instrument_name: str | None = None
    instrument_id: str | None = None
    instrument_mfid: str | None = None
    owner_orcid: str | None = None


class SamplePatch(Form):
    sample_name: Text | None = None
    sample_type: Text | None = None
    description: Text | None = None
    timestamp: Moment | None = None
