"""The OpenAPI document: requests as the routes declare them, answers as `answers` describes them, one form of error."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from crucible_lineage.server.answers import (
    CursorPage,
    Dataset,
    DeletedResource,
    DeletionRequest,
    Done,
    Facets,
    File,
    Found,
    Grant,
    Graph,
    IngestionRequest,
    Instrument,
    JoinRequest,
    Keyword,
    Link,
    Member,
    Metadata,
    Page,
    Problem,
    Project,
    PublicUser,
    Sample,
    SearchHit,
    Thumbnail,
    Upload,
    User,
)
from crucible_lineage.server.http import PREFIX

__all__ = ["ANSWERS", "describe"]

WITHOUT_KEY = (f"{PREFIX}/health/", f"{PREFIX}/storage/")
TEMPLATE = "#/components/schemas/{model}"


def describe(app: FastAPI) -> dict[str, Any]:
    """The document for all routes of `app`."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    components = document.setdefault("components", {})
    schemas, answers = _schemas()
    components["schemas"] = components.get("schemas", {}) | schemas
    components["securitySchemes"] = {"key": {"type": "http", "scheme": "bearer"}}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            _describe_answers(operation, answers.get(f"{method.upper()} {path.removeprefix(PREFIX)}"))
            if not path.startswith(WITHOUT_KEY):
                operation["security"] = [{"key": []}]
    return document


def _describe_answers(operation: dict[str, Any], schema: dict[str, Any] | None) -> None:
    responses = operation["responses"]
    success = next(code for code in responses if code.startswith("2"))
    if schema is not None:
        responses[success]["content"] = {"application/json": {"schema": schema}}
    problem = {"application/json": {"schema": {"$ref": TEMPLATE.format(model="Problem")}}}
    responses.pop("422", None)
    responses["4XX"] = {"description": "Refused; `detail` says why", "content": problem}


def _schemas() -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The named schemas, and the schema of the successful answer by method and path."""
    inputs = [(name, "serialization", TypeAdapter(kind)) for name, kind in (ANSWERS | {"": Problem}).items()]
    found, definitions = TypeAdapter.json_schemas(inputs, ref_template=TEMPLATE)  # type: ignore[arg-type]
    return definitions["$defs"], {name: schema for (name, _), schema in found.items()}


# What is answered on success, by method and path.
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
