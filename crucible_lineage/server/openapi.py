"""The OpenAPI document: requests as the routes declare them, answers as `answers` describes them, one form of error."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import TypeAdapter

from crucible_lineage.server.answers import ANSWERS, Problem
from crucible_lineage.server.http import PREFIX

__all__ = ["describe"]

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
