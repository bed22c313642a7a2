"""`push` delivers waiting results, or copies a project to another Crucible; `pull` copies datasets from one."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import size_text
from crucible_lineage.cli.exit_codes import FAILURE
from crucible_lineage.cli.options import (
    announced_session,
    chosen_settings,
    crucible_options,
    data_folder,
    json_option,
    option_value,
    print_json,
    wants_json,
)
from crucible_lineage.cli.runs.waiting import PATIENCE, print_set_aside, print_waiting
from crucible_lineage.cli.working import ProgressDisplay, showing_work
from crucible_lineage.errors import InputError
from crucible_lineage.exchange.bring import CopyOutcome, bring
from crucible_lineage.exchange.model import Conflict
from crucible_lineage.exchange.plan import CopyPlan, ItemToCopy, plan_named, plan_project
from crucible_lineage.ids import is_mfid
from crucible_lineage.lineage.labels import first_lines, plain
from crucible_lineage.pipeline.job.delivering import deliver_all
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, key_in, resolve_settings
from crucible_lineage.statements import Statement

if TYPE_CHECKING:
    from crucible_lineage.core.journal import ResultRow


@click.command("push")
@crucible_options
@click.option("--project", metavar="P", help="With --to: the project to copy.")
@click.option("--to", "to_url", metavar="URL", help="Copy from the embedded Crucible (or --url) to this one.")
@click.option(
    "--api-key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --to: a file that contains only the key for it.  [default: the key in CRUCIBLE_API_KEY]",
)
@click.option("--dry-run", is_flag=True, help="With --to: compare, list what would be sent, and send nothing.")
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
) -> None:
    """Deliver results that were made while Crucible was away.

    With --project and --to, copy a whole project from the embedded Crucible to a service, under the same ids:
    both are compared first, conflicts are listed, and only what is missing is sent. If interrupted, run the same
    command again.

    Exit code 0 if everything is at Crucible, 1 if something still waits, is damaged, or conflicts.
    """
    if to_url is None:
        others = {"--project": project, "--api-key-file": api_key_file, "--dry-run": dry_run,
                  "--skip-conflicts": skip_conflicts}  # fmt: skip
        if named := [name for name, value in others.items() if value]:
            raise InputError(
                f"{', '.join(named)}: only for copying a project to another Crucible; give its address with --to"
            )
        _deliver(patience)
        return
    if project is None:
        raise InputError("name the project to copy with --project")

    local = _local_settings()
    remote = _remote_settings(to_url, api_key_file, local.data)
    if local.api_url == remote.api_url:
        raise InputError(f"{remote.api_url} is both source and target; correct --to, or --url")
    with (
        Session(local) as source,
        Session(remote, patience_s=patience) as target,
        showing_work() as work,
    ):
        waiting = _deliver_all(source, patience, work)[1] if not dry_run else ()
        if not wants_json():
            print_waiting(waiting)
        exchange = ExchangeReport(source, target, work, "sent", patience)
        plan = plan_project(source, target, project, work)
        code = exchange.carry_out(plan, dry_run=dry_run, skip_conflicts=skip_conflicts)
    sys.exit(code or (FAILURE if waiting else 0))


def _deliver(patience: float) -> None:
    with announced_session() as session:
        with showing_work() as work:
            delivered, waiting = _deliver_all(session, patience, work)
        damaged = session.outbox.set_aside()
    if wants_json():
        left = {"waiting": [one.to_json() for one in waiting], "damaged": [one.to_json() for one in damaged]}
        print_json({"mfids": list(delivered), **left})
    else:
        click.echo(f"{len(delivered)} delivered" if delivered or waiting else "nothing waits here")
        print_waiting(waiting)
        print_set_aside(damaged)
    sys.exit(FAILURE if waiting or damaged else 0)


def _deliver_all(
    session: Session, patience: float, work: ProgressDisplay
) -> tuple[tuple[str, ...], tuple[ResultRow, ...]]:
    """Deliver the results in the outbox. Returns those delivered, and those that still wait."""
    return deliver_all(session, patience, lambda reason: work.print_line(f"  {reason}"), work)


def _local_settings() -> Settings:
    """Return the Crucible that --url names, else the embedded one, even if the environment names a service."""
    if option_value("url"):
        return chosen_settings()
    if option_value("api_key"):
        raise InputError("--api-key is the key for --url; the key for --to is in --api-key-file or CRUCIBLE_API_KEY")
    folder = data_folder()
    if not (folder / "crucible").is_dir():
        raise InputError(f"there is no embedded Crucible in {folder}; give --data, or --url for another Crucible")
    return Settings(folder, source="to be brought on", own_process=True)


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


@click.command("pull")
@click.argument("mfids", nargs=-1, metavar="[MFID]...")
@click.option(
    "--for",
    "pipelines",
    multiple=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Copy the current inputs of this pipeline; repeatable.",
)
@crucible_options
@PATIENCE
@json_option
def pull_command(mfids: tuple[str, ...], pipelines: tuple[Path, ...], patience: float) -> None:
    """Copy datasets and their files from the service into the embedded Crucible in the data folder.

    The datasets, and the current inputs of the pipelines, keep their ids, metadata, keywords, samples, pictures and
    files. Then `run --data DIR` works without a network, and `push --to` sends its results back.

    Exit code 0 if everything was copied, 1 if something could not be copied or conflicts.
    """
    if not mfids and not pipelines:
        raise InputError("name what to copy: MFIDs of datasets, or a pipeline file with --for")
    if wrong := [mfid for mfid in mfids if not is_mfid(mfid)]:
        way_out = f"; for the inputs of a pipeline: --for {wrong[0]}" if wrong[0].endswith((".yaml", ".yml")) else ""
        fault = f"{wrong[0]!r} is not an MFID (26 symbols, 0 to 9 and lowercase letters without i, l, o, u)"
        raise InputError(fault + way_out)
    folder = data_folder()
    remote = resolve_settings(api_url=option_value("url"), api_key=option_value("api_key"))
    if remote.embedded:
        raise InputError("there is no service to copy from: give --url, or set CRUCIBLE_API_URL and CRUCIBLE_API_KEY")

    local = Settings(folder, source="to work with offline", own_process=True)
    with (
        Session(replace(remote, data=folder)) as source,
        Session(local) as target,
        showing_work() as work,
    ):
        selected = [*mfids, *(mfid for path in pipelines for mfid in _inputs(path, source))]
        exchange = ExchangeReport(source, target, work, "brought", patience)
        code = exchange.carry_out(plan_named(source, target, selected, work))
    if pipelines and not code and not wants_json():
        click.echo(f"offline: {shlex.join(['crucible-lineage', 'run', str(pipelines[0]), '--data', str(folder)])}")
    sys.exit(code)


def _inputs(path: Path, session: Session) -> list[str]:
    """Return the ids of a pipeline's current inputs, without files that are not registered yet.

    They include the statements that select calibrations, and those that end others.
    """
    from crucible_lineage.pipeline.bind.cached import bind_file
    from crucible_lineage.pipeline.plan.planner import plan_pipeline

    inputs = plan_pipeline(bind_file(path, session.store), session).inputs
    datasets = [item.dataset.mfid for items in inputs.values() for item in items if item.dataset is not None]
    choices = (one for items in inputs.values() for item in items for one in item.calibrations.values())
    statement_ids: set[str] = set()
    new = {chosen.certificate.statement for one in choices for chosen in one.chosen}
    statements = session.mirror.statements().values() if new else ()
    while new:  # what ends a certificate may be ended itself
        statement_ids |= new
        new = {one.mfid for one in statements if new.intersection(_named_by(one))} - statement_ids
    return [*datasets, *sorted(statement_ids)]


def _named_by(statement: Statement) -> list[str]:
    """Return the statements that this one ends for a time, or promotes."""
    return [*map(str, statement.body.get("over") or ()), str(statement.body.get("campaign") or "")]


MOST_LINES = 20


class ExchangeReport:
    """Reports one exchange between two Crucibles on stdout (or as JSON) and stderr."""

    def __init__(self, source: Session, target: Session, work: ProgressDisplay, verb: str, patience_s: float) -> None:
        self.source = source
        self.target = target
        self.patience_s = patience_s
        self.verb = verb
        self.work = work
        if not wants_json():
            click.echo(f"from {source.settings.describe()}\nto   {target.settings.describe()}")

    def carry_out(self, plan: CopyPlan, *, dry_run: bool = False, skip_conflicts: bool = False) -> int:
        """Copy what is planned, and return the exit code. Only a service to which data are sent ingests them."""
        conflicts, outcome = plan.conflicts, CopyOutcome()
        if skip_conflicts:
            plan = plan.without_conflicts()
        stopped = bool(plan.conflicts)
        self._print_plan(plan, conflicts, dry_run=dry_run or stopped)
        if not dry_run and not stopped:
            outcome = bring(
                self.source, self.target, plan, ingests=self.verb == "sent", patience_s=self.patience_s,
                listen=self._listen, troubled=lambda reason: self.work.print_line(f"  waiting: {reason}"),
            )  # fmt: skip
        self.work.end()
        left = (*plan.skipped, *outcome.skipped)
        if wants_json():
            print_json(_to_json(plan, conflicts, outcome, left))
        else:
            self._print_outcome(plan, outcome, left, sent_nothing=dry_run or stopped)
        return FAILURE if conflicts or left else 0

    def _print_plan(self, plan: CopyPlan, conflicts: Sequence[Conflict], *, dry_run: bool) -> None:
        if wants_json():
            return
        size = sum(item.bytes for item in plan.items)
        verb = f"{'would' if dry_run else 'to'} be {self.verb}"
        click.echo(f"{plan.equal} already there, {len(plan.items)} {verb} ({size_text(size)})")
        if dry_run:
            _lines(f"  {item.mfid}  {item.name}: {item.missing.in_words}" for item in plan.items if item.missing)
        if plan.differs:
            click.echo("differs without a conflict (the target keeps its own values):")
            _lines(f"  {one.mfid}  {one.name}: {one.reason}" for one in plan.differs)
        if conflicts:
            click.echo("conflicts with the target:", err=True)
            _lines((f"  {one.mfid}  {one.name}: {one.reason}" for one in conflicts), err=True)

    def _print_outcome(
        self, plan: CopyPlan, outcome: CopyOutcome, left: Sequence[Conflict], *, sent_nothing: bool
    ) -> None:
        if sent_nothing:
            click.echo(f"nothing was {self.verb}")
            if plan.conflicts:
                rest = ", or send the rest: --skip-conflicts" if self.verb == "sent" else ""
                click.echo(f"resolve the conflicts on either side{rest}", err=True)
        else:
            reason = "everything is there" if plan.equal or plan.differs else f"there is nothing to be {self.verb}"
            click.echo(f"{len(outcome.sent)} {self.verb}" if plan.items else f"nothing was {self.verb}: {reason}")
        if changed := {mfid: new_id for mfid, new_id in outcome.ids.items() if mfid != new_id}:
            click.echo("the service assigned its own ids:")
            _lines(f"  {mfid} is {new_id} there" for mfid, new_id in sorted(changed.items()))
        if left:
            click.echo(f"{len(left)} not {self.verb}:", err=True)
            _lines((f"  {one.mfid}  {one.name}: {one.reason}" for one in left), err=True)
            if outcome.skipped:
                click.echo(f"run the same command to continue; nothing is {self.verb} twice", err=True)

    def _listen(self, item: ItemToCopy, done: int, total: int) -> None:
        self.work(f"{done} of {total} {self.verb}: {item.name}")


def _lines(lines: Iterable[str], *, err: bool = False) -> None:
    for line in first_lines(lines, MOST_LINES, "  ... and {} more"):
        click.echo(plain(line), err=err)


def _to_json(
    plan: CopyPlan, conflicts: Sequence[Conflict], outcome: CopyOutcome, left: Sequence[Conflict]
) -> dict[str, object]:
    sent = {item.mfid for item in outcome.sent}
    return {
        "there": plan.equal,
        "sent": [item.to_json() for item in outcome.sent],
        "to_send": [item.to_json() for item in plan.items if item.mfid not in sent and item.missing],
        "conflicts": [one.to_json() for one in conflicts],
        "differs": [one.to_json() for one in plan.differs],
        "left": [one.to_json() for one in left],
        "ids": {mfid: new_id for mfid, new_id in {**plan.ids, **outcome.ids}.items() if mfid != new_id},
    }
