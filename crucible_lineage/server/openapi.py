"""The OpenAPI document: requests as the routes declare them, answers as `answers` describes them, one form of error."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from crucible_lineage.server import answers as form
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
    inputs = [(name, "serialization", TypeAdapter(kind)) for name, kind in (ANSWERS | {"": form.Problem}).items()]
    found, definitions = TypeAdapter.json_schemas(inputs, ref_template=TEMPLATE)  # type: ignore[arg-type]
    return definitions["$defs"], {name: schema for (name, _), schema in found.items()}


# What is answered on success, by method and path.
ANSWERS: dict[str, Any] = {
    "GET /datasets": form.CursorPage[form.Dataset],
    "POST /datasets": form.Dataset,
    "GET /datasets/search": form.Found[form.Dataset],
    "GET /datasets/facets": form.Facets,
    "GET /datasets/{mfid}": form.Dataset,
    "PATCH /datasets/{mfid}": form.Dataset,
    "GET /datasets/{mfid}/children": form.Page[form.Dataset],
    "GET /datasets/{mfid}/parents": form.Page[form.Dataset],
    "GET /datasets/{mfid}/keywords": list[form.Keyword],
    "POST /datasets/{mfid}/keywords": form.Keyword,
    "GET /datasets/{mfid}/thumbnails": list[form.Thumbnail],
    "POST /datasets/{mfid}/thumbnails": form.Thumbnail,
    "PATCH /datasets/{mfid}/thumbnails/{number}": form.Thumbnail,
    "DELETE /datasets/{mfid}/thumbnails/{number}": form.Done,
    "GET /datasets/{mfid}/files": list[form.File],
    "POST /datasets/{mfid}/files": form.File,
    "GET /datasets/{mfid}/download_links": dict[str, str | None],
    "POST /datasets/{mfid}/upload/initiate": form.Upload,
    "POST /datasets/{mfid}/upload/initiate/multipart": form.Upload,
    "POST /datasets/{mfid}/upload/multipart/initiate": form.Upload,
    "POST /files/{mfid}/upload/multipart/initiate": form.Upload,
    "DELETE /datasets/{parent}/children/{child}": form.Done,
    "DELETE /datasets/{dataset}/samples/{sample}": form.Done,
    "GET /samples": form.CursorPage[form.Sample],
    "POST /samples": form.Sample,
    "GET /samples/search": form.Found[form.Sample],
    "GET /samples/facets": form.Facets,
    "GET /samples/{mfid}": form.Sample,
    "PATCH /samples/{mfid}": form.Sample,
    "GET /samples/{mfid}/children": form.Page[form.Sample],
    "GET /samples/{mfid}/parents": form.Page[form.Sample],
    "DELETE /samples/{parent}/children/{child}": form.Done,
    "GET /resources/{mfid}": form.Dataset | form.Sample | form.Project | form.Instrument,
    "DELETE /resources/{mfid}": form.Done,
    "GET /resources/{mfid}/links": list[form.Link],
    "GET /resources/{mfid}/metadata": form.Metadata | None,
    "PATCH /resources/{mfid}/metadata": form.Metadata,
    "POST /resources/{mfid}/metadata": form.Metadata,
    "GET /resources/metadata/search": form.Found[form.SearchHit],
    "GET /resources/{mfid}/access": list[form.Grant],
    "PUT /resources/{mfid}/access/public": form.Grant,
    "PUT /resources/{mfid}/access/{kind}/{principal}": form.Grant,
    "POST /resources/{mfid}/delete": form.DeletionRequest,
    "GET /deletion_requests": form.Page[form.DeletionRequest],
    "GET /deletion_requests/{number}": form.DeletionRequest,
    "PATCH /deletion_requests/{number}": form.DeletionRequest,
    "GET /deletion_audit": form.Page[form.DeletedResource],
    "GET /deletion_audit/{number}": form.DeletedResource,
    "GET /files": form.Page[form.File],
    "GET /files/{mfid}": form.File,
    "PATCH /files/{mfid}": form.File,
    "POST /files/{mfid}/ingest": form.IngestionRequest,
    "GET /ingestion_requests": form.Page[form.IngestionRequest],
    "GET /ingestion_requests/{number}": form.IngestionRequest,
    "PATCH /ingestion_requests/{number}": form.IngestionRequest,
    "GET /ingestors": list[str],
    "GET /projects": form.Page[form.Project],
    "POST /projects": form.Project,
    "GET /projects/search": form.Found[form.Project],
    "GET /projects/{reference}": form.Project,
    "PATCH /projects/{reference}": form.Project,
    "GET /projects/{reference}/users": form.Page[form.Member],
    "POST /projects/{reference}/users/{user}": list[form.Member],
    "PATCH /projects/{reference}/users/{user}": list[form.Member],
    "DELETE /projects/{reference}/users/{user}": list[form.Member],
    "GET /instruments": form.Page[form.Instrument],
    "POST /instruments": form.Instrument,
    "GET /instruments/search": form.Found[form.Instrument],
    "GET /instruments/{reference}": form.Instrument,
    "PATCH /instruments/{reference}": form.Instrument,
    "GET /entity_graph_cte/{mfid}": form.Graph,
    "GET /project_graph/{project}": form.Graph,
    "GET /users": form.Page[form.User],
    "GET /users/search": list[form.PublicUser],
    "GET /users/{reference}": form.User,
    "GET /service_accounts": form.Page[form.User],
    "GET /account/profile": form.User,
    "PATCH /account/profile": form.User,
}
