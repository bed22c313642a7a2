"""The declaration of a pipeline: what may stand in the YAML file, as typed values."""

from __future__ import annotations

import difflib
import hashlib
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, field_validator, model_validator

from crucible_lineage.errors import Finding, InputError
from crucible_lineage.ids import canonical_json, is_mfid
from crucible_lineage.pipeline.document import Document, Location, read_document

__all__ = [
    "DatasetInput",
    "FileInput",
    "OutputFields",
    "PipelineSpec",
    "SelectInput",
    "Source",
    "StepSpec",
    "load_pipeline",
    "located",
]

PACKAGE = "package:"
NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"


class _Declared(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DatasetFields(_Declared):
    """Fields of a dataset's record that a declaration may set."""

    dataset_name: str | None = None
    measurement: str | None = None
    data_type: str | None = None
    session_name: str | None = None
    instrument_name: str | None = None
    instrument_id: str | None = None
    keywords: tuple[str, ...] = ()
    metadata: dict[str, Any] = Field(default_factory=dict)
    public: bool = False


class FileInput(DatasetFields):
    """A measured file (or several) that is registered as a raw dataset if it is new.

    `timestamp` is when it was measured. Where that is not known, `known_since` may name a moment at which the data was
    known to exist: it orders the id, as a timestamp would, and claims nothing in the record.
    """

    file: str | tuple[str, ...]
    timestamp: datetime | None = None
    known_since: datetime | None = None
    samples: tuple[str, ...] = ()
    ingest: bool = True

    @field_validator("samples")
    @classmethod
    def _mfids(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for mfid in value:
            _require_mfid(mfid)
        return value

    @field_validator("timestamp", "known_since")
    @classmethod
    def _with_zone(cls, value: datetime | None) -> datetime | None:
        if value is not None and value.tzinfo is None:
            raise ValueError("the time zone is missing; write it as in 2024-05-01T12:00:00+02:00, or Z for UTC")
        return value

    def paths(self, folder: Path) -> list[Path]:
        """The files on disk. Relative ones start from `folder`, `package:NAME/PATH` from an installed package."""
        names = [self.file] if isinstance(self.file, str) else list(self.file)
        return [located(name, folder) for name in names]


class DatasetInput(_Declared):
    """A dataset that exists, by its MFID."""

    dataset: str

    @field_validator("dataset")
    @classmethod
    def _mfid(cls, value: str) -> str:
        return _require_mfid(value)


def _require_mfid(value: str) -> str:
    if not is_mfid(value):
        raise ValueError("this is no MFID (26 symbols, 0 to 9 and lowercase letters without i, l, o, u)")
    return value


class SelectInput(_Declared):
    """All datasets of the project that match these filters, oldest first, as a list."""

    select: dict[str, Any]


def _input_kind(value: Any) -> str | None:
    keys = value if isinstance(value, dict) else {}
    return next((kind for kind in ("file", "dataset", "select") if kind in keys), None)


PipelineInput = Annotated[
    Annotated[FileInput, Tag("file")] | Annotated[DatasetInput, Tag("dataset")] | Annotated[SelectInput, Tag("select")],
    Discriminator(
        _input_kind,
        custom_error_type="input_kind",
        custom_error_message="an input needs one of the keys file, dataset or select",
    ),
]


class Source(_Declared):
    """What a step's input is taken from: an input of the pipeline or a step, and which of its files."""

    source: str = Field(alias="from")
    output: str | None = None
    files: str | None = None


class OutputFields(DatasetFields):
    """How the child dataset of a step is described."""

    ingest: bool = True
    ingestor: str | None = None
    samples: Literal["inherit", "none"] = "inherit"


class StepSpec(_Declared):
    """One step: the function or command, where its inputs come from, and its parameters."""

    uses: str | None = None
    run: str | tuple[str, ...] | None = None
    inputs: dict[str, Source | tuple[Source, ...]] = Field(default_factory=dict)
    params: dict[str, Any] = Field(default_factory=dict)
    output: OutputFields = OutputFields()
    retries: int = Field(default=0, ge=0, le=100)
    timeout: float | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.uses is None) == (self.run is None):
            raise ValueError("a step needs one of the keys uses (a function) and run (a command)")
        return self

    @field_validator("inputs", mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {role: _source(given) for role, given in value.items()}


class Schedule(_Declared):
    """When the pipeline runs by itself: one of cron, interval (seconds) and rrule."""

    cron: str | None = None
    interval: float | None = Field(default=None, gt=0)
    rrule: str | None = None
    timezone: str = "UTC"


class PipelineSpec(_Declared):
    """A pipeline as it was declared.

    `path` is its file, `folder` what its relative paths start from, `digest` SHA-256 over its content: the same for
    any spelling of it.
    """

    pipeline: str = Field(pattern=NAME)
    description: str | None = None
    project: str
    project_title: str | None = None
    inputs: dict[str, PipelineInput]
    steps: dict[str, StepSpec] = Field(min_length=1)
    schedule: Schedule | None = None
    path: Path
    digest: str

    @property
    def folder(self) -> Path:
        """The folder of the declaration."""
        return self.path.parent


def located(name: str, folder: Path = Path()) -> Path:
    """The file of that name: `package:NAME/PATH` lies in an installed package, a relative path starts from `folder`."""
    if not name.startswith(PACKAGE):
        return folder / name
    package, _, rest = name.removeprefix(PACKAGE).partition("/")
    try:
        spec = find_spec(package)
    except ModuleNotFoundError:
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    if not folders:
        raise InputError(f"{name}: there is no package {package!r} here")
    return Path(folders[0]) / rest


def load_pipeline(path: Path) -> tuple[PipelineSpec, Document]:
    """The pipeline declared in a file. InputError with every fault, each with line, column and a suggestion."""
    document = read_document(path)
    if not isinstance(document.data, dict):
        raise InputError("", [document.finding((), "a pipeline is a mapping with the keys pipeline, project, steps")])
    ours = {"path": path.absolute(), "digest": hashlib.sha256(canonical_json(document.data)).hexdigest()}
    for key in ours:
        if key in document.data:
            raise InputError("", [document.finding((key,), f"unknown key {key!r}")])
    try:
        spec = PipelineSpec.model_validate({**document.data, **ours})
    except ValidationError as error:
        raise InputError("", [_finding(document, dict(fault)) for fault in error.errors()]) from None
    return spec, document


def _source(given: Any) -> Any:
    """The short forms `name` and `step.output`, and lists of them."""
    if isinstance(given, str):
        source, _, output = given.partition(".")
        return {"from": source, "output": output or None}
    return [_source(item) for item in given] if isinstance(given, list) else given


def _finding(document: Document, fault: dict[str, Any]) -> Finding:
    """A fault that pydantic found, in our words and at its place."""
    kinds = {"file", "dataset", "select"}
    raw: tuple[str | int, ...] = fault["loc"]
    location: Location = tuple(
        part
        for index, part in enumerate(raw)
        if not (raw[0] == "inputs" and index == 2 and part in kinds) and part not in ("Source", "tuple[Source, ...]")
    )
    label = ".".join(str(part) for part in location)
    if fault["type"] == "extra_forbidden":
        allowed = _allowed_keys(raw)
        near = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; possible here: {', '.join(sorted(allowed))}"
        return document.finding(location, f"unknown key {location[-1]!r}{hint}")
    if fault["type"] == "missing":
        return document.finding(location[:-1], f"the key {location[-1]!r} is missing{_within(location[:-1])}")
    message = fault["msg"].removeprefix("Value error, ")
    return document.finding(location, f"{label}: {message} (given: {_short(fault['input'])})")


def _within(location: Location) -> str:
    return f" in {'.'.join(str(part) for part in location)}" if location else ""


def _allowed_keys(raw: tuple[str | int, ...]) -> list[str]:
    if len(raw) == 1:
        model: type[BaseModel] = PipelineSpec
    elif raw[0] == "inputs":
        kinds: dict[str, type[BaseModel]] = {"dataset": DatasetInput, "select": SelectInput}
        model = kinds.get(str(raw[2]), FileInput)
    elif raw[0] == "schedule":
        model = Schedule
    elif "output" in raw[:-1]:
        model = OutputFields
    elif "inputs" in raw[:-1]:
        model = Source
    else:
        model = StepSpec
    return [field.alias or name for name, field in model.model_fields.items() if name not in ("path", "digest")]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
