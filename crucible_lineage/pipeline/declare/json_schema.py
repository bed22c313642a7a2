"""The JSON Schema of pipeline files, for editors: drawn from the models, with the short forms that files may use."""

from __future__ import annotations

from typing import Any

from crucible_lineage.pipeline.declare.faults import OURS
from crucible_lineage.pipeline.declare.load import DEFAULTS, INPUT_DEFAULTS
from crucible_lineage.pipeline.spec.key_descriptions import KEY_DESCRIPTIONS
from crucible_lineage.pipeline.spec.pipeline import PipelineSpec

__all__ = ["MODELINE", "pipeline_schema"]

MODELINE = "# yaml-language-server: $schema={path}"
_REFERENCE = {"type": "string", "pattern": "^\\$\\{(params|env)\\..+\\}$"}


def pipeline_schema() -> dict[str, object]:
    """The schema (draft 2020-12)."""
    schema = PipelineSpec.model_json_schema(by_alias=True)
    definitions = schema["$defs"]
    for model in (schema, *definitions.values()):
        _without_ours(model)
        _with_references(model)
    step = definitions["StepSpec"]
    step["properties"]["inputs"] = {"type": "object", "additionalProperties": _source_forms()}
    step["oneOf"] = [{"required": ["uses"]}, {"required": ["run"]}]
    definitions["DatasetInput"]["properties"]["dataset"] = _one_or_more()
    for fields in ("group_by", "across", "same"):
        definitions["Source"]["properties"][fields] = _one_or_more()
    step["properties"] |= {name: _one_or_more() for name in ("group_by", "across", "reads")}
    for name in ("EachInput", "FileInput", "DatasetInput", "SelectInput", "ResultInput"):
        if "match" in definitions[name]["properties"]:
            definitions[name]["properties"]["match"] = _match()
    each = definitions["EachInput"]
    each["additionalProperties"] = True  # what holds for every entry stands beside `each`
    each["properties"]["each"] = {"type": "array", "minItems": 1, "items": {"type": "object"}}
    crux = {
        "type": "object",
        "required": ["crux"],
        "properties": {"crux": {"type": "string"}, "id": {"type": "string"}, "match": _match()},
    }
    kinds = ("EachInput", "FileInput", "DatasetInput", "SelectInput", "ResultInput", "CalibrationInput")
    forms = [*({"$ref": f"#/$defs/{kind}"} for kind in kinds), crux]
    properties = schema["properties"]
    properties["inputs"] = {"type": "object", "additionalProperties": {"anyOf": forms}}
    properties["params"] = {"type": "object"}
    of_files = definitions["FileInput"]["properties"]
    shared = {
        "type": "object",
        "additionalProperties": False,
        "properties": {name: of_files[name] for name in INPUT_DEFAULTS},
        "description": "fields that all inputs of measured files share, unless they say otherwise",
    }
    properties["defaults"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": {**{name: step["properties"][name] for name in DEFAULTS}, "inputs": shared},
    }
    properties["include"] = _one_or_more()
    properties["runner"] = _or_text("Runner", "threads, processes, dask, ray, slurm, or dask=ADDRESS")
    definitions["OutputFields"]["properties"]["publish"] = _or_text("Publish", "gs://bucket/prefix/")
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "crucible-lineage pipeline"
    for name, model in {"": schema, **definitions}.items():
        _described(model, KEY_DESCRIPTIONS.get(name, {}))
    return schema


def _described(model: dict[str, Any], descriptions: dict[str, str]) -> None:
    """The first paragraph of what the model says of itself, and a line for each key."""
    model["description"] = " ".join(model.get("description", "").partition("\n\n")[0].split())
    for key, declared in model["properties"].items():
        if key in descriptions:
            declared["description"] = descriptions[key]


def _or_text(model: str, example: str) -> dict[str, object]:
    """A mapping, or its short form."""
    return {"anyOf": [{"type": "string", "description": example}, {"$ref": f"#/$defs/{model}"}]}


def _without_ours(model: dict[str, Any]) -> None:
    for name in OURS:
        model.get("properties", {}).pop(name, None)
    if "required" in model:
        model["required"] = [name for name in model["required"] if name not in OURS]


def _with_references(model: dict[str, Any]) -> None:
    """Numbers and truth values may also be taken from a variable."""
    for name, declared in model.get("properties", {}).items():
        if declared.get("type") in ("integer", "number", "boolean"):
            said = {key: declared.pop(key) for key in ("description", "default", "title") if key in declared}
            model["properties"][name] = {"anyOf": [declared, _REFERENCE], **said}
        elif isinstance(declared.get("anyOf"), list):
            declared["anyOf"].append(_REFERENCE)


def _source_forms() -> dict[str, object]:
    single = [{"type": "string"}, {"$ref": "#/$defs/Source"}]
    return {"anyOf": [*single, {"type": "array", "minItems": 1, "items": {"anyOf": single}}]}


def _one_or_more() -> dict[str, object]:
    return {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}


def _match() -> dict[str, object]:
    return {"type": "object", "minProperties": 1, "maxProperties": 1, "additionalProperties": _one_or_more()}
