"""The OpenAPI document: requests as the routes declare them, the schema of each response, one schema of errors.

The server itself neither builds nor checks the models described here.
"""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel, ConfigDict, TypeAdapter

from crucible_lineage.server.catalogue.filters import Relationship
from crucible_lineage.server.database import JsonObject
from crucible_lineage.server.instance import PREFIX

Item = TypeVar("Item")
Role = Literal["viewer", "contributor", "editor", "admin", "owner"]


class Answer(BaseModel):
    model_config = ConfigDict(defer_build=True)


class Problem(Answer):
    """An error: one sentence, the faults of individual values, or a code with its details."""

    detail: str | list[JsonObject] | JsonObject


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


class Acknowledgement(Answer):
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
    relationship_type: Relationship | None


class Resource(Answer):
    unique_id: str
    creation_time: str
    modification_time: str
    scientific_metadata: JsonObject | None
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
    deletion_request: JsonObject | None


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
    organization: str | None
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
    scientific_metadata: JsonObject


class SearchHitAnswer(Answer):
    unique_id: str
    resource_type: Literal["dataset", "sample", "project", "instrument"]
    name: str | None
    rank: float
    scientific_metadata: JsonObject


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
    nodes: list[JsonObject]
    edges: list[JsonObject]


WITHOUT_KEY = (f"{PREFIX}/health/", f"{PREFIX}/storage/")
TEMPLATE = "#/components/schemas/{model}"


def describe(app: FastAPI) -> JsonObject:
    """Return the document for all routes of `app`."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components = document.setdefault("components", {})
    schemas, answers = _schemas()
    components["schemas"] = components.get("schemas", {}) | schemas
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _describe_responses(operation, answers.get(f"{method.upper()} {path.removeprefix(PREFIX)}"))
            if not path.startswith(WITHOUT_KEY):
                operation["security"] = [{"key": []}]
    return document


def _describe_responses(operation: JsonObject, schema: JsonObject | None) -> None:
    responses = operation["responses"]
    success = next(code for code in responses if code.startswith("2"))
    if schema is not None:
        responses[success]["content"] = {"application/json": {"schema": schema}}
    problem = {"application/json": {"schema": {"$ref": TEMPLATE.format(model="Problem")}}}
    responses.pop("422", None)
    responses["4XX"] = {"description": "Refused; `detail` says why", "content": problem}


def _schemas() -> tuple[JsonObject, dict[str, JsonObject]]:
    """Return the named schemas, and the schema of the successful response by method and path."""
    inputs = [(name, "serialization", TypeAdapter(kind)) for name, kind in (ANSWERS | {"": Problem}).items()]
    schemas, definitions = TypeAdapter.json_schemas(inputs, ref_template=TEMPLATE)  # type: ignore[arg-type]
    return definitions["$defs"], {name: schema for (name, _), schema in schemas.items()}


# The body of a successful response, by method and path.
ANSWERS: JsonObject = {
    "GET /datasets": CursorPage[DatasetAnswer],
    "POST /datasets": DatasetAnswer,
    "GET /datasets/search": SearchAnswer[DatasetAnswer],
    "GET /datasets/facets": Facets,
    "GET /datasets/{mfid}": DatasetAnswer,
    "PATCH /datasets/{mfid}": DatasetAnswer,
    "GET /datasets/{mfid}/children": Page[DatasetAnswer],
    "GET /datasets/{mfid}/parents": Page[DatasetAnswer],
    "GET /datasets/{mfid}/keywords": list[KeywordAnswer],
    "POST /datasets/{mfid}/keywords": KeywordAnswer,
    "GET /datasets/{mfid}/thumbnails": list[ThumbnailAnswer],
    "POST /datasets/{mfid}/thumbnails": ThumbnailAnswer,
    "PATCH /datasets/{mfid}/thumbnails/{number}": ThumbnailAnswer,
    "DELETE /datasets/{mfid}/thumbnails/{number}": Acknowledgement,
    "GET /datasets/{mfid}/files": list[FileAnswer],
    "POST /datasets/{mfid}/files": FileAnswer,
    "GET /datasets/{mfid}/download_links": dict[str, str | None],
    "POST /datasets/{mfid}/upload/initiate": Upload,
    "POST /datasets/{mfid}/upload/initiate/multipart": Upload,
    "POST /datasets/{mfid}/upload/multipart/initiate": Upload,
    "POST /files/{mfid}/upload/multipart/initiate": Upload,
    "DELETE /datasets/{parent}/children/{child}": Acknowledgement,
    "DELETE /datasets/{dataset}/samples/{sample}": Acknowledgement,
    "GET /samples": CursorPage[SampleAnswer],
    "POST /samples": SampleAnswer,
    "GET /samples/search": SearchAnswer[SampleAnswer],
    "GET /samples/facets": Facets,
    "GET /samples/{mfid}": SampleAnswer,
    "PATCH /samples/{mfid}": SampleAnswer,
    "GET /samples/{mfid}/children": Page[SampleAnswer],
    "GET /samples/{mfid}/parents": Page[SampleAnswer],
    "DELETE /samples/{parent}/children/{child}": Acknowledgement,
    "GET /resources/{mfid}": DatasetAnswer | SampleAnswer | ProjectAnswer | InstrumentAnswer,
    "DELETE /resources/{mfid}": Acknowledgement,
    "GET /resources/{mfid}/links": list[LinkAnswer],
    "GET /resources/{mfid}/metadata": MetadataAnswer | None,
    "PATCH /resources/{mfid}/metadata": MetadataAnswer,
    "POST /resources/{mfid}/metadata": MetadataAnswer,
    "GET /resources/metadata/search": SearchAnswer[SearchHitAnswer],
    "GET /resources/{mfid}/access": list[Grant],
    "PUT /resources/{mfid}/access/public": Grant,
    "PUT /resources/{mfid}/access/{kind}/{principal}": Grant,
    "POST /resources/{mfid}/delete": DeletionRequestAnswer,
    "GET /deletion_requests": Page[DeletionRequestAnswer],
    "GET /deletion_requests/{number}": DeletionRequestAnswer,
    "PATCH /deletion_requests/{number}": DeletionRequestAnswer,
    "GET /deletion_audit": Page[DeletedResource],
    "GET /deletion_audit/{number}": DeletedResource,
    "GET /files": Page[FileAnswer],
    "GET /files/{mfid}": FileAnswer,
    "PATCH /files/{mfid}": FileAnswer,
    "POST /files/{mfid}/ingest": IngestionRequestAnswer,
    "GET /ingestion_requests": Page[IngestionRequestAnswer],
    "GET /ingestion_requests/{number}": IngestionRequestAnswer,
    "PATCH /ingestion_requests/{number}": IngestionRequestAnswer,
    "GET /ingestors": list[str],
    "GET /projects": Page[ProjectAnswer],
    "POST /projects": ProjectAnswer,
    "GET /projects/search": SearchAnswer[ProjectAnswer],
    "GET /projects/{reference}": ProjectAnswer,
    "PATCH /projects/{reference}": ProjectAnswer,
    "GET /projects/{reference}/users": Page[MemberAnswer],
    "POST /projects/{reference}/users/{user}": list[MemberAnswer],
    "PATCH /projects/{reference}/users/{user}": list[MemberAnswer],
    "DELETE /projects/{reference}/users/{user}": list[MemberAnswer],
    "GET /instruments": Page[InstrumentAnswer],
    "POST /instruments": InstrumentAnswer,
    "GET /instruments/search": SearchAnswer[InstrumentAnswer],
    "GET /instruments/{reference}": InstrumentAnswer,
    "PATCH /instruments/{reference}": InstrumentAnswer,
    "GET /entity_graph_cte/{mfid}": Graph,
    "GET /project_graph/{project}": Graph,
    "GET /users": Page[User],
    "GET /users/search": list[PublicUser],
    "GET /users/{reference}": User,
    "GET /service_accounts": Page[User],
    "GET /account/profile": User,
    "PATCH /account/profile": User,
}
