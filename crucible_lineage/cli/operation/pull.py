"""`pull`: what a pipeline takes is brought from a service into the embedded Crucible, for work without a network."""

from __future__ import annotations

import shlex
import sys
from dataclasses import replace
from pathlib import Path

import click

from crucible_lineage.cli.options import crucible_options, given, json_option
from crucible_lineage.cli.runs.waiting import PATIENCE
from crucible_lineage.cli.working import showing_work
from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, default_data_folder, resolve_settings
from crucible_lineage.statements import Statement

__all__ = ["pull_command"]


@click.command("pull")
@click.argument("mfids", nargs=-1, metavar="[MFID]...")
@click.option(
    "--for",
    "pipelines",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Bring what the inputs of this pipeline are now; may be repeated.",
)
@crucible_options
@PATIENCE
@json_option
def pull_command(mfids: tuple[str, ...], pipelines: tuple[Path, ...], patience: float, as_json: bool) -> None:
    """Bring datasets and their files from the service into the embedded Crucible in the data folder.

    What is named, and what the inputs of pipelines are now, is there then under the same ids, with metadata, keywords,
    samples, pictures and files: `run --data DIR` works without a network, and `push --to` brings back what it made.

    Exit code 0 if all is here, 1 if something could not be brought, or contradicts what is here.
    """
    if not mfids and not pipelines:
        raise InputError("name what to copy here: ids of datasets, or --for with a pipeline's file")
    if wrong := [mfid for mfid in mfids if not is_mfid(mfid)]:
        way_out = f"; for the inputs of a pipeline: --for {wrong[0]}" if wrong[0].endswith((".yaml", ".yml")) else ""
        told = f"{wrong[0]!r} is no MFID (26 symbols, 0 to 9 and lowercase letters without i, l, o, u)"
        raise InputError(told + way_out)
    folder = (given("data") or default_data_folder()).expanduser().absolute()
    there = resolve_settings(api_url=given("url"), api_key=given("api_key"))
    if there.embedded:
        raise InputError(
            "there is no service to bring it from: give --url, or set CRUCIBLE_API_URL and CRUCIBLE_API_KEY"
        )
    from crucible_lineage.cli.operation.bringing import Bringing  # the client, which what is refused above needs not

    here = Settings(folder, source="to work with offline", own_process=True)
    with (
        Session(replace(there, data=folder)) as source,
        Session(here) as target,
        showing_work(silent=as_json) as work,
    ):
        wanted = [*mfids, *(mfid for path in pipelines for mfid in _inputs(path, source))]
        code = Bringing(source, target, work, as_json=as_json, patience_s=patience).pull(wanted)
    if pipelines and not code and not as_json:
        click.echo(f"offline: {shlex.join(['crucible-lineage', 'run', str(pipelines[0]), '--data', str(folder)])}")
    sys.exit(code)


def _inputs(path: Path, session: Session) -> list[str]:
    """The datasets that are the inputs of a pipeline now, without files that are not registered yet.

    With the statements by which calibrations are chosen among them, and those that end others.
    """
    from crucible_lineage.pipeline.bind.cached import bind_file
    from crucible_lineage.pipeline.plan.planner import plan_pipeline

    inputs = plan_pipeline(bind_file(path, session.store), session).inputs
    found = [item.dataset.mfid for items in inputs.values() for item in items if item.dataset is not None]
    choices = (one for items in inputs.values() for item in items for one in item.calibrations.values())
    named: set[str] = set()
    new = {chosen.certificate.statement for one in choices for chosen in one.chosen}
    statements = session.mirror.statements().values() if new else ()
    while new:  # what ends a certificate may be ended itself
        named |= new
        new = {one.mfid for one in statements if new.intersection(_named_by(one))} - named
    return [*found, *sorted(named)]


def _named_by(one: Statement) -> list[str]:
    """The statements that another one ends for a time, or promotes."""
    return [*map(str, one.body.get("over") or ()), str(one.body.get("campaign") or "")]
