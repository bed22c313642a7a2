"""The inputs of a pipeline as datasets: looked up, selected, or registered from measured files if they are new."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from crucible_lineage.core.datasets import ONE_BY_ONE
from crucible_lineage.core.slots import CANDIDATE, SUPERSEDED, Currency, DatasetStatus, SlotClaim
from crucible_lineage.errors import IdTakenError, InputError, NotFoundError, RefusedError
from crucible_lineage.ids import mfid_time
from crucible_lineage.lineage.records import is_support
from crucible_lineage.pipeline.bind.step import from_parents
from crucible_lineage.pipeline.inputs.calibrations import CalibrationSelection, calibrated
from crucible_lineage.pipeline.inputs.current import DeclaredDifference, as_at_crucible, note_agreeing
from crucible_lineage.pipeline.inputs.existing import RawFiles, existing_dataset, find_raw, hash_files
from crucible_lineage.pipeline.inputs.register import described, register_raw
from crucible_lineage.pipeline.inputs.revisions import as_registered, inherited, note_names, note_revisions
from crucible_lineage.pipeline.spec.ingestion import is_from_name, read_from_names
from crucible_lineage.pipeline.spec.inputs import (
    FLAGS,
    MATCHED,
    NIGHT,
    OF_METADATA,
    CalibrationInput,
    DatasetFields,
    DatasetInput,
    EachInput,
    FileInput,
    ResultInput,
    SelectInput,
    value_of,
)
from crucible_lineage.pipeline.spec.pipeline import PipelineSpec, named_fields
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.known import KnownResults
from crucible_lineage.registration.read import Registered, knows, refusals, registered
from crucible_lineage.session import Session
from crucible_lineage.statements import MEASUREMENT, statement_in
from crucible_lineage.times import measured_at, utc

if TYPE_CHECKING:  # the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client.models import Dataset
    from crucible_lineage.pipeline.files.remote import RemoteFile

MOST_LISTED = 5  # datasets of a project for each file that is looked up: chosen, a call costs as much
NOON = timedelta(hours=12)  # when one night ends and the next one begins
_FIELD = re.compile(r"\{([\w.-]+)\}")


@dataclass(frozen=True)
class InputItem:
    """One dataset of an input. `dataset` is None for files that are not registered yet, and if it is `blocked`.

    `shown` is what its instances are called by, if not by its label. `fields` are what `match` and `group_by` compare;
    `new` and `raw` are what registers it, `differs` in what its declaration differs from what Crucible says. `span` is
    when its data were measured, from the first to the last. `about` is the place of what is itself a result, so that
    what is made of it keeps its own place when the result is made again. `revises` is the dataset that new files
    replace, `notes` are what the plan says of it. `calibrations` are those that are certified for it, by input.
    """

    label: str
    dataset: DatasetRef | None
    fields: Mapping[str, Any] = field(default_factory=dict)
    new: FileInput | None = None
    raw: RawFiles | None = None
    blocked: str = ""
    about: str = ""
    shown: str = ""
    span: tuple[datetime, datetime] | None = None
    differs: tuple[DeclaredDifference, ...] = ()
    revises: str | None = None
    notes: tuple[str, ...] = ()
    calibrations: Mapping[str, CalibrationSelection] = field(default_factory=dict)

    @property
    def scope(self) -> str:
        """Return what results made from it are about: a result's place, the name of a file, or the dataset's id."""
        return self.about or self.label

    @property
    def path_scope(self) -> str:
        """The same, with the folder that a file lies in."""
        paths = [file.path for file in self.raw.files] if self.raw else []
        return f"{paths[0].parent.name}/{self.scope}" if len(paths) == 1 else self.scope

    @property
    def registered(self) -> tuple[datetime, datetime] | None:
        """The moment in its id, as far as that is known."""
        moment = mfid_time(self.mfid) if self.mfid else None
        return (moment, moment) if moment else None

    @property
    def mfid(self) -> str | None:
        """Its id, as far as it is known before it is registered."""
        return self.dataset.mfid if self.dataset else self.raw.mfid if self.raw else None


Inputs = Mapping[str, tuple[InputItem, ...]]
ResultsOf = Callable[[ResultInput], Iterator[InputItem]]  # what a step of another pipeline made


def known_inputs(
    spec: PipelineSpec, session: Session, results_of: ResultsOf, *, asked: bool, as_of: str = "", campaign: str = ""
) -> dict[str, tuple[InputItem, ...]]:
    """The datasets of each input, those included that are still to be registered. Changes nothing.

    `asked` says whether the declaration goes by fields of their records (`asked_fields`); calibrations are those that
    were certified `as_of` a moment, or would be if a `campaign` were promoted.
    """
    zone, found = ZoneInfo(spec.timezone), {}
    own = [name for name, declared in spec.inputs.items() if not isinstance(declared, CalibrationInput)]
    read = {name: tuple(_known(spec, name, session, results_of, asked=asked)) for name in own}
    for name, known in as_registered(read, session).items():
        current = as_at_crucible(name, known, spec.project, spec.metadata, session, asked=asked)
        found[name] = tuple(_shown(_dated(item, zone), spec.inputs[name].label) for item in current)
    for name, declared in spec.inputs.items():
        if isinstance(declared, CalibrationInput):
            _calibrate(name, declared, found, spec.project, session, as_of, campaign)
    return found


def _calibrate(
    name: str,
    declared: CalibrationInput,
    found: dict[str, tuple[InputItem, ...]],
    project: str,
    session: Session,
    as_of: str,
    campaign: str,
) -> None:
    """Choose the calibrations of an input for the data of another one; both are put among what was found."""
    data = found.get(declared.of, ())
    measured = [(one.shown or one.label, one.fields, one.span if _is_timed(one) else None) for one in data]
    choices = calibrated(name, declared, measured, project, session, as_of, campaign)
    found[declared.of] = tuple(
        replace(item, calibrations={**item.calibrations, name: choice})
        for item, choice in zip(data, choices, strict=True)
    )
    chosen = dict.fromkeys(one.certificate.dataset for choice in choices for one in choice.chosen)
    items = (_usable(mfid, session, with_fields=bool(declared.label)) for mfid in chosen)
    found[name] = tuple(_shown(item, declared.label) for item in items)


def _is_timed(item: InputItem) -> bool:
    """Whether somebody said when it was measured: that files are known since a moment does not say it."""
    return item.new is None or bool(item.fields.get("timestamp"))


def _usable(mfid: str, session: Session, *, with_fields: bool) -> InputItem:
    try:
        return _existing(mfid, session, with_fields=with_fields)
    except InputError as error:  # one calibration that cannot be used does not stop the others
        return InputItem(mfid, None, blocked=str(error))


def register_inputs(
    inputs: Inputs, session: Session, tell: Callable[[str], None] | None = None
) -> dict[str, tuple[InputItem, ...]]:
    """The datasets of each input; files that were not known are registered. `tell` is told how far it is."""
    new = [item for items in inputs.values() for item in items if item.dataset is None and item.raw and item.new]
    datasets = _registered(new, session, tell)
    for items in inputs.values():
        if items and all(id(item) in datasets for item in items):
            note_agreeing([replace(item, dataset=datasets[id(item)]) for item in items], session)
    note_revisions([replace(item, dataset=datasets[id(item)]) for item in new], session)
    note_names(inputs, session)
    return {
        name: tuple(replace(item, dataset=datasets[id(item)]) if id(item) in datasets else item for item in items)
        for name, items in inputs.items()
    }


def _registered(
    new: Sequence[InputItem], session: Session, tell: Callable[[str], None] | None
) -> dict[int, DatasetRef]:
    """Register the files of items, several at a time, and return the datasets by the `id()` of the items."""
    total = sum(_size(item) for item in new)
    done = sent = 0
    telling = threading.Lock()

    def registered(item: InputItem) -> DatasetRef:
        nonlocal done, sent
        assert item.raw is not None
        assert item.new is not None
        with telling:
            if tell:
                tell(f"registering measured files: {done} of {len(new)}, {sent / 1e6:.1f} of {total / 1e6:.1f} MB")
        declared = inherited(session, item.revises, item.new) if item.revises else item.new
        dataset = register_raw(item.raw, declared, item.label, session, supersedes=item.revises)
        with telling:
            done, sent = done + 1, sent + _size(item)
        return dataset

    found = session.at_once(partial(registered, item) for item in new)
    return {id(item): dataset for item, dataset in zip(new, found, strict=True)}


def _size(item: InputItem) -> int:
    return sum(file.ref.size for file in item.raw.files) if item.raw else 0


def _known(
    spec: PipelineSpec, name: str, session: Session, results_of: ResultsOf, *, asked: bool
) -> Iterator[InputItem]:
    declared = spec.inputs[name]
    if isinstance(declared, SelectInput):
        yield from _selected(spec.project, declared, session)
        return
    if isinstance(declared, ResultInput):
        yield from results_of(declared)
        return
    if isinstance(declared, CalibrationInput):  # chosen once the data are known
        return
    for entry in declared.each if isinstance(declared, EachInput) else (declared,):
        if isinstance(entry, DatasetInput):
            yield from (_existing(mfid, session, with_fields=asked) for mfid in entry.dataset)
        else:
            label = name if declared.each is False else ""
            hashed = [_hashed(spec.project, single, label, session) for single in _each_file(entry, session)]
            yield from _looked_up(hashed, session)


def _dated(item: InputItem, zone: ZoneInfo) -> InputItem:
    """The item with its time of measurement and its night, as far as somebody said when it was measured.

    What Crucible says counts; a time under which files are registered, until then.
    """
    at_crucible, said = item.dataset.taken if item.dataset else "", item.fields.get("timestamp")
    said = (at_crucible or said) if item.new else (said or at_crucible)  # the fields of what is new are declared
    if not said:
        since = item.new.known_since if item.new else None
        return replace(item, span=(since, since)) if since else item
    moment = utc(str(said))
    night = (moment.astimezone(zone) - NOON).date().isoformat()
    fields = {**item.fields, "timestamp": moment.astimezone(UTC).isoformat(), NIGHT: night}
    return replace(item, fields=fields, span=item.span or (moment, moment))


def asked_fields(spec: PipelineSpec) -> set[str]:
    """The fields of records that a declaration goes by: to match, group and label data, and as parameters."""
    asked = {name for declared in spec.inputs.values() for name in _FIELD.findall(declared.label or "")}
    asked |= {"timestamp" for declared in spec.inputs.values() if declared.match}
    asked |= {OF_METADATA for declared in spec.inputs.values() if isinstance(declared, CalibrationInput)}
    asked |= {name for declared in spec.inputs.values() for same in (declared.match or {}).values() for name in same}
    for step in spec.steps.values():
        sources = [source for given in step.sources.values() for source in given]
        asked |= {name for source in sources for name in (*(source.group_by or ()), *source.same)}
        asked |= {"timestamp" for source in sources if source.is_partner} | named_fields(step)
        asked |= {"timestamp", *step.certify.of} if step.certify else set()
        asked |= {field.name for field in from_parents(step).values()}
    return asked


def _shown(item: InputItem, label: str | None) -> InputItem:
    """The item with what its instances are called by. Where its record lacks what that names, it is blocked."""
    if label is None or item.blocked:
        return item
    lacking = [name for name in _FIELD.findall(label) if value_of(item.fields, name) is None]
    if lacking:
        return replace(item, blocked=f"{item.label} has no {lacking[0]}, which its label {label!r} names")
    return replace(item, shown=_FIELD.sub(lambda found: str(value_of(item.fields, found[1])), label))


def _existing(mfid: str, session: Session, *, with_fields: bool) -> InputItem:
    dataset = existing_dataset(mfid, session)
    fields = _fields(session.client.datasets.get(mfid, include_metadata=True)) if with_fields else {}
    return InputItem(mfid, dataset, fields)


def _each_file(declared: FileInput, session: Session) -> Iterator[FileInput]:
    """The datasets: one of all files, or, with `each`, one a file, wherever it lies."""
    yield from declared.of_each()
    if declared.each:
        for file in _elsewhere(declared, session):
            yield declared.model_copy(update={"file": file.address, "each": False})


def _elsewhere(declared: FileInput, session: Session) -> list[RemoteFile]:
    """The files of a declaration that do not lie on this disk."""
    if not declared.remote:
        return []
    # Most pipelines have none, and a run in which all is fresh is to start fast.
    from crucible_lineage.pipeline.files.remote import find_remote

    found = []
    for address in declared.remote:
        files = find_remote(address, declared.block, session)
        if not files and not declared.optional:
            way_out = "; if it may come later, add `optional: true`" if declared.each else ""
            raise InputError(f"no file matches {address}{way_out}")
        found += files
    return found


def _looked_up(items: Sequence[InputItem], session: Session) -> list[InputItem]:
    """The same, with their datasets as far as they are registered. Those that are not known here are asked for."""
    unknown = [item for item in items if item.raw and not (item.raw.mfid and session.mirror.known(item.raw.mfid))]
    asked = _may_be_there(unknown, session) if len(unknown) > ONE_BY_ONE else unknown
    answers = session.at_once(partial(_found, item, session) for item in asked)
    found = {id(item): item for item in unknown}  # new, unless Crucible answers otherwise
    found |= {id(item): answer for item, answer in zip(asked, answers, strict=True)}
    return [found.get(id(item)) or _found(item, session) for item in items]


def _may_be_there(items: Sequence[InputItem], session: Session) -> Sequence[InputItem]:
    """Return those whose files may be registered, by a listing of the project, which costs less than a call for each.

    All where the project holds far more than is asked for. Registering looks for each by its id once more.
    """
    project = next(item.raw.project for item in items if item.raw)
    if session.is_away:
        return items
    try:
        if session.client.datasets.count(project_id=project) > MOST_LISTED * len(items):
            return items
        records = session.mirror.snapshot(project).records
    except (InputError, NotFoundError, RefusedError):  # the project is not there yet
        return []
    written = {mfid: read_record(record.get("scientific_metadata")) for mfid, record in records.items()}
    whole = {mfid: one for mfid, one in written.items() if one is not None and one.is_complete}
    others = written.keys() - whole.keys()  # of other programs, or begun: their files are in no record
    if len(others) > len(items):
        return items
    there = set(written)
    hashes = {file.sha256 for one in whole.values() for file in one.generated or ()}
    hashes |= {str(file.sha256_hash) for mfid in others for file in session.client.files.list(mfid)}
    return [item for item in items if item.raw and (item.raw.mfid in there or item.raw.files[0].ref.sha256 in hashes)]


def _found(item: InputItem, session: Session) -> InputItem:
    if item.raw is None:
        return item
    try:
        return replace(item, dataset=find_raw(item.raw, session, renamed=True))
    except IdTakenError as error:  # one file that cannot be used does not stop the others
        return replace(item, new=None, raw=None, blocked=str(error))


def _hashed(project: str, declared: FileInput, label: str, session: Session) -> InputItem:
    """The files of one dataset, hashed, and not looked up yet."""
    try:
        declared = _read_from_file(_named(declared), session)
    except InputError as error:  # the name of one file does not stop the others
        return InputItem(label or declared.paths[0].name, None, blocked=str(error))
    moment = declared.timestamp or declared.known_since
    raw = hash_files(project, declared.paths, moment, session, remote=_elsewhere(declared, session), salt=declared.salt)
    fields = {**described(declared), "dataset_name": declared.dataset_name, "metadata": declared.metadata}
    fields |= {"timestamp": declared.timestamp.isoformat()} if declared.timestamp else {}
    first = raw.files[0].ref.name
    about = first if len(raw.files) == 1 else ""
    return InputItem(label or first, None, fields, declared, raw, about=about)


def _named(declared: FileInput) -> FileInput:
    """The declaration with what the names of its files say."""
    asked = {name: value for name in DatasetFields.model_fields if (value := getattr(declared, name)) is not None}
    if not any(is_from_name(value) for value in (*asked.values(), *declared.metadata.values())):
        return declared
    names = [*(_relative(path, declared.folder) for path in declared.paths), *declared.remote]
    return declared.model_copy(update=read_from_names(asked, names))


def _read_from_file(declared: FileInput, session: Session) -> FileInput:
    """The declaration with what its function reads from the file; what is declared wins."""
    if declared.header is None:
        return declared
    from crucible_lineage.pipeline.functions.inspect import read_header  # most pipelines read none

    if len(declared.paths) != 1:
        raise InputError(f"{declared.header} reads one file, and this dataset has {len(declared.paths)} on this disk")
    (path,) = declared.paths
    found = read_header(declared.header, declared.folder, path, session.store.checksums(path).sha256, session.store)
    metadata = {**found.pop("metadata"), **declared.metadata}
    if declared.known_since and not declared.timestamp:
        found.pop("timestamp", None)
    return declared.model_copy(
        update={"metadata": metadata, **{n: v for n, v in found.items() if getattr(declared, n) is None}}
    )


def _relative(path: Path, folder: Path) -> str:
    inside = path.is_relative_to(folder)
    return (path.relative_to(folder) if inside else path).as_posix()


def _selected(project: str, declared: SelectInput, session: Session) -> Iterator[InputItem]:
    """Yield the matching measured datasets, without the incomplete and those that another of them supersedes."""
    filters = {"project_id": project, **declared.filters}
    listed = session.client.datasets.list(limit=None, include_metadata=True, include_links=True, **filters)
    fitting = [dataset for dataset in listed if is_selected(declared, dataset)]
    if FLAGS in declared.select:
        fitting = list(_flagged(project, fitting, declared, session))
    found = [registered(session.client, dataset) for dataset in sorted(fitting, key=_measured)]
    usable = [one for one in found if not one.is_begun]
    if not declared.superseded:
        currency = currency_among(project, found, session)
        usable = [one for one in usable if currency.state(one.mfid) not in (CANDIDATE, SUPERSEDED)]
    if not usable and not declared.each and not declared.match:
        raise InputError(f"no complete dataset matches the selection { {'project_id': project, **declared.select} }")
    wrong = refusals(session.client, [one for one in usable if not knows(session.mirror, one)])
    yield from (_selected_item(one, session, wrong.get(one.mfid, "")) for one in usable)


def is_selected(declared: SelectInput, dataset: Dataset) -> bool:
    """Return whether a listed dataset is one of the selection; statements and what results rest on never are."""
    if not declared.fits(dataset.scientific_metadata or {}):
        return False
    record = dataset.model_dump()
    return not is_support(record) and (dataset.measurement != MEASUREMENT or statement_in(record) is None)


def _flagged(project: str, fitting: Sequence[Dataset], declared: SelectInput, session: Session) -> Iterator[Dataset]:
    """The datasets that have the flags which are asked for, and none of those that are not wanted."""
    from crucible_lineage.core.summary import summary_of  # few selections go by flags

    if not session.is_away:
        session.mirror.sync_statements()
    known = {dataset.unique_id: summary_of(dataset.model_dump()) for dataset in fitting}
    flags = session.stated.flags(known.keys(), project, known)
    yield from (dataset for dataset in fitting if declared.has_flags(flags.get(dataset.unique_id, ())))


def _measured(dataset: Dataset) -> tuple[datetime, str]:
    """When it was measured, as an order: where nobody says so, it counts from the moment in its id."""
    said = measured_at({"timestamp": dataset.timestamp, "creation_time": dataset.creation_time})
    return said or mfid_time(dataset.unique_id), dataset.unique_id


def currency_among(project: str, found: Sequence[Registered], session: Session) -> Currency:
    """Return which of these hold: what holds in place of one of them need not be among them."""
    filled: dict[str, dict[str, SlotClaim]] = {}
    for pipeline in sorted({key.partition("/")[0] for one in found for key in one.status.slots}):
        known = KnownResults(session.mirror, lambda: session.client, project, pipeline)
        known.sync()
        for mfid, places in known.filled.items():
            filled.setdefault(mfid, {}).update(places)
    others = {mfid: DatasetStatus(mfid, project, True, True, places) for mfid, places in filled.items()}
    standings = {**others, **{one.mfid: one.status for one in found}}.values()
    return Currency(standings, session.mirror.promoted())


def _selected_item(found: Registered, session: Session, refusal: str) -> InputItem:
    mfid, fields = found.mfid, _fields(found.dataset)
    if refusal:
        return InputItem(mfid, None, fields, blocked=refusal)
    if found.ref is not None:
        session.mirror.trust({found.mfid: found.ref})
        return InputItem(mfid, found.ref, fields, about=min(found.status.slots, default=""))
    try:
        return InputItem(mfid, existing_dataset(mfid, session), fields)
    except (IdTakenError, InputError) as error:  # one dataset that cannot be used does not stop the others
        return InputItem(mfid, None, fields, blocked=str(error))


def _fields(dataset: Dataset) -> dict[str, object]:
    record = {name: getattr(dataset, name, None) for name in MATCHED}
    moment = measured_at({"timestamp": dataset.timestamp, "creation_time": dataset.creation_time})
    record |= {"timestamp": moment.isoformat()} if moment else {}
    return {**record, "metadata": dataset.scientific_metadata or {}}
