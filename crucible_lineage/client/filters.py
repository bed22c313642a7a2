"""Lists of records, and their filters: names, synonyms, and the form in which they are sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime, time
from typing import Any, Generic, TypeVar

from crucible_lineage.client.connection import Calls, page_of, pages
from crucible_lineage.client.models import ReceivedModel
from crucible_lineage.errors import InputError, ServerError, nearest
from crucible_lineage.json_types import JsonObject
from crucible_lineage.text.times import utc

_OF_BOTH = (  # of datasets and samples
    *("accessible_to_project", "accessible_to_user", "affiliation", "anchor_mfid", "creation_time_gte"),
    *("creation_time_lte", "direction", "include_links", "include_metadata", "include_owner", "modification_time_gte"),
    *("modification_time_lte", "owner_id", "owner_id_is_null", "owner_orcid", "project_id", "project_mfid"),
    *("project_mfid_is_null", "project_scope", "public", "sort", "timestamp", "unique_id", "visibility"),
)
DATASET_FILTERS = (
    *_OF_BOTH,
    *("data_format", "data_format_is_null", "data_type", "dataset_name", "instrument_id", "instrument_mfid"),
    *("instrument_mfid_is_null", "instrument_name", "keyword", "keywords", "measurement", "measurement_is_null"),
    *("sample_id", "sample_mfid", "session_name", "session_name_is_null", "size"),
)
SAMPLE_FILTERS = (
    *_OF_BOTH,
    *("dataset_id", "dataset_mfid", "description", "include_datasets", "sample_name", "sample_type"),
    "sample_type_is_null",
)
PROJECT_FILTERS = (
    *("accessible_to_project", "accessible_to_user", "direction", "include_members", "include_metadata"),
    *("member_ref", "member_role", "project_id", "sort"),
)
INSTRUMENT_FILTERS = (
    *("affiliation", "description", "direction", "include_members", "include_metadata", "include_owner"),
    *("instrument_id", "instrument_name", "instrument_type", "location", "manufacturer", "model", "other_id"),
    *("other_id_source", "owner_id", "sort", "status"),
)
FILE_FILTERS = ("sha256_hash",)
INGESTION_FILTERS = ("dataset_mfid", "file_mfid")
DELETION_FILTERS = ("direction", "project_mfid", "scope", "sort", "status")

SYNONYMS = {"keywords": "keyword", "sample_id": "sample_mfid", "dataset_id": "dataset_mfid"}  # of Crucible's own page

Record = TypeVar("Record", bound=ReceivedModel)


class ListedCalls(Calls, Generic[Record]):
    """Calls that list the records of one collection."""

    _collection: str
    _model: type[Record]
    _allowed: tuple[str, ...]  # filters

    def list(self, *, limit: int | None = None, **filters: object) -> list[Record]:
        """Return the records that match all filters, newest first unless sorted otherwise, all or `limit` of them."""
        return list(self.iter(limit=limit, **filters))

    def iter(self, *, limit: int | None = None, **filters: object) -> Iterator[Record]:
        """Yield what `list` returns, reading each page when it is needed."""
        action = f"list {self._collection.strip('/').replace('_', ' ')}"
        return pages(self._connection, self._collection, self._model, action, self._filters(filters), limit)

    def count(self, **filters: object) -> int:
        """Count the records that match all filters."""
        action = f"count {self._collection.strip('/')}"
        params = {**self._filters(filters), "limit": 1}
        total = page_of(self._connection, self._collection, action, params).get("total")
        if not isinstance(total, int):
            raise ServerError(f"could not {action}: Crucible's answer has no total")
        return total

    def _filters(self, filters: Mapping[str, object]) -> JsonObject:
        return sent_filters(filters, self._allowed)


def sent_filters(filters: Mapping[str, object], allowed: tuple[str, ...]) -> JsonObject:
    """Convert filters to query parameters. Raises InputError for a name that is not allowed."""
    params: JsonObject = {}
    for name, value in filters.items():
        if name not in allowed:
            raise InputError(f"there is no filter {name!r}; {nearest(name, sorted(allowed))}")
        wire_name = SYNONYMS.get(name, name)
        if wire_name in params:
            raise InputError(f"{name} and {wire_name} mean the same filter; give one of them")
        if value is not None:
            params[wire_name] = _wire_value(wire_name, value)
    return params


def _wire_value(name: str, value: object) -> Any:
    """Convert dates and times to ISO 8601 with offset: a date is its whole day, a time without zone is UTC."""
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, datetime):
        return utc(value).isoformat()
    if isinstance(value, date):
        return datetime.combine(value, time.max if name.endswith("_lte") else time.min, UTC).isoformat()
    return value
