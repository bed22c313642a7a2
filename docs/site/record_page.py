"""The page on the fields of a provenance record, from its published JSON Schema."""

from __future__ import annotations

import json
from pathlib import Path

from yaml_page import table

__all__ = ["record_page"]

SCHEMA_FILE = Path(__file__).parents[2] / "crucible_lineage" / "provenance" / "schema.json"
INTRODUCTION = """\
# Provenance record

Every field of a record, from [`schema.json`](../crucible_lineage/provenance/schema.json). The page
[Identity and provenance](../identity.md#the-provenance-record) describes how records are written and checked.
"""
TITLES = {"StepRecord": "Record of a result of a step", "FilesRecord": "Record of files"}


def record_page() -> str:
    """Return Markdown: a table for each of the two records, and one for each of their parts."""
    models = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))["$defs"]
    named = sorted(models, key=lambda name: (name not in TITLES, name))
    parts = [INTRODUCTION]
    for name in named:
        if "properties" in models[name]:
            parts.append(f"## {TITLES.get(name, name)} {{#{name.lower()}}}")
            parts += [models[name].get("description", ""), table(models[name])]
    text = "\n\n".join(part for part in parts if part) + "\n"
    return text.replace("[JsonValue](#jsonvalue)", "any JSON")
