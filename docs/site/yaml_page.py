"""The page on declarations in YAML: every key, from the JSON Schema for editors."""

from __future__ import annotations

import json
from typing import Any

from crucible_lineage.pipeline.declare.pipeline import pipeline_schema

__all__ = ["table", "yaml_page"]

Schema = dict[str, Any]

INTRODUCTION = """\
# YAML

Every key of a pipeline file, from the schema that `crucible-lineage check --schema` writes for editors.
[Pipelines](../pipelines.md) explains them with examples. `${params.NAME}` or `${env.NAME}` may replace
a number, a truth value or a text.
"""


# Titles of the kinds of mapping; others are named as in the schema.
TITLES = {
    "DatasetInput": "Input: datasets",
    "EachInput": "Input: one by one",
    "FileInput": "Input: files",
    "OutputFields": "Output of a step",
    "ResultInput": "Input: results of another pipeline",
    "SelectInput": "Input: a selection",
    "Source": "Input of a step",
    "StepSpec": "Step",
}


def yaml_page() -> str:
    """Return Markdown: one table for the file, and one for each kind of mapping in it."""
    schema = pipeline_schema()
    parts = [INTRODUCTION, "## Pipeline file", _described(schema), table(schema)]
    for name, model in sorted(schema["$defs"].items(), key=lambda item: TITLES.get(item[0], item[0])):
        parts += [f"## {TITLES.get(name, name)} {{#{name.lower()}}}", _described(model), table(model)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _described(model: Schema) -> str:
    return str(model.get("description", ""))


def table(model: Schema) -> str:
    """Return the keys of a kind of mapping as a table."""
    required = set(model.get("required", []))
    rows = ["| key | value | default | |", "|---|---|---|---|"]
    for key, declared in model["properties"].items():
        default = "**required**" if key in required else _default(declared)
        text = " ".join(str(declared.get("description", "")).split()).replace("|", "\\|")
        rows.append(f"| `{key}` | {_type(declared)} | {default} | {text} |")
    return "\n".join(rows)


def _default(declared: Schema) -> str:
    if declared.get("default") in (None, [], {}) or "$ref" in declared:
        return ""
    return f"`{json.dumps(declared['default'])}`"


def _type(declared: Schema) -> str:
    """Return the allowed values: a link to a kind of mapping, or a type with its bounds."""
    if "$ref" in declared:
        name = declared["$ref"].rpartition("/")[2]
        return f"[{TITLES.get(name, name)}](#{name.lower()})"
    if "anyOf" in declared:
        forms = [_type(form) for form in declared["anyOf"] if form.get("type") != "null" and not _is_reference(form)]
        return " or ".join(dict.fromkeys(forms))
    if "enum" in declared or "const" in declared:
        allowed = declared.get("enum", [declared.get("const")])
        return ", ".join(f"`{value}`" for value in allowed)
    if declared.get("type") == "array":
        return f"list of {_type(declared.get('items', {}))}"
    if declared.get("type") == "object":
        inner = declared.get("additionalProperties") or next(iter(declared.get("patternProperties", {}).values()), None)
        return f"mapping to {_type(inner)}" if isinstance(inner, dict) else "mapping"
    return _word(declared)


def _is_reference(form: Schema) -> bool:
    return str(form.get("pattern", "")).startswith("^\\$\\{")


def _word(declared: Schema) -> str:
    word = {"string": "text", "boolean": "true or false"}.get(
        declared.get("type", ""), declared.get("type", "anything")
    )
    bounds = [
        f"{sign} {declared[key]}"
        for key, sign in (("minimum", "≥"), ("exclusiveMinimum", ">"), ("maximum", "≤"), ("exclusiveMaximum", "<"))
        if key in declared
    ]
    return " ".join([word, *bounds])
