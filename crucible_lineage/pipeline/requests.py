"""Requests for results: each names a dataset, and is answered by a run of a pipeline for that dataset alone.

A request may come twice, to two workers, or again after a kill: ids decide, so that it has one result. It is
acknowledged when its results are at Crucible; what cannot be made is parked with the reason. Requests come from an
embedded Crucible, a queue of RabbitMQ, or lines of JSON.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import IO, Any

from pydantic import BaseModel, ConfigDict, ValidationError

from crucible_lineage.client import CrucibleClient
from crucible_lineage.core.journal import COMPLETE, RequestRow
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


Taken = tuple[RequestRow, Callable[[RequestRow], None]]
"""A request, which has FAILED if the message is none, and what acknowledges or parks it."""


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

    def bound_for(self, request: RequestRow) -> BoundPipeline:
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


def answer(request: RequestRow, pipelines: Pipelines, run: Callable[[BoundPipeline], RunResult]) -> RequestRow:
    """Make what is requested, if it is not there yet, and record how that ended."""
    journal, bound = pipelines.session.journal, pipelines.by_kind.get(request.kind)
    if bound is not None:
        request = _answered_by(request, bound)
    journal.note_request(replace(request, at=_now()))
    try:
        with pipelines.session.client.repeating(SOON_S):
            bound = pipelines.bound_for(request)
        request = _answered_by(request, bound)
        found = _ended(request, run(bound), bound)
    except (*TRANSIENT, UnauthorizedError, StorageError) as error:  # of this worker, not of the request
        found = replace(request, state=WAITING, reason=str(error))
    except LineageError as error:
        found = replace(request, state=FAILED, reason=str(error))
    except Exception as error:  # one request must not stop the worker for all others
        fault = f"{type(error).__name__}: {error}; this is a fault of crucible-lineage, please report it"
        found = replace(request, state=FAILED, reason=fault)
    found = replace(found, reason=masked_text(found.reason.partition("\n")[0]), at=_now())
    journal.note_request(found)
    return found


def _answered_by(request: RequestRow, bound: BoundPipeline) -> RequestRow:
    """Return the request with the pipeline that answers it; the project is known once the dataset is found."""
    return replace(request, pipeline=bound.name, project="" if bound.spec.project == INHERIT else bound.spec.project)


def _ended(request: RequestRow, result: RunResult, bound: BoundPipeline) -> RequestRow:
    """Return the request as its run has left it."""
    failed_with, waits_with = partial(replace, request, state=FAILED), partial(replace, request, state=WAITING)
    if result.stopped:
        return waits_with(reason="the run was stopped")
    if not result.outcomes:
        name, select = requests_of(bound).input, requested_input(bound).select
        return failed_with(reason=f"the dataset is not among those of input {name!r}: {select}")
    failed = [step for step, outcome in result.outcomes.items() if outcome == Outcome.FAILED]
    if result.held:
        step, reason = next(iter(result.held.items()))
        return failed_with(reason=f"on hold: {reason}", step=step)
    if failed:
        return failed_with(reason=result.error_line(failed[0]), step=failed[0])
    if refused := [row for row in result.waiting if row.refused]:
        return failed_with(reason=f"Crucible refused the result: {refused[0].error}", step=refused[0].step)
    if not result.ok:
        waits = [row.error for row in result.waiting if row.error]
        return waits_with(reason=result.unseen or next(iter(waits), "results wait to be delivered"))
    last = bound.steps.keys() - {needed for step in bound.steps.values() for needed in step.needs}
    ids = [mfid for step, made in result.datasets.items() if step.partition("[")[0] in last for mfid in made.values()]
    return replace(request, state=COMPLETE, results=tuple(ids))


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
            request = RequestRow(found.kind, found.dataset_mfid, found.parameters)
            yield request, partial(_state_end, client, found.id)


def answer_event(message: JsonObject, pipelines: Pipelines, run: Callable[[BoundPipeline], RunResult]) -> RequestRow:
    """Answer the request in an event that `watch` reported, also at the Crucible that keeps it."""
    asked = Message.model_validate(message)
    ended = answer(RequestRow(next(iter(pipelines.by_kind)), asked.dsid, asked.parameters), pipelines, run)
    if asked.number is not None:
        _state_end(pipelines.session.client, asked.number, ended)
    return ended


def _state_end(client: CrucibleClient, number: int, ended: RequestRow) -> None:
    if ended.state != WAITING:
        client.requests.answer(number, ended.state, ended.results, ended.reason)


def lines(stream: IO[str], kinds: Sequence[str]) -> Iterator[Taken]:
    """Yield the requests in lines of JSON; each answer is a line on standard output."""

    def end(line: str, ended: RequestRow) -> None:
        parts = {name: getattr(ended, name) for name in ("state", "reason", "step", "results")}
        print(json.dumps({"message": line, **parts}), file=sys.stdout, flush=True)

    for line in filter(None, map(str.strip, stream)):
        yield _taken(line, kinds), partial(end, line)


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
                    yield _taken(got[2].decode("utf-8", "replace"), [kind]), _ending(channel, queue, got)
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


def _ending(channel: Any, queue: str, got: tuple[Any, Any, bytes]) -> Callable[[RequestRow], None]:
    """Return what acknowledges a message, after a failed one was put into the other queue."""
    import pika

    method, _, body = got

    def end(ended: RequestRow) -> None:
        if ended.state == WAITING:
            channel.basic_nack(method.delivery_tag, requeue=True)
            return
        if ended.state == FAILED:
            headers = {"reason": ended.reason, "step": ended.step}
            properties = pika.BasicProperties(headers=headers, delivery_mode=2, content_type="application/json")
            channel.basic_publish("", f"{queue}{FAILED_QUEUE}", body, properties)
        channel.basic_ack(method.delivery_tag)

    def checked(ended: RequestRow) -> None:
        try:
            end(ended)
        except pika.exceptions.AMQPError as error:
            message = "the request was answered and could not be acknowledged; it comes again, and finds its result"
            raise UnreachableError(message) from error

    return checked


def _taken(text: str, kinds: Sequence[str]) -> RequestRow:
    """Return the request in a message. One without a kind is of the only one there is."""
    try:
        message = Message.model_validate_json(text)
    except ValidationError as error:
        fault = error.errors()[0]
        where = ".".join(map(str, fault["loc"]))
        reason = f'this is no request ({where or "the text"}: {fault["msg"]}); write {{"dsid": MFID}}'
        return RequestRow("", "", state=FAILED, reason=reason)
    if not message.request and len(kinds) > 1:
        reason = f'several kinds are answered here; add "request": one of {", ".join(kinds)}'
        return RequestRow("", message.dsid, state=FAILED, reason=reason)
    return RequestRow(message.request or kinds[0], message.dsid, message.parameters)
