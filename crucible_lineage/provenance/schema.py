"""The provenance record as a JSON Schema: these models are its source, schema.json is its text.

What is written has to fit, without a key that the schema does not have. What is read has to fit too, but may have more
keys, since a later version may have written it. docs/provenance.md says what each field is for.
"""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    JsonValue,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from crucible_lineage.errors import InputError

__all__ = ["SCHEMA_FILE", "record_faults", "schema_text", "validate_record"]

SCHEMA_FILE = Path(__file__).with_name("schema.json")
MOST_FAULTS = 5  # more do not help whoever reads the message


def _moment(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without a time zone")
    return text


Mfid = Annotated[str, Field(pattern=r"^[0-9a-hjkmnp-tv-z]{26}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1)]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"}), AfterValidator(_moment)]
Hashes = dict[str, Sha256]


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True, frozen=True)


class File(_Part):
    """A file as it was when it was used or generated (prov:Entity)."""

    name: Text
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    preview: bool = False
    log: bool = False


class Used(_Part):
    """A dataset that was used (prov:used), in its role, and those of its files that were given to the step."""

    role: Text
    mfid: Mfid
    files: list[File] | None = Field(None, description="absent where the lists are in the attached file")


class RecipeInput(_Part):
    """A parent and the SHA-256 of each of its files that goes into the id."""

    mfid: Mfid
    files: Hashes


class StepRecipe(_Part):
    """What the id of an output of a step is derived from."""

    kind: Literal["step"]
    project: Text
    step: Text
    output: Text
    code: Text
    params: dict[str, JsonValue]
    inputs: dict[str, list[RecipeInput]]
    packages: dict[str, str] | None = None
    attempt: Annotated[int, Field(ge=1)] | None = None


class FilesRecipe(_Part):
    """What the id of registered files is derived from; `inputs` where a person made them of other datasets."""

    kind: Literal["files"]
    project: Text
    files: Hashes
    inputs: dict[str, list[RecipeInput]] | None = None


class Git(_Part):
    """The checkout that the code lay in."""

    commit: Text
    dirty: bool


class Code(_Part):
    """The code that ran (prov:hadPlan): its fingerprint, its text, and what the fingerprint could not see."""

    fingerprint: Text
    source: str
    not_covered: list[str]
    git: Git | None


class Run(_Part):
    """The run in which it happened; the last two are Prefect's own ids, where Prefect ran it."""

    engine: Text
    run_id: str
    flow_run_id: str | None = None
    task_run_id: str | None = None


class DeclaredOutput(_Part):
    """What was declared of an output and shows nowhere else; `metadata` are names, their values are in the dataset."""

    metadata: list[str] | None = None
    ingest: bool | None = None
    ingestor: str | None = None
    publish: dict[str, str | None] | None = None


class Declared(_Part):
    """What was declared beside the recipe: by it the step can be made again as it was made."""

    retries: Annotated[int, Field(ge=0)] | None = None
    timeout: Annotated[float, Field(gt=0)] | None = Field(None, description="seconds")
    tags: list[str] | None = None
    resources: dict[str, float] | None = None
    output: DeclaredOutput | None = None


class StepActivity(_Part):
    """One execution of a step (prov:Activity)."""

    step: Text
    function: Text
    code: Code
    started: Moment = Field(description="prov:startedAtTime")
    ended: Moment = Field(description="prov:endedAtTime")
    run: Run | None
    declared: Declared | None = None


class HandActivity(_Part):
    """What a person did (prov:Activity)."""

    kind: Literal["by hand"]
    note: str | None


class RunActivity(_Part):
    """The run of a pipeline that a dataset tells of (prov:Activity)."""

    kind: Literal["pipeline run"]
    pipeline: Text
    run_id: Text


class Agent(_Part):
    """Who did it (prov:wasAssociatedWith): the account at Crucible, and the name on the machine."""

    unique_id: str | None
    username: str | None
    is_service_account: bool | None
    local_user: str | None


class Software(_Part):
    """What it ran with (prov:SoftwareAgent)."""

    python: Text
    platform: str
    packages: dict[str, str]


class Pipeline(_Part):
    """The declaration that asked for it, and what the step is called in it."""

    name: Text
    hash: Text
    step: Text | None = None


class Attached(_Part):
    """The file of this dataset that holds what is too long for the record: recipe, used and generated."""

    name: Text
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    recipe_sha256: Sha256 = Field(description="SHA-256 of the recipe's canonical JSON")
    used: Annotated[int, Field(ge=0)] = Field(description="how many datasets were used")
    generated: Annotated[int, Field(ge=0)] = Field(description="how many files were generated")


class Result(_Part):
    """What was registered with it, hashed, so that an edit shows; the record of an older version has none."""

    keys: list[str] = Field(description="JSON Pointers of the scientific metadata that were registered")
    metadata_sha256: Sha256 = Field(description="SHA-256 over their values")
    generated_sha256: Sha256 = Field(description="SHA-256 over the list of files")


class _Record(_Part):
    schema_: Literal["crucible-lineage/provenance/1"] = Field(alias="schema")
    status: Literal["incomplete", "complete"] = Field(description="complete once everything is registered")
    used: list[Used] = Field(description="prov:used; may be shorter than attached.used says")
    generated: list[File] | None = Field(
        None, description="prov:generated; absent where the list is in the attached file"
    )
    agent: Agent
    attached: Attached | None = None
    registrar: Text | None = Field(None, description="the registration that this record is of")
    completed: dict[str, Moment] | None = Field(
        None, description="registrations that came to their end; complete is a record whose registrar is among them"
    )
    result: Result | None = None

    @model_validator(mode="after")
    def _whole(self) -> _Record:
        if self.attached is None and (self.generated is None or getattr(self, "recipe", None) is None):
            raise ValueError("without an attached file there have to be `recipe` and `generated`")
        return self


class StepRecord(_Record):
    """An output of a step (prov:Entity, prov:wasGeneratedBy its activity, prov:wasDerivedFrom what was used)."""

    recipe: StepRecipe | None = None
    step: Text
    output: Text
    attempt: Annotated[int, Field(ge=0)]
    pipeline: Pipeline | None
    activity: StepActivity
    software: Software
    supersedes: Mfid | None = Field(description="prov:wasRevisionOf")


class FilesRecord(_Record):
    """Files that were registered as they were: measured, made by hand of what was used, or telling of a run."""

    recipe: FilesRecipe | None = None
    activity: HandActivity | RunActivity | None = None


def _kind(record: Any) -> str:
    return "step" if isinstance(record, dict) and "step" in record else "files"


Record = Annotated[
    Annotated[StepRecord, Tag("step")] | Annotated[FilesRecord, Tag("files")],
    Discriminator(_kind),
]
_ADAPTER: TypeAdapter[StepRecord | FilesRecord] = TypeAdapter(Record)


def record_faults(record: Any) -> list[str]:
    """What keeps `record` from being a provenance record, in words; empty if it is one. Unknown keys are no fault."""
    return _checked(record)[1]


def validate_record(record: Any) -> None:
    """InputError unless `record` may be written: it fits the schema and has no key that is not in it."""
    found, faults = _checked(record)
    faults = faults or [f"{path}: there is no such field" for path in _unknown(found)]
    if faults:
        raise InputError(f"this is no provenance record that may be written: {'; '.join(faults[:MOST_FAULTS])}")


def schema_text() -> str:
    """The JSON Schema, as it is kept in schema.json."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "crucible-lineage/provenance/1",
        "title": "Provenance record of crucible-lineage",
        "description": "How a dataset came to be; lies in its scientific metadata under crucible_lineage.",
        **_ADAPTER.json_schema(by_alias=True),
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _checked(record: Any) -> tuple[_Record | None, list[str]]:
    try:
        return _ADAPTER.validate_python(record), []
    except ValidationError as error:
        return None, [_in_words(fault) for fault in error.errors(include_url=False, include_input=False)]


def _in_words(fault: Any) -> str:
    """The place (without the first word, which is the union's own), and what is wrong there."""
    place = ".".join(str(part) for part in fault["loc"][1:])
    return f"{place or 'the record'}: {fault['msg'].removeprefix('Value error, ')}"


def _unknown(found: Any, path: str = "") -> list[str]:
    """The paths of keys that no model declares."""
    if isinstance(found, BaseModel):
        here = [f"{path}{name}" for name in found.model_extra or ()]
        fields = type(found).model_fields
        below = [_unknown(getattr(found, name), f"{path}{field.alias or name}.") for name, field in fields.items()]
        return [*here, *(key for keys in below for key in keys)]
    if isinstance(found, dict):
        return [key for name, value in found.items() for key in _unknown(value, f"{path}{name}.")]
    if isinstance(found, list):
        return [key for index, value in enumerate(found) for key in _unknown(value, f"{path}{index}.")]
    return []
