"""Common parts of declarations: strict frozen models, matching in time, ingestion, and values from file names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
)
from pydantic.json_schema import SkipJsonSchema

from crucible_lineage.errors import InputError
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.text.times import LENGTH, seconds_in


class DeclaredModel(BaseModel):
    """Base of the declaration models: frozen, and unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)


def _known_to_the_reader(value: object, info: ValidationInfo) -> object:
    """Return what only the reader of a file knows; a declaration has no such key."""
    known: JsonMapping = info.context or {}
    if info.field_name in known and value not in (Path(), ""):
        raise ValueError(f"unknown key {info.field_name!r}")
    return known.get(str(info.field_name), value)


_FROM_READER = BeforeValidator(_known_to_the_reader)
Folder = SkipJsonSchema[Annotated[Path, _FROM_READER, Field(validate_default=True)]]
Digest = SkipJsonSchema[Annotated[str, _FROM_READER, Field(validate_default=True)]]


BEFORE, AFTER, EITHER = "before", "after", "either"
NEAREST, EARLIEST, NONE = "nearest", "earliest", "none"


_LENGTH = BeforeValidator(
    lambda value: seconds_in(value) if isinstance(value, str) else value,
    json_schema_input_type=float | Annotated[str, Field(pattern=LENGTH)],
)
Distance = Annotated[float, _LENGTH, Field(ge=0)]
Seconds = Annotated[float, _LENGTH, Field(gt=0)]


def _listed(value: object) -> object:
    """Return a single text as a list of one."""
    return (value,) if isinstance(value, str) else value


OneOrMore = BeforeValidator(_listed, json_schema_input_type=str | tuple[str, ...])
Fields = Annotated[tuple[str, ...], OneOrMore, Field(min_length=1)]


def _one_or_both(value: tuple[str, ...]) -> tuple[str, ...]:
    if len(value) > 1 and {*value} != {BEFORE, AFTER}:
        raise ValueError("name one side, or both as in [before, after]")
    return value


_Side = Literal["before", "after", "either"]
_Sides = BeforeValidator(_listed, json_schema_input_type=_Side | tuple[_Side, ...])
Sides = Annotated[tuple[_Side, ...], Field(min_length=1, max_length=2), AfterValidator(_one_or_both), _Sides]


class TimeMatch(DeclaredModel):
    """Rule that matches datasets by their times of measurement."""

    nearest: Sides | None = Field(
        default=None,
        description="the partner in time: the nearest before, after or on either side of what the step is about; "
        "[before, after]: one on each side",
    )
    within: Distance | None = Field(default=None, description="the largest distance, as in 90s, 10min, 2h, 3d")
    otherwise: Literal["nearest", "earliest", "none"] | None = Field(
        default=None,
        alias="else",
        description="if nothing fits: nearest, earliest, none (no partner); without it, blocked",
    )

    @property
    def sides(self) -> tuple[str, ...]:
        """The sides on which to look for a partner, in order."""
        return self.nearest or (BEFORE,)


class Reproduce(DeclaredModel):
    """How a remade result is compared."""

    rtol: float | None = Field(default=None, ge=0, lt=1, description="the relative tolerance of numbers (1e-9)")
    files: dict[str, Literal["numbers", "picture", "bytes"]] = Field(default={}, description="by name or pattern")
    ignore: tuple[str, ...] = Field(default=(), description="names of values that do not count, as created_at")


_FORM = re.compile(r"from name\s+(['\"])(?P<pattern>.+)\1", re.DOTALL)
_INTEGER, _DECIMAL = re.compile(r"[+-]?\d+"), re.compile(r"[+-]?(\d+\.\d*|\.\d+)")


INGESTION_S = 600.0  # chosen: the longest wait for an ingestion, unless it is declared


def _ingest(value: object) -> object:
    try:
        seconds = seconds_in(value) if isinstance(value, str) else float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        seconds = 0.0
    if isinstance(value, bool) or seconds > 0:
        return value if isinstance(value, bool) else seconds
    raise ValueError("write true, false, or the longest wait for it, as in 90s, 10m, 2h")


class Ingested(BaseModel, defer_build=True):
    """The fields of a declaration for the ingestion of a dataset's files."""

    ingest: Annotated[
        bool | float,
        BeforeValidator(_ingest, json_schema_input_type=bool | float | Annotated[str, Field(pattern=LENGTH)]),
    ] = Field(
        default=True,
        description="whether Crucible reads metadata and a thumbnail from the file; a time, as 10m: the dataset is "
        "complete only then, or once that has passed",
    )
    ingestor: str | None = Field(default=None, description="the ingestor that reads it; without it, Crucible chooses")

    @property
    def is_ingested(self) -> bool:
        """Whether Crucible should read the files."""
        return self.ingest is not False

    @property
    def awaits_ingestion(self) -> bool:
        """Whether the dataset is complete only once its files are ingested."""
        return not isinstance(self.ingest, bool)

    @property
    def ingestion(self) -> JsonObject:
        """The fields of a new dataset for its ingestion."""
        longest_s = self.ingest if self.awaits_ingestion else INGESTION_S
        waits = {"waits_for_ingestion": self.awaits_ingestion, "ingestion_timeout_s": longest_s}
        return {"ingest": self.is_ingested, "ingestor": self.ingestor, **waits}


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
