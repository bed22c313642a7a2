"""`push` delivers what waits here, or copies a project to another Crucible; `pull` copies datasets from one."""

from __future__ import annotations

import os
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crucible_lineage.cli.ending import FAILURE
from crucible_lineage.cli.options import announce, crucible_options, given, json_option, open_session, print_json
from crucible_lineage.cli.runs.waiting import PATIENCE, print_set_aside, print_waiting
from crucible_lineage.cli.working import Work, showing_work
from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.pipeline.job.delivering import deliver_all
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, default_data_folder, resolve_settings
from crucible_lineage.statements import Statement

if TYPE_CHECKING:
    from crucible_lineage.registration.outbox import Waiting


__all__ = ["pull_command", "push_command"]


@click.command("push")
@crucible_options
@click.option("--project", metavar="P", help="With --to: the project to copy.")
@click.option("--to", "to_url", metavar="URL", help="Copy from the embedded Crucible (or --url) to this one.")
@click.option(
    "--api-key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --to: a file with the key for it and nothing else.  [default: the key in CRUCIBLE_API_KEY]",
)
@click.option("--dry-run", is_flag=True, help="With --to: compare, say what would be sent, and send nothing.")
@click.option(
    "--skip-conflicts", is_flag=True, help="With --to: send everything except conflicts and what was made from them."
)
@PATIENCE
@json_option
def push_command(
    project: str | None,
    to_url: str | None,
    api_key_file: Path | None,
    dry_run: bool,
    skip_conflicts: bool,
    patience: float,
    as_json: bool,
) -> None:
    """Deliver results that were made while Crucible was away.

    With --project and --to, copy a whole project from the embedded Crucible to a service, under the same ids:
    both are compared first, conflicts are listed, and only what is missing is sent. If interrupted, run the same
    command again.

    Exit code 0 if everything is at Crucible, 1 if something still waits, was damaged, or conflicts.
    """
    if to_url is None:
        others = {"--project": project, "--api-key-file": api_key_file, "--dry-run": dry_run,
                  "--skip-conflicts": skip_conflicts}  # fmt: skip
        if named := [name for name, value in others.items() if value]:
            raise InputError(
                f"{', '.join(named)} is for bringing a project to another Crucible; give its address, --to"
            )
        _deliver(patience, as_json)
        return
    if project is None:
        raise InputError("name the project to copy with --project")
    from crucible_lineage.cli.operation.bringing import (
        Bringing,
    )  # the client, which telling that nothing waits does not need

    here = _here()
    there = _there(to_url, api_key_file, here.data)
    if here.api_url == there.api_url:
        raise InputError(f"{there.api_url} is both source and target; correct --to, or --url")
    with Session(here) as source, Session(there, patience_s=patience) as target, showing_work(silent=as_json) as work:
        bringing = Bringing(source, target, work, as_json=as_json, patience_s=patience)
        waiting = _deliver_all(source, patience, work)[1] if not dry_run else ()
        if not as_json:
            print_waiting(waiting)
        code = bringing.push(project, dry_run=dry_run, skip_conflicts=skip_conflicts)
    sys.exit(code or (FAILURE if waiting else 0))


def _deliver(patience: float, as_json: bool) -> None:
    with open_session() as session:
        announce(session)
        with showing_work(silent=as_json) as work:
            delivered, waiting = _deliver_all(session, patience, work)
        damaged = session.outbox.set_aside()
    if as_json:
        told = {"waiting": [one.to_json() for one in waiting], "damaged": [one.to_json() for one in damaged]}
        print_json({"mfids": list(delivered), **told})
    else:
        click.echo(f"{len(delivered)} delivered" if delivered or waiting else "nothing waits here")
        print_waiting(waiting)
        print_set_aside(damaged)
    sys.exit(FAILURE if waiting or damaged else 0)


def _deliver_all(session: Session, patience: float, work: Work) -> tuple[tuple[str, ...], tuple[Waiting, ...]]:
    """Deliver what runs left in the outbox. Returns what was delivered, and what still waits."""
    return deliver_all(session, patience, lambda reason: work.say(f"  {reason}"), work)


def _here() -> Settings:
    """The Crucible that --url names; else the embedded one, whatever the environment says of a service."""
    if given("url"):
        return resolve_settings(data=given("data"), api_url=given("url"), api_key=given("api_key"))
    if given("api_key"):
        raise InputError("--api-key is the key for --url; the key for --to is in --api-key-file or CRUCIBLE_API_KEY")
    folder = (given("data") or default_data_folder()).expanduser().absolute()
    if not (folder / "crucible").is_dir():
        raise InputError(f"there is no embedded Crucible in {folder}; give --data, or --url for another Crucible")
    return Settings(folder, source="to be brought on", own_process=True)


def _there(url: str, key_file: Path | None, data: Path) -> Settings:
    """The Crucible that --to names. A key for another address is not sent there."""
    if key_file is not None:
        key = key_file.read_text(encoding="ascii", errors="replace").strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise InputError(
                f"{key_file} holds no key: it must be one line of visible ASCII characters, without blanks"
            )
        return resolve_settings(data=data, api_url=url, api_key=key)
    known = os.environ.get("CRUCIBLE_API_URL")
    if os.environ.get("CRUCIBLE_API_KEY") and known and known.rstrip("/") != url.rstrip("/"):
        raise InputError(f"the key in CRUCIBLE_API_KEY is for {known}; give the one for {url} in --api-key-file")
    try:
        return resolve_settings(data=data, api_url=url)
    except InputError as error:
        if "--api-key" not in str(error):
            raise
        raise InputError(f"{error}, or --api-key-file") from error


@click.command("pull")
@click.argument("mfids", nargs=-1, metavar="[MFID]...")
@click.option(
    "--for",
    "pipelines",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Copy the present inputs of this pipeline; repeatable.",
)
@crucible_options
@PATIENCE
@json_option
def pull_command(mfids: tuple[str, ...], pipelines: tuple[Path, ...], patience: float, as_json: bool) -> None:
    """Copy datasets and their files from the service into the embedded Crucible in the data folder.

    What is named, and what the inputs of pipelines are now, is there then under the same ids, with metadata, keywords,
    samples, pictures and files: `run --data DIR` works without a network, and `push --to` brings back what it made.

    Exit code 0 if everything is here, 1 if something could not be copied, or conflicts.
    """
    if not mfids and not pipelines:
        raise InputError("name what to copy here: ids of datasets, or --for with a pipeline's file")
    if wrong := [mfid for mfid in mfids if not is_mfid(mfid)]:
        way_out = f"; for the inputs of a pipeline: --for {wrong[0]}" if wrong[0].endswith((".yaml", ".yml")) else ""
        told = f"{wrong[0]!r} is not an MFID (26 symbols, 0 to 9 and lowercase letters without i, l, o, u)"
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
