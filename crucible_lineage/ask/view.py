"""`show`: one dataset with its contents, origin, parents and children; `statements` about results."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Annotated, ClassVar

from crucible_lineage.ask.answer import Answer, Done, next_command
from crucible_lineage.ask.listing import as_json
from crucible_lineage.ask.names import deletion_of, find_mfid
from crucible_lineage.ask.question import AFTER, OneProject, argument, option, question
from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import Dataset, FileRecord
from crucible_lineage.core.datasets import fetch_datasets
from crucible_lineage.errors import FAILURE, ForbiddenError, InputError, NotFoundError
from crucible_lineage.json_types import JsonMapping, JsonObject, mapping, object_of, text
from crucible_lineage.lineage.labels import first_lines, value_text
from crucible_lineage.lineage.model import IN_PLACE
from crucible_lineage.lineage.records import (
    fields_of,
    given_metadata,
    maker,
    mappings,
    parents_as_used,
    provenance,
    returned_values,
    took_s,
    value_of,
)
from crucible_lineage.pipeline.logs import STEP_LOG
from crucible_lineage.pipeline.plan.corrections import overwritten
from crucible_lineage.provenance.record import ATTACHED_NAME
from crucible_lineage.refs import SHOWN
from crucible_lineage.remake.attempts import known_to_vary
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import Standing, standing_of, standings
from crucible_lineage.statements.calibrations import (
    Calibrations,
    Certificate,
    CertificateMatch,
    certified_text,
    range_text,
)
from crucible_lineage.statements.effects import AppliedStatement
from crucible_lineage.statements.statements import AWAIT, KINDS
from crucible_lineage.text.amounts import amount, size_text, time_text
from crucible_lineage.text.times import measured_at, moment_text, span_text, time_shown, without_default_time

MOST_RELATIVES = 20  # listed parents or children
MOST_METADATA = 30  # listed entries that no step returned


@dataclass(frozen=True)
class ProducingRun:
    """Who made a dataset, when, by which function with which parameters, and in which run, as far as known."""

    who: str | None = None
    started: str | None = None
    seconds: float | None = None
    function: str | None = None
    note: str | None = None
    run: str | None = None
    engine: str | None = None
    params: JsonMapping = field(default_factory=dict)


@dataclass(frozen=True)
class ListedFile:
    """A file of a dataset: its size in bytes, SHA-256 (64 hexadecimal digits) and MFID."""

    name: str
    size: int | None
    sha256: str | None
    mfid: str

    def __str__(self) -> str:
        return f"{self.name}  {'' if self.size is None else size_text(self.size)}  sha256 {self.sha256}"


@dataclass(frozen=True)
class CalibrationUse:
    """A calibration of a dataset: its role or kind, the calibrations that qualify, their certificates, and why."""

    kind: str
    datasets: tuple[str, ...]
    certificates: tuple[str, ...]
    why: str

    def __str__(self) -> str:
        return f"{self.kind}: {', '.join(self.datasets) or 'none'}, {self.why}"


@dataclass(frozen=True)
class DatasetView(Answer):
    """One dataset with its contents, parents and children. `names` are those of the linked datasets.

    `equal` are, for each of `parents`, other linked datasets with equal bytes. `metadata` are those that no step
    returned: given at registration, or read from its files. `calibrations` are those it was made with, or those that
    are certified for it; `varies` says why its step is known as not deterministic. `overwritten` are corrections over
    which another program wrote; they count.
    """

    entry: Standing
    results: JsonMapping
    files: tuple[ListedFile, ...]
    parents: tuple[str, ...]
    equal: Mapping[str, tuple[str, ...]]
    children: tuple[str, ...]
    names: Mapping[str, str]
    made: ProducingRun
    facts: JsonMapping
    samples: Mapping[str, str]
    metadata: JsonMapping
    deletion: JsonMapping | None = None
    statements: tuple[AppliedStatement, ...] = ()
    varies: str = ""
    calibrations: tuple[CalibrationUse, ...] = ()
    overwritten: tuple[str, ...] = ()
    json_keys: ClassVar = (
        "results metadata files parents equal_parents=equal children samples=sample_ids made "
        "deletion_request=deletion statements not_deterministic=varies calibrations"
    )

    @property
    def sample_ids(self) -> list[str]:
        """The ids of its samples."""
        return list(self.samples)

    @property
    def single_statements(self) -> tuple[AppliedStatement, ...]:
        """The statements to show: that signatures are needed only until they are there."""
        is_signed = not (self.entry.doubt and self.entry.doubt.is_candidate)
        return tuple(each for each in self.statements if not (is_signed and each.statement.verb == AWAIT))

    @property
    def remarks(self) -> tuple[str, ...]:
        """Statements about it, and other outcomes of its recipe, in words."""
        entry, doubt = self.entry, self.entry.doubt
        return (
            *((f"doubtful: {doubt.message(entry.mfid)}",) if doubt and doubt.source != entry.mfid else ()),
            *(applied.text for applied in self.single_statements),
            *((self.varies,) if self.varies else ()),
            *self.overwritten,
            *map(str, self.calibrations),
        )

    @property
    def is_alarm(self) -> bool:  # type: ignore[override]
        doubt = self.entry.doubt
        return any(applied.is_unvouched for applied in self.statements) or (
            doubt is not None and bool(doubt.statement.fault)
        )

    @property
    def not_datasets(self) -> Collection[str]:  # type: ignore[override]
        """Its samples, files and owner, and the accounts that made statements about it."""
        accounts = {str(self.facts.get("owner_orcid")), *(applied.statement.by for applied in self.statements)}
        return {*self.samples, *(file.mfid for file in self.files), *accounts}

    def lines(self) -> Iterator[str]:
        yield from _status(self)
        yield from _made(self)
        kind = " · ".join(filter(None, (self.entry.summary.measurement, self.facts.get("data_type"))))
        timestamp = time_shown(self.facts.get("timestamp", ""))
        when = f"measured {timestamp}" if timestamp else "measured at an unknown time"
        yield "  ".join(filter(None, (kind, self.facts.get("instrument_name"), when, *self.samples.values())))
        if self.made.params:
            yield from ("parameters", *_values(self.made.params))
        if self.results:
            yield from ("results" if self.entry.summary.step else "metadata", *_values(self.results))
        if self.metadata:
            yield "more metadata"
            yield from first_lines(_values(self.metadata), MOST_METADATA, "  and {} more (--json)")
        if self.files:
            yield from ("files", *(f"  {file}" for file in self.files))
        yield from _relatives("parents", self.parents, self)
        yield from _relatives("children", self.children, self)
        yield f"its files: {next_command('get', self.entry.mfid, '-o', 'FOLDER')}"

    def to_json(self) -> JsonObject:
        return {**as_json([self.entry])[0], **self.facts, **object_of(self)}


@question("show")
def show(
    session: Session, dataset: Annotated[str, argument()], *,
    log: Annotated[bool, option("Print the log of the step that made it.")] = False,
    project: OneProject = None,
) -> DatasetView | Done:  # fmt: skip
    """Show the DATASET, named by its MFID, a unique beginning of it, or its name: its state, returned values, files,
    author and time, parents and children; or with --log the output of its step.
    """
    mfid = find_mfid(session, dataset, [project] if project else ())
    if not log:
        return show_dataset(session, mfid)
    existing(session, mfid)
    files = (file for file in session.client.datasets.list_files(mfid) if file.filename == STEP_LOG)
    content = next((session.client.files.download_bytes(file).decode(errors="replace") for file in files), None)
    absent = f"{mfid} has no log: no step made it, or its step printed nothing"
    warnings = (absent,) if content is None else ()
    return Done({"mfid": mfid, "log": content}, (content or "").splitlines(), warnings=warnings, content=content)


def show_dataset(session: Session, mfid: str) -> DatasetView:
    """Return a dataset with its state, returned values, files, origin, parents and children.

    Raises InputError if it does not exist or is hidden from this key.
    """
    return view_of(session, existing(session, mfid))


def view_of(session: Session, found: Dataset) -> DatasetView:
    """Return the answer about a dataset that was read with metadata and links."""
    mfid, record = found.unique_id, found.model_dump()
    entry = standing_of(session, found)
    names = visible_names(session.client, entry.superseded_by) | _linked(found, "dataset")
    parents = parents_as_used(record, _linked(found, "dataset", "source"))
    results = returned_values(record)
    return DatasetView(
        entry=entry,
        results=results,
        files=tuple(ListedFile(own.filename, own.size, own.sha256_hash, own.mfid) for own in own_files(session, mfid)),
        parents=tuple(parents),
        equal={mfid: others for mfid, others in parents.items() if others},
        children=tuple(_linked(found, "dataset", "target")),
        names=names,
        made=_origin(record),
        facts={name: value for name in SHOWN if (value := without_default_time(record).get(name)) not in (None, "")},
        samples=_linked(found, "sample"),
        metadata={key: value for key, value in given_metadata(record).items() if key not in results},
        deletion=record.get("deletion_request") if found.is_to_be_deleted else None,
        statements=session.effects.about(mfid, found.project_id or "", entry.summary),
        varies=known_to_vary(session, mfid, record),
        calibrations=tuple(_calibrations(record) if entry.summary.status.derived else _certified(session, record)),
        overwritten=tuple(act.change for act in overwritten(found.scientific_metadata)),
    )


def _linked(found: Dataset, kind: str, direction: str = "") -> dict[str, str]:
    """Return {id: name} of what a dataset is linked to, in one direction or both."""
    links = (link for link in found.links or () if link.resource_type == kind and direction in ("", link.direction))
    return {link.unique_id: link.name or link.unique_id for link in links}


def existing(session: Session, mfid: str) -> Dataset:
    """Return the dataset with metadata and links. Raises InputError if it does not exist or is hidden from this key."""
    try:
        return session.client.datasets.get(mfid, include_metadata=True, include_links=True)
    except (ForbiddenError, NotFoundError) as error:
        if isinstance(error, NotFoundError) and (deletion := deletion_of(session, mfid)):
            raise InputError(deletion.text) from error
        service = session.settings.describe()
        raise InputError(f"dataset {mfid} does not exist, or is not visible to this key ({service})") from error


def own_files(session: Session, mfid: str) -> Iterator[FileRecord]:
    """Return the files of a dataset, without the file of a long provenance record."""
    return (file for file in session.client.files.list(mfid) if file.filename != ATTACHED_NAME)


def _origin(record: Mapping[str, object]) -> ProducingRun:
    recorded = provenance(record)
    activity = recorded.get("activity") or {}
    run = activity.get("run") or {}
    return ProducingRun(
        who=maker(record) or _owner(record),
        started=text(activity.get("started")) or None,
        seconds=took_s(record),
        function=text(activity.get("function")) or None,
        note=text(activity.get("note")) or None,
        run=text(run.get("run_id")) or text(activity.get("run_id")) or None,
        engine=text(run.get("engine")) or None,
        params=(recorded.get("recipe") or {}).get("params") or {},
    )


def _owner(record: Mapping[str, object]) -> str | None:
    owner = record.get("owner")
    if isinstance(owner, Mapping):
        names = (text(owner.get("first_name")), text(owner.get("last_name")))
        return text(owner.get("username")) or " ".join(filter(None, names)) or None
    return text(owner) or None


def visible_names(client: CrucibleClient, mfids: Iterable[str]) -> dict[str, str]:
    """Return the names of those of these datasets that exist and that this key can see."""
    found = fetch_datasets(client, mfids).found
    return {mfid: text(record.get("dataset_name")) or mfid for mfid, record in found.items()}


def _status(found: DatasetView) -> Iterator[str]:
    entry, mfid = found.entry, found.entry.summary.mfid
    yield entry.summary.name
    yield f"{mfid}  {entry.state}"
    yield from found.remarks
    if found.deletion:
        requested = time_shown(str(found.deletion.get("request_time") or ""))
        state = "is to be deleted" if found.deletion.get("status") == "approved" else "was asked to be deleted"
        reason = found.deletion.get("reason")
        yield (f"{state} (request {found.deletion.get('id')} of {requested}){f': {reason}' if reason else ''}")
    for other in entry.superseded_by:
        since = f"  since {time_shown(entry.since)}" if entry.since else ""
        yield (f"superseded by {_named(other, found.names)}{since}")


def _relatives(relation: str, mfids: Sequence[str], found: DatasetView) -> Iterator[str]:
    if mfids:
        yield relation
    for relative in mfids[:MOST_RELATIVES]:
        yield (f"  {_named(relative, found.names)}")
        if relation == "parents" and (equal := found.equal.get(relative)):
            yield f"    equal bytes now: {', '.join(equal)}"
    if len(mfids) > MOST_RELATIVES:
        yield f"  and {len(mfids) - MOST_RELATIVES} more; see {next_command('lineage', found.entry.summary.mfid)}"


def _made(found: DatasetView) -> Iterator[str]:
    """Yield what made the dataset, who, when and in which run; for measured data, who registered them."""
    summary, origin = found.entry.summary, found.made
    by = f" by {origin.who}" if origin.who else ""
    if step := "/".join(filter(None, (summary.pipeline, summary.step))):
        began = f" on {time_shown(origin.started)}" if origin.started else ""
        took = f", in {time_text(origin.seconds)}" if origin.seconds is not None else ""
        yield f"made by {step}{f' ({origin.function})' if origin.function else ''}{began}{took}{by}"
    else:
        registered = f"registered {time_shown(found.facts.get('creation_time', ''))}"
        note = f": {origin.note}" if origin.note else ""
        yield f"{'made manually' if found.parents else registered}{by}{note}"
    if origin.run:
        yield f"run {origin.run}{f' ({origin.engine})' if origin.engine else ''}"


def _values(values: Mapping[str, object]) -> Iterator[str]:
    return (f"  {name}: {value_text(value)}" for name, value in values.items())


def _named(mfid: str, names: Mapping[str, str]) -> str:
    return f"{mfid}  {names[mfid]}" if names.get(mfid, mfid) != mfid else mfid


def _calibrations(record: Mapping[str, object]) -> Iterator[CalibrationUse]:
    """Yield the calibrations that a result was made with by certificate."""
    for entry in mappings(provenance(record).get("used")):
        if certificate := mapping(mapping(entry.get("chosen")).get("certificate")):
            statement = str(certificate.get("statement"))
            why = f"{certified_text(certificate)} by {certificate.get('by')} (certificate {statement})"
            yield CalibrationUse(str(entry.get("role")), (str(entry.get("mfid")),), (statement,), why)


def _certified(session: Session, record: Mapping[str, object]) -> Iterator[CalibrationUse]:
    """Yield the calibrations that are certified for measured data."""
    project, moment = str(record.get("project_id") or ""), measured_at(record)
    certificates = session.mirror.certificates(project)
    if moment is None or not certificates:
        return
    calibrations = Calibrations(certificates)
    value = partial(value_of, fields_of(record))
    for kind in calibrations.kinds:
        match = calibrations.fitting(kind, value, moment)
        if match.valid or match.before or match.after:
            datasets = tuple(dict.fromkeys(certificate.dataset for certificate in match.valid))
            statements = tuple(certificate.statement for certificate in match.valid)
            yield CalibrationUse(kind, datasets, statements, "; ".join(_reasons(match, moment)))


def _reasons(match: CertificateMatch, moment: datetime) -> Iterator[str]:
    for certificate in match.valid:
        valid = range_text(certificate.span_at(moment) or certificate.declared)
        yield f"{valid}, for {certificate.scope}, {certificate.attribution} (certificate {certificate.statement})"
    if len({certificate.dataset for certificate in match.valid}) > 1:
        yield "they contradict each other and are not used: lift one of the certificates"
    if not match.valid:
        yield f"as none is certified for {moment_text(moment)}"
        if near := match.nearest:
            found = near.certificate
            yield f"{found.dataset} is valid {range_text(found.declared)}, {span_text(near.seconds)} {near.side}"


def after_lifting(session: Session, lifted: Certificate) -> Iterator[str]:
    """Yield what follows once a certificate is lifted: what is certified in its place, and what was made with it."""
    others = (other for other in session.mirror.certificates(lifted.project) if other.key == lifted.key)
    now = sorted({other.dataset for other in others if other.overlaps(lifted.declared)})
    yield f"{lifted.kind} of {lifted.scope} {range_text(lifted.declared)}: {', '.join(now) or 'none'} is certified now"
    made = [
        found
        for found in standings(session, lifted.project).values()
        if found.state in IN_PLACE and lifted.dataset in found.summary.parents
    ]
    yield f"{amount(len(made), 'current result')} made with {lifted.dataset}; the next runs choose again"


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
    found = [
        applied
        for applied in _stated(session, dataset, measured)
        if project is None or applied.statement.project.casefold() == project.casefold()
        if kind is None or applied.statement.verb == KINDS[kind]
    ]
    shown = [
        applied
        for applied in found
        if every or applied.is_unvouched or (applied.in_force and not applied.statement.revokes)
    ]
    subjects = dict.fromkeys(mfid for applied in shown for mfid in applied.statement.about.datasets)
    names = visible_names(session.client, subjects)
    left = f"; not listed: {len(found) - len(shown)} (--all)" if len(found) > len(shown) else ""
    return Done(
        {"statements": shown},
        [*(_line(applied, names) for applied in shown), amount(len(shown), "statement") + left],
        FAILURE if any(applied.is_unvouched for applied in shown) else 0,
        not_datasets={applied.statement.by for applied in shown},
    )


def _stated(session: Session, dataset: str | None, measured: str | None) -> Sequence[AppliedStatement]:
    """Return the certificates valid for measured data, the statements about a dataset, or all."""
    if measured is not None:
        uses = show_dataset(session, find_mfid(session, measured)).calibrations
        fitting = {mfid for use in uses for mfid in use.certificates}
        return [applied for applied in session.effects.all(None) if applied.statement.mfid in fitting]
    if dataset is not None:
        return show_dataset(session, find_mfid(session, dataset)).statements
    return session.effects.all(None)


def _line(applied: AppliedStatement, names: Mapping[str, str]) -> str:
    statement = applied.statement
    about = ", ".join(names[mfid] for mfid in statement.about.datasets if mfid in names)
    return f"{statement.mfid}  {statement}{f' ({about})' if about else ''}  {applied.text}"
