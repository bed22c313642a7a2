"""The form of each record in an answer, for the OpenAPI document; the server itself never builds or checks them."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

__all__ = [
    "CursorPage",
    "DatasetAnswer",
    "DeletedResource",
    "DeletionRequestAnswer",
    "Done",
    "Facets",
    "FileAnswer",
    "Grant",
    "Graph",
    "IngestionRequestAnswer",
    "InstrumentAnswer",
    "KeywordAnswer",
    "LinkAnswer",
    "MemberAnswer",
    "MetadataAnswer",
    "Page",
    "Problem",
    "ProjectAnswer",
    "PublicUser",
    "SampleAnswer",
    "SearchAnswer",
    "SearchHitAnswer",
    "ThumbnailAnswer",
    "Upload",
    "User",
]  # fmt: skip

Item = TypeVar("Item")
Role = Literal["viewer", "contributor", "editor", "admin", "owner"]


class Answer(BaseModel):
    model_config = ConfigDict(defer_build=True)


class Problem(Answer):
    """An error: one sentence, or what is wrong with each value, or a code with what belongs to it."""

    detail: str | list[dict[str, Any]] | dict[str, Any]


class Page(Answer, Generic[Item]):
    items: list[Item]
    limit: int
    total: int
    offset: int


class CursorPage(Answer, Generic[Item]):
    items: list[Item]
    limit: int
    total: int | None  # on the first page only, unless include_total asks for it
    next_cursor: str | None


class SearchAnswer(Answer, Generic[Item]):
    items: list[Item]


class Done(Answer):
    detail: str


class PublicUser(Answer):
    unique_id: str
    username: str | None
    first_name: str
    last_name: str


class User(PublicUser):
    id: int
    email: str | None
    is_service_account: bool
    platform_role: str


class MemberAnswer(User):
    role: Role


class Grant(Answer):
    principal_id: str
    principal_type: Literal["user", "service_account", "project", "public"]
    permission: Role


class Capabilities(Answer):
    can_edit: bool
    can_manage_access: bool
    can_change_status: bool
    can_transfer: bool
    max_grant_role: Role | None


class ProjectRefAnswer(Answer):
    unique_id: str
    project_id: str
    title: str | None


class InstrumentRefAnswer(Answer):
    unique_id: str
    instrument_id: str
    instrument_name: str


class LinkAnswer(Answer):
    unique_id: str
    resource_type: Literal["dataset", "sample"]
    name: str | None
    direction: Literal["source", "target", "undirected"]
    relationship_type: Literal["is_derived_from", "is_part_of"] | None


class Resource(Answer):
    unique_id: str
    creation_time: str
    modification_time: str
    scientific_metadata: dict[str, Any] | None
    capabilities: Capabilities


class _Owned(Resource):
    timestamp: str | None
    public: bool
    owner: PublicUser | None
    owner_orcid: str | None
    project_id: str | None
    project_mfid: str | None
    project: ProjectRefAnswer | None
    project_relation: Literal["assigned", "shared"] | None
    links: list[LinkAnswer] | None
    deletion_request: dict[str, Any] | None


class DatasetAnswer(_Owned):
    resource_type: Literal["dataset"]
    dataset_name: str | None
    measurement: str | None
    data_type: str | None
    data_format: str | None
    session_name: str | None
    size: int | None
    instrument_name: str | None
    instrument_id: str | None
    instrument_mfid: str | None
    instrument: InstrumentRefAnswer | None


class SampleAnswer(_Owned):
    resource_type: Literal["sample"]
    sample_name: str | None
    sample_type: str | None
    description: str | None


class ProjectAnswer(Resource):
    resource_type: Literal["project"]
    project_id: str
    organization: str
    title: str | None
    status: str | None
    lead: PublicUser | None
    role: Role | None
    members: list[MemberAnswer] | None


class InstrumentAnswer(Resource):
    resource_type: Literal["instrument"]
    instrument_id: str
    instrument_name: str
    location: str
    status: Literal["active", "maintenance", "decommissioned"]
    owner: PublicUser | None
    role: Role | None


class MetadataAnswer(Answer):
    unique_id: str
    scientific_metadata: dict[str, Any]


class SearchHitAnswer(Answer):
    unique_id: str
    resource_type: Literal["dataset", "sample", "project", "instrument"]
    name: str | None
    rank: float
    scientific_metadata: dict[str, Any]


class Bucket(Answer):
    value: str | None
    label: str | None
    count: int


class Facets(Answer):
    field: str
    items: list[Bucket]
    limit: int
    next_cursor: str | None


class KeywordAnswer(Answer):
    id: int
    keyword: str
    num_datasets: int


class ThumbnailAnswer(Answer):
    id: int
    dataset_id: int
    thumbnail_name: str
    thumbnail_b64str: str
    mime_type: str


class FileAnswer(Answer):
    mfid: str
    dataset_mfid: str
    filename: str
    size: int | None
    sha256_hash: str | None
    storage_backend: str
    storage_path: str | None
    access_note: str | None
    etag: str


class Upload(Answer):
    upload_id: str | None
    existing_file: FileAnswer | None


class IngestionRequestAnswer(Answer):
    id: int
    status: str
    file_mfid: str
    dataset_mfid: str
    ingestion_class: str | None
    time_created: str
    time_completed: str | None
    error_message: str | None


class _Deletion(Answer):
    id: int
    resource_type: Literal["dataset", "sample", "project", "instrument"]
    resource_id: str
    resource_name: str | None
    requester_id: str | None
    requester: PublicUser | None
    reason: str | None
    request_time: str | None
    review_time: str | None
    reviewer_notes: str | None


class DeletionRequestAnswer(_Deletion):
    status: Literal["pending", "approved", "rejected"]


class DeletedResource(_Deletion):
    deleted_at: str


class Graph(Answer):
    directed: Literal[True]
    multigraph: Literal[False]
    nodes: list[dict[str, Any]]
    edges: list[dict[str, Any]]
