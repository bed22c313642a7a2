"""Whether Crucible reads a file (`ingest:`), and whether a dataset counts as complete only when that has ended."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    WithJsonSchema,
    model_validator,
)

__all__ = ["FORMS", "Ingest", "Ingested", "Seconds"]

FORMS = ("form-word", "form-mapping")  # what pydantic calls the two forms of `ingest:`, in the places of faults
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = r"^[0-9]+(\.[0-9]+)?[smh]?$"


def _seconds(value: object) -> Any:
    if not isinstance(value, str):
        return value
    if not re.match(_TIME, value.strip()):
        raise ValueError("this is no time; write seconds, or as in 90s, 10m, 2h")
    text = value.strip()
    unit = text[-1] if text[-1] in "smh" else ""
    return float(text.removesuffix(unit)) * _UNITS[unit]


Seconds = Annotated[
    float,
    BeforeValidator(_seconds),
    Field(gt=0),
    WithJsonSchema({"anyOf": [{"type": "number", "exclusiveMinimum": 0}, {"type": "string", "pattern": _TIME}]}),
]


class Ingest(BaseModel):
    """How Crucible reads the files. With `wait`, the dataset is complete when that has ended, or `timeout` is over."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    wait: bool = False
    timeout: Seconds = 600.0

    @model_validator(mode="after")
    def _waits(self) -> Self:
        if "timeout" in self.model_fields_set and not self.wait:
            raise ValueError("timeout is how long it is waited for; add `wait: true`, or leave it out")
        return self


def _form(value: object) -> str | None:
    if isinstance(value, bool):
        return FORMS[0]
    return FORMS[1] if isinstance(value, Mapping | Ingest) else None


class Ingested(BaseModel):
    """What a declaration says of the ingestion of a dataset's files."""

    ingest: Annotated[
        Annotated[bool, Tag(FORMS[0])] | Annotated[Ingest, Tag(FORMS[1])],
        Discriminator(
            _form,
            custom_error_type="ingest_form",
            custom_error_message="write true, false, or {wait: true, timeout: 10m}",
        ),
    ] = True
    ingestor: str | None = None

    @property
    def is_ingested(self) -> bool:
        """True if Crucible is to read the files."""
        return self.ingest is not False

    @property
    def ingestion(self) -> Ingest:
        """Return how to wait for it."""
        return self.ingest if isinstance(self.ingest, Ingest) else Ingest()
