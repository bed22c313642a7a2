"""The provenance record as typed, frozen values, the source of its JSON Schema (schema.json, by docs/record_schema.py).

Records have to fit the schema. New ones have no unknown keys; existing ones may, since a later version may have written
them. docs/site/record_page.py generates the reference from these types.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, Any, Literal, Self

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
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.provenance.recipe import recipe_sha256
from crucible_lineage.refs import FileRef


def _with_time_zone(text: str) -> str:
    if datetime.fromisoformat(text).tzinfo is None:
        raise ValueError("a time without a time zone")
    return text


Mfid = Annotated[str, Field(pattern=r"^[0-9a-hjkmnp-tv-z]{26}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1)]
Moment = Annotated[str, Field(json_schema_extra={"format": "date-time"}), AfterValidator(_with_time_zone)]
Hashes = dict[str, Sha256]


class RecordPart(BaseModel):
    """Base of the record and its parts. They are frozen, and keep unknown keys."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)

    def document(self) -> JsonObject:
        """Return it as JSON, with the keys that it was written with, including unknown ones."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class File(RecordPart):
    """A file at the time of its use or generation (prov:Entity)."""

    name: Text
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    preview: bool = Field(False, description="true for the thumbnail of the dataset")
    log: bool = Field(False, description="true for the output that the step printed")


class CertificateUsed(RecordPart):
    """The certificate by which a calibration was chosen, with its range of validity at that time."""

    statement: Mfid = Field(description="the statement that certifies the calibration")
    since: Text = Field(alias="from", description="start of the range, in UTC, included")
    until: Text | None = Field(description="end of the range, excluded; null for no end")
    by: Text = Field(description="who certified it")
    when: Text = Field(description="when it was certified")
    why: str = Field(description="the reason in their words")
    as_of: str | None = Field(None, description="the moment whose statements the run was asked to use")


class TimeChoice(RecordPart):
    """How a dataset was chosen in time: the rule, and its side and distance from the step's subject."""

    rule: Text = Field(description="the rule by which it was chosen")
    side: Literal["", "before", "after", "around"] = Field(
        description="empty if a time is unknown, or for a valid calibration"
    )
    seconds: float = Field(description="the distance in time")
    same: dict[str, str] = Field(description="fields that are equal in both, with their values")
    members: Annotated[int, Field(ge=2)] | None = Field(None, description="size of the chosen group")
    of_members: Annotated[int, Field(ge=2)] | None = Field(None, description="size of the group that the step is about")
    certificate: CertificateUsed | None = Field(None, description="given if it was chosen by one")


class Used(RecordPart):
    """A dataset that was used (prov:used) in a role, with those of its files that the step received."""

    role: Text = Field(description="the name of the argument, or `parent` for manual work")
    mfid: Mfid
    origin: Mfid | None = Field(None, description="the measured data that it comes from; absent if it is that itself")
    files: list[File] | None = Field(None, description="absent if the lists are in the attached file")
    chosen: TimeChoice | None = Field(None, description="given if it was chosen in time")


class RecipeInput(RecordPart):
    """An input in a recipe: its origin, and the SHA-256 of each of its files."""

    origin: Mfid
    files: Hashes


class RecipeFacts(RecordPart):
    """Facts about a parent that a step receives beside its files; unknown ones are absent."""

    name: str
    instrument: Text | None = None
    measurement: Text | None = None
    timestamp: Text | None = None
    keywords: list[str] | None = None
    metadata: dict[str, JsonValue] | None = None


class StepRecipe(RecordPart):
    """The recipe of an output of a step, from which its id is derived."""

    kind: Literal["step"]
    version: Literal[2]
    project: Text
    step: Text
    output: Text
    code: Text = Field(description="the fingerprint of the code, or `version:` and the declared version")
    params: dict[str, JsonValue] = Field(description="every parameter, defaults included")
    inputs: dict[str, list[RecipeInput]] = Field(description="the parents in each role, in order")
    facts: dict[str, list[RecipeFacts]] | None = Field(
        None, description="facts about the parents in each role, in order; given if the step requests them"
    )
    packages: dict[str, str] | None = Field(None, description="versions of the packages that the step lists")
    salt: Text | None = Field(None, description="given if the id without it was already taken")
    attempt: Annotated[int, Field(ge=1)] | None = Field(None, description="given if it was forced to run again")


class FilesRecipe(RecordPart):
    """The recipe of registered files, from which their id is derived; `inputs` if a person made them."""

    kind: Literal["files"]
    version: Literal[2] | None = Field(None, description="given if a person made them from other datasets")
    project: Text
    files: Hashes = Field(description="name to SHA-256")
    salt: Text | None = Field(None, description="given if the id without it was already taken")
    inputs: dict[str, list[RecipeInput]] | None = Field(None, description="given if a person made them from others")


class StatementAbout(RecordPart):
    """Subject of a statement: datasets, an instrument and a time of measurement, a code fingerprint, a project."""

    datasets: list[Mfid] | None = None
    instrument: Text | None = None
    since: str | None = Field(None, alias="from", description="start of the time of measurement, included")
    until: str | None = Field(None, description="end of the time of measurement, excluded")
    code: Text | None = None
    project: Text | None = None


class StatementRecipe(RecordPart):
    """The recipe of a statement, from which its id is derived."""

    kind: Literal["statement"]
    project: Text
    verb: Text
    about: StatementAbout
    by: Text = Field(description="the account at Crucible")
    why: str
    body: dict[str, JsonValue] | None = Field(None, description="depends on the verb: the name of a flag, a due day")
    revokes: list[Mfid] | None = None
    again: Annotated[int, Field(ge=1)] | None = Field(None, description="number of equal statements revoked before")


class KeptFile(RecordPart):
    """A file of a dataset that results rely on: their source or their environment."""

    mfid: Mfid
    name: Text
    sha256: Sha256


class Program(RecordPart):
    """The program that a command started."""

    path: Text
    sha256: Sha256


class Git(RecordPart):
    """The git checkout that contained the code."""

    commit: Text
    dirty: bool = Field(description="whether files differed from the commit")


class Code(RecordPart):
    """The code that ran (prov:hadPlan): its fingerprint, its text, and what the fingerprint does not cover."""

    fingerprint: Text = Field(description="the hash of the function and all that it reaches")
    source: str = Field(description="the text of the function, its first 20,000 characters")
    pieces: dict[str, str] | None = Field(
        None, description="what the function reaches: texts of functions, values of numbers, else # and a hash"
    )
    not_covered: list[str] = Field(description="objects that the fingerprint does not cover")
    read: list[Text] | None = Field(None, description="files that it read beside its inputs, not part of the identity")
    git: Git | None
    archive: KeptFile | None = Field(None, description="the source files that it relied on")
    left_out: list[Text] | None = Field(None, description="sources that are not in the archive, with the reason")
    program: Program | None = Field(None, description="for a command")


class Run(RecordPart):
    """The run of the execution; the last two are Prefect's ids, if Prefect ran it."""

    engine: Text = Field(description="local or prefect")
    run_id: str
    flow_run_id: str | None = None
    task_run_id: str | None = None


class DeclaredOutput(RecordPart):
    """Declared options of an output; `metadata` lists names, whose values are in the dataset."""

    metadata: list[str] | None = None
    ingest: bool | None = None
    ingestor: str | None = None
    inherit: list[str] | None = None


class DeclaredFields(RecordPart):
    """Declared options of a step beside the recipe, which are needed to repeat it."""

    retries: Annotated[int, Field(ge=0)] | None = Field(None, description="how often a failure is retried")
    timeout: Annotated[float, Field(gt=0)] | None = Field(None, description="seconds")
    reads: list[str] | None = Field(None, description="files beside the declaration that are part of the identity")
    reproduce: dict[str, JsonValue] | None = Field(None, description="how to compare it when it is reproduced")
    output: DeclaredOutput | None = None


class StepActivity(RecordPart):
    """One execution of a step (prov:Activity)."""

    step: Text = Field(description="the name of the step in its code")
    function: Text = Field(description="module and name")
    code: Code
    started: Moment = Field(description="prov:startedAtTime")
    ended: Moment = Field(description="prov:endedAtTime")
    run: Run | None
    declared: DeclaredFields | None = None
    gaps: list[Text] | None = Field(None, description="blocked inputs that its lists omit, with the reasons")


class ManualActivity(RecordPart):
    """Manual work of a person (prov:Activity)."""

    kind: Literal["by hand"]
    note: str | None = Field(description="a note by the person")


class StatementActivity(RecordPart):
    """The making of a statement about results (prov:Activity)."""

    kind: Literal["statement"]
    when: Moment


class SupportActivity(RecordPart):
    """The registration of source or environment that results rely on (prov:Activity)."""

    kind: Literal["source of steps", "environment of steps"]


class Agent(RecordPart):
    """The agent (prov:wasAssociatedWith): the account at Crucible, and the name on the machine."""

    unique_id: str | None = Field(description="ORCID, or the MFID of a service account")
    username: str | None
    is_service_account: bool | None
    local_user: str | None = Field(description="the name on the machine")


class Software(RecordPart):
    """The software that was used (prov:SoftwareAgent)."""

    python: Text
    platform: str
    packages: dict[str, str] = Field(description="versions of the packages that the step reaches")
    container: Text | None = Field(
        None, description="the container image, as registry/name:tag@sha256:..., or `unknown: ` and a description"
    )
    environment: KeptFile | None = Field(None, description="all installed distributions, and the machine")


class Pipeline(RecordPart):
    """The pipeline that declared the step."""

    name: Text
    hash: Text = Field(description="SHA-256 of the text of the declaration")
    step: Text | None = Field(None, description="the name of the step in the declaration")


class Attachment(RecordPart):
    """The file of this dataset with the parts that are too long for the record: recipe, used and generated."""

    name: Text
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    recipe_sha256: Sha256 = Field(description="SHA-256 of the recipe's canonical JSON")
    used: Annotated[int, Field(ge=0)] = Field(description="number of used datasets")
    generated: Annotated[int, Field(ge=0)] = Field(description="number of generated files")


class Result(RecordPart):
    """Hashes of what was registered, which reveal edits."""

    keys: list[str] = Field(description="JSON Pointers to the registered scientific metadata")
    metadata_sha256: Sha256 = Field(description="SHA-256 over their values")
    generated_sha256: Sha256 = Field(description="SHA-256 over the list of files")


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
    masked: list[Text] | None = Field(
        None, description="JSON Pointers to texts of the dataset in which *** stands for a secret"
    )
    inherited: dict[str, list[Text]] | None = Field(
        None, description="fields that it has of its data: their distinct values, of which the dataset has the first"
    )
    registrar: Text | None = Field(None, description="the registration that wrote this record")
    completed: dict[str, Moment] | None = Field(
        None, description="registrations that finished, and when; a record is complete if its registrar is among them"
    )
    result: Result | None = None
    facts: RecipeFacts | None = Field(
        None, description="facts about this result for steps that request them, as registered"
    )

    @model_validator(mode="after")
    def _has_all_parts(self) -> ProvenanceRecord:
        if self.attached is None and (self.generated is None or self.recipe_ is None):
            raise ValueError("without an attached file there have to be `recipe` and `generated`")
        return self

    if TYPE_CHECKING:  # declared by each kind, in its place of the schema
        recipe_: StepRecipe | FilesRecipe | StatementRecipe | None
        supersedes: str | None

    @property
    def as_step(self) -> StepRecord | None:
        """This record, if it belongs to an output of a step."""
        return None

    @property
    def is_derived(self) -> bool:
        """Whether it was made from other datasets."""
        return bool(self.used) or bool(self.attached and self.attached.used)

    @property
    def is_complete(self) -> bool:
        """Whether the registration that wrote this record finished."""
        if self.status != "complete":
            return False
        return "registrar" not in self.model_fields_set or self.registrar in (self.completed or {})

    @property
    def is_whole(self) -> bool:
        """Whether no part is missing that is in the attached file."""
        return self.recipe_ is not None and self.generated is not None

    @cached_property
    def recipe(self) -> JsonMapping:
        """The recipe from which the id is derived, as written. Raises InputError if it is in the attached file."""
        if self.recipe_ is None:
            raise InputError("the recipe of this record is in an attached file; read the whole record")
        return self.recipe_.document()

    @cached_property
    def recipe_sha256(self) -> str:
        """SHA-256 of the recipe, known even without the attached file."""
        if self.recipe_ is not None:
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
    def as_step(self) -> StepRecord:
        """This record."""
        return self

    @property
    def declared_step(self) -> str:
        """The step's name in its pipeline, or in its code if no pipeline declared it."""
        return (self.pipeline and self.pipeline.step) or self.step


class FilesRecord(ProvenanceRecord):
    """A dataset registered from files: measured, made by hand, a statement, source or environment."""

    recipe_: FilesRecipe | StatementRecipe | None = Field(None, alias="recipe")
    activity: ManualActivity | StatementActivity | SupportActivity | None = None
    supersedes: Mfid | None = Field(None, description="prov:wasRevisionOf: the dataset that this one replaces")


def _kind(record: object) -> str:
    return "step" if isinstance(record, dict) and "step" in record else "files"


Record = Annotated[Annotated[StepRecord, Tag("step")] | Annotated[FilesRecord, Tag("files")], Discriminator(_kind)]
_ADAPTER: TypeAdapter[StepRecord | FilesRecord] = TypeAdapter(Record)


def parse_record(document: Any, *, unknown: Literal["allow", "forbid"] = "allow") -> StepRecord | FilesRecord | str:
    """Return the record, or in words why `document` is not one; `unknown` says whether it may have unknown keys."""
    try:
        return _ADAPTER.validate_python(document, extra=unknown)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        return "; ".join(_in_words(fault) for fault in faults[:MOST_FAULTS])


def new_record(document: Mapping[str, object]) -> StepRecord | FilesRecord:
    """Return a new record. Raises InputError unless it fits the schema without unknown keys."""
    record = parse_record(document, unknown="forbid")
    if isinstance(record, str):
        raise InputError(f"this is not a valid provenance record: {record}")
    return record


def _in_words(fault: Any) -> str:
    """Return the path (without the tag of the union, its first part) and the fault."""
    path = ".".join(str(part) for part in fault["loc"][1:])
    words = "unknown field" if fault["type"] == "extra_forbidden" else fault["msg"].removeprefix("Value error, ")
    return f"{path or 'the record'}: {words}"
