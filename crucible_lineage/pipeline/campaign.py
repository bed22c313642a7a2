"""Campaigns: trying better calibrations on data of years, comparing, and promoting the results by one statement.

A campaign is a statement with certificates that do not count yet. Its runs choose calibrations as if they did. Their
results have their usual ids, and fill their slots only once the campaign is promoted by another statement. Rolling back
revokes that statement.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from crucible_lineage.amounts import amount
from crucible_lineage.calibrations import certificates_of, overlapping
from crucible_lineage.certifying import SHORT, moment, validity
from crucible_lineage.condition import parse_condition
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError, nearest
from crucible_lineage.pipeline.declare.inputs import CalibrationInput
from crucible_lineage.pipeline.declare.parts import value_of
from crucible_lineage.pipeline.plan.bound import BoundPipeline
from crucible_lineage.pipeline.plan.inputs import InputItem
from crucible_lineage.pipeline.plan.plan import BLOCKED, FRESH, StepPlan
from crucible_lineage.pipeline.plan.planner import PlannedPipeline, plan_pipeline
from crucible_lineage.session import Session
from crucible_lineage.statements import (
    CAMPAIGN,
    PROMOTE,
    About,
    ActiveStatements,
    Statement,
    promoted_in,
    signatures_of,
)
from crucible_lineage.stating import StatementOutcome, known_statements, revoke, sign, state
from crucible_lineage.times import utc

MONTH = "month"


@dataclass(frozen=True)
class Campaign:
    """The state of a campaign: when it was promoted, and how many accounts have approved it."""

    statement: Statement
    promoted: str = ""
    promotions: tuple[Statement, ...] = ()
    approvals: int = 0

    @property
    def mfid(self) -> str:
        """The id of the campaign's statement."""
        return self.statement.mfid

    @property
    def name(self) -> str:
        """The campaign's name."""
        return str(self.statement.body.get("name"))

    @property
    def pipeline(self) -> str:
        """The name of the pipeline."""
        return str(self.statement.body.get("pipeline"))

    @property
    def file(self) -> str:
        """The file of the pipeline, as given."""
        return str(self.statement.body.get("file") or "")

    @property
    def require(self) -> str:
        """The condition on the differences that promotion requires; empty for none."""
        return str(self.statement.body.get("require") or "")

    @property
    def state(self) -> str:
        """The stage of the campaign: promoted, approved or new."""
        return "promoted" if self.promoted else "approved" if self.approvals else "new"

    def to_json(self) -> dict[str, object]:
        """Return the campaign as commands print it."""
        return {
            "name": self.name,
            "mfid": self.mfid,
            "pipeline": self.pipeline,
            "state": self.state,
            "promoted": self.promoted or None,
            "approvals": self.approvals,
            "certificates": list(self.statement.body.get("certificates") or ()),
            "require": self.require or None,
            "by": self.statement.who or self.statement.by,
            "when": self.statement.when,
            "why": self.statement.why,
        }


@dataclass(frozen=True)
class CampaignPlan:
    """The changes by a campaign: the instances with other calibrations or other parents.

    `done` are those with candidates, `todo` those still to be executed, `blocked` those that cannot be.
    """

    planned: PlannedPipeline
    affected: tuple[str, ...]
    campaign: str = ""

    @property
    def steps(self) -> Iterator[StepPlan]:
        """The plans of the affected instances."""
        affected = frozenset(self.affected)
        return (step for step in self.planned.plan.steps if step.name in affected)

    @property
    def done(self) -> tuple[str, ...]:
        """The instances whose candidates exist, marked as those of the campaign."""
        return tuple(step.name for step in self.steps if self._is_made(step))

    @property
    def blocked(self) -> dict[str, str]:
        """The instances that cannot be executed, with the reasons."""
        return {step.name: "; ".join(step.causes) for step in self.steps if step.state == BLOCKED}

    @property
    def todo(self) -> tuple[str, ...]:
        """The instances that are still to be executed."""
        return tuple(step.name for step in self.steps if step.state != BLOCKED and not self._is_made(step))

    def _is_made(self, step: StepPlan) -> bool:
        """Return whether the results exist, and become current with the campaign's promotion."""
        if step.state != FRESH:
            return False
        index, slots = self.planned.index, self.planned.instances[step.name].slots
        for output, dataset in step.results.items():
            own = index.results.claims.get(dataset.mfid, {})
            for key in slots.get(output, ()):
                is_marked = key in own and own[key].campaign == self.campaign
                if not is_marked and index.holding(key) != (dataset.mfid,):
                    return False
        return True

    def cost(self, took: Mapping[str, tuple[float | None, int | None]]) -> tuple[float, int]:
        """Estimate the seconds and bytes of the remaining work from earlier executions of the steps."""
        left = frozenset(self.todo)
        made = (step for step in self.steps if step.name in left and step.state != FRESH)
        costs = [took.get(step.step, (None, None)) for step in made]
        return sum(seconds or 0.0 for seconds, _ in costs), sum(size or 0 for _, size in costs)


def campaigns_in(session: Session, project: str) -> list[Campaign]:
    """Return the campaigns of a project, oldest first."""
    _, active = known_statements(session)
    return _campaigns(active, project)


def find_campaign(session: Session, project: str, name: str) -> Campaign:
    """Return the campaign of this name. Raises InputError if there is none."""
    found = {one.name: one for one in campaigns_in(session, project)}
    if name not in found:
        raise InputError(f"project {project} has no campaign {name!r}; {nearest(name, found, 'there are')}")
    return found[name]


def new_campaign(
    session: Session,
    pipeline: BoundPipeline,
    name: str,
    replaced: Sequence[tuple[str, str]],
    since: str,
    until: str = "",
    *,
    fields: Mapping[str, str] | None = None,
    require: str = "",
    why: str = "",
    file: str = "",
) -> StatementOutcome:
    """State a campaign: other calibrations than the certified ones, for data from `since` to `until`.

    `replaced` are names of calibration inputs, each with the new calibration. It applies to data of the instrument that
    the calibration was measured with, or to data with these `fields`. Raises InputError for invalid arguments.
    """
    project = pipeline.spec.project
    if name in {one.name for one in campaigns_in(session, project)}:
        raise InputError(f"campaign {name!r} exists in project {project}; choose another name")
    if require:
        _check_gate(require)
    begins = moment("--since", since)
    if until and utc(begins) >= utc(moment("--until", until)):
        raise InputError(f"campaign {name}: --since {since} is not before --until {until}")
    certificates = [
        {
            "dataset": mfid,
            "kind": _kind(pipeline, input_name),
            **validity(fields or {"instrument_name": _instrument(session, mfid)}, begins, until),
        }
        for input_name, mfid in replaced
    ]
    keys = {str((one["kind"], one["for"])) for one in certificates}
    if len(keys) < max(1, len(certificates)):
        raise InputError(f"campaign {name}: give one new calibration for each input and instrument with --replace")
    body = {"name": name, "pipeline": pipeline.name, "file": file, "certificates": certificates}
    body |= {"require": require} if require else {}
    return state(session, project, CAMPAIGN, About(project=project), why=why, body=body)


def plan_campaign(session: Session, pipeline: BoundPipeline, campaign: Campaign) -> CampaignPlan:
    """Plan a pipeline as if a campaign were promoted. Makes no changes."""
    _require_own(pipeline, campaign)
    planned = plan_pipeline(pipeline, session, campaign=campaign.mfid)
    affected: dict[str, None] = {}
    for name, instance in planned.instances.items():  # parents come before their children
        chosen = [feed.chosen.certificate.get("statement") for feed in instance.feeds if feed.chosen]
        if campaign.mfid in chosen or any(need in affected for need in instance.needs):
            affected[name] = None
    return CampaignPlan(planned, tuple(affected), campaign.mfid)


def canary(plan: CampaignPlan, count: int, by: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the instances of `count` of the data that a campaign affects, spread over the strata."""
    inputs = plan.planned.inputs
    left: dict[tuple[str, ...], list[tuple[str, int]]] = {}
    data = dict.fromkeys(item for name in plan.affected for item in plan.planned.instances[name].about)
    for root, index in sorted(data, key=lambda item: _order(inputs[item[0]][item[1]]), reverse=True):
        left.setdefault(strata(inputs[root][index], by), []).append((root, index))
    chosen: set[tuple[str, int]] = set()
    value_counts: Counter[tuple[int, str]] = Counter()  # of the chosen data, by field and value
    stratum_counts: Counter[tuple[str, ...]] = Counter()
    while left and len(chosen) < count:
        key = min(left, key=lambda key: (stratum_counts[key], sum(value_counts[part] for part in enumerate(key)), key))
        chosen.add(left[key].pop())
        stratum_counts[key] += 1
        value_counts.update(enumerate(key))
        if not left[key]:
            del left[key]
    return tuple(name for name in plan.affected if chosen.issuperset(plan.planned.instances[name].about))


def strata(item: InputItem, by: Sequence[str]) -> tuple[str, ...]:
    """Return the stratum of data: the values of these fields; `month` is the month of the measurement."""
    values = []
    for name in by:
        if name == MONTH:
            values.append(f"{item.span[0]:%Y-%m}" if item.span else "")
        else:
            values.append(str(value_of(item.fields, SHORT.get(name, name)) or ""))
    return tuple(values)


def approve(session: Session, campaign: Campaign, why: str) -> StatementOutcome:
    """Sign a campaign."""
    return sign(session, [campaign.mfid], why, project=campaign.statement.project).stating


def promote(
    session: Session, pipeline: BoundPipeline, campaign: Campaign, gate: str = "", why: str = ""
) -> tuple[StatementOutcome, CampaignPlan]:
    """Make the results of a campaign current, by one statement; nothing is computed.

    `gate` is the reason why the comparison fails; empty if it passes. Raises InputError, and states nothing, if the
    campaign is promoted already, not approved, incomplete, or does not pass.
    """
    plan = plan_campaign(session, pipeline, campaign)
    faults = [
        f"it is promoted since {campaign.promoted[:10]}" if campaign.promoted else "",
        "" if plan.affected or campaign.promoted else "it changes nothing",
        "" if campaign.approvals else "nobody has approved it (campaign approve)",
        gate,
        f"{amount(len(plan.todo), 'result')} of {len(plan.affected)} are not made (campaign run)" if plan.todo else "",
        f"{next(iter(plan.blocked.items()))}" if plan.blocked else "",
    ]
    if any(faults):
        reasons = "; ".join(filter(None, faults))
        raise InputError(f"campaign {campaign.name} is not promoted: {reasons}. Nothing was stated")
    _, active = known_statements(session)
    drafts = [one for one in certificates_of(active, campaign.mfid) if one.statement == campaign.mfid]
    ended = {
        one.statement
        for one in certificates_of(active)
        if active.counts(one, campaign.statement.project)
        and any(one.key == draft.key and overlapping(draft.stated, [one]) for draft in drafts)
    }
    now = datetime.now(UTC).isoformat(timespec="microseconds")
    body = {"campaign": campaign.mfid, "since": now, "over": sorted(ended)}
    return state(session, campaign.statement.project, PROMOTE, About((campaign.mfid,)), why=why, body=body), plan


def roll_back(session: Session, campaign: Campaign, why: str) -> list[Statement]:
    """Revoke the promotion of a campaign, which restores the earlier state. Raises InputError if it is not promoted."""
    if not campaign.promotions:
        raise InputError(f"campaign {campaign.name} is not promoted; nothing was rolled back")
    return revoke(session, campaign.promotions, why)


def _campaigns(active: ActiveStatements, project: str) -> list[Campaign]:
    signed, promoted = signatures_of(active), promoted_in(active)
    promotions: dict[str, list[Statement]] = {}
    for one in active.statements.values():
        if one.verb == PROMOTE:
            promotions.setdefault(str(one.body.get("campaign")), []).append(one)
    found = [one for one in active.statements.values() if one.verb == CAMPAIGN and active.counts(one, project)]
    return [
        Campaign(
            one,
            promoted.get(one.mfid, ""),
            tuple(promotions.get(one.mfid, ())) if one.mfid in promoted else (),
            len({mark.account for mark in signed.get(one.mfid, ()) if active.counts(mark, project)}),
        )
        for one in sorted(found, key=lambda one: (one.when, one.mfid))
    ]


def _require_own(pipeline: BoundPipeline, campaign: Campaign) -> None:
    if pipeline.name != campaign.pipeline:
        raise InputError(f"campaign {campaign.name} is one of pipeline {campaign.pipeline!r}, not {pipeline.name!r}")


def _kind(pipeline: BoundPipeline, name: str) -> str:
    declared = pipeline.spec.inputs.get(name)
    if declared is None:
        raise InputError(f"--replace {name}: the pipeline has no input {name!r}; {nearest(name, pipeline.spec.inputs)}")
    if not isinstance(declared, CalibrationInput):
        raise InputError(
            f"--replace {name}: it is not chosen by certificate; declare {name}: {{calibration: KIND, for: INPUT}}"
        )
    return declared.calibration


def _instrument(session: Session, mfid: str) -> str:
    """Return the instrument of the data that a calibration was made from."""
    found: set[str] = set()
    left, seen = [mfid], set[str]()
    while left:
        one = left.pop()
        seen.add(one)
        try:
            summary = session.mirror.summaries([one])[one]
        except (ForbiddenError, KeyError, NotFoundError) as error:
            raise InputError(f"dataset {one} does not exist, or is not visible to this key") from error
        if summary.instrument:
            found.add(summary.instrument)
        else:
            left += [parent for parent in summary.parents if parent not in seen]
    if len(found) != 1:
        reason = f"comes from several instruments: {', '.join(sorted(found))}" if found else "is of no known instrument"
        raise InputError(f"calibration {mfid} {reason}; name the data with --for instrument=NAME")
    return found.pop()


def _check_gate(require: str) -> None:
    for name in parse_condition(require).names:
        if not name.startswith("d."):
            raise InputError(f"--require {require}: a gate goes by differences, d.NAME or d.STEP.NAME, not by {name!r}")


def _order(item: InputItem) -> tuple[bool, object, str]:
    return item.span is None, item.span, item.label
