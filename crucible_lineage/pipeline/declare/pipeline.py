"""The declaration of a pipeline: the contents of the YAML file as typed values."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, field_validator, model_validator
from pydantic.json_schema import GenerateJsonSchema, SkipJsonSchema

from crucible_lineage.condition import parse_condition
from crucible_lineage.errors import InputError, nearest
from crucible_lineage.ids import canonical_json
from crucible_lineage.marks import is_entry
from crucible_lineage.pipeline.declare.inputs import NIGHT, DatasetFields, PipelineInput, Salt
from crucible_lineage.pipeline.declare.parts import (
    DeclaredModel,
    Digest,
    Fields,
    Folder,
    Ingested,
    OneOrMore,
    Reproduce,
    TimeMatch,
)
from crucible_lineage.refs import CORRECTED, INHERITED, ITSELF, MATCHED, Inherited
from crucible_lineage.statements.calibrations import NEXT
from crucible_lineage.text.times import seconds_in, utc

# Fields of parents that the name of a result may contain, beside `metadata.NAME`.
PARENT_FIELDS = (*CORRECTED, NIGHT, "count", "mfid")
OWN_PARENT_FIELDS = ("mfid", "count", *ITSELF)  # describe the parent itself, not the data behind it
# A field in braces, as {ROLE.FIELD}, {params.NAME:.2f} or {step}; doubled braces stand for themselves.
_FIELD = re.compile(r"\{\{|\}\}|\{([^{}!:]+)(!r)?(?::([^{}]*))?\}")
UNKNOWN = object()  # the value of a field that is to stay as it is written
_BEGINS = re.compile(r"^\{([A-Za-z_]\w*)\.timestamp\}$")  # when a certificate begins
UNKNOWN_FUNCTION = "?"  # stands for an unreadable `uses`; no declaration can contain it
NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"


def _named(value: str) -> str:
    if not re.match(NAME, value):
        raise ValueError("a name begins with a letter, and has letters, digits, - and _, at most 64")
    return value


Name = Annotated[str, AfterValidator(_named), Field(json_schema_extra={"pattern": NAME})]


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("unknown time zone; write one as in America/Los_Angeles") from error
    return value


Zone = Annotated[str, AfterValidator(_zone)]


class Source(TimeMatch):
    """Source of a step's input: an input of the pipeline or another step, and which of its files."""

    source: str = Field(alias="from", description="an input of the pipeline, or a step")
    output: str | None = Field(default=None, description="which output of the step, if it has several")
    files: str | None = Field(default=None, description="which of its files: a name or a pattern")
    group_by: Annotated[tuple[str, ...], OneOrMore] | None = Field(
        default=None,
        description="fields of records (instrument_name, metadata.NAME): one list, and one instance, for each group; "
        "[] groups them all",
    )
    across: Fields | None = Field(
        default=None,
        description="swept parameters that are joined in one group; without it, each combination has its own groups",
    )
    gaps: Literal["allow"] | None = Field(default=None, description="allow: leave blocked instances out of the list")
    match: Fields = Field(default=(), description="fields that partners in time share, as metadata.NAME, params.NAME")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if self.across and not self.group_by:
            raise ValueError("across joins swept parameters within groups; add group_by")
        if self.is_partner and self.group_by is not None:
            raise ValueError("a partner in time is one dataset; remove group_by")
        keys = [name for name in ("match", "within", "otherwise") if getattr(self, name)]
        if keys and not self.is_partner:
            name = "else" if keys[0] == "otherwise" else keys[0]
            raise ValueError(f"`{name}` is about a partner in time; add `nearest: before` (or after, either)")
        return self

    @property
    def is_partner(self) -> bool:
        """Whether this source is a partner in time."""
        return self.nearest is not None


def _source(declared: object) -> object:
    """Expand the short forms `name` and `step.output`."""
    if isinstance(declared, str):
        source, _, output = declared.partition(".")
        return {"from": source, "output": output or None}
    if not isinstance(declared, Mapping):
        raise ValueError("write a source as NAME, NAME.OUTPUT or {from: NAME}, and several as a list")
    return declared


def _sources(declared: object) -> object:
    """Return a single source as a list of one."""
    if declared in ([], ()):
        raise ValueError("the list of sources is empty; name at least one")
    return declared if isinstance(declared, list | tuple) else (declared,)


_Forms = str | Source | tuple[str | Source, ...]
Sources = Annotated[
    tuple[Annotated[Source, BeforeValidator(_source)], ...], BeforeValidator(_sources, json_schema_input_type=_Forms)
]


class OutputFields(Ingested, DatasetFields):
    """Description of the dataset that a step makes."""

    inherit: tuple[Inherited, ...] = Field(
        default=INHERITED, description="what it has of its data, unless it is declared here; [] for nothing"
    )


class Certify(DeclaredModel):
    """Certification of the step's result as a calibration of data."""

    of: Fields = Field(alias="for", description="fields, as instrument_name: it calibrates data with the same values")
    since: str = Field(alias="from", description="when its validity begins: {ROLE.timestamp}, or a moment")
    until: str = Field(default=NEXT, description="when it ends: next (when the next one is certified), or a moment")
    kind: str | None = Field(
        default=None, alias="calibration", description="the kind of calibration; by default the measurement"
    )
    where: str = Field(default="", description="a further condition on the data")

    @field_validator("of")
    @classmethod
    def _known_fields(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in MATCHED and not is_entry(name):
                raise ValueError(f"data have no field {name!r}; {nearest(name, MATCHED)}, or metadata.NAME")
        return value

    @field_validator("since", "until")
    @classmethod
    def _is_moment(cls, value: str) -> str:
        if value != NEXT and not _BEGINS.match(value):
            try:
                utc(value)
            except ValueError as error:
                raise ValueError("write {ROLE.timestamp}, or a moment as in 2024-05-10T12:00:00Z") from error
        return value

    @field_validator("where")
    @classmethod
    def _is_understood(cls, value: str) -> str:
        try:
            parse_condition(value)
        except InputError as error:
            raise ValueError(str(error)) from error
        return value

    @property
    def role(self) -> str | None:
        """The role whose time of measurement begins the validity; None if that is a moment."""
        match = _BEGINS.match(self.since)
        return match[1] if match else None


class Approve(DeclaredModel):
    """Signatures that a result needs."""

    by: tuple[str, ...] = Field(default=(), description="names or ids of accounts that may sign; by default any member")
    count: int = Field(default=1, ge=1, le=20, description="how many different accounts have to sign")
    other_than: Literal["maker"] | None = Field(
        default=None, alias="not", description="maker: whoever made the result does not count"
    )


class StepSpec(DeclaredModel):
    """One step: the function or command, where its inputs come from, and its parameters.

    References to the environment in `env` stay unresolved. `folder` is where the step was declared, `references` holds
    parameters with values from the environment, as written.
    """

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["uses"]}, {"required": ["run"]}]})

    uses: str | None = Field(default=None, description="the function, as in module:name")
    run: str | tuple[str, ...] | None = Field(
        default=None,
        description="the command instead: {inputs.ROLE}, {params.NAME} and {out} are filled in; no shell sees it",
    )
    inputs: dict[str, Sources] = Field(
        default={}, description="the source of each role: an input, a step or step.output"
    )
    params: dict[str, object] = Field(
        default_factory=dict, description="values of the function's keyword-only arguments"
    )
    matrix: dict[str, tuple[object, ...]] | tuple[dict[str, object], ...] | None = Field(
        default=None,
        description="parameters to sweep: a list of values for each (all combinations), or of combinations",
    )
    output: OutputFields = Field(default_factory=OutputFields, description="description of the resulting dataset")
    env: dict[str, str] = Field(default_factory=dict, description="more environment variables of a command")
    retries: int = Field(default=0, ge=0, le=100, description="how often a failed step is tried again")
    timeout: float | None = Field(default=None, gt=0, description="seconds after which the step is stopped")
    reads: Fields = Field(default=(), description="files beside the declaration that it reads: part of its identity")
    salt: Salt | None = Field(default=None, description="any text: gives the results other ids, if theirs are in use")
    approve: Approve | None = Field(default=None, description="whose signatures the results need")
    certify: Certify | None = Field(default=None, description="the result is certified as a calibration")
    reproduce: Reproduce | None = Field(default=None, description="how a remade result is compared")
    folder: Folder = Path()
    references: SkipJsonSchema[dict[str, object]] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        if (self.uses is None) == (self.run is None):
            raise ValueError("a step needs one of the keys uses (a function) and run (a command)")
        if self.env and self.run is None:
            raise ValueError("env is for commands; a function gets its values by parameters")
        if self.certify and self.certify.role and self.certify.role not in self.inputs:
            hint = nearest(self.certify.role, self.inputs, "it has")
            raise ValueError(f"certify: from {self.certify.since}: the step has no input {self.certify.role!r}; {hint}")
        return self

    @cached_property
    def edges(self) -> tuple[tuple[str, Source], ...]:
        """The sources of all roles, each with its role."""
        return tuple((role, source) for role, sources in self.inputs.items() for source in sources)

    @field_validator("matrix", mode="before")
    @classmethod
    def _combinations(cls, value: object) -> object:
        if isinstance(value, dict):
            for name, values in value.items():
                if not isinstance(values, (list, tuple)) or not values:
                    raise ValueError(f"give {name!r} a list of values")
        elif isinstance(value, (list, tuple)):
            if not value or not all(isinstance(part, dict) and part for part in value):
                raise ValueError("a list of combinations holds mappings from parameter to value")
        elif value is not None:
            raise ValueError(
                "give a list of values to each parameter, as in {degree: [2, 3]}, or a list of combinations"
            )
        return value

    @cached_property
    def combinations(self) -> tuple[dict[str, object], ...]:
        """The distinct combinations of swept parameters; a single empty one if nothing is swept."""
        if self.matrix is None:
            return ({},)
        if isinstance(self.matrix, dict):
            combinations = [dict(zip(self.matrix, values, strict=True)) for values in product(*self.matrix.values())]
        else:
            combinations = list(self.matrix)
        return tuple({canonical_json(part): part for part in combinations}.values())


def _schedule(value: object) -> str:
    """Return a cron expression, whose fields Prefect validates when the pipeline is deployed, or an interval."""
    text = str(value)
    with suppress(ValueError):
        if text.startswith("@") or len(text.split()) == 5 or seconds_in(text) > 0:
            return text
    raise ValueError(
        "write five fields in quotes (minute, hour, day of the month, month, day of the week), or an interval as 15m"
    )


Event = Literal["crucible.dataset.created", "crucible.ingestion.completed"]
Trigger = Annotated[dict[Event, dict[str, str]], Field(min_length=1, max_length=1)]


INHERIT = "inherit"  # the project: that of the data


class RequestSpec(DeclaredModel):
    """What a request for results of the pipeline is called, and which input it names a dataset for."""

    name: Name = Field(description="the kind of request, as mosaic_stitch")
    input: Name = Field(description="the input, a selection with `each: true`, for which a request names a dataset")
    queue: str = Field(default="", description="the queue with such requests; by default the name")


class PipelineSpec(DeclaredModel):
    """A pipeline as declared, with its variables filled in.

    `path` is its file. `digest` is a SHA-256 of its content: independent of formatting and of what a run overrides.
    """

    pipeline: Name = Field(description="the name; results get the keyword pipeline:NAME")
    project: str = Field(description="the project in Crucible that results belong to")
    timezone: Zone = Field(default="UTC", description="time zone of the schedule, and of nights, from noon to noon")
    env: tuple[str, ...] = Field(default=(), description="environment variables that the file may use")
    inputs: dict[Name, PipelineInput] = Field(description="the data, by names that steps use")
    steps: dict[Name, StepSpec] = Field(min_length=1, description="what is made, by name; inputs determine the order")
    schedule: Annotated[str, BeforeValidator(_schedule)] | None = Field(
        default=None, description='when it runs, once deployed: "0 2 * * *", or an interval as 15m'
    )
    trigger: Trigger | None = Field(
        default=None,
        description="the event on which it runs, once deployed, with its attributes and their values",
    )
    request: RequestSpec | None = Field(default=None, description="the requests for its results that `answer` takes")
    path: Folder = Path()
    digest: Digest = ""

    @property
    def interval(self) -> timedelta | None:
        """The interval of its schedule; None if that is a cron expression, or if there is none."""
        if self.schedule is None or self.schedule.startswith("@") or " " in self.schedule.strip():
            return None
        return timedelta(seconds=seconds_in(self.schedule))


_REFERENCE = {"type": "string", "pattern": "^\\$\\{(params|env)\\..+\\}$"}


class _WithReferences(GenerateJsonSchema):
    """Allows references to variables where numbers and booleans are expected."""

    def int_schema(self, schema: Any) -> dict[str, Any]:
        return {"anyOf": [super().int_schema(schema), _REFERENCE]}

    def float_schema(self, schema: Any) -> dict[str, Any]:
        return {"anyOf": [super().float_schema(schema), _REFERENCE]}

    def bool_schema(self, schema: Any) -> dict[str, Any]:
        return {"anyOf": [super().bool_schema(schema), _REFERENCE]}


def pipeline_schema() -> dict[str, Any]:
    """Return the schema (draft 2020-12), with the keys that are resolved before a pipeline is checked."""
    schema = PipelineSpec.model_json_schema(by_alias=True, schema_generator=_WithReferences)
    schema["properties"]["params"] = {
        "type": "object",
        "description": "values for ${params.NAME}, which --set can change",
    }
    return {**schema, "$schema": GenerateJsonSchema.schema_dialect, "title": "crucible-lineage pipeline"}


def filled(template: str, value_of: Callable[[str], object]) -> str:
    """Return a template with these values of its fields; no attribute is reached. Fields that are `UNKNOWN` stay."""

    def text(match: re.Match[str]) -> str:
        name, conversion, form = match.groups()
        value = value_of(name) if name else match[0][0]
        return match[0] if value is UNKNOWN else format(repr(value) if conversion else value, form or "")

    return _FIELD.sub(text, template)


def template_fields(template: str) -> list[str]:
    """Return the fields of a template, as `ROLE.FIELD`."""
    return [name for name, *_ in _FIELD.findall(template) if name]


def template_fault(template: str, roles: Collection[str], params: Collection[str] | None) -> str | None:
    """Return the fault of a result's name before its step runs; None without one.

    It may use parents, parameters, the output and returned values, which are not known yet. Anything else that a format
    string could reach is refused. `params` maps names to values, lists names only, or is None if they are unknown.
    """
    fault = f"the name {template!r}"
    allowed = [*(f"{role}.{field}" for role in roles for field in PARENT_FIELDS)]
    allowed += [*(f"params.{name}" for name in params or ()), "step", "output", "results.NAME"]
    later = rf"(results|({'|'.join(map(re.escape, roles)) or '-'})\.metadata)(\.[\w-]+)+"
    for name in (names := template_fields(template)):
        is_later = re.fullmatch(later, name) or (params is None and re.fullmatch(r"params\.\w+", name))
        if name not in allowed and not is_later:
            return f"{fault} has {{{name}}}; {nearest(name, allowed, 'possible here')}"
    if {"{", "}"} & set(_FIELD.sub("", template)):
        return f"{fault} cannot be filled in: a brace is alone; double those that are text"
    try:
        if isinstance(params, Mapping) and not any(re.fullmatch(later, name) for name in names):
            values = {f"params.{name}": value for name, value in params.items()}
            filled(template, lambda name: values.get(name, 0 if name.endswith(".count") else ""))
    except (ValueError, TypeError) as error:
        return f"{fault} cannot be filled in: {error}"
    return None
