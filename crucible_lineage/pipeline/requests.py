"""Requests for results: each names a dataset, and is answered by a run of a pipeline for that dataset alone.

A request may come twice, to two workers, or again after a kill: ids decide, so that it has one result. It is
acknowledged when its results are at Crucible; what cannot be made is parked with the reason. Requests come from an
embedded Crucible, a queue of RabbitMQ, or lines of JSON.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from crucible_lineage.client import CrucibleClient
from crucible_lineage.core.journal import COMPLETE, UNDER_WAY, RequestRow
from crucible_lineage.dataclass import dataclass, field, replace
from crucible_lineage.errors import (
    TRANSIENT,
    InputError,
    LineageError,
    NotFoundError,
    StorageError,
    UnauthorizedError,
    UnreachableError,
    nearest,
)
from crucible_lineage.ids import canonical_json
from crucible_lineage.json_types import JsonObject
from crucible_lineage.pipeline.declare.inputs import Mfid, SelectInput
from crucible_lineage.pipeline.declare.pipeline import INHERIT, RequestSpec
from crucible_lineage.pipeline.job.job import Outcome
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.bound import BoundPipeline
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.session import Session
from crucible_lineage.text.masking import masked_text

FAILED, WAITING = "failed", "waiting"
SOON_S = 5.0  # chosen: after that, Crucible is away, and the request comes again
FAILED_QUEUE = "-failed"  # after the name of a queue: where its failed requests go


@dataclass(frozen=True)
class Request:
    """A request for the results of one dataset; `parameters` are those of steps, as STEP.NAME."""

    kind: str
    dataset: str
    parameters: JsonObject = field(default_factory=dict)

    @property
    def id(self) -> str:
        """Its id: equal requests have the same."""
        return hashlib.sha256(canonical_json([self.kind, self.dataset, self.parameters])).hexdigest()[:16]


@dataclass(frozen=True)
class Answer:
    """How a request ended: complete, failed for a reason at a step, or waiting for Crucible, so that it comes again."""

    state: str
    reason: str = ""
    step: str = ""
    results: tuple[str, ...] = ()


@dataclass(frozen=True)
class Taken:
    """A request that was taken, or why the message is none, and what acknowledges or parks it."""

    request: Request | None
    fault: str
    end: Callable[[Answer], None]


class Message(BaseModel):
    """A request in a queue or line: `{"dsid": MFID}`, the facility's form, perhaps with parameters and its kind."""

    model_config = ConfigDict(extra="forbid")

    dsid: Mfid
    parameters: dict[str, Any] = {}
    request: str = ""
    number: int | None = None  # at the embedded Crucible


class Pipelines:
    """The declared pipelines that answer requests, by kind. Raises InputError for one that answers none."""

    def __init__(self, pipelines: Iterable[BoundPipeline], session: Session) -> None:
        self.session = session
        self.by_kind: dict[str, BoundPipeline] = {}
        for bound in pipelines:
            other = self.by_kind.setdefault(kind := requests_of(bound).name, bound)
            if other is not bound:
                raise InputError(f"{bound.spec.path} and {other.spec.path} both answer {kind}; name one of them")

    def bound_for(self, request: Request) -> BoundPipeline:
        """Return the pipeline for the dataset of the request, in its project if so declared."""
        if request.kind not in self.by_kind:
            raise InputError(f"no pipeline here answers {request.kind!r}; {nearest(request.kind, self.by_kind)}")
        bound = self.by_kind[request.kind]
        if request.parameters:
            bound = bind_file(bound.spec.path, self.session.store, request.parameters)
        return narrowed(bound, request.dataset, self.session)


def requests_of(bound: BoundPipeline) -> RequestSpec:
    """Return what requests a pipeline answers. Raises InputError if it answers none."""
    if bound.spec.request is None:
        raise InputError(f"{bound.spec.path} answers no requests; add `request: {{name: KIND, input: INPUT}}`")
    return bound.spec.request


def requested_input(bound: BoundPipeline) -> SelectInput:
    """Return the selection of which a request names one dataset."""
    declared = bound.spec.inputs[requests_of(bound).input]
    assert isinstance(declared, SelectInput), declared
    return declared


def narrowed(bound: BoundPipeline, mfid: str, session: Session) -> BoundPipeline:
    """Return the pipeline with one dataset as its requested input. Raises InputError unless the dataset fits it."""
    spec, name = bound.spec, requests_of(bound).input
    dataset = session.client.datasets.get(mfid)
    if spec.project == INHERIT:
        spec = spec.model_copy(update={"project": dataset.project_id})
    if str(dataset.project_id or "").casefold() != spec.project.casefold():
        raise InputError(f"dataset {mfid} is in project {dataset.project_id!r}, the pipeline in {spec.project!r}")
    chosen = requested_input(bound).model_copy(update={"only": mfid})
    return replace(bound, spec=spec.model_copy(update={"inputs": {**spec.inputs, name: chosen}}))


def answer(request: Request, pipelines: Pipelines, run: Callable[[BoundPipeline], RunResult]) -> Answer:
    """Make what is requested, if it is not there yet, and record how that ended."""
    journal, row = pipelines.session.journal, _row(request, pipelines)
    journal.note_request(row)
    try:
        with pipelines.session.client.repeating(SOON_S):
            bound = pipelines.bound_for(request)
        row = replace(row, project=bound.spec.project, pipeline=bound.name)
        found = _answer_of(run(bound), bound)
    except (*TRANSIENT, UnauthorizedError, StorageError) as error:  # of this worker, not of the request
        found = Answer(WAITING, str(error))
    except LineageError as error:
        found = Answer(FAILED, str(error))
    except Exception as error:  # one request must not stop the worker for all others
        found = Answer(
            FAILED, f"{type(error).__name__}: {error}; this is a fault of crucible-lineage, please report it"
        )
    found = replace(found, reason=masked_text(found.reason.partition("\n")[0]))
    journal.note_request(replace(row, state=found.state, reason=found.reason, results=found.results, at=_now()))
    return found


def _row(request: Request, pipelines: Pipelines) -> RequestRow:
    bound = pipelines.by_kind.get(request.kind)
    name, project = (bound.name, bound.spec.project) if bound else ("", "")
    project = "" if project == INHERIT else project  # known once the dataset is found
    parameters = json.dumps(request.parameters)
    return RequestRow(request.id, request.kind, request.dataset, parameters, name, project, UNDER_WAY, at=_now())


def _answer_of(result: RunResult, bound: BoundPipeline) -> Answer:
    """Return what a run means for its request."""
    if result.stopped:
        return Answer(WAITING, "the run was stopped")
    if not result.outcomes:
        name, select = requests_of(bound).input, requested_input(bound).select
        return Answer(FAILED, f"the dataset is not among those of input {name!r}: {select}")
    failed = [step for step, outcome in result.outcomes.items() if outcome == Outcome.FAILED]
    if result.held:
        step, reason = next(iter(result.held.items()))
        return Answer(FAILED, f"on hold: {reason}", step)
    if failed:
        return Answer(FAILED, result.error_line(failed[0]), failed[0])
    if refused := [row for row in result.waiting if row.refused]:
        return Answer(FAILED, f"Crucible refused the result: {refused[0].error}", refused[0].step)
    if not result.ok:
        waits = [row.error for row in result.waiting if row.error]
        return Answer(WAITING, result.unseen or next(iter(waits), "results wait to be delivered"))
    last = bound.steps.keys() - {needed for step in bound.steps.values() for needed in step.needs}
    ids = [mfid for step, made in result.datasets.items() if step.partition("[")[0] in last for mfid in made.values()]
    return Answer(COMPLETE, results=tuple(ids))


def _now() -> str:
    return datetime.now(UTC).isoformat()


# Where requests come from


def stored(session: Session, kinds: Sequence[str]) -> Iterator[Taken]:
    """Yield the requests that wait at an embedded Crucible, each once."""
    client = session.client
    try:
        waiting = client.requests.list(status="requested")
    except NotFoundError as error:
        raise InputError("this Crucible keeps no requests; give the address of their queue with --queue") from error
    for found in waiting:
        if found.kind in kinds:
            request = Request(found.kind, found.dataset_mfid, found.parameters)
            yield Taken(request, "", partial(_state_end, client, found.id))


def answer_event(message: JsonObject, pipelines: Pipelines, run: Callable[[BoundPipeline], RunResult]) -> Answer:
    """Answer the request in an event that `watch` reported, also at the Crucible that keeps it."""
    asked = Message.model_validate(message)
    ended = answer(Request(next(iter(pipelines.by_kind)), asked.dsid, asked.parameters), pipelines, run)
    if asked.number is not None:
        _state_end(pipelines.session.client, asked.number, ended)
    return ended


def _state_end(client: CrucibleClient, number: int, ended: Answer) -> None:
    if ended.state != WAITING:
        client.requests.answer(number, ended.state, ended.results, ended.reason)


def lines(stream: IO[str], kinds: Sequence[str]) -> Iterator[Taken]:
    """Yield the requests in lines of JSON; each answer is a line on standard output."""

    def end(line: str) -> Callable[[Answer], None]:
        return lambda ended: print(json.dumps({"message": line, **vars(ended)}), file=sys.stdout, flush=True)

    for line in filter(None, map(str.strip, stream)):
        yield _taken(line, kinds, end(line))


def queued(url: str, queues: Mapping[str, str]) -> Iterator[Taken]:
    """Yield the requests in queues of RabbitMQ, given as {queue: kind}, until all are empty.

    A failed one goes to the queue with -failed at the end of its name, its reason in the headers. Raises
    UnreachableError while the broker is away; what was not acknowledged comes again.
    """
    try:
        import pika
    except ImportError as error:
        raise InputError("queues need the extra amqp: pip install 'crucible-lineage[amqp]'") from error
    try:
        parameters = pika.URLParameters(url)
    except (ValueError, TypeError) as error:
        raise InputError("the address of the queue cannot be read; write it as amqp://HOST/VHOST") from error
    parameters.heartbeat = 0  # a step may take hours; a lost connection shows when its request is acknowledged
    where = f"{parameters.host}:{parameters.port}"
    try:
        connection = pika.BlockingConnection(parameters)
        try:
            for queue in (*queues, *(f"{queue}{FAILED_QUEUE}" for queue in queues)):
                _declare(connection, queue)
            channel = connection.channel()
            channel.confirm_delivery()
            for queue, kind in queues.items():
                while (got := channel.basic_get(queue))[0] is not None:
                    yield _taken(got[2].decode("utf-8", "replace"), [kind], _ending(channel, queue, got))
        finally:
            connection.close()
    except pika.exceptions.AMQPError as error:
        reason = str(error) or type(error).__name__
        raise UnreachableError(f"the queue at {where} does not answer: {reason}") from error


def _declare(connection: Any, queue: str) -> None:
    """Make a queue as the facility's consumers do, unless there is one, of whatever kind."""
    import pika

    try:
        connection.channel().queue_declare(queue, passive=True)
    except pika.exceptions.ChannelClosedByBroker:
        connection.channel().queue_declare(queue)


def _ending(channel: Any, queue: str, got: tuple[Any, Any, bytes]) -> Callable[[Answer], None]:
    """Return what acknowledges a message, after a failed one was put into the other queue."""
    import pika

    method, _, body = got

    def end(ended: Answer) -> None:
        if ended.state == WAITING:
            channel.basic_nack(method.delivery_tag, requeue=True)
            return
        if ended.state == FAILED:
            headers = {"reason": ended.reason, "step": ended.step}
            properties = pika.BasicProperties(headers=headers, delivery_mode=2, content_type="application/json")
            channel.basic_publish("", f"{queue}{FAILED_QUEUE}", body, properties)
        channel.basic_ack(method.delivery_tag)

    def checked(ended: Answer) -> None:
        try:
            end(ended)
        except pika.exceptions.AMQPError as error:
            message = "the request was answered and could not be acknowledged; it comes again, and finds its result"
            raise UnreachableError(message) from error

    return checked


def _taken(text: str, kinds: Sequence[str], end: Callable[[Answer], None]) -> Taken:
    """Return the request in a message. One without a kind is of the only one there is."""
    try:
        message = Message.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        reason = f'this is no request ({where or "the text"}: {fault["msg"]}); write {{"dsid": MFID}}'
        return Taken(None, reason, end)
    if not message.request and len(kinds) > 1:
        return Taken(None, f'several kinds are answered here; add "request": one of {", ".join(kinds)}', end)
    return Taken(Request(message.request or kinds[0], message.dsid, message.parameters), "", end)
