"""`deploy`: pipelines that run by themselves on Prefect; `watch`: report events to it, and register files."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from crucible_lineage.ask.answer import Done
from crucible_lineage.ask.question import OneProject, argument, option
from crucible_lineage.cli.asking import DATA_FOLDER, act
from crucible_lineage.cli.engines import prefect_is_configured
from crucible_lineage.errors import FAILURE, Fault, InputError, LineageError, UnauthorizedError
from crucible_lineage.lineage.labels import plain, plain_lines
from crucible_lineage.pipeline.declare.inputs import PACKAGE, FileInput, located
from crucible_lineage.pipeline.declare.load import load_pipeline
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.bound import BoundPipeline
from crucible_lineage.refs import utf8_name

if TYPE_CHECKING:
    from crucible_lineage.pipeline.watch import Folder, Watcher
    from crucible_lineage.session import Session


@act("watch", has_json=False)
def watch_command(
    session: Session, *,
    project: OneProject = None,
    folder: Annotated[
        Path | None, option(
            "Register the files that arrive here, as datasets of --project.", metavar="DIR", exists=True,
            needs="project",
        )
    ] = None,
    pattern: Annotated[str, option("Which files; **/*.txt includes subfolders.")] = "*",
    measurement: Annotated[str | None, option("The measurement of the files, as in 'Raman Spectroscopy'.")] = None,
    data_type: Annotated[str | None, option("The data type of the files, as in raw.")] = None,
    instrument_name: Annotated[str | None, option("The instrument that the files come from.", "--instrument")] = None,
    keywords: Annotated[Sequence[str], option("For the files' datasets; repeatable.", "--keyword")] = (),
    settle_s: Annotated[
        float, option(
            "A file has arrived when it has not changed for this time.", "--settle", metavar="SECONDS",
            kind=click.FloatRange(0),
        )
    ] = 10.0,
    every_s: Annotated[
        float, option("How often to look.", "--every", metavar="SECONDS", kind=click.FloatRange(0.1))
    ] = 30.0,
    since: Annotated[
        datetime | None, option(
            "Also report datasets created since then (UTC), even if reported before.", kind=click.DateTime()
        )
    ] = None,
    once: Annotated[bool, option("Look once, wait for present files to settle, and exit.")] = False,
    no_events: Annotated[bool, option("Only register files; needs no Prefect.")] = False,
) -> None:  # fmt: skip
    """Watch Crucible for new datasets and finished ingestions, and send an event for each to Prefect, until Ctrl-C.

    The first start skips existing datasets; later ones continue. The events are `crucible.dataset.created` and
    `crucible.ingestion.completed`, for the `trigger:` of a pipeline, and `crucible.ingestion.failed`. With
    --once, exit code 1 if a file could not be registered.
    """
    # These import the client, which `deploy` does not need.
    from crucible_lineage.pipeline.watch import Folder, Watcher

    if no_events and folder is None:
        raise InputError("--no-events without --folder leaves nothing to do; give --folder, or leave --no-events out")
    if not no_events:
        require_prefect()
    click.echo(session.settings.describe())
    arrivals = None
    if folder is not None:
        declared = FileInput(
            file=(pattern,), measurement=measurement, data_type=data_type, instrument_name=instrument_name,
            keywords=tuple(keywords),
        )  # fmt: skip
        arrivals = Folder(folder.absolute(), pattern, str(project), declared, session, settle_s=settle_s)
    watch = _Watch(arrivals, None if no_events else Watcher(session, project), since and since.replace(tzinfo=UTC))
    if once:
        watch.poll()
        if arrivals and arrivals.waiting:
            time.sleep(settle_s)
            watch.poll()
        sys.exit(FAILURE if watch.failed else 0)

    looked = False
    while True:
        try:
            watch.poll()
            looked = True
            session.store.set_mark(f"watching {project or ''}", {"at": datetime.now(UTC).isoformat()})
        except (LineageError, OSError) as error:
            # At first this is a mistake in the command; later a key, a certificate or a disk may come back.
            if not looked and isinstance(error, InputError | UnauthorizedError):
                raise
            click.echo(plain_lines(f"{error}\nwaiting; next try in {every_s:g} s"), err=True)
        time.sleep(every_s)


@dataclass
class _Watch:
    """One look registers files and reports events. What is done stays done if a later part fails."""

    arrivals: Folder | None
    watcher: Watcher | None
    since: datetime | None
    started: bool = False
    failed: set[Path] = field(default_factory=set)  # files that have arrived and could not be registered

    def poll(self) -> None:
        """Register the files that have arrived, and report events to Prefect."""
        if self.watcher and not self.started:
            self.watcher.begin(self.since)
            self.started = True
        for arrival in self.arrivals.poll() if self.arrivals else ():
            if arrival.dataset:
                self.failed.discard(arrival.path)
                click.echo(plain(f"registered {arrival.dataset.mfid}  {utf8_name(arrival.path.name)}"))
            else:
                self.failed.add(arrival.path)
                click.echo(plain_lines(f"{utf8_name(str(arrival.path))}: {arrival.error}"), err=True)
        if self.watcher:
            from crucible_lineage.flows.reports import emit_events  # imports Prefect, which files do not need

            for changes in self.watcher.poll():
                emit_events(changes)
                for change in changes:
                    click.echo(plain(f"reported {change.event}  {change.mfid}  {change.name}"))


@act("deploy", has_crucible=False)
def deploy_command(
    pipelines: Annotated[Sequence[str], argument("PIPELINE...")], *,
    pool: Annotated[str, option("The work pool whose workers run them.", metavar="NAME")] = "crucible",
    removes: Annotated[bool, option("Remove the deployments, with schedules and triggers.", "--remove")] = False,
    image: Annotated[
        str | None, option("For container pools: the image that runs start from.", metavar="IMAGE")
    ] = None,
    reset: Annotated[
        bool, option("Undo what was set in Prefect: pauses, job variables, limits, tags.")
    ] = False,
    limit: Annotated[int | None, option("How many runs may be active at once; by default 1.", least=1)] = None,
    data: Annotated[Path | None, option("The data folder.", metavar="DIR", kind=DATA_FOLDER)] = None,
    url: Annotated[
        str | None, option("Address of Crucible; its key is CRUCIBLE_API_KEY where the runs are.", metavar="URL")
    ] = None,
    block: Annotated[
        str | None, option("Prefect block (Crucible Credentials) with address and key.", metavar="NAME")
    ] = None,
) -> Done:  # fmt: skip
    """Make each PIPELINE a Prefect deployment with its declared `schedule:` and `trigger:`.

    Deploying again updates it and keeps what was set in Prefect, unless --reset. Nothing changes if a file has a
    fault. Without --data, --url and --block, the environment of the workers decides which Crucible is used. For
    runs in containers, name declarations in the image: package:NAME/PATH.
    """
    if removes:
        names = [load_pipeline(located(pipeline)).pipeline for pipeline in pipelines]
        require_prefect()
        from crucible_lineage.flows.deploying import remove

        removed = remove(names)
        lines = [f"{name}: {'removed' if was_there else 'was not deployed'}" for name, was_there in removed.items()]
        return Done({"removed": removed}, lines)
    if block and url:
        raise InputError("--block and --url both name a Crucible; give one of them")
    bound: list[tuple[BoundPipeline, str]] = []  # with the path that workers read
    faults: list[Fault] = []
    for pipeline in pipelines:
        try:
            path = pipeline if pipeline.startswith(PACKAGE) else str(Path(pipeline).absolute())
            bound.append((bind_file(located(pipeline)), path))
        except InputError as error:
            faults += error.faults
    if faults:  # of all files, before any request to Prefect
        raise InputError("", faults)
    require_prefect()
    from crucible_lineage.flows.deploying import DeploymentRequest, deploy
    from crucible_lineage.tasks.sessions import CrucibleConnection

    crucible = None
    if data or url or block:
        crucible = CrucibleConnection(data=str(data.absolute()) if data else None, api_url=url, block=block)
    requests = [DeploymentRequest(declared.spec, path, crucible, limit, image) for declared, path in bound]
    deployed = deploy(requests, pool, reset=reset)
    lines = [
        f"{state.name}: {'deployed' if state.created else 'updated'}, runs {'; '.join(state.runs) or 'when asked'}"
        for state in deployed
    ]
    lines.append(f"start a worker: prefect worker start --pool {pool}")
    lines.append(f"run one now: prefect deployment run {deployed[0].name}")
    return Done({"deployments": deployed}, lines)


def require_prefect() -> None:
    """Raise InputError unless a Prefect server is configured. Also turns off Prefect's telemetry."""
    if not prefect_is_configured():
        raise InputError(
            "no Prefect server is configured; start one (prefect server start) and name it: "
            "prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
