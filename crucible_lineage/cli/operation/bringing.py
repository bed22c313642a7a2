"""What `push --to` and `pull` have in common: how they tell what is to be brought, how far it is, and how it ended."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from crucible_lineage.amounts import size_text
from crucible_lineage.cli.ending import FAILURE
from crucible_lineage.cli.options import print_json
from crucible_lineage.cli.working import Work
from crucible_lineage.exchange.bring import CopyOutcome, bring
from crucible_lineage.exchange.model import Conflict
from crucible_lineage.exchange.plan import CopyPlan, ItemToCopy, plan_named, plan_project
from crucible_lineage.session import Session

__all__ = ["Bringing"]

MOST_LINES = 20


class Bringing:
    """One exchange between two Crucibles, told on stdout (or as JSON) and stderr."""

    def __init__(self, source: Session, target: Session, work: Work, *, as_json: bool, patience_s: float) -> None:
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
        left = (*plan.left, *outcome.left)
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
            _lines(f"  {item.mfid}  {item.name}: {item.lacking.in_words}" for item in plan.items if item.lacking)
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
            if outcome.left:
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
        "to_send": [item.to_json() for item in plan.items if item.mfid not in sent and item.lacking],
        "conflicts": [one.to_json() for one in conflicts],
        "differs": [one.to_json() for one in plan.differs],
        "left": [one.to_json() for one in left],
        "ids": {mfid: there for mfid, there in {**plan.ids, **outcome.ids}.items() if mfid != there},
    }
