"""JSON Schema of pipeline files for editors, generated from the models."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from crucible_lineage.pipeline.declare.pipeline import PipelineSpec

MODELINE = "# yaml-language-server: $schema={path}"
_REFERENCE = {"type": "string", "pattern": "^\\$\\{(params|env)\\..+\\}$"}


class _WithReferences(GenerateJsonSchema):
    """Allows references to variables where numbers and booleans are expected."""

    def int_schema(self, schema: Any) -> dict[str, Any]:
        return {"anyOf": [super().int_schema(schema), _REFERENCE]}

    def float_schema(self, schema: Any) -> dict[str, Any]:
        return {"anyOf": [super().float_schema(schema), _REFERENCE]}

    def bool_schema(self, schema: Any) -> dict[str, Any]:
        return {"anyOf": [super().bool_schema(schema), _REFERENCE]}


def pipeline_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12), with the keys that are resolved before a pipeline is checked."""
    schema = PipelineSpec.model_json_schema(by_alias=True, schema_generator=_WithReferences)
    schema["properties"]["params"] = {
        "type": "object",
        "description": "values for ${params.NAME}, which --set can change",
    }
    return {**schema, "$schema": GenerateJsonSchema.schema_dialect, "title": "crucible-lineage pipeline"}
