"""Inputs of a pipeline as datasets: looked up, selected, or registered from new measured files."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, timedelta
from functools import partial
from types import MappingProxyType
from zoneinfo import ZoneInfo

from crucible_lineage.core.datasets import ONE_BY_ONE
from crucible_lineage.core.slots import slots_of
from crucible_lineage.core.tables import Snapshot
from crucible_lineage.errors import IdTakenError, InputError, NotFoundError, RefusedError, shortened
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.model import CANDIDATE, INCOMPLETE, SUPERSEDED
from crucible_lineage.lineage.records import fields_of
from crucible_lineage.pipeline.declare.inputs import (
    NIGHT,
    CalibrationInput,
    DatasetFields,
    DatasetInput,
    EachInput,
    FileInput,
    ResultInput,
    SelectInput,
    split_address,
)
from crucible_lineage.pipeline.declare.parts import is_from_name, read_from_names
from crucible_lineage.pipeline.declare.pipeline import (
    OWN_PARENT_FIELDS,
    PipelineSpec,
    StepSpec,
    template_fields,
)
from crucible_lineage.pipeline.plan.bind import parent_params
from crucible_lineage.pipeline.plan.current import (
    DeclaredDifference,
    apply_current_values,
    store_agreement,
)
from crucible_lineage.pipeline.plan.fetch import RemoteFile, find_remote
from crucible_lineage.pipeline.plan.files import (
    RawFiles,
    existing_dataset,
    find_raw,
    hash_files,
    raw_files,
    register_raw,
)
from crucible_lineage.pipeline.plan.inspect import read_header
from crucible_lineage.pipeline.plan.partners import CalibrationChooser, Partner, Partners
from crucible_lineage.pipeline.plan.revisions import inherit_fields, recognize_revisions, record_names, record_revisions
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.read import Registered, knows, refusals, registered
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import standings
from crucible_lineage.statements.calibrations import Calibrations, Span
from crucible_lineage.statements.stating import certificates_as_of
from crucible_lineage.text.times import measured_at, utc

MOST_KINDS = 6  # of calibrations that a message names
MOST_LISTED = 5  # chosen: a listing of this many datasets costs as much as one call
NOON = timedelta(hours=12)  # when one night ends and the next one begins


@dataclass(frozen=True)
class InputItem:
    """One dataset of an input. `dataset` is None if it is `blocked`, and for files that are not registered yet.

    `fields` are those that `match` and `group_by` compare. `new` and `raw` describe files from a declaration, `differs`
    their differences from Crucible. `span` holds the first and last time of measurement. `about` is the slot of a
    result, so that what is made from it keeps its slot when the result is made again. `revises` is the dataset that new
    files supersede, `notes` are messages for the plan. `calibrations` are those certified for it, by input.
    """

    label: str
    dataset: DatasetRef | None
    fields: JsonMapping = field(default_factory=dict)
    new: FileInput | None = None
    raw: RawFiles | None = None
    blocked: str = ""
    about: str = ""
    span: Span | None = None
    differs: tuple[DeclaredDifference, ...] = ()
    revises: str | None = None
    notes: tuple[str, ...] = ()
    calibrations: Mapping[str, Partners] = field(default_factory=dict)

    @property
    def mfid(self) -> str | None:
        """Its id, if that is known before registration."""
        return self.dataset.mfid if self.dataset else self.raw.mfid if self.raw else None


Inputs = Mapping[str, tuple[InputItem, ...]]
ResultsOf = Callable[[ResultInput], Iterator[InputItem]]  # results of another pipeline's step


def joint_span(spans: Iterable[Span | None]) -> Span | None:
    """Return the first and the last moment of these spans; None if there are none, or one is unknown."""
    known = list(spans)
    dated = [span for span in known if span]
    if not dated or len(dated) < len(known):
        return None
    return min(first for first, _ in dated), max(last for _, last in dated)


def known_inputs(
    spec: PipelineSpec, session: Session, results_of: ResultsOf, *, with_fields: bool, as_of: str = ""
) -> dict[str, tuple[InputItem, ...]]:
    """Return the datasets of each input, including those still to be registered. Changes nothing.

    `with_fields` tells whether the declaration uses fields of their records (`uses_fields`). Calibrations are those
    certified `as_of` a moment.
    """
    zone, found = ZoneInfo(spec.timezone), {}
    read = {name: tuple(_input_items(spec, name, session, results_of, with_fields=with_fields)) for name in spec.inputs}
    for name, items in recognize_revisions(read, session).items():
        current = apply_current_values(name, items, spec.project, session, refresh=with_fields)
        found[name] = tuple(_add_time(item, zone) for item in current)
    for name, declared in spec.inputs.items():
        if isinstance(declared, CalibrationInput):
            _calibrate(name, declared, found, spec.project, session, as_of)
    return found


def _calibrate(
    name: str,
    declared: CalibrationInput,
    found: dict[str, tuple[InputItem, ...]],
    project: str,
    session: Session,
    as_of: str,
) -> None:
    """Choose the calibrations of an input for the data of another one, and update both in `found`."""
    data = found.get(declared.of, ())
    certificates = certificates_as_of(session, project, declared.calibration, as_of) if data else []
    others = certificates_as_of(session, project, None, as_of) if data and not certificates else []
    kinds = shortened(sorted({other.kind for other in others}), MOST_KINDS)
    hint = f"; other kinds that exist: {kinds}" if others else ""
    chooser = CalibrationChooser(name, declared, Calibrations(certificates), as_of, hint)
    choices = []
    for item in data:  # a time that nobody gave, such as `since`, does not count
        span = item.span if not item.new or item.fields.get("timestamp") else None
        choices.append(chooser.choose(item.label, item.fields, span))
    numbers = {
        mfid: number for number, mfid in enumerate(dict.fromkeys(p.label for own in choices for p in own.chosen))
    }
    found[name] = tuple(usable_item(mfid, session) for mfid in numbers)
    names = {item.label: item.dataset.name for item in found[name] if item.dataset}

    def named(part: Partner) -> Partner:
        return replace(part, key=numbers[part.label], label=names.get(part.label, part.label))

    selected = (replace(choice, chosen=tuple(map(named, choice.chosen))) for choice in choices)
    found[declared.of] = tuple(
        replace(item, calibrations={**item.calibrations, name: own}) for item, own in zip(data, selected, strict=True)
    )


def register_inputs(
    inputs: Inputs, session: Session, report: Callable[[str], None] | None = None
) -> dict[str, tuple[InputItem, ...]]:
    """Register new files, several at a time; return the datasets of each input. `report` gets messages on progress."""
    new = [item for items in inputs.values() for item in items if item.dataset is None and item.raw and item.new]
    total = sum(_size(item) for item in new)
    done = sent = 0
    lock = threading.Lock()

    def register(item: InputItem) -> InputItem:
        nonlocal done, sent
        assert item.raw is not None
        assert item.new is not None
        with lock:
            if report:
                report(f"registering measured files: {done} of {len(new)}, {sent / 1e6:.1f} of {total / 1e6:.1f} MB")
        declared = inherit_fields(session, item.revises, item.new) if item.revises else item.new
        dataset = register_raw(item.raw, declared, item.label, session, supersedes=item.revises)
        with lock:
            done, sent = done + 1, sent + _size(item)
        return replace(item, dataset=dataset)

    found = session.at_once(partial(register, item) for item in new)
    registered = {id(item): sample for item, sample in zip(new, found, strict=True)}
    for items in inputs.values():
        if items and all(id(item) in registered for item in items):
            store_agreement([registered[id(item)] for item in items], session)
    record_revisions(list(registered.values()), session)
    record_names(inputs, session)
    return {name: tuple(registered.get(id(item), item) for item in items) for name, items in inputs.items()}


def _size(item: InputItem) -> int:
    return sum(file.ref.size for file in item.raw.files) if item.raw else 0


def _input_items(
    spec: PipelineSpec, name: str, session: Session, results_of: ResultsOf, *, with_fields: bool
) -> Iterator[InputItem]:
    declared = spec.inputs[name]
    if isinstance(declared, SelectInput):
        yield from _select_items(spec.project, declared, session)
        return
    if isinstance(declared, ResultInput):
        yield from results_of(declared)
        return
    if isinstance(declared, CalibrationInput):  # chosen when the data are known
        return
    for entry in declared.each if isinstance(declared, EachInput) else (declared,):
        if isinstance(entry, DatasetInput):
            yield from (_existing_item(mfid, session, with_fields=with_fields) for mfid in entry.dataset)
        else:
            label = name if declared.each is False else ""
            paths = entry.paths
            singles = [entry] if paths or not entry.optional else []
            if entry.each:
                names = [*map(str, paths), *(file.address for file in _remote_files(entry, session))]
                singles = [entry.model_copy(update={"file": (name,), "each": False}) for name in names]
            yield from _look_up([_hash_item(spec.project, single, label, session) for single in singles], session)


def _add_time(item: InputItem, zone: ZoneInfo) -> InputItem:
    """Return the item with its time of measurement and its night, if that time is known.

    The time at Crucible has priority; until files are registered, it is the declared one.
    """
    at_crucible, timestamp = item.dataset.taken if item.dataset else "", item.fields.get("timestamp")
    timestamp = (at_crucible or timestamp) if item.new else (timestamp or at_crucible)  # fields of files are declared
    if not timestamp:
        since = item.new.timestamp if item.new else None
        return replace(item, span=(since, since)) if since else item
    moment = utc(str(timestamp))
    night = (moment.astimezone(zone) - NOON).date().isoformat()
    fields = {**item.fields, "timestamp": moment.astimezone(UTC).isoformat(), NIGHT: night}
    return replace(item, fields=fields, span=item.span or (moment, moment))


def uses_fields(spec: PipelineSpec) -> bool:
    """Return whether a declaration uses fields of records: to match and group data, and as parameters."""
    return any(declared.match for declared in spec.inputs.values()) or any(map(_takes_fields, spec.steps.values()))


def _takes_fields(step: StepSpec) -> bool:
    if step.certify or any(source.group_by or source.is_partner for _, source in step.edges) or parent_params(step):
        return True
    named = (name.partition(".") for name in template_fields(step.output.dataset_name or ""))
    return any(role in step.inputs and name not in OWN_PARENT_FIELDS for role, _, name in named)


def _existing_item(mfid: str, session: Session, *, with_fields: bool) -> InputItem:
    dataset = existing_dataset(mfid, session)
    fields = fields_of(session.client.datasets.get(mfid, include_metadata=True).model_dump()) if with_fields else {}
    return InputItem(mfid, dataset, fields)


def _remote_files(declared: FileInput, session: Session) -> list[RemoteFile]:
    """Return the remote files of a declaration."""
    if not declared.remote:
        return []
    remote = []
    for address in declared.remote:
        files = find_remote(address, declared.block, session)
        if not files and not declared.optional:
            remedy = "; if it may come later, add `optional: true`" if declared.each else ""
            raise InputError(f"no file matches {address}{remedy}")
        remote += files
    return remote


def _look_up(items: Sequence[InputItem], session: Session) -> list[InputItem]:
    """Return the items with their datasets, if registered; those unknown on this machine are looked up."""
    known = session.mirror.known_among([item.raw.mfid for item in items if item.raw])
    unknown = [item for item in items if item.raw and item.raw.mfid not in known]
    candidates = _may_be_registered(unknown, session) if len(unknown) > ONE_BY_ONE else unknown
    answers = session.at_once(partial(_look_up_item, item, session) for item in candidates)
    found = {id(item): item for item in unknown}  # new, unless Crucible has them
    found |= {id(item): answer for item, answer in zip(candidates, answers, strict=True)}
    for item in items:
        if item.raw and (dataset := known.get(item.raw.mfid)) and item.raw.are_in(dataset, renamed=True):
            found[id(item)] = replace(item, dataset=dataset)
    return [found.get(id(item)) or _look_up_item(item, session) for item in items]


def _may_be_registered(items: Sequence[InputItem], session: Session) -> Sequence[InputItem]:
    """Return the items whose files may be registered, by one listing of the project instead of a call for each.

    Return all if the project is much larger. Registration looks up each id once more.
    """
    project = next(item.raw.project for item in items if item.raw)
    if session.is_away:
        return items
    try:
        if session.client.datasets.count(project_id=project) > MOST_LISTED * len(items):
            return items
        records = session.mirror.snapshot(project).records
    except (InputError, NotFoundError, RefusedError):  # the project does not exist yet
        return []
    stored = {mfid: read_record(record.get("scientific_metadata")) for mfid, record in records.items()}
    complete = {mfid: record for mfid, record in stored.items() if record is not None and record.is_complete}
    others = stored.keys() - complete.keys()  # of other programs or incomplete: no record of their files
    if len(others) > len(items):
        return items
    hashes = {file.sha256 for record in complete.values() for file in record.generated or ()}
    hashes |= {str(file.sha256_hash) for mfid in others for file in session.client.files.list(mfid)}
    return [item for item in items if item.raw and (item.raw.mfid in stored or item.raw.files[0].ref.sha256 in hashes)]


def _look_up_item(item: InputItem, session: Session) -> InputItem:
    if item.raw is None:
        return item
    try:
        return replace(item, dataset=find_raw(item.raw, session, renamed=True))
    except IdTakenError as error:  # one unusable file does not stop the others
        return replace(item, new=None, raw=None, blocked=str(error))


def _hash_item(project: str, declared: FileInput, label: str, session: Session) -> InputItem:
    """Hash the files of one dataset."""
    try:
        fields = {name: value for name in DatasetFields.model_fields if (value := getattr(declared, name)) is not None}
        if any(is_from_name(value) for value in (*fields.values(), *declared.metadata.values())):
            declared = declared.model_copy(update=read_from_names(fields, _names(declared)))
        declared = _fill_from_header(declared, session)
    except InputError as error:  # one unusable file name does not stop the others
        return InputItem(label or _names(declared)[0].rpartition("/")[2], None, blocked=str(error))
    remote = _remote_files(declared, session)
    files = hash_files(declared.paths, session, remote)
    raw = raw_files(project, files, declared.timestamp, remote=remote, salt=declared.salt)
    fields = {**declared.descriptive, "dataset_name": declared.dataset_name, "metadata": declared.metadata}
    fields |= {"timestamp": declared.measured.isoformat()} if declared.measured else {}
    first = raw.files[0].ref.name
    about = first if len(raw.files) == 1 else ""
    return InputItem(label or first, None, fields, declared, raw, about=about)


def _fill_from_header(declared: FileInput, session: Session) -> FileInput:
    """Return the declaration with the values that its header function reads; declared ones have priority."""
    if declared.header is None:
        return declared
    if len(declared.paths) != 1:
        raise InputError(f"{declared.header} reads one file, but this dataset has {len(declared.paths)} local ones")
    (path,) = declared.paths
    header = read_header(declared.header, declared.folder, path, session.store.checksums(path).sha256, session.store)
    metadata = {**header.pop("metadata"), **declared.metadata}
    return declared.model_copy(
        update={"metadata": metadata, **{n: v for n, v in header.items() if getattr(declared, n) is None}}
    )


def _names(declared: FileInput) -> list[str]:
    """Return the paths of the files, relative to the declaration if they are beside it, and the addresses."""
    folder = declared.folder
    local = (path.relative_to(folder) if path.is_relative_to(folder) else path for path in declared.paths)
    return [*(path.as_posix() for path in local), *(split_address(address)[0] for address in declared.remote)]


def _select_items(project: str, declared: SelectInput, session: Session) -> Iterator[InputItem]:
    """Yield the matching datasets as they stand in the project: no incomplete, superseded or candidate ones."""
    from crucible_lineage.client.models import Dataset  # pydantic, which other plans should not pay

    copy = session.mirror.snapshot(project)
    usable = [Dataset.model_validate(dict(copy.records[mfid])) for mfid in _selected(project, declared, copy, session)]
    if not usable and not declared.each and not declared.match:
        raise InputError(f"no complete dataset matches the selection { {'project_id': project, **declared.select} }")
    usable.sort(key=lambda dataset: (measured_at(dict(dataset)) or utc(dataset.creation_time or ""), dataset.unique_id))
    found = [registered(session.client, dataset) for dataset in usable]
    refused = refusals(session.client, [item for item in found if not knows(session.mirror, item)])
    for item in found:
        yield _selected_item(item, refused.get(item.mfid, ""), session)


def _selected(project: str, declared: SelectInput, copy: Snapshot, session: Session) -> list[str]:
    """Return the datasets that match the filters, and stand where they may be used."""
    possible = {mfid for mfid, summary in copy.summaries.items() if declared.fits(summary.fields, plain=True)}
    if declared.filters:
        listed = session.client.datasets.iter(project_id=project, **declared.filters)
        possible &= {dataset.unique_id for dataset in listed}
    possible &= {declared.only} if declared.only else possible
    matching = [mfid for mfid in possible if declared.fits(fields_of(copy.records[mfid]))]
    stand = standings(session, project, copy=copy, among=matching) if matching else {}
    excluded = (INCOMPLETE, CANDIDATE, SUPERSEDED)
    return [
        mfid
        for mfid, standing in stand.items()
        if standing.state not in excluded and declared.fits_flags(standing.flags)
    ]


def _selected_item(item: Registered, refusal: str, session: Session) -> InputItem:
    fields = fields_of(item.dataset.model_dump())
    if refusal:
        return InputItem(item.mfid, None, fields, blocked=refusal)
    if item.ref is not None:
        session.mirror.trust({item.mfid: item.ref})
        about = min(slots_of(item.dataset.scientific_metadata), default="")
        return InputItem(item.mfid, item.ref, fields, about=about)
    return usable_item(item.mfid, session, fields)


def usable_item(mfid: str, session: Session, fields: JsonMapping = MappingProxyType({})) -> InputItem:
    """Return an existing dataset, blocked if it cannot be used: that does not stop the others."""
    try:
        return InputItem(mfid, existing_dataset(mfid, session), fields)
    except (IdTakenError, InputError) as error:
        return InputItem(mfid, None, fields, blocked=str(error))
