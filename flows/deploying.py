"""Pipelines as Prefect deployments: one for each, with its declared schedule and trigger."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import construct_schedule
from prefect.deployments.runner import DeploymentApplyError, RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound, PrefectHTTPStatusError
from prefect.schedules import Schedule as PrefectSchedule
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.callables import ParameterSchema
from pydantic import ValidationError

from crucible_lineage.errors import Fault, InputError, RunError
from crucible_lineage.flows.pipelines import reaching_prefect, run_pipeline
from crucible_lineage.json_types import JsonObject
from crucible_lineage.pipeline.declare.inputs import PACKAGE
from crucible_lineage.pipeline.declare.pipeline import INHERIT, PipelineSpec
from crucible_lineage.pipeline.declare.yaml import read_document
from crucible_lineage.pipeline.watch import REQUESTED
from crucible_lineage.tasks.credentials import CrucibleCredentials
from crucible_lineage.tasks.sessions import CrucibleConnection

BLOCK_TYPE = CrucibleCredentials.get_block_type_slug()
SLUG = "declared"  # of the declared schedule
ANCHOR = datetime(2020, 1, 1, tzinfo=UTC)  # of intervals, so that deploying again does not shift the runs
REMEDY = "check that the server runs and that PREFECT_API_URL names it, then repeat the command: that is always safe"
FLOW = run_pipeline.name
KEPT = {"schedule", "active", "max_scheduled_runs", "parameters", "slug"}  # of an operator's schedule


@dataclass(frozen=True)
class DeploymentRequest:
    """A pipeline to be deployed: the location of its declaration where it runs, and the Crucible that it uses.

    At most `limit` of its runs execute at once, by default one. `image` is the container image of its runs.
    """

    spec: PipelineSpec
    location: str
    crucible: CrucibleConnection | None = None
    limit: int | None = None
    image: str | None = None

    @property
    def runs(self) -> tuple[str, ...]:
        """When it runs, in words."""
        parts = []
        if declared := self.spec.schedule:
            parts.append(f"{'every' if self.spec.interval else 'cron'} {declared} ({self.spec.timezone})")
        for event, attributes in (self.spec.trigger or {}).items():
            match = ", ".join(f"{name}={value}" for name, value in attributes.items())
            parts.append(f"on {event}" + (f" with {match}" if match else ""))
        if self.spec.request:
            parts.append(f"on requests of {self.spec.request.name}")
        return tuple(parts)


@dataclass(frozen=True)
class DeploymentState:
    """An existing deployment: its full name, and when it runs, in words."""

    name: str
    id: str
    runs: tuple[str, ...]
    created: bool


def deploy(requests: Sequence[DeploymentRequest], pool: str, *, reset: bool = False) -> list[DeploymentState]:
    """Give each pipeline exactly one deployment, with its currently declared schedule and trigger.

    An operator's settings are kept, unless `reset`: pauses (also of schedule and trigger), job variables, limits, tags,
    parameters and added schedules. Raises InputError, before anything is changed, if the pool or a block does not
    exist, a schedule is invalid, or runs in the pool would not find the declaration.
    """
    names = [request.spec.pipeline for request in requests]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two of the files declare a pipeline {name!r}; its name is that of its deployment")
    if faults := [fault for request in requests if (fault := schedule_fault(request.spec))]:
        raise InputError("", faults)
    with reaching_prefect("deploy", REMEDY), get_client(sync_client=True) as client:
        try:
            kind = client.read_work_pool(pool).type
        except ObjectNotFound:
            command = f"prefect work-pool create {pool} --type process"
            raise InputError(f"this Prefect server has no work pool {pool!r}; create one: {command}") from None
        except PrefectHTTPStatusError as error:
            raise RunError(f"could not read the work pool {pool!r} from Prefect: {error}") from error
        for name in {request.crucible.block for request in requests if request.crucible and request.crucible.block}:
            try:
                client.read_block_document_by_name(name, BLOCK_TYPE, include_secrets=False)
            except ObjectNotFound:
                raise InputError(
                    f"this Prefect server has no block {BLOCK_TYPE}/{name}; create it in its UI, after: "
                    "prefect block register -m crucible_lineage.tasks.credentials"
                ) from None
        _require_reachable_declarations(requests, pool, kind)
        return [_deploy(client, request, pool, reset) for request in requests]


def remove(pipelines: Sequence[str]) -> dict[str, bool]:
    """Remove the deployments of pipelines, with schedules, triggers and future runs; return which there were."""
    with reaching_prefect("remove deployments", REMEDY), get_client(sync_client=True) as client:
        found = {name: _find(client, name) for name in pipelines}
        for existing in filter(None, found.values()):
            client.delete_resource_owned_automations(f"prefect.deployment.{existing.id}")
            client.delete_deployment(existing.id)
        return {name: existing is not None for name, existing in found.items()}


def _deploy(client: SyncPrefectClient, request: DeploymentRequest, pool: str, reset: bool) -> DeploymentState:
    existing = _find(client, request.spec.pipeline)
    deployment = _deployment(request)
    if existing is not None and not reset:
        _keep_settings(deployment, existing, request, pool)
        related = client.read_resource_related_automations(f"prefect.deployment.{existing.id}")
        paused = {automation.name for automation in related if not automation.enabled}
        for trigger in deployment.triggers:
            if isinstance(trigger, DeploymentEventTrigger):
                trigger.enabled = trigger.name not in paused
    try:
        deployment_id = str(deployment.apply(work_pool_name=pool, image=request.image))
    except DeploymentApplyError as error:
        raise RunError(f"deploy pipeline {request.spec.pipeline}: {error}") from error
    deployed = _find(client, request.spec.pipeline)
    for schedule in deployed.schedules if deployed else ():  # no longer declared or, on `reset`, an operator's
        if (reset and schedule.slug != SLUG) or (schedule.slug == SLUG and request.spec.schedule is None):
            client.delete_deployment_schedule(UUID(deployment_id), schedule.id)
    return DeploymentState(f"{FLOW}/{request.spec.pipeline}", deployment_id, request.runs, existing is None)


def _deployment(request: DeploymentRequest) -> RunnerDeployment:
    spec = request.spec
    parameters: JsonObject = {"pipeline": request.location}
    if request.crucible is not None:
        parameters["crucible"] = request.crucible.model_dump(exclude_none=True)
    schedule = spec.schedule and PrefectSchedule(
        cron=None if spec.interval else spec.schedule,
        interval=spec.interval,
        timezone=spec.timezone,
        anchor_date=ANCHOR,
        slug=SLUG,
    )
    # A tick of the schedule during a run is dropped, so that a hanging run lets none queue; the next tick makes up for
    # it. After an event nothing would: its data may have arrived after the current run listed its inputs.
    strategy = ConcurrencyLimitStrategy.ENQUEUE if spec.trigger or spec.request else ConcurrencyLimitStrategy.CANCEL_NEW
    deployment = run_pipeline.to_deployment(
        name=spec.pipeline,
        description=f"Pipeline {spec.pipeline} of project {spec.project}.",
        tags=["crucible", f"project:{spec.project}"],
        parameters=parameters,
        schedules=[schedule] if schedule else None,
        triggers=[*(_trigger(spec, *declared) for declared in (spec.trigger or {}).items()), *_on_request(spec)],
        concurrency_limit=ConcurrencyLimitConfig(limit=request.limit or 1, collision_strategy=strategy),
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)
    deployment._parameter_openapi_schema = _run_form(spec, parameters)
    return deployment


def _run_form(spec: PipelineSpec, fixed: JsonObject) -> ParameterSchema:
    """Return the form of a run in Prefect: parameters of steps, and which steps to make, or to make again.

    The `fixed` parameters of the deployment can only be read there.
    """
    values = {f"{name}.{key}": value for name, step in spec.steps.items() for key, value in step.params.items()}
    steps = {"type": "array", "items": {"type": "string", "enum": list(spec.steps)}, "default": []}
    return ParameterSchema(
        title="Parameters",  # these are sent only if set
        type="object",
        required=[],
        definitions={},
        properties={
            "overrides": {
                "type": "object",
                "title": "Parameters of steps",
                "description": "For this run. Results made with other parameters are kept.",
                "properties": {name: {"title": name, **_type_of(value)} for name, value in values.items()},
            },
            "only": {**steps, "title": "Only", "description": "Make only these steps."},
            "force": {**steps, "title": "Force", "description": "Make these steps again; earlier results are kept."},
            **({"request": {"title": "Request", "type": "object"}} if spec.request else {}),
            **{
                name: {
                    "title": name.capitalize(),
                    "type": "string" if isinstance(value, str) else "object",
                    "readOnly": True,
                    "enum": [value],
                }
                for name, value in fixed.items()
            },
        },
    )


def _type_of(value: object) -> JsonObject:
    """Return the type of a declared value for the form, and a number itself; a text may be a secret."""
    if isinstance(value, bool | int | float):
        return {"type": "boolean" if isinstance(value, bool) else "number", "description": f"declared: {value}"}
    return {"type": "string"} if isinstance(value, str) else {}  # others are written as JSON


def _keep_settings(
    deployment: RunnerDeployment, existing: DeploymentResponse, request: DeploymentRequest, pool: str
) -> None:
    """Copy an operator's settings from the existing deployment, where the declaration does not set them."""
    deployment.paused = existing.paused
    deployment.parameters = {**existing.parameters, **deployment.parameters}
    tags = [tag for tag in existing.tags if not tag.startswith("project:")]
    deployment.tags = list(dict.fromkeys([*(deployment.tags or ()), *tags]))
    deployment.job_variables = {**existing.job_variables, **(deployment.job_variables or {})}
    if existing.work_pool_name == pool:
        deployment.work_queue_name = existing.work_queue_name
    if request.limit is None and existing.global_concurrency_limit is not None:
        deployment.concurrency_limit = existing.global_concurrency_limit.limit
    active = {schedule.slug: schedule.active for schedule in existing.schedules}
    for schedule in deployment.schedules or ():
        schedule.active = active.get(schedule.slug, schedule.active)
    if None in active:  # such as schedules from its UI: Prefect then replaces all schedules by the ones sent
        others = [schedule.model_dump(include=KEPT) for schedule in existing.schedules if schedule.slug != SLUG]
        deployment.schedules = [*(deployment.schedules or ()), *map(DeploymentScheduleCreate.model_validate, others)]


def _trigger(spec: PipelineSpec, event: str, attributes: Mapping[str, str]) -> DeploymentEventTrigger:
    """Return a trigger that starts a run for each matching event of the project."""
    return DeploymentEventTrigger(
        name=f"{spec.pipeline} on {event}",
        description=f"Runs the pipeline {spec.pipeline} when {event} reports matching data.",
        expect={event},
        match={**({"project_id": spec.project} if spec.project != INHERIT else {}), **attributes},
        threshold=1,
        within=timedelta(0),
    )


def _on_request(spec: PipelineSpec) -> Iterator[DeploymentEventTrigger]:
    """Yield a trigger that starts a run for each request that the pipeline answers, with the request as parameter."""
    if spec.request is not None:
        template = {"__prefect_kind": "jinja", "template": "{{ event.resource['request'] }}"}
        trigger = _trigger(spec, REQUESTED, {"request_kind": spec.request.name})
        trigger.parameters = {"request": {"__prefect_kind": "json", "value": template}}
        yield trigger


def _find(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    try:
        return client.read_deployment_by_name(f"{FLOW}/{name}")
    except ObjectNotFound:
        return None


def _require_reachable_declarations(requests: Sequence[DeploymentRequest], pool: str, kind: str) -> None:
    """Raise InputError unless runs in containers can find the declaration, in a package of their image."""
    if kind == "process":
        if any(request.image for request in requests):
            raise InputError(f"the work pool {pool!r} starts processes and takes no --image; its workers' code is used")
        return
    for request in requests:
        if not request.location.startswith(PACKAGE):
            raise InputError(
                f"{request.location} is a file on this machine; runs in the work pool {pool!r} (of type {kind}) cannot "
                "read it; nothing was deployed. Put the declaration into a package that the image has, and name it "
                f"{PACKAGE}NAME/PATH: crucible-lineage deploy --image IMAGE {PACKAGE}NAME/PATH"
            )


def schedule_fault(spec: PipelineSpec) -> Fault | None:
    """Return why Prefect cannot read the schedule, with its position in the file; None if it can, or there is none."""
    if spec.schedule is None:
        return None
    try:
        construct_schedule(spec.interval, None, None if spec.interval else spec.schedule, None, spec.timezone)
    except ValueError as error:  # also pydantic's
        reasons = [details["msg"] for details in error.errors()] if isinstance(error, ValidationError) else [str(error)]
        message = "; ".join(reasons).replace("Value error, ", "")
        return read_document(spec.path).fault(("schedule",), f"schedule: {message}")
    return None
