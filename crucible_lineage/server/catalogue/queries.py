"""The query parameters of dataset and sample lists and facets; what is not declared here is refused."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from crucible_lineage.server.catalogue.bodies import moment
from crucible_lineage.server.http import MAX_ROW_ID

__all__ = [
    "ChildDatasetQuery", "ChildSampleQuery", "DatasetFacetQuery", "DatasetQuery", "ResourceQuery", "SampleFacetQuery",
    "SampleQuery",
]  # fmt: skip


def _stored_time(text: str) -> str:
    """A moment as times are stored; text that is none is a validation error."""
    return moment(text).isoformat(timespec="microseconds")


Moment = Annotated[str, AfterValidator(_stored_time)]
Principals = Annotated[list[str], Field(max_length=10)]


class ResourceQuery(BaseModel):
    """What datasets and samples are both filtered by."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(100, ge=0, le=1000)
    cursor: str | None = None
    include_total: bool | None = None
    project_id: str | None = None
    project_mfid: str | None = None
    project_scope: Literal["assigned", "shared", "all"] = "assigned"
    project_mfid_is_null: bool | None = None
    owner_id: str | None = None
    owner_id_is_null: bool | None = None
    affiliation: Annotated[list[Literal["owner"]], Field(max_length=5)] = []
    visibility: Literal["all", "public", "private"] = "all"
    creation_time_gte: Moment | None = None
    creation_time_lte: Moment | None = None
    modification_time_gte: Moment | None = None
    modification_time_lte: Moment | None = None
    accessible_to_user: Principals = []
    accessible_to_project: Principals = []
    direction: Literal["asc", "desc"] | None = None


class _ListQuery(ResourceQuery):
    """What only lists take, and facets do not."""

    offset: int = Field(0, ge=0, le=MAX_ROW_ID)
    include_metadata: bool = False
    include_links: bool = False
    include_owner: bool = False
    owner_orcid: str | None = None
    public: bool | None = None
    unique_id: str | None = None
    timestamp: str | None = None
    anchor_mfid: str | None = None
    sort: Literal["created", "updated", "name"] | None = None


class _DatasetFilters(ResourceQuery):
    sample_mfid: str | None = None
    instrument_mfid: str | None = None
    instrument_mfid_is_null: bool | None = None
    measurement: str | None = None
    data_format: str | None = None
    session_name: str | None = None
    measurement_is_null: bool | None = None
    data_format_is_null: bool | None = None
    session_name_is_null: bool | None = None


class DatasetQuery(_DatasetFilters, _ListQuery):
    keyword: Annotated[list[Annotated[str, Field(max_length=500)]], Field(max_length=20)] = []
    dataset_name: str | None = None
    data_type: str | None = None
    size: int | None = Field(None, ge=0, le=MAX_ROW_ID)
    instrument_name: str | None = None


class ChildDatasetQuery(DatasetQuery):
    relationship_type: Literal["is_derived_from", "is_part_of"] | None = None


class DatasetFacetQuery(_DatasetFilters):
    field: Literal["session", "measurement", "data_format", "owner", "instrument", "project"]
    sort: Literal["value", "label", "count"] = "value"


class _SampleFilters(ResourceQuery):
    dataset_mfid: str | None = None
    sample_type: str | None = None
    sample_type_is_null: bool | None = None


class SampleQuery(_SampleFilters, _ListQuery):
    include_datasets: bool = True
    sample_name: str | None = None
    description: str | None = None


class ChildSampleQuery(SampleQuery):
    relationship_type: Literal["is_derived_from", "is_part_of"] | None = None


class SampleFacetQuery(_SampleFilters):
    field: Literal["sample_type", "owner", "project"]
    sort: Literal["value", "label", "count"] = "value"
