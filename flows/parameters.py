"""The parameters of a pipeline's steps as JSON Schema: what Prefect makes the form of a run from."""

from __future__ import annotations

import inspect
from typing import Any

from pydantic import TypeAdapter
from pydantic.errors import PydanticInvalidForJsonSchema, PydanticSchemaGenerationError

from crucible_lineage.errors import InputError
from crucible_lineage.fingerprint.params import canonical_value
from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.functions.inspect import find_step
from crucible_lineage.step import ParameterSpec

__all__ = ["parameter_schemas"]


def parameter_schemas(pipeline: BoundPipeline) -> dict[str, Any]:
    """By `step.parameter`, as in `--set`: its type, choices, and what holds if a run says nothing. No secrets."""
    found = {}
    for name, step in pipeline.steps.items():
        if not step.spec.uses:
            continue
        declared = step.variants[0].given
        swept = step.spec.matrix or {}
        for parameter in find_step(step.spec.uses, step.spec.folder).parameters:
            if not parameter.secret and parameter.name not in swept and parameter.name not in step.spec.references:
                key = f"{name}.{parameter.name}"
                found[key] = {"title": key, **_type(parameter), **_default(parameter, declared)}
    return found


def _type(parameter: ParameterSpec) -> dict[str, Any]:
    """The type, as far as it can be told in one place."""
    if parameter.annotation is inspect.Parameter.empty:
        return {}
    try:
        schema = TypeAdapter(parameter.annotation).json_schema()
    except (PydanticSchemaGenerationError, PydanticInvalidForJsonSchema):
        return {}
    schema.pop("title", None)
    return {} if "$defs" in schema else schema


def _default(parameter: ParameterSpec, declared: Any) -> dict[str, Any]:
    value = declared.get(parameter.name, parameter.default)
    if value is inspect.Parameter.empty:
        return {}
    try:
        return {"default": canonical_value(value, parameter.name)}
    except InputError:
        return {}
