r"""Values read from a file's name (`power_mW: from name '(\d+)mW'`), and ingestion by Crucible (`ingest:`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Self

from pydantic import BaseModel, Discriminator, Field, Tag, model_validator

from crucible_lineage.errors import InputError
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.pipeline.spec.declared import DeclaredModel, Seconds

FORMS = ("form-word", "form-mapping")  # tags of the two forms of `ingest:` in the locations of pydantic


_FORM = re.compile(r"from name\s+(['\"])(?P<pattern>.+)\1", re.DOTALL)
_INTEGER, _DECIMAL = re.compile(r"[+-]?\d+"), re.compile(r"[+-]?(\d+\.\d*|\.\d+)")


class Ingest(DeclaredModel):
    """Ingestion by Crucible. With `wait`, the dataset is complete once it has ended or `timeout` has passed."""

    wait: bool = Field(default=False, description="true: the dataset is complete only then")
    timeout: Seconds = Field(default=600.0, description="the longest wait: seconds, or as in 90s, 10m, 2h")

    @model_validator(mode="after")
    def _waits(self) -> Self:
        if "timeout" in self.model_fields_set and not self.wait:
            raise ValueError("timeout limits the wait; add `wait: true`, or remove it")
        return self


def _form(value: object) -> str | None:
    if isinstance(value, bool):
        return FORMS[0]
    return FORMS[1] if isinstance(value, Mapping | Ingest) else None


class Ingested(BaseModel):
    """The fields of a declaration for the ingestion of a dataset's files."""

    ingest: Annotated[
        Annotated[bool, Tag(FORMS[0])] | Annotated[Ingest, Tag(FORMS[1])],
        Discriminator(
            _form,
            custom_error_type="ingest_form",
            custom_error_message="write true, false, or {wait: true, timeout: 10m}",
        ),
    ] = Field(default=True, description="whether Crucible reads metadata and a thumbnail from the file")
    ingestor: str | None = Field(default=None, description="the ingestor that reads it; without it, Crucible chooses")

    @property
    def is_ingested(self) -> bool:
        """Whether Crucible should read the files."""
        return self.ingest is not False

    @property
    def ingestion(self) -> Ingest:
        """How to wait for the ingestion."""
        return self.ingest if isinstance(self.ingest, Ingest) else Ingest()


def is_from_name(value: object) -> bool:
    """Return whether the value is a `from name` pattern."""
    return isinstance(value, str) and _FORM.fullmatch(value.strip()) is not None


def from_name_fault(value: object) -> str | None:
    """Return the fault of a `from name` pattern; None for a valid one or a plain value."""
    if not isinstance(value, str) or not value.strip().startswith("from name"):
        return None
    match = _FORM.fullmatch(value.strip())
    if match is None:
        return r"write the pattern in quotes, as in from name '(\d+)mW'"
    try:
        groups = re.compile(match["pattern"]).groups
    except re.error as error:
        return f"'{match['pattern']}' is not a regular expression: {error}"
    return f"'{match['pattern']}' has {groups} groups; the value is the one in round brackets" if groups > 1 else None


def read_from_names(fields: JsonMapping, names: Sequence[str]) -> JsonObject:
    """Fill in the `from name` fields: with text, and in metadata with numbers where they are numeric.

    `names` are paths as declared. A pattern with a `/` is searched in the whole path, any other in the file name.
    Raises InputError if a name does not match, or if several files give different values.
    """
    filled = {name: _read(name, value, names) if is_from_name(value) else value for name, value in fields.items()}
    metadata = {
        name: _number(_read(f"metadata.{name}", value, names)) if is_from_name(value) else value
        for name, value in (fields.get("metadata") or {}).items()
    }
    return {**filled, **({"metadata": metadata} if "metadata" in fields else {})}


def _read(field: str, value: str, names: Sequence[str]) -> str:
    pattern = _FORM.fullmatch(value.strip())["pattern"]  # type: ignore[index]  # checked by the caller
    values: dict[str, str] = {}
    for name in names:
        text = name if "/" in pattern else name.rpartition("/")[2]
        match = re.search(pattern, text)
        if match is None:
            raise InputError(f"{text!r} does not match '{pattern}', from which its {field} is read")
        values.setdefault(match[match.re.groups], text)
    if len(values) != 1:
        shown = ", ".join(f"{value!r} ({source})" for value, source in values.items())
        raise InputError(f"the names of one dataset's files give several values for {field}: {shown}")
    return next(iter(values))


def _number(text: str) -> int | float | str:
    """Convert a numeric text (`05` to 5, `2.50` to 2.5); return any other unchanged."""
    if _INTEGER.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text
