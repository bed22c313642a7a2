"""`push` delivers waiting results, or copies a project to another Crucible; `pull` copies datasets from one."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import click

from crucible_lineage.ask.answer import Done, option_value
from crucible_lineage.ask.question import argument, option
from crucible_lineage.ask.runs import damaged_lines, waiting_lines
from crucible_lineage.cli.asking import PATIENCE, Patience, act, announce, chosen_settings, data_folder, open_session
from crucible_lineage.cli.printing import ProgressDisplay, print_line, wants_json, warn
from crucible_lineage.errors import FAILURE, InputError
from crucible_lineage.exchange.copying import Conflict, CopyOutcome, CopyPlan, bring, plan_named, plan_project
from crucible_lineage.ids import require_mfid
from crucible_lineage.lineage.labels import first_lines
from crucible_lineage.pipeline.job.delivering import deliver_all
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.planner import plan_pipeline
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, key_in, resolve_settings
from crucible_lineage.text.amounts import size_text


@act("push")
def push_command(
    project: Annotated[str | None, option("With --to: the project to copy.", metavar="P")] = None,
    to_url: Annotated[
        str | None, option("Copy from the embedded Crucible (or --url) to this one.", "--to", metavar="URL")
    ] = None,
    api_key_file: Annotated[
        Path | None, option(
            "With --to: a file that contains only the key for it.  [default: the key in CRUCIBLE_API_KEY]",
            metavar="FILE", exists=True,
        )
    ] = None,
    dry_run: Annotated[bool, option("With --to: compare, list what would be sent, and send nothing.")] = False,
    patience: Patience = PATIENCE,
) -> Done:  # fmt: skip
    """Deliver results that were made while Crucible was away.

    With --project and --to, copy a whole project from the embedded Crucible to a service, under the same ids:
    both are compared first, and what is missing is sent. A dataset that differs there is a conflict: it is named, and
    neither it nor what was made from it is sent. If interrupted, run the same command again.

    Exit code 0 if everything is at Crucible, 1 if something still waits, is damaged, or conflicts.
    """
    if to_url is None:
        others = {"--project": project, "--api-key-file": api_key_file, "--dry-run": dry_run}
        if named := [name for name, value in others.items() if value]:
            raise InputError(f"{', '.join(named)}: only for a copy to another Crucible; give its address with --to")
        with open_session() as session:
            announce(session)
            with ProgressDisplay() as work:
                delivered, left = deliver_all(session, patience, work.print_trouble, work)
            damaged = session.outbox.set_aside()
        lines = [f"{len(delivered)} delivered" if delivered or left else "nothing waits here"]
        warnings = [*waiting_lines(left), *damaged_lines(damaged)]
        document = {"mfids": delivered, "waiting": left, "damaged": damaged}
        return Done(document, lines, FAILURE if warnings else 0, warnings)
    if project is None:
        raise InputError("name the project to copy with --project")

    local = _local_settings()
    remote = _remote_settings(to_url, api_key_file, local.data)
    if local.api_url == remote.api_url:
        raise InputError(f"{remote.api_url} is both source and target; correct --to, or --url")
    with Session(local) as source, Session(remote, patience_s=patience) as target, ProgressDisplay() as work:
        waiting = deliver_all(source, patience, work.print_trouble, work)[1] if not dry_run else ()
        if not wants_json():
            warn(waiting_lines(waiting))
        plan = plan_project(source, target, project, work)
        done = _exchange(source, target, work, plan, "sent", patience, dry=dry_run)
    return replace(done, exit_code=done.exit_code or (FAILURE if waiting else 0))


def _local_settings() -> Settings:
    """Return the Crucible that --url names, else the embedded one, even if the environment names a service."""
    if option_value("url"):
        return chosen_settings()
    if option_value("api_key"):
        raise InputError("--api-key is the key for --url; the key for --to is in --api-key-file or CRUCIBLE_API_KEY")
    folder = data_folder()
    if not (folder / "crucible").is_dir():
        raise InputError(f"there is no embedded Crucible in {folder}; give --data, or --url for another Crucible")
    return Settings(folder, source="to be brought on")


def _remote_settings(url: str, key_file: Path | None, data: Path) -> Settings:
    """Return the Crucible that --to names. InputError if the key is for another address."""
    if key_file is not None:
        return resolve_settings(data=data, api_url=url, api_key=key_in(key_file))
    key_url = os.environ.get("CRUCIBLE_API_URL")
    if os.environ.get("CRUCIBLE_API_KEY") and key_url and key_url.rstrip("/") != url.rstrip("/"):
        raise InputError(f"the key in CRUCIBLE_API_KEY is for {key_url}; give the one for {url} in --api-key-file")
    try:
        return resolve_settings(data=data, api_url=url)
    except InputError as error:
        if "--api-key" not in str(error):
            raise
        raise InputError(f"{error}, or --api-key-file") from error


@act("pull")
def pull_command(
    mfids: Annotated[Sequence[str], argument("[MFID]...")] = (),
    pipelines: Annotated[
        Sequence[Path], option(
            "Copy the current inputs of this pipeline; repeatable.", "--for", metavar="FILE", exists=True
        )
    ] = (),
    patience: Patience = PATIENCE,
) -> Done:  # fmt: skip
    """Copy datasets and their files from the service into the embedded Crucible in the data folder.

    The datasets, and the current inputs of the pipelines, keep their ids, metadata, keywords, samples, pictures and
    files. Then `run --data DIR` works without a network, and `push --to` sends its results back.

    Exit code 0 if everything was copied, 1 if something could not be copied or conflicts.
    """
    if not mfids and not pipelines:
        raise InputError("name what to copy: MFIDs of datasets, or a pipeline file with --for")
    for mfid in mfids:
        require_mfid(mfid, f"; for the inputs of a pipeline: --for {mfid}" if mfid.endswith((".yaml", ".yml")) else "")
    folder = data_folder()
    remote = resolve_settings(api_url=option_value("url"), api_key=option_value("api_key"))
    if remote.embedded:
        raise InputError("there is no service to copy from: give --url, or set CRUCIBLE_API_URL and CRUCIBLE_API_KEY")

    local = Settings(folder, source="to work with offline")
    with Session(replace(remote, data=folder)) as source, Session(local) as target, ProgressDisplay() as work:
        selected = [*mfids, *(mfid for path in pipelines for mfid in _inputs(path, source))]
        plan = plan_named(source, target, selected, work)
        done = _exchange(source, target, work, plan, "brought", patience, dry=False)
    if not pipelines or done.exit_code:
        return done
    offline = shlex.join(["crucible-lineage", "run", str(pipelines[0]), "--data", str(folder)])
    return replace(done, messages=[*done.messages, f"offline: {offline}"])


def _inputs(path: Path, session: Session) -> list[str]:
    """Return the ids of a pipeline's registered inputs, and of statements that select calibrations or end others."""
    inputs = plan_pipeline(bind_file(path, session.store), session).inputs
    datasets = [item.dataset.mfid for items in inputs.values() for item in items if item.dataset is not None]
    choices = (partners for items in inputs.values() for item in items for partners in item.calibrations.values())
    statement_ids: set[str] = set()
    new = {str(chosen.certificate["statement"]) for partners in choices for chosen in partners.chosen}
    statements = session.mirror.statements().values() if new else ()
    while new:  # what ends a certificate may be ended itself
        statement_ids |= new
        new = {
            statement.mfid
            for statement in statements
            if new.intersection([*map(str, statement.body.get("over") or ()), *statement.revokes])
        } - statement_ids
    return [*datasets, *sorted(statement_ids)]


MOST_LINES, MORE = 20, "  ... and {} more"


def _exchange(
    source: Session, target: Session, work: ProgressDisplay, plan: CopyPlan, verb: str, patience_s: float, *, dry: bool
) -> Done:
    """Copy what is planned. Only a service to which data are sent ingests them."""
    if not wants_json():
        size = size_text(sum(item.bytes for item in plan.items))
        click.echo(f"from {source.settings.describe()}\nto   {target.settings.describe()}")
        click.echo(f"{plan.equal} already there, {len(plan.items)} {'would' if dry else 'to'} be {verb} ({size})")
        listed = (f"  {item.mfid}  {item.source.name}: {item.missing.in_words}" for item in plan.items if dry)
        for line in first_lines(listed, MOST_LINES, MORE):
            print_line(line)
    outcome = CopyOutcome()
    if plan.items and not dry:
        ingests = verb == "sent"
        outcome = bring(source, target, plan, work, work.print_trouble, ingests=ingests, patience_s=patience_s)
    work.end()
    left = (*plan.skipped, *outcome.skipped)
    sent = {item.mfid for item in outcome.sent}
    to_send = [item for item in plan.items if item.mfid not in sent]
    copied = {"there": plan.equal, "sent": outcome.sent, "to_send": to_send, "conflicts": plan.conflicts, "left": left}
    nothing = "everything is there" if plan.equal else f"there is nothing to be {verb}"
    reason = "" if dry or plan.conflicts or left else f": {nothing}"
    lines = [f"{len(outcome.sent)} {verb}" if outcome.sent else f"nothing was {verb}{reason}"]
    warnings = [
        *_reasons(plan.conflicts, "conflicts with the target; resolve them on either side:"),
        *_reasons(left, f"{len(left)} not {verb}:"),
        *([f"run the same command to continue; nothing is {verb} twice"] if outcome.skipped else ()),
    ]
    return Done(copied, lines, FAILURE if plan.conflicts or left else 0, warnings)


def _reasons(conflicts: Sequence[Conflict], heading: str) -> Iterator[str]:
    yield from [heading] if conflicts else ()
    listed = (f"  {conflict.mfid}  {conflict.name}: {conflict.reason}" for conflict in conflicts)
    yield from first_lines(listed, MOST_LINES, MORE)
