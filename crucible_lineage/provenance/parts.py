"""The parts of a provenance record: files, what was used, recipes, code, runs, who and with what."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    model_validator,
)


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
    """Base of the record and its parts: frozen, and unknown keys are kept."""

    model_config = ConfigDict(extra="allow", strict=True, frozen=True, defer_build=True)

    def document(self) -> dict[str, Any]:
        """Return it as JSON, with the keys that it was written with, those included that this version does not know."""
        return self.model_dump(mode="json", by_alias=True, exclude_unset=True)


class File(RecordPart):
    """A file as it was when it was used or generated (prov:Entity)."""

    name: Text
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    preview: bool = Field(False, description="true for the picture that is the thumbnail of the dataset")
    log: bool = Field(False, description="true for what the step printed")


class CertificateUsed(RecordPart):
    """The certificate by which a calibration was chosen, and the range in which it was valid then."""

    statement: Mfid = Field(description="the statement that certifies the calibration")
    since: Text = Field(alias="from", description="from when it was valid, in UTC, included")
    until: Text | None = Field(description="until when, excluded; null for no end")
    by: Text = Field(description="who certified it")
    when: Text = Field(description="when that was stated")
    why: str = Field(description="why, in their words")
    as_of: str | None = Field(None, description="the moment by whose statements the run went, if it was asked for one")


class TimeChoice(RecordPart):
    """How a dataset was chosen in time: by which rule, on which side of what the step is about, how far away."""

    rule: Text = Field(description="by which rule it was chosen")
    side: Literal["", "before", "after", "around"] = Field(
        description="empty where a time is not known, or a calibration is valid"
    )
    seconds: float = Field(description="the distance in time")
    same: dict[str, str] = Field(description="fields that are equal in both, with their values")
    members: Annotated[int, Field(ge=2)] | None = Field(None, description="of a group: how many it has")
    of_members: Annotated[int, Field(ge=2)] | None = Field(None, description="the same of what the step is about")
    certificate: CertificateUsed | None = Field(None, description="given where it was chosen by one")


class Used(RecordPart):
    """A dataset that was used (prov:used), in its role, and those of its files that were given to the step."""

    role: Text = Field(description="the name of the argument, or `parent` for manual work")
    mfid: Mfid
    origin: Mfid | None = Field(None, description="what the dataset comes from; absent if that is the dataset itself")
    files: list[File] | None = Field(None, description="absent where the lists are in the attached file")
    chosen: TimeChoice | None = Field(None, description="given where it was chosen in time")


class RecipeInput(RecordPart):
    """What goes into the id of an input: what it comes from, and the SHA-256 of each of its files.

    Recipes of version 1 named the parent itself instead of its origin.
    """

    origin: Mfid | None = None
    mfid: Mfid | None = None
    files: Hashes

    @model_validator(mode="after")
    def _named_once(self) -> Self:
        if (self.origin is None) == (self.mfid is None):
            raise ValueError("an input is named by its origin, or (version 1) by the MFID of the parent")
        return self


class RecipeFacts(RecordPart):
    """What a step is given about a parent beside its files; absent is what nobody has said."""

    name: str
    instrument: Text | None = None
    measurement: Text | None = None
    timestamp: Text | None = None
    keywords: list[str] | None = None
    metadata: dict[str, JsonValue] | None = None


class StepRecipe(RecordPart):
    """What the id of an output of a step is derived from."""

    kind: Literal["step"]
    version: Literal[2] | None = Field(None, description="absent in recipes of version 1")
    project: Text
    step: Text
    output: Text
    code: Text = Field(description="the fingerprint of the code, or `version:` and the declared version")
    params: dict[str, JsonValue] = Field(description="every parameter, defaults included")
    inputs: dict[str, list[RecipeInput]] = Field(description="for each role the parents, in order")
    facts: dict[str, list[RecipeFacts]] | None = Field(
        None, description="of the parents in each role, in their order; given where the step asks for them"
    )
    packages: dict[str, str] | None = Field(None, description="versions of the packages that the step lists")
    salt: Text | None = Field(None, description="given where the id without it was taken by something else")
    attempt: Annotated[int, Field(ge=1)] | None = Field(None, description="given where it was forced to run again")


class FilesRecipe(RecordPart):
    """What the id of registered files is derived from; `inputs` where a person made them of other datasets."""

    kind: Literal["files"]
    version: Literal[2] | None = Field(None, description="given where a person made them of other datasets")
    project: Text
    files: Hashes = Field(description="name to SHA-256")
    salt: Text | None = Field(None, description="given where the id without it was taken by something else")
    inputs: dict[str, list[RecipeInput]] | None = Field(None, description="given where a person made them of others")


class StatementAbout(RecordPart):
    """What a statement is about: datasets, an instrument and a time of measurement, a code fingerprint, a project."""

    datasets: list[Mfid] | None = None
    instrument: Text | None = None
    since: str | None = Field(None, alias="from", description="the time of measurement, this moment included")
    until: str | None = Field(None, description="the time of measurement, this moment excluded")
    code: Text | None = None
    project: Text | None = None


class StatementRecipe(RecordPart):
    """What the id of a statement about results is derived from."""

    kind: Literal["statement"]
    project: Text
    verb: Text
    about: StatementAbout
    by: Text = Field(description="the account at Crucible")
    why: str
    body: dict[str, JsonValue] | None = Field(None, description="depends on the verb: the name of a flag, a due day")
    revokes: list[Mfid] | None = None
    again: Annotated[int, Field(ge=1)] | None = Field(None, description="how many equal ones were revoked before")


class KeptFile(RecordPart):
    """A file of a dataset that supports results: their source, or the environment that they were made in."""

    mfid: Mfid
    name: Text
    sha256: Sha256


class Program(RecordPart):
    """The program that a command starts, as it was."""

    path: Text
    sha256: Sha256
    version: str | None = Field(None, description="the first line that it printed when it was asked for its version")


class Git(RecordPart):
    """The checkout that the code lay in."""

    commit: Text
    dirty: bool = Field(description="whether files differed from the commit")


class Code(RecordPart):
    """The code that ran (prov:hadPlan): its fingerprint, its text, and what the fingerprint could not see."""

    fingerprint: Text = Field(description="the hash of the function and all that it reaches")
    source: str = Field(description="the text of the function, its first 20,000 characters")
    pieces: dict[str, str] | None = Field(
        None, description="what the function reaches: the text of a function, the value of a number, else # and a hash"
    )
    not_covered: list[str] = Field(description="what the fingerprint could not look into")
    read: list[Text] | None = Field(None, description="files that it read and was not given: their bytes do not count")
    git: Git | None
    archive: KeptFile | None = Field(None, description="the source files that it rests on, as they were")
    left_out: list[Text] | None = Field(None, description="what of the source is not in the archive, and why")
    program: Program | None = Field(None, description="of a command")


class Run(RecordPart):
    """The run in which it happened; the last two are Prefect's own ids, where Prefect ran it."""

    engine: Text = Field(description="local or prefect")
    run_id: str
    flow_run_id: str | None = None
    task_run_id: str | None = None


class DeclaredOutput(RecordPart):
    """What was declared of an output and shows nowhere else; `metadata` are names, their values are in the dataset."""

    metadata: list[str] | None = None
    ingest: bool | None = None
    ingestor: str | None = None
    publish: dict[str, str | None] | None = None


class DeclaredFields(RecordPart):
    """What was declared beside the recipe: by it the step can be made again as it was made."""

    retries: Annotated[int, Field(ge=0)] | None = Field(None, description="how often a failure is tried again")
    timeout: Annotated[float, Field(gt=0)] | None = Field(None, description="seconds")
    tags: list[str] | None = None
    resources: dict[str, float | str] | None = None
    reads: list[str] | None = Field(None, description="files beside the declaration whose bytes belong to the code")
    strict: bool | None = Field(None, description="whether reading other files is a failure")
    reproduce: dict[str, JsonValue] | None = Field(None, description="how it is compared when it is made again")
    keep: str | None = Field(None, description="forever: its bytes are never evicted")
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
    gaps: list[Text] | None = Field(None, description="what was blocked and left out of its lists, with the reason")


class ManualActivity(RecordPart):
    """What a person did (prov:Activity)."""

    kind: Literal["by hand"]
    note: str | None = Field(description="what the person wrote about it")


class RunActivity(RecordPart):
    """The run of a pipeline that a dataset tells of (prov:Activity)."""

    kind: Literal["pipeline run"]
    pipeline: Text
    run_id: Text


class StatementActivity(RecordPart):
    """When a person stated something about results (prov:Activity)."""

    kind: Literal["statement"]
    when: Moment
    signature: Text | None = Field(None, description="of the recipe and the time, by ssh-keygen -Y sign")


class SupportActivity(RecordPart):
    """That a dataset was registered since results rest on it."""

    kind: Literal["source of steps", "environment of steps"]


class Agent(RecordPart):
    """Who did it (prov:wasAssociatedWith): the account at Crucible, and the name on the machine."""

    unique_id: str | None = Field(description="ORCID, or the MFID of a service account")
    username: str | None
    is_service_account: bool | None
    local_user: str | None = Field(description="the name on the machine")


class Software(RecordPart):
    """What it ran with (prov:SoftwareAgent)."""

    python: Text
    platform: str
    packages: dict[str, str] = Field(description="versions of the packages that the step reaches")
    container: Text | None = Field(
        None,
        description="the container image, as registry/name:tag@sha256:..., or `unknown: ` and in which one",
    )
    environment: KeptFile | None = Field(None, description="all that was installed, and on which machine")


class Pipeline(RecordPart):
    """The declaration that asked for it, and what the step is called in it."""

    name: Text
    hash: Text = Field(description="SHA-256 of the text of the declaration")
    step: Text | None = Field(None, description="the name of the step in the declaration")


class Attachment(RecordPart):
    """The file of this dataset that holds what is too long for the record: recipe, used and generated."""

    name: Text
    sha256: Sha256
    size: Annotated[int, Field(ge=0)]
    recipe_sha256: Sha256 = Field(description="SHA-256 of the recipe's canonical JSON")
    used: Annotated[int, Field(ge=0)] = Field(description="how many datasets were used")
    generated: Annotated[int, Field(ge=0)] = Field(description="how many files were generated")


class Result(RecordPart):
    """What was registered with it, hashed, so that an edit shows; the record of an older version has none."""

    keys: list[str] = Field(description="JSON Pointers of the scientific metadata that were registered")
    metadata_sha256: Sha256 = Field(description="SHA-256 over their values")
    generated_sha256: Sha256 = Field(description="SHA-256 over the list of files")
