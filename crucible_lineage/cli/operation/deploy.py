"""`deploy`: pipelines that run by themselves, on Prefect."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crucible_lineage.cli.options import DataFolderType, json_option, print_json
from crucible_lineage.cli.runs.engines import prefect_is_configured
from crucible_lineage.errors import Fault, InputError
from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.declare.load import load_pipeline
from crucible_lineage.pipeline.spec.inputs import PACKAGE, located

if TYPE_CHECKING:  # importing Prefect costs over a second
    from crucible_lineage.flows.deploying import DeploymentRequest

__all__ = ["deploy_command", "require_prefect"]


@click.command("deploy")
@click.argument("pipelines", nargs=-1, required=True, metavar="PIPELINE...")
@click.option("--serve", "serves", is_flag=True, help="Run them from this process, without pool and worker.")
@click.option("--pool", metavar="NAME", help="The work pool whose workers run them.  [default: crucible]")
@click.option("--remove", "removes", is_flag=True, help="Remove the deployments, with schedules and triggers.")
@click.option("--image", metavar="IMAGE", help="For pools of containers: the image that runs are started from.")
@click.option("--reset", is_flag=True, help="Undo what was set at them: pauses, job variables, limits, tags.")
@click.option("--process-new", "only_new", is_flag=True, help="Process new datasets only, and park repeated failures.")
@click.option("--limit", type=click.IntRange(1), help="How many runs may go on at once; others wait.")
@click.option("--data", type=DataFolderType(file_okay=False, path_type=Path), metavar="DIR", help="The data folder.")
@click.option("--url", metavar="URL", help="Address of Crucible; its key is CRUCIBLE_API_KEY where the runs are.")
@click.option("--block", metavar="NAME", help="Prefect block (Crucible Credentials) with address and key.")
@json_option
def deploy_command(
    pipelines: tuple[str, ...],
    serves: bool,
    pool: str | None,
    removes: bool,
    image: str | None,
    reset: bool,
    only_new: bool,
    limit: int | None,
    data: Path | None,
    url: str | None,
    block: str | None,
    as_json: bool,
) -> None:
    """Make each PIPELINE a Prefect deployment that runs by the `schedule:` and on the `trigger:` that it declares.

    Done again it is brought up to date, and is still one; what an operator set at it stays, unless --reset. Nothing
    is changed if one of the files has a fault. Without --data, --url and --block, the environment of the workers says
    which Crucible is meant. For runs in containers, name declarations that the image has: package:NAME/PATH.

    With --serve this process runs them, for a lab without a Prefect worker. When it stops, the pipelines are paused;
    started again, they go on.
    """
    others = {"--pool": pool, "--remove": removes, "--image": image, "--reset": reset, "--json": as_json}
    if serves and (named := [name for name, value in others.items() if value]):
        raise InputError(
            f"{', '.join(named)} and --serve exclude each other: --serve runs the pipelines from this process"
        )
    if removes:
        names = [load_pipeline(located(pipeline))[0].pipeline for pipeline in pipelines]
        require_prefect()
        from crucible_lineage.flows.deploying import remove

        removed = remove(names)
        if as_json:
            print_json({"removed": removed})
            return
        for name, flows in removed.items():
            click.echo(f"{name}: " + (f"removed ({', '.join(flows)})" if flows else "it was not deployed"))
        return
    requests = _requests(pipelines, data, url, block, only_new, limit)
    if serves:
        _serve(requests)
        return
    from crucible_lineage.flows.deploying import deploy

    pool = pool or "crucible"
    deployed = deploy([replace(request, image=image) for request in requests], pool, reset=reset)
    if as_json:
        print_json({"deployments": [{**vars(one), "runs": list(one.runs)} for one in deployed]})
        return
    for one in deployed:
        click.echo(
            f"{one.name}: {'deployed' if one.created else 'updated'}, runs {'; '.join(one.runs) or 'when asked'}"
        )
    click.echo(f"start a worker: prefect worker start --pool {pool}")
    click.echo(f"run one now: prefect deployment run {deployed[0].name}")


def _serve(requests: list[DeploymentRequest]) -> None:
    from crucible_lineage.flows.deploying import serve_pipelines

    for request in requests:
        click.echo(f"{request.flow.name}/{request.spec.pipeline}: {'; '.join(request.runs) or 'when asked'}")
    serve_pipelines(requests)


def require_prefect() -> None:
    """Prefect may be imported now: a server is named, and nothing of ours phones home. InputError if none is."""
    if not prefect_is_configured():
        raise InputError(
            "no Prefect server is configured; start one (prefect server start) and name it: "
            "prefect config set PREFECT_API_URL=http://127.0.0.1:4200/api"
        )
    os.environ.setdefault("DO_NOT_TRACK", "1")
    os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")


def _requests(
    pipelines: tuple[str, ...], data: Path | None, url: str | None, block: str | None, only_new: bool, limit: int | None
) -> list[DeploymentRequest]:
    """Return the deployments asked for. InputError with the faults of all files, before Prefect is asked anything."""
    if block and url:
        raise InputError("--block and --url both name a Crucible; give one of them")
    bound: list[tuple[BoundPipeline, str]] = []
    faults: list[Fault] = []
    for pipeline in pipelines:
        try:
            bound.append((bind_file(located(pipeline)), pipeline))
            faults += bound[-1][0].faults
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError("", faults)
    require_prefect()
    from crucible_lineage.flows.deploying import DeploymentRequest
    from crucible_lineage.flows.parameters import parameter_schemas
    from crucible_lineage.tasks.sessions import CrucibleConnection

    crucible = None
    if data or url or block:
        crucible = CrucibleConnection(data=str(data.absolute()) if data else None, api_url=url, block=block)
    return [
        DeploymentRequest(
            one.spec,
            name if name.startswith(PACKAGE) else str(Path(name).absolute()),
            crucible,
            only_new,
            limit,
            parameters=parameter_schemas(one),
        )
        for one, name in bound
    ]
