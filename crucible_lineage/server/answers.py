"""The form of the answers, for the OpenAPI document: what each record holds. Requests are never checked against it."""

from __future__ import annotations

from typing import Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict

__all__ = ["ANSWERS", "Problem"]

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


class Found(Answer, Generic[Item]):
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


class Member(User):
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


class ProjectRef(Answer):
    unique_id: str
    project_id: str
    title: str | None


class InstrumentRef(Answer):
    unique_id: str
    instrument_id: str
    instrument_name: str


class Link(Answer):
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
    project: ProjectRef | None
    project_relation: Literal["assigned", "shared"] | None
    links: list[Link] | None
    deletion_request: dict[str, Any] | None


class Dataset(_Owned):
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
    instrument: InstrumentRef | None


class Sample(_Owned):
    resource_type: Literal["sample"]
    sample_name: str | None
    sample_type: str | None
    description: str | None


class Project(Resource):
    resource_type: Literal["project"]
    project_id: str
    organization: str
    title: str | None
    status: str | None
    lead: PublicUser | None
    role: Role | None
    members: list[Member] | None


class Instrument(Resource):
    resource_type: Literal["instrument"]
    instrument_id: str
    instrument_name: str
    location: str
    status: Literal["active", "maintenance", "decommissioned"]
    owner: PublicUser | None
    role: Role | None


class Metadata(Answer):
    unique_id: str
    scientific_metadata: dict[str, Any]


class SearchHit(Answer):
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


class Keyword(Answer):
    id: int
    keyword: str
    num_datasets: int


class Thumbnail(Answer):
    id: int
    dataset_id: int
    thumbnail_name: str
    thumbnail_b64str: str
    mime_type: str


class File(Answer):
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
    existing_file: File | None


class IngestionRequest(Answer):
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


class DeletionRequest(_Deletion):
    status: Literal["pending", "approved", "rejected"]


class DeletedResource(_Deletion):
    deleted_at: str


class JoinRequest(Answer):
    id: int
    group_name: str
    requester_id: str
    reason: str | None
    status: Literal["pending", "approved", "rejected"]
    request_time: str


class Graph(Answer):
    directed: Literal[True]
    multigraph: Literal[False]
    nodes: list[dict[str, Any]]
    edges: list[dict[str, Any]]


ANSWERS: dict[str, Any] = {
    "GET /datasets": CursorPage[Dataset],
    "POST /datasets": Dataset,
    "GET /datasets/search": Found[Dataset],
    "GET /datasets/facets": Facets,
    "GET /datasets/{mfid}": Dataset,
    "PATCH /datasets/{mfid}": Dataset,
    "GET /datasets/{mfid}/children": Page[Dataset],
    "GET /datasets/{mfid}/parents": Page[Dataset],
    "GET /datasets/{mfid}/keywords": list[Keyword],
    "POST /datasets/{mfid}/keywords": Keyword,
    "GET /datasets/{mfid}/thumbnails": list[Thumbnail],
    "POST /datasets/{mfid}/thumbnails": Thumbnail,
    "PATCH /datasets/{mfid}/thumbnails/{number}": Thumbnail,
    "DELETE /datasets/{mfid}/thumbnails/{number}": Done,
    "GET /datasets/{mfid}/files": list[File],
    "POST /datasets/{mfid}/files": File,
    "GET /datasets/{mfid}/download_links": dict[str, str | None],
    "POST /datasets/{mfid}/upload/initiate": Upload,
    "POST /datasets/{mfid}/upload/initiate/multipart": Upload,
    "POST /datasets/{mfid}/upload/multipart/initiate": Upload,
    "POST /files/{mfid}/upload/multipart/initiate": Upload,
    "DELETE /datasets/{parent}/children/{child}": Done,
    "DELETE /datasets/{dataset}/samples/{sample}": Done,
    "GET /samples": CursorPage[Sample],
    "POST /samples": Sample,
    "GET /samples/search": Found[Sample],
    "GET /samples/facets": Facets,
    "GET /samples/{mfid}": Sample,
    "PATCH /samples/{mfid}": Sample,
    "GET /samples/{mfid}/children": Page[Sample],
    "GET /samples/{mfid}/parents": Page[Sample],
    "DELETE /samples/{parent}/children/{child}": Done,
    "GET /resources/{mfid}": Dataset | Sample | Project | Instrument,
    "DELETE /resources/{mfid}": Done,
    "GET /resources/{mfid}/links": list[Link],
    "GET /resources/{mfid}/metadata": Metadata | None,
    "PATCH /resources/{mfid}/metadata": Metadata,
    "POST /resources/{mfid}/metadata": Metadata,
    "GET /resources/metadata/search": Found[SearchHit],
    "GET /resources/{mfid}/access": list[Grant],
    "PUT /resources/{mfid}/access/public": Grant,
    "PUT /resources/{mfid}/access/{kind}/{principal}": Grant,
    "POST /resources/{mfid}/delete": DeletionRequest,
    "GET /deletion_requests": Page[DeletionRequest],
    "GET /deletion_requests/{number}": DeletionRequest,
    "PATCH /deletion_requests/{number}": DeletionRequest,
    "GET /deletion_audit": Page[DeletedResource],
    "GET /deletion_audit/{number}": DeletedResource,
    "GET /files": Page[File],
    "GET /files/{mfid}": File,
    "PATCH /files/{mfid}": File,
    "POST /files/{mfid}/ingest": IngestionRequest,
    "GET /ingestion_requests": Page[IngestionRequest],
    "GET /ingestion_requests/{number}": IngestionRequest,
    "PATCH /ingestion_requests/{number}": IngestionRequest,
    "GET /ingestors": list[str],
    "GET /projects": Page[Project],
    "POST /projects": Project,
    "GET /projects/search": Found[Project],
    "GET /projects/{reference}": Project,
    "PATCH /projects/{reference}": Project,
    "GET /projects/{reference}/users": Page[Member],
    "POST /projects/{reference}/users/{user}": list[Member],
    "PATCH /projects/{reference}/users/{user}": list[Member],
    "DELETE /projects/{reference}/users/{user}": list[Member],
    "GET /instruments": Page[Instrument],
    "POST /instruments": Instrument,
    "GET /instruments/search": Found[Instrument],
    "GET /instruments/{reference}": Instrument,
    "PATCH /instruments/{reference}": Instrument,
    "GET /entity_graph_cte/{mfid}": Graph,
    "GET /project_graph/{project}": Graph,
    "GET /users": Page[User],
    "POST /users": User,
    "GET /users/search": list[PublicUser],
    "GET /users/{reference}": User,
    "PATCH /users/{reference}": User,
    "GET /users/{reference}/projects": Page[Project],
    "GET /service_accounts": Page[User],
    "GET /account/profile": User,
    "PATCH /account/profile": User,
    "GET /account/join_requests": Page[JoinRequest],
    "GET /join_requests": Page[JoinRequest],
    "PATCH /join_requests/{number}": JoinRequest,
    "POST /access_groups/{group}/join": JoinRequest,
}
