"""The declaration of a pipeline: what may stand in the YAML file, as typed values."""

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Annotated, Any, Literal, Self
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator, model_validator

from crucible_lineage.ids import canonical_json
from crucible_lineage.pipeline.spec.inputs import DatasetFields, Declared, PipelineInput, is_remote

__all__ = ["OutputFields", "PipelineSpec", "Publish", "Runner", "Schedule", "Source", "StepSpec", "Trigger"]

NAME = r"^[A-Za-z][A-Za-z0-9_-]{0,63}$"
Name = Annotated[str, Field(pattern=NAME)]


class Source(Declared):
    """What a step's input is taken from: an input of the pipeline or a step, and which of its files.

    `collect` says whether all instances of the source are given as one list; without it, a role that takes a list of
    files collects and any other does not.
    """

    source: str = Field(alias="from")
    output: str | None = None
    files: str | None = None
    collect: bool | None = None


class Publish(Declared):
    """Where results are copied to once they are registered, and the Prefect block that gives access to it."""

    to: str
    block: str | None = None

    @field_validator("to")
    @classmethod
    def _address(cls, value: str) -> str:
        if not is_remote(value):
            raise ValueError("write an address, as in gs://bucket/prefix/")
        return value


class OutputFields(DatasetFields):
    """How the child dataset of a step is described, and where its files are copied to beside Crucible."""

    ingest: bool = True
    ingestor: str | None = None
    samples: Literal["inherit", "none"] = "inherit"
    publish: Publish | None = None

    @field_validator("publish", mode="before")
    @classmethod
    def _publish_to(cls, value: Any) -> Any:
        return {"to": value} if isinstance(value, str) else value


class StepSpec(Declared):
    """One step: the function or command, where its inputs come from, and its parameters.

    `matrix` sweeps parameters: a list of values each (every combination is made), or a list of combinations. `env` are
    variables that a command is given beside the few that every command gets; what they take from the environment is
    left as it was written. `folder` is where it was declared, `references` are parameters that take values from the
    environment, as they were written.
    """

    uses: str | None = None
    run: str | tuple[str, ...] | None = None
    inputs: dict[str, Source | tuple[Source, ...]] = Field(default_factory=dict)
    params: dict[str, Any] = Field(default_factory=dict)
    matrix: dict[str, tuple[Any, ...]] | tuple[dict[str, Any], ...] | None = Field(default=None)
    output: OutputFields = OutputFields()
    env: dict[str, str] = Field(default_factory=dict)
    retries: int = Field(default=0, ge=0, le=100)
    timeout: float | None = Field(default=None, gt=0)
    tags: tuple[str, ...] = ()
    resources: dict[str, float] = Field(default_factory=dict)
    folder: Path = Path()
    references: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.uses is None) == (self.run is None):
            raise ValueError("a step needs one of the keys uses (a function) and run (a command)")
        if self.env and self.run is None:
            raise ValueError("env is for commands; a function is told what it needs by its parameters")
        return self

    @field_validator("inputs", mode="before")
    @classmethod
    def _short_forms(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {role: _source(given) for role, given in value.items()}

    @field_validator("matrix", mode="before")
    @classmethod
    def _combinations(cls, value: Any) -> Any:
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
    def combinations(self) -> tuple[dict[str, Any], ...]:
        """The combinations of swept parameters, one that is empty if none is swept; each just once."""
        if self.matrix is None:
            return ({},)
        if isinstance(self.matrix, dict):
            found = [dict(zip(self.matrix, values, strict=True)) for values in product(*self.matrix.values())]
        else:
            found = list(self.matrix)
        return tuple({canonical_json(part): part for part in found}.values())


class Runner(Declared):
    """What steps run on when a pipeline runs on Prefect: so many `workers`, or the cluster at an `address`."""

    type: Literal["threads", "processes", "dask", "ray"]
    workers: int | None = Field(default=None, ge=1, le=1024)
    address: str | None = None

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        kind, equals, address = value.partition("=")
        return {"type": kind, "address": address} if equals else {"type": kind}

    @model_validator(mode="after")
    def _cluster(self) -> Self:
        if self.address and self.type not in ("dask", "ray"):
            raise ValueError(f"{self.type} have no address; a dask or ray cluster has")
        if self.address and self.workers:
            raise ValueError("the cluster at an address has the workers that it has; leave `workers` out")
        return self


class Schedule(Declared):
    """When the pipeline runs by itself: one of cron, interval (seconds) and rrule."""

    cron: str | None = None
    interval: float | None = Field(default=None, gt=0)
    rrule: str | None = None
    timezone: str = "UTC"

    @model_validator(mode="after")
    def _just_one(self) -> Self:
        if sum(part is not None for part in (self.cron, self.interval, self.rrule)) != 1:
            raise ValueError("a schedule has one of the keys cron, interval and rrule")
        return self

    @field_validator("cron")
    @classmethod
    def _five_fields(cls, value: str | None) -> str | None:
        """Prefect has the last word about them, when the pipeline is deployed."""
        if value is not None and not value.startswith("@") and len(value.split()) != 5:
            raise ValueError("write five fields: minute, hour, day of the month, month, day of the week")
        return value

    @field_validator("timezone")
    @classmethod
    def _known(cls, value: str) -> str:
        try:
            ZoneInfo(value)
        except (KeyError, ValueError, OSError) as error:
            raise ValueError("there is no such time zone; write one as in America/Los_Angeles") from error
        return value


class Trigger(Declared):
    """What makes the pipeline run: an event whose attributes match (`*` at the end stands for any rest)."""

    event: Literal["crucible.dataset.created", "crucible.ingestion.completed"]
    match: dict[str, str] = Field(default_factory=dict)


class PipelineSpec(Declared):
    """A pipeline as it was declared, its variables filled in.

    `path` is its file, `digest` SHA-256 over its content: the same for any spelling of it, and without what a run
    overrides. `env` names the environment variables that it may read.
    """

    pipeline: Name
    description: str | None = None
    project: str
    project_title: str | None = None
    env: tuple[str, ...] = ()
    inputs: dict[Name, PipelineInput]
    steps: dict[Name, StepSpec] = Field(min_length=1)
    runner: Runner | None = None
    schedule: Schedule | None = None
    trigger: Trigger | None = None
    path: Path
    digest: str

    @property
    def folder(self) -> Path:
        """The folder of the declaration."""
        return self.path.parent


def _source(given: Any) -> Any:
    """The short forms `name` and `step.output`, and lists of them."""
    if isinstance(given, str):
        source, _, output = given.partition(".")
        return {"from": source, "output": output or None}
    return [_source(item) for item in given] if isinstance(given, list) else given
