"""`statements`: what people stated about results, by whom, and whether it is in force; and `calibrations`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from crucible_lineage.ask.answer import Answer, Done
from crucible_lineage.ask.names import find_mfid, find_project
from crucible_lineage.ask.question import AFTER, ELSEWHERE, OneProject, Project, argument, option, question
from crucible_lineage.ask.view import CalibrationUse, show_dataset, visible_names
from crucible_lineage.errors import FAILURE
from crucible_lineage.session import Session
from crucible_lineage.statements.calibrations import Certificate, range_text
from crucible_lineage.statements.effects import AppliedStatement
from crucible_lineage.statements.statements import KINDS
from crucible_lineage.text.amounts import amount


@dataclass(frozen=True)
class CalibrationsInUse(Answer):
    """The calibrations of a dataset, or the certificates of a project."""

    uses: tuple[CalibrationUse, ...] = ()
    certificates: tuple[Certificate, ...] = ()

    def lines(self) -> Iterator[str]:
        yield from map(str, self.uses)
        for certificate in self.certificates:
            valid = ", ".join(map(range_text, certificate.spans))
            what = f"{valid}, {certificate.attribution} (certificate {certificate.statement})"
            yield f"{certificate.dataset}  {certificate.kind} of {certificate.scope} {what}"
        if not self.uses and not self.certificates:
            yield "no calibrations"


@question("calibrations", doors=ELSEWHERE)
def calibrations(
    session: Session, dataset: Annotated[str | None, argument()] = None, *, project: Project = None,
    kind: Annotated[str | None, option("Only calibrations of this kind.")] = None,
) -> CalibrationsInUse:  # fmt: skip
    """List the calibrations that DATASET was made with, or that are certified for it; without DATASET, the calibrations
    that are certified in a project, with the data and times that they are valid for.
    """
    if dataset is not None:
        uses = show_dataset(session, find_mfid(session, dataset, [project] if project else ())).calibrations
        return CalibrationsInUse(uses=tuple(use for use in uses if kind in (None, use.kind)))
    session.mirror.sync_statements()
    found = session.mirror.certificates(find_project(session, project))
    return CalibrationsInUse(certificates=tuple(use for use in found if kind in (None, use.kind)))


@question("statements", announced=AFTER)
def statements(
    session: Session, dataset: Annotated[str | None, argument()] = None, *,
    project: OneProject = None,
    kind: Annotated[str | None, option("Only statements of this kind.", choices=(*KINDS,))] = None,
    measured: Annotated[
        str | None, option("The certificates that are valid for this measured DATASET.", "--for", metavar="DATASET")
    ] = None,
    every: Annotated[bool, option("Include statements that are no longer in force.", "--all")] = False,
) -> Done:  # fmt: skip
    """List statements about results, or about DATASET, oldest first: holds, flags, certificates, trust."""
    session.mirror.sync_statements()
    if measured is not None:
        uses = show_dataset(session, find_mfid(session, measured)).calibrations
        fitting = {mfid for use in uses for mfid in use.certificates}
        stated = [applied for applied in session.effects.all(None) if applied.statement.mfid in fitting]
    elif dataset is not None:
        stated = [*show_dataset(session, find_mfid(session, dataset)).statements]
    else:
        stated = [*session.effects.all(None)]
    found = [
        applied
        for applied in stated
        if project is None or applied.statement.project.casefold() == project.casefold()
        if kind is None or applied.statement.verb == KINDS[kind]
    ]
    shown = [
        applied
        for applied in found
        if every or applied.is_unvouched or (applied.in_force and not applied.statement.revokes)
    ]
    names = visible_names(
        session.client, dict.fromkeys(mfid for each in shown for mfid in each.statement.about.datasets)
    )
    left = f"; not listed: {len(found) - len(shown)} (--all)" if len(found) > len(shown) else ""
    return Done(
        {"statements": shown},
        [*(_line(applied, names) for applied in shown), amount(len(shown), "statement") + left],
        FAILURE if any(applied.is_unvouched for applied in shown) else 0,
        not_datasets={applied.statement.by for applied in shown},
    )


def _line(applied: AppliedStatement, names: Mapping[str, str]) -> str:
    statement = applied.statement
    about = ", ".join(names[mfid] for mfid in statement.about.datasets if mfid in names)
    return f"{statement.mfid}  {statement}{f' ({about})' if about else ''}  {applied.text}"
