"""`push` delivers what waits here, or copies a project to another Crucible; `pull` copies datasets from one."""

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
from crucible_lineage.cli.options import announce, crucible_options, given, json_option, open_session, print_json
from crucible_lineage.cli.runs.waiting import PATIENCE, print_set_aside, print_waiting
from crucible_lineage.cli.working import ProgressDisplay, showing_work
from crucible_lineage.errors import InputError
from crucible_lineage.exchange.bring import CopyOutcome, bring
from crucible_lineage.exchange.model import Conflict
from crucible_lineage.exchange.plan import CopyPlan, ItemToCopy, plan_named, plan_project
from crucible_lineage.ids import is_mfid
from crucible_lineage.pipeline.job.delivering import deliver_all
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, default_data_folder, resolve_settings
from crucible_lineage.statements import Statement

if TYPE_CHECKING:
    from crucible_lineage.registration.outbox import WaitingResult


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

    here = _here()
    there = _there(to_url, api_key_file, here.data)
    if here.api_url == there.api_url:
        raise InputError(f"{there.api_url} is both source and target; correct --to, or --url")
    with Session(here) as source, Session(there, patience_s=patience) as target, showing_work(silent=as_json) as work:
        bringing = ExchangeReport(source, target, work, as_json=as_json, patience_s=patience)
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


def _deliver_all(
    session: Session, patience: float, work: ProgressDisplay
) -> tuple[tuple[str, ...], tuple[WaitingResult, ...]]:
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

    here = Settings(folder, source="to work with offline", own_process=True)
    with (
        Session(replace(there, data=folder)) as source,
        Session(here) as target,
        showing_work(silent=as_json) as work,
    ):
        wanted = [*mfids, *(mfid for path in pipelines for mfid in _inputs(path, source))]
        code = ExchangeReport(source, target, work, as_json=as_json, patience_s=patience).pull(wanted)
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


MOST_LINES = 20


class ExchangeReport:
    """One exchange between two Crucibles, told on stdout (or as JSON) and stderr."""

    def __init__(
        self, source: Session, target: Session, work: ProgressDisplay, *, as_json: bool, patience_s: float
    ) -> None:
        self.source = source
        self.target = target
        self.as_json = as_json
        self.patience_s = patience_s
        self.verb = "sent"
        self.work = work

    def push(self, project: str, *, dry_run: bool, skip_conflicts: bool) -> int:
        """The project is there; the exit code."""
        self._announce()
        plan = plan_project(self.source, self.target, project, self.work)
        return self._carry_out(plan, dry_run=dry_run, skip_conflicts=skip_conflicts, ingests=True)

    def pull(self, mfids: Iterable[str]) -> int:
        """Copy these datasets here. Returns the exit code."""
        self.verb = "brought"
        self._announce()
        plan = plan_named(self.source, self.target, mfids, self.work)
        return self._carry_out(plan, dry_run=False, skip_conflicts=False, ingests=False)

    def _announce(self) -> None:
        if not self.as_json:
            click.echo(f"from {self.source.settings.describe()}\nto   {self.target.settings.describe()}")

    def _carry_out(self, plan: CopyPlan, *, dry_run: bool, skip_conflicts: bool, ingests: bool) -> int:
        conflicts, outcome = plan.conflicts, CopyOutcome()
        if skip_conflicts:
            plan = plan.without_conflicts()
        stopped = bool(plan.conflicts)
        self._print_plan(plan, conflicts, dry_run=dry_run or stopped)
        if not dry_run and not stopped:
            outcome = bring(
                self.source, self.target, plan, ingests=ingests, patience_s=self.patience_s,
                listen=self._listen, troubled=lambda reason: self.work.say(f"  waiting: {reason}"),
            )  # fmt: skip
        self.work.end()
        left = (*plan.skipped, *outcome.skipped)
        if self.as_json:
            print_json(_to_json(plan, conflicts, outcome, left))
        else:
            self._print_outcome(plan, outcome, left, sent_nothing=dry_run or stopped)
        return FAILURE if conflicts or left else 0

    def _print_plan(self, plan: CopyPlan, conflicts: Sequence[Conflict], *, dry_run: bool) -> None:
        if self.as_json:
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
                click.echo(f"settle what contradicts at either end{rest}", err=True)
        else:
            nothing = "all is there" if plan.equal or plan.differs else f"there is nothing to be {self.verb}"
            click.echo(f"{len(outcome.sent)} {self.verb}" if plan.items else f"nothing was {self.verb}: {nothing}")
        if other := {mfid: there for mfid, there in outcome.ids.items() if mfid != there}:
            click.echo("the service has given ids of its own:")
            _lines(f"  {mfid} is {there} there" for mfid, there in sorted(other.items()))
        if left:
            click.echo(f"{len(left)} not {self.verb}:", err=True)
            _lines((f"  {one.mfid}  {one.name}: {one.reason}" for one in left), err=True)
            if outcome.skipped:
                click.echo(f"run the same command to continue; nothing is {self.verb} twice", err=True)

    def _listen(self, item: ItemToCopy, done: int, total: int) -> None:
        self.work(f"{done} of {total} {self.verb}: {item.name}")


def _lines(lines: Iterable[str], *, err: bool = False) -> None:
    listed = list(lines)
    for line in listed[:MOST_LINES]:
        click.echo(line, err=err)
    if len(listed) > MOST_LINES:
        click.echo(f"  ... and {len(listed) - MOST_LINES} more", err=err)


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
        "ids": {mfid: there for mfid, there in {**plan.ids, **outcome.ids}.items() if mfid != there},
    }
