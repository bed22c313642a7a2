"""The filters of each list: their names, synonyms, and the form in which they are sent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, TypedDict

from crucible_lineage.errors import InputError, nearest
from crucible_lineage.json_types import JsonObject
from crucible_lineage.times import utc

Words = str | Sequence[str]
Moment = str | date | datetime


class _RecordFilters(TypedDict, total=False):
    """The filters that datasets and samples share."""

    accessible_to_project: Words
    accessible_to_user: Words
    affiliation: Words
    anchor_mfid: str
    creation_time_gte: Moment
    creation_time_lte: Moment
    direction: str
    include_links: bool
    include_metadata: bool
    include_owner: bool
    modification_time_gte: Moment
    modification_time_lte: Moment
    owner_id: str
    owner_id_is_null: bool
    owner_orcid: str
    project_id: str
    project_mfid: str
    project_mfid_is_null: bool
    project_scope: str
    public: bool
    sort: str
    timestamp: str
    unique_id: str
    visibility: str


class DatasetFilters(_RecordFilters, total=False):
    """Filters of `GET /datasets`; `keywords`, `sample_id` and `instrument_id` are synonyms of what is sent."""

    data_format: str
    data_format_is_null: bool
    data_type: str
    dataset_name: str
    instrument_id: str
    instrument_mfid: str
    instrument_mfid_is_null: bool
    instrument_name: str
    keyword: Words
    keywords: Words
    measurement: str
    measurement_is_null: bool
    sample_id: str
    sample_mfid: str
    session_name: str
    session_name_is_null: bool
    size: int


class SampleFilters(_RecordFilters, total=False):
    """Filters of `GET /samples`."""

    dataset_id: str
    dataset_mfid: str
    description: str
    include_datasets: bool
    sample_name: str
    sample_type: str
    sample_type_is_null: bool


class ProjectFilters(TypedDict, total=False):
    """Filters of `GET /projects`."""

    accessible_to_project: Words
    accessible_to_user: Words
    direction: str
    include_members: bool
    include_metadata: bool
    member_ref: Words
    member_role: Words
    project_id: str
    sort: str


class InstrumentFilters(TypedDict, total=False):
    """Filters of `GET /instruments`."""

    affiliation: Words
    description: str
    direction: str
    include_members: bool
    include_metadata: bool
    include_owner: bool
    instrument_id: str
    instrument_name: str
    instrument_type: str
    location: str
    manufacturer: str
    model: str
    other_id: str
    other_id_source: str
    owner_id: str
    sort: str
    status: str


class FileFilters(TypedDict, total=False):
    """Filters of `GET /files`."""

    sha256_hash: str


class IngestionFilters(TypedDict, total=False):
    """Filters of `GET /ingestion_requests`."""

    dataset_mfid: str
    file_mfid: str


class DeletionFilters(TypedDict, total=False):
    """Filters of `GET /deletion_requests`."""

    direction: str
    project_mfid: str
    scope: str
    sort: str
    status: str


SYNONYMS = {"keywords": "keyword", "sample_id": "sample_mfid", "dataset_id": "dataset_mfid"}


def sent_filters(filters: Mapping[str, object], allowed: type) -> JsonObject:
    """Convert filters to query parameters. Raises InputError for a name that `allowed`, a class above, lacks."""
    names = allowed.__annotations__
    params: JsonObject = {}
    for name, value in filters.items():
        if name not in names:
            raise InputError(f"there is no filter {name!r}; {nearest(name, sorted(names))}")
        wire_name = SYNONYMS.get(name, name)
        if wire_name in params:
            raise InputError(f"{name} and {wire_name} mean the same filter; give one of them")
        if value is not None:
            params[wire_name] = _wire_time(wire_name, value)
    return params


def _wire_time(name: str, value: object) -> Any:
    """Convert dates and times to ISO 8601 with offset: a date is its whole day, a time without zone is UTC."""
    if isinstance(value, datetime):
        return utc(value).isoformat()
    if isinstance(value, date):
        return datetime.combine(value, time.max if name.endswith("_lte") else time.min, UTC).isoformat()
    return value
