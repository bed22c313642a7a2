r"""What is read of a file: from its name (`power_mW: from name '(\d+)mW'`), and by Crucible (`ingest:`)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
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

from crucible_lineage.errors import InputError

FORMS = ("form-word", "form-mapping")  # what pydantic calls the two forms of `ingest:`, in the places of faults
_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0}
_TIME = r"^[0-9]+(\.[0-9]+)?[smh]?$"


_FORM = re.compile(r"from name\s+(['\"])(?P<pattern>.+)\1", re.DOTALL)
_WHOLE, _DECIMAL = re.compile(r"[+-]?\d+"), re.compile(r"[+-]?(\d+\.\d*|\.\d+)")


def _seconds(value: object) -> Any:
    if not isinstance(value, str):
        return value
    if not re.match(_TIME, value.strip()):
        raise ValueError("this is not a time; write seconds, or as in 90s, 10m, 2h")
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
            raise ValueError("timeout is how long to wait; add `wait: true`, or leave it out")
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


def is_from_name(value: object) -> bool:
    """True if the value is to be read from the name of a file."""
    return isinstance(value, str) and _FORM.fullmatch(value.strip()) is not None


def from_name_fault(value: object) -> str | None:
    """Return the fault of a value that is taken from names; None without one, or for a plain value."""
    if not isinstance(value, str) or not value.startswith("from name"):
        return None
    found = _FORM.fullmatch(value.strip())
    if found is None:
        return r"write the pattern in quotes, as in from name '(\d+)mW'"
    try:
        groups = re.compile(found["pattern"]).groups
    except re.error as error:
        return f"'{found['pattern']}' is no regular expression: {error}"
    return f"'{found['pattern']}' has {groups} groups; the value is the one in round brackets" if groups > 1 else None


def read_from_names(fields: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The fields with what the names of the files say: text, and numbers in metadata.

    `names` are paths as they are declared. A pattern with a `/` is looked for in the whole path, any other one in the
    file's own name. InputError if a name does not fit, or if the names of several files say different things.
    """
    filled = {name: _read(name, value, names) if is_from_name(value) else value for name, value in fields.items()}
    metadata = {
        name: _number(_read(f"metadata.{name}", value, names)) if is_from_name(value) else value
        for name, value in (fields.get("metadata") or {}).items()
    }
    return {**filled, **({"metadata": metadata} if "metadata" in fields else {})}


def _read(field: str, value: str, names: Sequence[str]) -> str:
    pattern = _FORM.fullmatch(value.strip())["pattern"]  # type: ignore[index]  # the caller has looked
    said: dict[str, str] = {}
    for name in names:
        looked_at = name if "/" in pattern else name.rpartition("/")[2]
        found = re.search(pattern, looked_at)
        if found is None:
            raise InputError(f"{looked_at!r} does not fit '{pattern}', from which its {field} is read")
        said.setdefault(found[found.re.groups], looked_at)
    if len(said) != 1:
        shown = ", ".join(f"{text!r} ({name})" for text, name in said.items())
        raise InputError(f"the names of one dataset's files give several values for {field}: {shown}")
    return next(iter(said))


def _number(text: str) -> int | float | str:
    """`05` is 5, `2.50` is 2.5, and anything else the text itself."""
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text
