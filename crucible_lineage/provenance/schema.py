"""The provenance record as typed, frozen values, the source of its JSON Schema (schema.json).

Records have to fit the schema. New ones have no unknown keys; existing ones may, since a later version may have written
them. docs/site/record_page.py generates the reference from these types.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from crucible_lineage.errors import InputError
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.provenance.parts import (
    Agent,
    Attachment,
    File,
    FilesRecipe,
    ManualActivity,
    Mfid,
    Moment,
    Pipeline,
    RecipeFacts,
    RecordPart,
    Result,
    Software,
    StatementActivity,
    StatementRecipe,
    StepActivity,
    StepRecipe,
    SupportActivity,
    Text,
    Used,
)
from crucible_lineage.provenance.recipe import recipe_sha256
from crucible_lineage.refs import FileRef

SCHEMA_FILE = Path(__file__).with_name("schema.json")
MOST_FAULTS = 5  # more do not help the reader of a message


class ProvenanceRecord(RecordPart):
    """Provenance of a dataset (prov:Entity), of one of two kinds."""

    schema_: Literal["crucible-lineage/provenance/1"] = Field(alias="schema")
    status: Literal["incomplete", "complete"] = Field(
        description="incomplete before the first byte is sent, complete after the last"
    )
    used: list[Used] = Field(description="prov:used; may have fewer entries than attached.used")
    generated: list[File] | None = Field(None, description="prov:generated; absent if the list is in the attached file")
    equal_parents: dict[str, Mfid] | None = Field(
        None,
        description="later parents that would give the same: {parent: the one in `used` with equal bytes and origin}",
    )
    agent: Agent
    attached: Attachment | None = None
    registrar: Text | None = Field(None, description="the registration that wrote this record")
    completed: dict[str, Moment] | None = Field(
        None,
        description="registrations that finished, and when; a record is complete if its registrar is among them",
    )
    result: Result | None = None
    facts: RecipeFacts | None = Field(
        None, description="facts about this result for steps that request them, as registered"
    )

    @model_validator(mode="after")
    def _has_all_parts(self) -> ProvenanceRecord:
        if self.attached is None and (self.generated is None or self.recipe_part is None):
            raise ValueError("without an attached file there have to be `recipe` and `generated`")
        return self

    @property
    def as_step(self) -> StepRecord | None:
        """This record, if it belongs to an output of a step."""
        return None

    @property
    def is_derived(self) -> bool:
        """Whether it was made from other datasets."""
        return bool(self.used) or bool(self.attached and self.attached.used)

    @property
    def replaces(self) -> str | None:
        """The dataset that it was made to replace."""
        return None

    @property
    def recipe_part(self) -> StepRecipe | FilesRecipe | StatementRecipe | None:
        """The recipe, unless it is in the attached file."""
        return None

    @property
    def is_complete(self) -> bool:
        """Whether the registration that wrote this record finished."""
        if self.status != "complete":
            return False
        return "registrar" not in self.model_fields_set or self.registrar in (self.completed or {})

    @property
    def is_whole(self) -> bool:
        """Whether no part is missing that is in the attached file."""
        return self.recipe_part is not None and self.generated is not None

    @cached_property
    def recipe(self) -> JsonMapping:
        """The recipe from which the id is derived, as written. Raises InputError if it is in the attached file."""
        if self.recipe_part is None:
            raise InputError("the recipe of this record is in an attached file; read the whole record")
        return self.recipe_part.document()

    @cached_property
    def recipe_sha256(self) -> str:
        """SHA-256 of the recipe, known even without the attached file."""
        if self.recipe_part is not None:
            return recipe_sha256(self.recipe)
        assert self.attached is not None  # ensured by the validator
        return self.attached.recipe_sha256

    @property
    def files(self) -> tuple[FileRef, ...]:
        """The generated files. Raises InputError if their list is in the attached file."""
        if self.generated is None:
            raise InputError("the list of its files is in an attached file; read the whole record")
        return tuple(FileRef(file.name, file.sha256, file.size, file.preview, file.log) for file in self.generated)

    def with_result(self, result: Mapping[str, object], facts: Mapping[str, object]) -> Self:
        """Return the record with the hashes of what is registered and, if it is derived, its facts."""
        own_facts = {"facts": RecipeFacts.model_validate(facts)} if self.is_derived else {}
        return self.model_copy(update={"result": Result.model_validate(result), **own_facts})

    @property
    def parents(self) -> tuple[str, ...]:
        """The used datasets, each once, in order."""
        return tuple(dict.fromkeys(used.mfid for used in self.used))

    @property
    def all_parents(self) -> tuple[str, ...]:
        """The used datasets, and later ones that would give the same dataset."""
        return tuple(dict.fromkeys((*self.parents, *(self.equal_parents or ()))))


class StepRecord(ProvenanceRecord):
    """An output of a step (prov:Entity, prov:wasGeneratedBy its activity, prov:wasDerivedFrom the used datasets)."""

    recipe_: StepRecipe | None = Field(None, alias="recipe")
    step: Text = Field(description="the name of the step in its code")
    output: Text = Field(description="the name of this output of the step")
    attempt: Annotated[int, Field(ge=0)] = Field(description="number of earlier executions of the recipe")
    pipeline: Pipeline | None = Field(description="null for a step called directly")
    activity: StepActivity
    software: Software
    supersedes: Mfid | None = Field(description="prov:wasRevisionOf: the dataset that was current in its slot")

    @property
    def recipe_part(self) -> StepRecipe | None:
        """The recipe, unless it is in the attached file."""
        return self.recipe_

    @property
    def as_step(self) -> StepRecord:
        """This record."""
        return self

    @property
    def replaces(self) -> str | None:
        """The dataset that it was made to replace."""
        return self.supersedes

    @property
    def declared_step(self) -> str:
        """The step's name in its pipeline, or in its code if no pipeline declared it."""
        return (self.pipeline and self.pipeline.step) or self.step


class FilesRecord(ProvenanceRecord):
    """A dataset registered from files: measured, made by hand, a statement, source or environment."""

    recipe_: FilesRecipe | StatementRecipe | None = Field(None, alias="recipe")
    activity: ManualActivity | StatementActivity | SupportActivity | None = None
    supersedes: Mfid | None = Field(None, description="prov:wasRevisionOf: the dataset that this one replaces")

    @property
    def recipe_part(self) -> FilesRecipe | StatementRecipe | None:
        """The recipe, unless it is in the attached file."""
        return self.recipe_

    @property
    def replaces(self) -> str | None:
        """The dataset that it was made to replace."""
        return self.supersedes


def _kind(record: object) -> str:
    return "step" if isinstance(record, dict) and "step" in record else "files"


Record = Annotated[
    Annotated[StepRecord, Tag("step")] | Annotated[FilesRecord, Tag("files")],
    Discriminator(_kind),
]
_ADAPTER: TypeAdapter[StepRecord | FilesRecord] = TypeAdapter(Record)


def parse_record(document: Any) -> StepRecord | FilesRecord | str:
    """Return the record, or in words why `document` is not one. Unknown keys are allowed."""
    try:
        return _ADAPTER.validate_python(document)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        return "; ".join(_in_words(fault) for fault in faults[:MOST_FAULTS])


def new_record(document: Mapping[str, object]) -> StepRecord | FilesRecord:
    """Return a new record. Raises InputError unless it fits the schema without unknown keys."""
    record = parse_record(document)
    if not isinstance(record, str):
        if not (unknown := _unknown(record)):
            return record
        record = "; ".join(f"{path}: unknown field" for path in unknown[:MOST_FAULTS])
    raise InputError(f"this is not a valid provenance record: {record}")


def schema_text() -> str:
    """Return the text of schema.json."""
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "crucible-lineage/provenance/1",
        "title": "Provenance record of crucible-lineage",
        "description": "How a dataset was made; in its scientific metadata under crucible_lineage.",
        **_ADAPTER.json_schema(by_alias=True),
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _in_words(fault: Any) -> str:
    """Return the path (without the tag of the union, its first part) and the fault."""
    path = ".".join(str(part) for part in fault["loc"][1:])
    return f"{path or 'the record'}: {fault['msg'].removeprefix('Value error, ')}"


def _unknown(value: object, path: str = "") -> list[str]:
    """Return the paths of keys that no model declares."""
    if isinstance(value, BaseModel):
        own = [f"{path}{name}" for name in value.model_extra or ()]
        fields = type(value).model_fields
        below = [_unknown(getattr(value, name), f"{path}{field.alias or name}.") for name, field in fields.items()]
        return [*own, *(key for keys in below for key in keys)]
    if isinstance(value, dict):
        return [key for name, member in value.items() for key in _unknown(member, f"{path}{name}.")]
    if isinstance(value, list):
        return [key for index, member in enumerate(value) for key in _unknown(member, f"{path}{index}.")]
    return []
