"""The provenance record as typed, frozen values, which are the source of its JSON Schema (schema.json).

What is written has to fit, without a key that the schema does not have. What is read has to fit too, but may have more
keys, since a later version may have written it. docs/site/record_page.py makes the reference from it.
"""

from __future__ import annotations

import hashlib
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
from crucible_lineage.ids import canonical_json
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
    RunActivity,
    Software,
    StatementActivity,
    StatementRecipe,
    StepActivity,
    StepRecipe,
    SupportActivity,
    Text,
    Used,
)
from crucible_lineage.refs import FileRef

SCHEMA_FILE = Path(__file__).with_name("schema.json")
MOST_FAULTS = 5  # more do not help whoever reads the message


class ProvenanceRecord(RecordPart):
    """Provenance of a dataset (prov:Entity); one of two kinds."""

    schema_: Literal["crucible-lineage/provenance/1"] = Field(alias="schema")
    status: Literal["incomplete", "complete"] = Field(
        description="incomplete before the first byte is sent, complete after the last"
    )
    used: list[Used] = Field(description="prov:used; may be shorter than attached.used says")
    generated: list[File] | None = Field(
        None, description="prov:generated; absent where the list is in the attached file"
    )
    equal_parents: dict[str, Mfid] | None = Field(
        None,
        description="later parents that would give the same: {parent: the one of `used` whose bytes and origin it has}",
    )
    agent: Agent
    attached: Attachment | None = None
    registrar: Text | None = Field(None, description="the registration that this record is of")
    completed: dict[str, Moment] | None = Field(
        None,
        description="registrations that finished, and when; a record is complete if its registrar is among them",
    )
    result: Result | None = None
    facts: RecipeFacts | None = Field(
        None, description="what a step that asks for facts is given about this result: as it was registered"
    )

    @model_validator(mode="after")
    def _has_its_parts(self) -> ProvenanceRecord:
        if self.attached is None and (self.generated is None or self.recipe_part is None):
            raise ValueError("without an attached file there have to be `recipe` and `generated`")
        return self

    @property
    def as_step(self) -> StepRecord | None:
        """Return this record, if it is that of an output of a step."""
        return None

    @property
    def is_derived(self) -> bool:
        """True if it was made of other datasets."""
        return bool(self.used) or bool(self.attached and self.attached.used)

    @property
    def replaces(self) -> str | None:
        """The dataset that it was made to replace."""
        return None

    @property
    def recipe_part(self) -> StepRecipe | FilesRecipe | StatementRecipe | None:
        """The recipe, as far as it stands in the record itself."""
        return None

    @property
    def is_complete(self) -> bool:
        """True if the dataset was registered to its end, by the registration whose record this is."""
        if self.status != "complete":
            return False
        return "registrar" not in self.model_fields_set or self.registrar in (self.completed or {})

    @property
    def is_whole(self) -> bool:
        """False if a part of it stands in the attached file and was not read from there."""
        return self.recipe_part is not None and self.generated is not None

    @cached_property
    def recipe(self) -> Mapping[str, Any]:
        """Return the recipe that the id is derived from, as it was written.

        InputError if that is in the attached file.
        """
        if self.recipe_part is None:
            raise InputError("the recipe of this record is in an attached file; ask for the whole record")
        return self.recipe_part.document()

    @cached_property
    def recipe_sha256(self) -> str:
        """SHA-256 of the recipe, known without the attached file too."""
        if self.recipe_part is not None:
            return hashlib.sha256(canonical_json(self.recipe)).hexdigest()
        assert self.attached is not None  # the validator has seen to it
        return self.attached.recipe_sha256

    @property
    def files(self) -> tuple[FileRef, ...]:
        """The files that were generated. InputError if their list is in the attached file."""
        if self.generated is None:
            raise InputError("the list of its files is in an attached file; ask for the whole record")
        return tuple(FileRef(file.name, file.sha256, file.size, file.preview, file.log) for file in self.generated)

    def with_result(self, result: Mapping[str, object], facts: Mapping[str, object]) -> Self:
        """Return the record with the hashes of what is registered and, if it was made of others, its facts."""
        told = {"facts": RecipeFacts.model_validate(facts)} if self.is_derived else {}
        return self.model_copy(update={"result": Result.model_validate(result), **told})

    @property
    def parents(self) -> tuple[str, ...]:
        """The datasets that were used, each once, in their order."""
        return tuple(dict.fromkeys(used.mfid for used in self.used))

    @property
    def all_parents(self) -> tuple[str, ...]:
        """Those, and the ones that it would be the same of."""
        return tuple(dict.fromkeys((*self.parents, *(self.equal_parents or ()))))


class StepRecord(ProvenanceRecord):
    """An output of a step (prov:Entity, prov:wasGeneratedBy its activity, prov:wasDerivedFrom what was used)."""

    recipe_: StepRecipe | None = Field(None, alias="recipe")
    step: Text = Field(description="the name of the step in its code")
    output: Text = Field(description="which of the outputs of the step")
    attempt: Annotated[int, Field(ge=0)] = Field(description="how often the recipe had been made before")
    pipeline: Pipeline | None = Field(description="null for a step called directly")
    activity: StepActivity
    software: Software
    supersedes: Mfid | None = Field(description="prov:wasRevisionOf: the dataset that was current in its slot")

    @property
    def recipe_part(self) -> StepRecipe | None:
        """The recipe, as far as it stands in the record itself."""
        return self.recipe_

    @property
    def as_step(self) -> StepRecord:
        """Return this record."""
        return self

    @property
    def replaces(self) -> str | None:
        """The dataset that it was made to replace."""
        return self.supersedes

    @property
    def declared_step(self) -> str:
        """Return the step's name in its pipeline, or in its code if no pipeline asked for it."""
        return (self.pipeline and self.pipeline.step) or self.step


class FilesRecord(ProvenanceRecord):
    """What was registered as it was: files that were measured, made by hand, or tell of a run; statements; what
    results rest on.
    """

    recipe_: FilesRecipe | StatementRecipe | None = Field(None, alias="recipe")
    activity: ManualActivity | RunActivity | StatementActivity | SupportActivity | None = None
    supersedes: Mfid | None = Field(None, description="prov:wasRevisionOf: the dataset that this one replaces")

    @property
    def recipe_part(self) -> FilesRecipe | StatementRecipe | None:
        """The recipe, as far as it stands in the record itself."""
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
    """The record, or in words what keeps `document` from being one. Unknown keys are no fault."""
    try:
        return _ADAPTER.validate_python(document)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        return "; ".join(_in_words(fault) for fault in faults[:MOST_FAULTS])


def new_record(document: Mapping[str, object]) -> StepRecord | FilesRecord:
    """The record, to be written. InputError unless it fits the schema and has no key that is not in it."""
    found = parse_record(document)
    if not isinstance(found, str):
        if not (unknown := _unknown(found)):
            return found
        found = "; ".join(f"{path}: unknown field" for path in unknown[:MOST_FAULTS])
    raise InputError(f"this is not a valid provenance record: {found}")


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


def _in_words(fault: Any) -> str:
    """The place (without the first word, which is the union's own), and what is wrong there."""
    place = ".".join(str(part) for part in fault["loc"][1:])
    return f"{place or 'the record'}: {fault['msg'].removeprefix('Value error, ')}"


def _unknown(found: object, path: str = "") -> list[str]:
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
