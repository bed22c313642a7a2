"""`statements`: what people stated about results, by whom, and whether it is in force; and `calibrations`."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from crucible_lineage.ask.answer import Answer
from crucible_lineage.ask.names import find_mfid, find_project
from crucible_lineage.ask.question import AFTER, COMMAND, ELSEWHERE, Project, argument, option, question
from crucible_lineage.ask.view import CalibrationUse, show_dataset, visible_names
from crucible_lineage.ids import canonical_json
from crucible_lineage.json_types import JsonObject
from crucible_lineage.session import Session
from crucible_lineage.statements.calibrations import Certificate, range_text
from crucible_lineage.statements.effects import AppliedStatement
from crucible_lineage.statements.statements import KINDS, Statement
from crucible_lineage.statements.stating import signer_of
from crucible_lineage.text.amounts import amount


@dataclass(frozen=True)
class Statements(Answer):
    """Statements, oldest first. `left` counts those that are not in force, `signers` are known if verified.

    `names` are those of the datasets that they are about.
    """

    statements: Sequence[AppliedStatement]
    left: int
    names: Mapping[str, str] = field(default_factory=dict)
    signers: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def is_alarm(self) -> bool:  # type: ignore[override]
        return "" in self.signers.values() or any(applied.is_unvouched for applied in self.statements)

    @property
    def not_datasets(self) -> Collection[str]:  # type: ignore[override]
        """The accounts that made the statements."""
        return {applied.statement.by for applied in self.statements}

    def to_json(self) -> JsonObject:
        signed = (
            {"signer": self.signers[applied.statement.mfid]} if self.signers else {} for applied in self.statements
        )
        return {
            "statements": [{**applied.to_json(), **by} for applied, by in zip(self.statements, signed, strict=True)]
        }

    def lines(self) -> Iterator[str]:
        for applied in self.statements:
            signature = _signature_text(self.signers[applied.statement.mfid]) if self.signers else ""
            names = ", ".join(self.names[mfid] for mfid in applied.statement.about.datasets if mfid in self.names)
            subject = f"{applied.statement} ({names})" if names else str(applied.statement)
            yield f"{applied.statement.mfid}  {subject}  {applied.text}{signature}"
        yield amount(len(self.statements), "statement") + (f"; not listed: {self.left} (--all)" if self.left else "")


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
        view = show_dataset(session, find_mfid(session, dataset, [project] if project else ()))
        return CalibrationsInUse(
            uses=tuple(calibration for calibration in view.calibrations if kind in (None, calibration.kind))
        )
    session.mirror.sync_statements()
    certified = session.mirror.certificates(find_project(session, project))
    return CalibrationsInUse(
        certificates=tuple(certificate for certificate in certified if kind in (None, certificate.kind))
    )


@question("statements", announced=AFTER)
def statements(
    session: Session, dataset: Annotated[str | None, argument()] = None, *,
    project: Annotated[
        str | None, option("Statements of this project; by default, all that this key can see.", metavar="P")
    ] = None,
    kind: Annotated[str | None, option("Only statements of this kind.", choices=(*KINDS,))] = None,
    measured: Annotated[
        str | None, option("The certificates that are valid for this measured DATASET.", "--for", metavar="DATASET")
    ] = None,
    allowed: Annotated[
        Path | None, option(
            "Verify ssh signatures against FILE, an allowed signers file of ssh-keygen.", "--verify", metavar="FILE",
            exists=True, doors=(COMMAND,),
        )
    ] = None,
    every: Annotated[bool, option("Include statements that are no longer in force.", "--all")] = False,
) -> Statements:  # fmt: skip
    """List statements about results, or about DATASET, oldest first: holds, flags, certificates, trust."""
    session.mirror.sync_statements()
    found = [
        applied
        for applied in _statements(session, dataset, measured)
        if project is None or applied.statement.project.casefold() == project.casefold()
        if kind is None or applied.statement.verb == KINDS[kind]
    ]
    shown = [
        applied
        for applied in found
        if every or applied.is_unvouched or (applied.in_force and not applied.statement.revokes)
    ]
    signers = {applied.statement.mfid: _signer(applied.statement, allowed) for applied in shown} if allowed else {}
    names = visible_names(
        session.client, dict.fromkeys(mfid for applied in shown for mfid in applied.statement.about.datasets)
    )
    return Statements(shown, len(found) - len(shown), names, signers)


def _statements(session: Session, dataset: str | None, measured: str | None) -> Sequence[AppliedStatement]:
    """Return the statements about a dataset, the certificates for data, or all that this key can see."""
    if measured is None and dataset is None:
        return session.effects.all(None)
    if measured is None:
        return show_dataset(session, find_mfid(session, dataset or "")).statements
    uses = show_dataset(session, find_mfid(session, measured)).calibrations
    fitting = {mfid for use in uses for mfid in use.certificates}
    return [applied for applied in session.effects.all(None) if applied.statement.mfid in fitting]


def _signer(statement: Statement, allowed: Path) -> str | None:
    """Return the signer: None without a signature, empty if the signer is not allowed."""
    receipt, signature = statement.body.get("receipt"), statement.body.get("signature")
    if isinstance(receipt, Mapping) and signature and not signer_of(canonical_json(receipt), str(signature), allowed):
        return ""
    return signer_of(statement.signed_text, statement.signature, allowed) if statement.signature else None


def _signature_text(signer: str | None) -> str:
    if signer is None:
        return "  (not signed)"
    return f"  (signed by {signer})" if signer else "  (INVALID SIGNATURE: SIGNER NOT ALLOWED, OR TEXT CHANGED)"
