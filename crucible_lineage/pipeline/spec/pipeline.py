"""The declaration of a pipeline: the contents of the YAML file as typed values."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import product
from pathlib import Path
from string import Formatter
from types import SimpleNamespace
from typing import Annotated, Literal, Self, get_args
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from crucible_lineage.calibrations import FIELDS, NEXT
from crucible_lineage.errors import nearest
from crucible_lineage.ids import canonical_json
from crucible_lineage.pipeline.spec.declared import (
    Check,
    DeclaredModel,
    Folder,
    OneOrMore,
    Reproduce,
    Seconds,
    TimeMatch,
    declared_condition,
)
from crucible_lineage.pipeline.spec.ingestion import Ingested
from crucible_lineage.pipeline.spec.inputs import (
    DESCRIPTIVE,
    MATCHED,
    METADATA_PREFIX,
    NIGHT,
    DatasetFields,
    PipelineInput,
    Salt,
    is_remote,
)
from crucible_lineage.times import utc

# Fields of parents that the name of a result may contain, beside `metadata.NAME`.
PARENT_FIELDS = ("dataset_name", "count", "mfid", *DESCRIPTIVE, "timestamp", NIGHT)
OWN_PARENT_FIELDS = ("dataset_name", "mfid", "count", "timestamp")  # describe the parent itself, not the data behind it
_TEMPLATED = frozenset((*MATCHED, "metadata"))  # fields of `output` that may be templates
_TEMPLATE = re.compile(r"\{([A-Za-z][\w-]*\.[\w.-]+|step)(![rsa])?(:[^{}]*)?\}")
_BEGINS = re.compile(r"^\{([A-Za-z_]\w*)\.timestamp\}$")  # when a certificate begins
UNKNOWN_FUNCTION = "?"  # stands for an unreadable `uses`; no declaration can contain it
NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
ANY_NAME = {"any_name": True}  # validation context in which faults of names were reported before


def _named(value: str, info: ValidationInfo) -> str:
    if not re.match(NAME, value) and info.context != ANY_NAME:
        raise ValueError("a name begins with a letter, and has letters, digits, - and _, at most 64")
    return value


Name = Annotated[str, AfterValidator(_named), Field(json_schema_extra={"pattern": NAME})]


Fields = Annotated[tuple[str, ...], OneOrMore, Field(min_length=1)]


def _zone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("unknown time zone; write one as in America/Los_Angeles") from error
    return value


Zone = Annotated[str, AfterValidator(_zone)]


class Source(TimeMatch):
    """Source of a step's input: an input of the pipeline or another step, and which of its files.

    With `collect`, all instances of the source are passed as one list; by default only roles that take a list of files
    collect. `group_by` names fields of the records of measured or selected data: the step gets one instance and one
    list for each group, and for each combination of swept parameters upstream except those in `across`. `expect` is
    the required number of datasets. With `gaps: allow`, blocked ones are left out of the list.

    `nearest` and `take` select the partner in time of the dataset that the step is about, among those with equal
    fields `same`.
    """

    source: str = Field(alias="from")
    output: str | None = None
    files: str | None = None
    collect: bool | None = None
    group_by: Fields | None = None
    across: Fields | None = None
    expect: Annotated[int, Field(ge=1)] | None = None
    gaps: Literal["allow"] | None = None
    same: Fields = ()

    @model_validator(mode="after")
    def _one_list(self) -> Self:
        if self.group_by and self.collect is False:
            raise ValueError("group_by gives a list for each group; remove `collect: false`")
        if self.across and not self.group_by:
            raise ValueError("across joins swept parameters within groups; add group_by")
        return self

    @model_validator(mode="after")
    def _in_time(self) -> Self:
        if self.is_partner and (self.group_by or self.collect):
            raise ValueError("a partner in time is one dataset; remove group_by and collect")
        keys = [name for name in ("same", "within", "otherwise", "undated") if getattr(self, name)]
        if keys and not self.is_partner:
            name = "else" if keys[0] == "otherwise" else keys[0]
            raise ValueError(f"`{name}` is about a partner in time; add `nearest: before` (or after, either)")
        return self

    @property
    def is_partner(self) -> bool:
        """Whether this source is a partner in time."""
        return self.nearest is not None or self.take is not None


class Publish(DeclaredModel):
    """Address that registered results are copied to, and the Prefect block that gives access to it."""

    to: str
    block: str | None = None

    @field_validator("to")
    @classmethod
    def _address(cls, value: str) -> str:
        if not is_remote(value):
            raise ValueError("write an address, as in gs://bucket/prefix/")
        return value


class OutputFields(Ingested, DatasetFields):
    """Description of the dataset that a step makes, and where its files are also published."""

    samples: Literal["inherit", "none"] = "inherit"
    publish: Publish | None = None

    @property
    def templates(self) -> tuple[str, ...]:
        """The name, descriptive fields and metadata that contain placeholders."""
        if self.model_fields_set.isdisjoint(_TEMPLATED):  # a shortcut: true of most steps
            return ()
        texts = (*(getattr(self, field) for field in MATCHED), *self.metadata.values())
        return tuple(text for text in texts if is_template(text))

    @field_validator("publish", mode="before")
    @classmethod
    def _publish_to(cls, value: object) -> object:
        return {"to": value} if isinstance(value, str) else value


class Certify(DeclaredModel):
    """Certification of the step's result as a calibration for data that agree with its own in these fields.

    `since` is a moment, or the time of measurement of a role, as {neon.timestamp}. `until` is a moment, or `next`:
    until the next one is certified. `kind` defaults to the measurement of the result.
    """

    of: Fields = Field(alias="for", min_length=1)
    since: str = Field(alias="from")
    until: str = NEXT
    kind: str | None = None
    where: str = ""

    @field_validator("of")
    @classmethod
    def _known_fields(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in FIELDS and not name.startswith(METADATA_PREFIX):
                raise ValueError(f"data have no field {name!r}; {nearest(name, FIELDS)}, or metadata.NAME")
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
        if value:
            declared_condition(value)
        return value

    @property
    def role(self) -> str | None:
        """The role whose time of measurement begins the validity; None if that is a moment."""
        match = _BEGINS.match(self.since)
        return match[1] if match else None

    @property
    def moment(self) -> datetime:
        """The moment at which the validity begins, if `since` is one."""
        return utc(self.since)


class Approve(DeclaredModel):
    """Signatures that a result needs: `count` of the accounts `by` (names or ids; by default any project member).

    `not: maker` excludes the account that made the result.
    """

    by: tuple[str, ...] = ()
    count: int = Field(default=1, ge=1, le=20)
    other_than: Literal["maker"] | None = Field(default=None, alias="not")


class StepSpec(DeclaredModel):
    """One step: the function or command, where its inputs come from, and its parameters.

    `matrix` sweeps parameters: a list of values for each (all combinations), or a list of combinations. `group_by` and
    `across` apply to the first input that is not a partner in time. With `shell`, the command is a line for `sh`, and
    values are filled in quoted. `env` adds variables to the few that every command gets; references to the
    environment in it stay unresolved. A `salt` gives the results other ids where those without it are already in use.
    `reads` lists files beside the declaration that the step reads and whose bytes belong to its identity; with
    `strict`, a step fails if it reads any other file that it was not given. `checks` are conditions on its results and
    not part of its identity. With `approve`, results are candidates until they are signed. `reproduce` sets how they
    are compared when remade. `folder` is where the step was
    declared, `references` holds parameters with values from the environment, as written.
    """

    uses: str | None = None
    run: str | tuple[str, ...] | None = None
    shell: bool = False
    inputs: dict[str, Source | Annotated[tuple[Source, ...], Field(min_length=1)]] = Field(default_factory=dict)
    params: dict[str, object] = Field(default_factory=dict)
    matrix: dict[str, tuple[object, ...]] | tuple[dict[str, object], ...] | None = Field(default=None)
    group_by: Fields | None = None
    across: Fields | None = None
    output: OutputFields = OutputFields()
    env: dict[str, str] = Field(default_factory=dict)
    retries: int = Field(default=0, ge=0, le=100)
    timeout: float | None = Field(default=None, gt=0)
    tags: tuple[str, ...] = ()
    reads: Fields = ()
    strict: bool = False
    resources: dict[str, float | str] = Field(default_factory=dict)
    salt: Salt | None = None
    checks: dict[Annotated[str, Field(pattern=NAME)], Check] = Field(default_factory=dict)
    approve: Approve | None = None
    certify: Certify | None = None
    reproduce: Reproduce | None = None
    folder: Folder = Path()
    references: dict[str, object] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.uses is None) == (self.run is None):
            raise ValueError("a step needs one of the keys uses (a function) and run (a command)")
        if self.env and self.run is None:
            raise ValueError("env is for commands; a function gets its values by parameters")
        if self.shell and not isinstance(self.run, str):
            raise ValueError(
                "shell is for a command that is written as one line: run: sort {inputs.a} | head > {out}/a"
            )
        return self

    @model_validator(mode="after")
    def _certifies(self) -> Self:
        if self.certify and self.certify.role and self.certify.role not in self.inputs:
            hint = nearest(self.certify.role, self.inputs, "it has")
            raise ValueError(f"certify: from {self.certify.since}: the step has no input {self.certify.role!r}; {hint}")
        return self

    @field_validator("inputs", mode="before")
    @classmethod
    def _short_forms(cls, value: object) -> object:
        if not isinstance(value, dict):
            return value
        return {role: _source(source) for role, source in value.items()}

    @field_validator("output", mode="before")
    @classmethod
    def _shared_output(cls, value: object) -> object:
        """Share one object among steps with equal outputs, since there may be thousands."""
        if not isinstance(value, dict) or any(type(entry) not in (str, bool) for entry in value.values()):
            return value
        try:
            return _plain_output(tuple(value.items()))
        except ValidationError:  # reported later, with its location
            return value

    @model_validator(mode="after")
    def _grouped(self) -> Self:
        if self.across and not self.group_by:
            raise ValueError("across joins swept parameters within groups; add group_by")
        if self.group_by and self._first is None:
            raise ValueError("group_by is about the step's first input, which is one source here; add it there instead")
        return self

    @property
    def sources(self) -> dict[str, tuple[Source, ...]]:
        """The sources of each role."""
        sources = {role: item if isinstance(item, tuple) else (item,) for role, item in self.inputs.items()}
        if self.group_by and (first := self._first):
            (source,) = sources[first]
            update = {"group_by": self.group_by, "across": self.across or source.across}
            sources[first] = (source.model_copy(update=update),)
        return sources

    @property
    def all_sources(self) -> tuple[Source, ...]:
        """The sources of all roles."""
        return tuple(source for role_sources in self.sources.values() for source in role_sources)

    @property
    def _first(self) -> str | None:
        """The role that the step's `group_by` applies to."""
        roles = [role for role, source in self.inputs.items() if not (isinstance(source, Source) and source.is_partner)]
        return roles[0] if roles and isinstance(self.inputs[roles[0]], Source) else None

    @field_validator("resources")
    @classmethod
    def _amounts(cls, value: dict[str, float | str]) -> dict[str, float | str]:
        for name, amount in value.items():
            if isinstance(amount, str) != (name == "partition"):
                kind = "the name of a partition of Slurm" if name == "partition" else "a number"
                raise ValueError(f"{name!r} is {kind}, not {amount!r}")
        return value

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

    @property
    def amounts(self) -> dict[str, float]:
        """The numeric resources."""
        return {name: amount for name, amount in self.resources.items() if not isinstance(amount, str)}

    @property
    def combinations(self) -> tuple[dict[str, object], ...]:
        """The distinct combinations of swept parameters; a single empty one if nothing is swept."""
        if self.matrix is None:
            return ({},)
        if isinstance(self.matrix, dict):
            combinations = [dict(zip(self.matrix, values, strict=True)) for values in product(*self.matrix.values())]
        else:
            combinations = list(self.matrix)
        return tuple({canonical_json(part): part for part in combinations}.values())


RunnerType = Literal["threads", "processes", "dask", "ray", "slurm"]  # flows/runners.py starts each
RUNNERS = ", ".join(get_args(RunnerType))


class Runner(DeclaredModel):
    """Where steps run when a pipeline runs on Prefect (slurm: also without): `workers`, or a cluster at an `address`.

    `cluster` is the class of a Dask cluster to start for the run (`dask_jobqueue.SLURMCluster`), with its `options`.
    For slurm, `options` are those of sbatch, and `workers` is how many tasks of a job run at once.
    """

    type: RunnerType
    workers: int | None = Field(default=None, ge=1, le=1024)
    address: str | None = None
    cluster: Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*\.[A-Za-z_]\w*$")] | None = None
    options: dict[str, object] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        kind, equals, address = value.partition("=")
        return {"type": kind, "address": address} if equals else {"type": kind}

    @model_validator(mode="after")
    def _cluster(self) -> Self:
        if self.address and self.type not in ("dask", "ray"):
            raise ValueError(f"{self.type} have no address; only dask and ray clusters have one")
        if self.cluster and self.type != "dask":
            raise ValueError("`cluster` is a class of Dask; write `type: dask`")
        if self.cluster and self.address:
            raise ValueError("`cluster` starts a cluster, `address` names a running one; give one of them")
        if self.options and not self.cluster and self.type != "slurm":
            raise ValueError(
                "`options` go to the class of a `cluster`, and none is named, or to sbatch with `type: slurm`"
            )
        if self.address and self.workers:
            raise ValueError("a cluster at an address has its own workers; remove `workers`")
        return self


class Schedule(DeclaredModel):
    """Schedule of automatic runs: one of cron, interval (seconds) and rrule."""

    cron: str | None = None
    interval: float | None = Field(default=None, gt=0)
    rrule: str | None = None
    timezone: Zone = "UTC"

    @model_validator(mode="after")
    def _just_one(self) -> Self:
        if sum(part is not None for part in (self.cron, self.interval, self.rrule)) != 1:
            raise ValueError("a schedule has one of the keys cron, interval and rrule")
        return self

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str | None) -> str | None:
        """Check the number of fields; Prefect validates them when the pipeline is deployed."""
        if value is not None and not value.startswith("@") and len(value.split()) != 5:
            raise ValueError("write five fields: minute, hour, day of the month, month, day of the week")
        return value


class Trigger(DeclaredModel):
    """Event that starts the pipeline if its attributes match (a final `*` matches any suffix)."""

    event: Literal["crucible.dataset.created", "crucible.ingestion.completed"]
    match: dict[str, str] = Field(default_factory=dict)


class Freshness(DeclaredModel):
    """Time within which a new result is expected."""

    within: Seconds


class PipelineSpec(DeclaredModel):
    """A pipeline as declared, with its variables filled in.

    `path` is its file. `digest` is a SHA-256 of its content: independent of formatting and of what a run overrides.
    `env` names the environment variables that it may read.
    """

    pipeline: Name
    description: str | None = None
    project: str
    project_title: str | None = None
    timezone: Zone = "UTC"
    metadata: Literal["crucible", "declared"] = "crucible"
    env: tuple[str, ...] = ()
    inputs: dict[Name, PipelineInput]
    steps: dict[Name, StepSpec] = Field(min_length=1)
    runner: Runner | None = None
    schedule: Schedule | None = None
    trigger: Trigger | None = None
    fresh: Freshness | None = None
    path: Path
    digest: str

    @property
    def folder(self) -> Path:
        """The folder of the declaration."""
        return self.path.parent


def _source(declared: object) -> object:
    """Expand the short forms `name` and `step.output`, and lists of them. Equal plain sources share one object."""
    if isinstance(declared, str):
        source, _, output = declared.partition(".")
        return _plain_source(source, output or None)
    if isinstance(declared, dict) and declared.keys() == {"from"} and isinstance(source := declared["from"], str):
        return _plain_source(source, None)
    return [_source(item) for item in declared] if isinstance(declared, list) else declared


@lru_cache(20_000)
def _plain_source(source: str, output: str | None) -> Source:
    return Source.model_validate({"from": source, "output": output})


@lru_cache(1000)
def _plain_output(entries: tuple[tuple[str, str | bool], ...]) -> OutputFields:
    return OutputFields.model_validate(dict(entries))


def is_template(value: object) -> bool:
    """Return whether a value is a text with a field of a role, or a parameter, in braces."""
    return isinstance(value, str) and _TEMPLATE.search(value) is not None


def named_fields(step: StepSpec) -> set[str]:
    """Return the fields of parents that the step's output templates use."""
    names = (match[1].partition(".") for text in step.output.templates for match in _TEMPLATE.finditer(text))
    return {field for role, _, field in names if role in step.inputs and field not in OWN_PARENT_FIELDS}


def _unknown_field(
    fields: Sequence[tuple[str, str]], roles: Collection[str], params: Collection[str] | None, *, late: bool
) -> str | None:
    """Return the first field that a template may not use, with a hint; None without one."""
    allowed = [*(f"{role}.{field}" for role in roles for field in PARENT_FIELDS)]
    allowed += [*(f"params.{name}" for name in params or ()), "step", *(("output", "results.NAME") if late else ())]
    later = rf"({'results|' if late else ''}({'|'.join(map(re.escape, roles)) or '-'})\.metadata)(\.[\w-]+)+"
    for name, spec in fields:
        is_later = re.fullmatch(later, name) or (params is None and re.fullmatch(r"params\.\w+", name))
        if (name not in allowed and not is_later) or "{" in spec:
            return f"{{{name}}}; {nearest(name, allowed, 'possible here')}"
    return None


def template_fault(
    template: str,
    roles: Collection[str],
    params: Collection[str] | None,
    subject: str = "the name",
    *,
    late: bool = True,
) -> str | None:
    """Return the fault of a template before its step runs; None without one.

    `subject` names the template in the message. Templates may use parents and parameters, with `late` also the output
    and returned values, which are not known yet. Anything else that a format string could reach is refused. `params`
    maps names to values, lists names only, or is None if the parameters are unknown.
    """
    try:
        fields = [(name, spec or "") for _, name, spec, _ in Formatter().parse(template) if name is not None]
    except ValueError as error:
        return f"{subject} {template!r} cannot be filled in: {error}"
    if unknown := _unknown_field(fields, roles, params, late=late):
        return f"{subject} {template!r} has {unknown}"
    if not isinstance(params, Mapping):
        return None
    if any(name.startswith("results.") or ".metadata." in name for name, _ in fields):
        return None  # values whose types are not known yet
    parents = {role: SimpleNamespace(**{**dict.fromkeys(PARENT_FIELDS, ""), "count": 0}) for role in roles}
    try:
        template.format(**parents, params=SimpleNamespace(**params), output="", step="")
    except (ValueError, TypeError) as error:
        return f"{subject} {template!r} cannot be filled in: {error}"
    return None
