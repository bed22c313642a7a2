"""Write crucible_lineage/provenance/schema.json, the fields of a record: `python docs/record_schema.py`."""

from __future__ import annotations

import json
from pathlib import Path

from pydantic import TypeAdapter

from crucible_lineage.provenance.schema import Record

TARGET = Path(__file__).parents[1] / "crucible_lineage" / "provenance" / "schema.json"


def schema_text() -> str:
    """Return the JSON Schema of the models of records."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "crucible-lineage/provenance/1",
        "title": "Provenance record of crucible-lineage",
        "description": "How a dataset was made; in its scientific metadata under crucible_lineage.",
        **TypeAdapter(Record).json_schema(by_alias=True),
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    TARGET.write_text(schema_text(), encoding="utf-8")
