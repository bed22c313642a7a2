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
    "GET /datasets": form.CursorPage[form.DatasetAnswer],
    "POST /datasets": form.DatasetAnswer,
    "GET /datasets/search": form.SearchAnswer[form.DatasetAnswer],
    "GET /datasets/facets": form.Facets,
    "GET /datasets/{mfid}": form.DatasetAnswer,
    "PATCH /datasets/{mfid}": form.DatasetAnswer,
    "GET /datasets/{mfid}/children": form.Page[form.DatasetAnswer],
    "GET /datasets/{mfid}/parents": form.Page[form.DatasetAnswer],
    "GET /datasets/{mfid}/keywords": list[form.KeywordAnswer],
    "POST /datasets/{mfid}/keywords": form.KeywordAnswer,
    "GET /datasets/{mfid}/thumbnails": list[form.ThumbnailAnswer],
    "POST /datasets/{mfid}/thumbnails": form.ThumbnailAnswer,
    "PATCH /datasets/{mfid}/thumbnails/{number}": form.ThumbnailAnswer,
    "DELETE /datasets/{mfid}/thumbnails/{number}": form.Done,
    "GET /datasets/{mfid}/files": list[form.FileAnswer],
    "POST /datasets/{mfid}/files": form.FileAnswer,
    "GET /datasets/{mfid}/download_links": dict[str, str | None],
    "POST /datasets/{mfid}/upload/initiate": form.Upload,
    "POST /datasets/{mfid}/upload/initiate/multipart": form.Upload,
    "POST /datasets/{mfid}/upload/multipart/initiate": form.Upload,
    "POST /files/{mfid}/upload/multipart/initiate": form.Upload,
    "DELETE /datasets/{parent}/children/{child}": form.Done,
    "DELETE /datasets/{dataset}/samples/{sample}": form.Done,
    "GET /samples": form.CursorPage[form.SampleAnswer],
    "POST /samples": form.SampleAnswer,
    "GET /samples/search": form.SearchAnswer[form.SampleAnswer],
    "GET /samples/facets": form.Facets,
    "GET /samples/{mfid}": form.SampleAnswer,
    "PATCH /samples/{mfid}": form.SampleAnswer,
    "GET /samples/{mfid}/children": form.Page[form.SampleAnswer],
    "GET /samples/{mfid}/parents": form.Page[form.SampleAnswer],
    "DELETE /samples/{parent}/children/{child}": form.Done,
    "GET /resources/{mfid}": form.DatasetAnswer | form.SampleAnswer | form.ProjectAnswer | form.InstrumentAnswer,
    "DELETE /resources/{mfid}": form.Done,
    "GET /resources/{mfid}/links": list[form.LinkAnswer],
    "GET /resources/{mfid}/metadata": form.MetadataAnswer | None,
    "PATCH /resources/{mfid}/metadata": form.MetadataAnswer,
    "POST /resources/{mfid}/metadata": form.MetadataAnswer,
    "GET /resources/metadata/search": form.SearchAnswer[form.SearchHitAnswer],
    "GET /resources/{mfid}/access": list[form.Grant],
    "PUT /resources/{mfid}/access/public": form.Grant,
    "PUT /resources/{mfid}/access/{kind}/{principal}": form.Grant,
    "POST /resources/{mfid}/delete": form.DeletionRequestAnswer,
    "GET /deletion_requests": form.Page[form.DeletionRequestAnswer],
    "GET /deletion_requests/{number}": form.DeletionRequestAnswer,
    "PATCH /deletion_requests/{number}": form.DeletionRequestAnswer,
    "GET /deletion_audit": form.Page[form.DeletedResource],
    "GET /deletion_audit/{number}": form.DeletedResource,
    "GET /files": form.Page[form.FileAnswer],
    "GET /files/{mfid}": form.FileAnswer,
    "PATCH /files/{mfid}": form.FileAnswer,
    "POST /files/{mfid}/ingest": form.IngestionRequestAnswer,
    "GET /ingestion_requests": form.Page[form.IngestionRequestAnswer],
    "GET /ingestion_requests/{number}": form.IngestionRequestAnswer,
    "PATCH /ingestion_requests/{number}": form.IngestionRequestAnswer,
    "GET /ingestors": list[str],
    "GET /projects": form.Page[form.ProjectAnswer],
    "POST /projects": form.ProjectAnswer,
    "GET /projects/search": form.SearchAnswer[form.ProjectAnswer],
    "GET /projects/{reference}": form.ProjectAnswer,
    "PATCH /projects/{reference}": form.ProjectAnswer,
    "GET /projects/{reference}/users": form.Page[form.MemberAnswer],
    "POST /projects/{reference}/users/{user}": list[form.MemberAnswer],
    "PATCH /projects/{reference}/users/{user}": list[form.MemberAnswer],
    "DELETE /projects/{reference}/users/{user}": list[form.MemberAnswer],
    "GET /instruments": form.Page[form.InstrumentAnswer],
    "POST /instruments": form.InstrumentAnswer,
    "GET /instruments/search": form.SearchAnswer[form.InstrumentAnswer],
    "GET /instruments/{reference}": form.InstrumentAnswer,
    "PATCH /instruments/{reference}": form.InstrumentAnswer,
    "GET /entity_graph_cte/{mfid}": form.Graph,
    "GET /project_graph/{project}": form.Graph,
    "GET /users": form.Page[form.User],
    "GET /users/search": list[form.PublicUser],
    "GET /users/{reference}": form.User,
    "GET /service_accounts": form.Page[form.User],
    "GET /account/profile": form.User,
    "PATCH /account/profile": form.User,
}
