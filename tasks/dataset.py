"""One result of a task run as a dataset: its inputs, recipe, name, record and metadata, and its registration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.core.slots import SlotClaim
from crucible_lineage.ids import canonical_json
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.records import UNKNOWN_INPUTS
from crucible_lineage.pipeline.job.job import without_step
from crucible_lineage.pipeline.job.keeping import KeptSupport, support_of_code
from crucible_lineage.pipeline.step_call import About, about_inputs
from crucible_lineage.provenance.environment import software
from crucible_lineage.provenance.recipe import StepCode, UsedDataset, derived_mfid, step_recipe
from crucible_lineage.provenance.record import step_activity, step_record
from crucible_lineage.refs import DatasetRef, last_taken
from crucible_lineage.registration.payload import NewDataset
from crucible_lineage.tasks.arguments import (
    GIVEN,
    METADATA,
    Arguments,
    Input,
    declared_inputs,
    find_file,
    keyword_of,
    origin_of_file,
    register_file,
)
from crucible_lineage.tasks.description import TaskCode, TaskDescription
from crucible_lineage.tasks.effects import MOST_INPUTS, OpenedFiles, files_at, is_data_file, is_under, name_of
from crucible_lineage.tasks.recording import Arrival, Recording
from crucible_lineage.tasks.secret import hidden
from crucible_lineage.tasks.values import Stored
from crucible_lineage.text.masking import masked_text

LONG_METADATA = 4000  # characters of JSON
LONGEST_LABEL = 60  # characters of the arguments in a name
RESULT = "result_sha256"


@dataclass(frozen=True)
class TaskResult:
    """One result of a task run, with everything that describes its dataset."""

    code: TaskCode
    description: TaskDescription
    recording: Recording
    arguments: Arguments
    logger: Any
    flow_run_id: str
    task_run_id: str
    opened: OpenedFiles  # the files that the call opened
    output: str = "out"
    key: str = ""  # in Prefect's cache, if stored there
    addresses: tuple[str, ...] = ()  # of data that the task declares to have written elsewhere
    is_uncertain: bool = False  # whether the call has written files, and was not seen to read any
    is_cached: bool = False  # whether it is from Prefect's cache, and no run has registered it
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    stored: Stored = field(default_factory=lambda: Stored({}, ()))
    inputs: tuple[Input, ...] = ()  # all of a known origin
    outputs: frozenset[str] = frozenset()  # arguments that name what the call has written
    ended: str = ""

    @property
    def keywords(self) -> tuple[str, ...]:
        """The keywords by which the dataset is found again: those of its cache key and addresses."""
        keys = (keyword_of("cache", self.key),) if self.key else ()
        return (*keys, *(keyword_of("address", address) for address in self.addresses))

    def after(self, number: int | None, key: str) -> TaskResult:
        """Return the result of a call that has ended, or its item of that number, with the effects that it had."""
        arguments, effects = self.arguments, self.opened.declared
        if effects.used:
            arguments.inputs += declared_inputs(effects.used, self.recording, self.description)
            effects.used.clear()
        for index, path in enumerate([*effects.paths, *self._written_elsewhere()]):
            arguments.paths[f"wrote-{index}"] = path
            if path in effects.paths:
                self.opened.wrote.update(map(name_of, files_at(path).paths))
                arguments.before |= dict.fromkeys(files_at(path).paths)
        return replace(
            self,
            description=replace(self.description, **effects.fields, metadata=effects.metadata),
            output="out" if number is None else f"item {number}",
            key=key,
            addresses=tuple(map(masked_text, effects.addresses)),
        )

    def _written_elsewhere(self) -> list[Path]:
        """Return the files that the call has written where no argument leads."""
        known = [*self.arguments.paths.values(), *map(Path, self.arguments.texts), self.recording.session.settings.data]
        roots = [Path(name_of(path)) for path in known]
        wrote = (Path(name) for name in sorted(self.opened.wrote) if is_data_file(name))
        return [path for path in wrote if not is_under(path, roots)]

    def read_elsewhere(self) -> list[Input]:
        """Return the files that the call has read where no argument leads."""
        known = {name_of(read.path) for read in self.arguments.inputs if read.path is not None}
        own = (self.recording.session.settings.data,)
        read = filter(is_data_file, sorted(self.opened.read - self.opened.wrote - known))
        paths = [path for path in map(Path, read) if not is_under(path, own)]
        return [Input("opened", None, GIVEN, in_list=True, path=path) for path in paths[:MOST_INPUTS]]


def inputs_of(result: TaskResult, written: Mapping[str, Sequence[Path]]) -> tuple[Input, ...]:
    """Return what the call has used: files that it has read, with their content from before it, and values.

    Files that it has overwritten are left out, and those in its output folders that it was not seen to read. Files that
    the flow was given are registered.
    """
    inputs = [*result.arguments.inputs, *result.read_elsewhere()]
    return tuple(_registered(parent, result) for parent in _used(inputs, result, written))


def _registered(parent: Input, result: TaskResult) -> Input:
    if parent.origin or parent.path is None:
        return parent
    origin, known_by = origin_of_file(parent.path, result.recording)
    if origin is not None:
        return replace(parent, origin=origin, known_by=known_by)
    return replace(parent, origin=register_file(parent.path, result.recording, result.logger))


def known_inputs(result: TaskResult) -> list[Input]:
    """Return the inputs before the call. Those with a file that is not registered have no origin."""
    return [
        parent
        if parent.origin or parent.path is None
        else replace(parent, origin=find_file(parent.path, result.recording))
        for parent in _used(result.arguments.inputs, result, {})
    ]


def require_free(result: TaskResult) -> None:
    """Raise OnHoldError if an input is on hold, or descends from a dataset on hold."""
    session = result.recording.session
    if not result.arguments.inputs or result.recording.is_away():
        return
    session.refresh_statements()
    if not (stated := session.effects).holds_any:
        return
    mfids = [parent.origin.dataset.mfid for parent in known_inputs(result) if parent.origin]
    stated.require_free(mfids, result.code.digest, result.recording.destination.project)


def _used(inputs: Sequence[Input], result: TaskResult, written: Mapping[str, Sequence[Path]]) -> Iterator[Input]:
    """Yield the inputs of the call, files with their content from before it.

    Without a trace of reading, a file that a `Path` names is one, and all files of a folder are that is not written to.
    """
    arguments, opened = result.arguments, result.opened
    outputs = {arguments.paths[role] for role in written if role in arguments.paths}
    changed = {*outputs, *(path for paths in written.values() for path in paths)}
    read = {read.folder for read in inputs if read.folder and read.path and opened.has_read(read.path)}
    for parent in inputs:
        path, is_used = parent.path, True
        if path in changed:  # its earlier content has to be known; it may have been opened by a library in C
            is_used = parent.origin is not None and opened.has_read(path) is not False
        elif path and parent.text:
            is_used = opened.is_read(path)
        elif path and parent.folder is not None and (parent.folder in read or is_under(path, outputs)):
            is_used = bool(opened.has_read(path))
        if is_used:
            yield parent


def call_label(result: TaskResult) -> str:
    """Return the label of a call: its task and the short arguments that are not defaults."""
    omitted = result.arguments.defaults | result.arguments.paths.keys()
    params = result.arguments.params.items()
    values = [str(value) for name, value in params if name not in omitted and isinstance(value, (str, int, float))]
    shown = masked_text(", ".join(filter(None, values)))
    name = result.description.name if result.output == "out" else f"{result.description.name}, {result.output}"
    return f"{name} [{shown if len(shown) <= LONGEST_LABEL else shown[:LONGEST_LABEL] + '...'}]" if shown else name


def about_of(inputs: Iterable[Input]) -> About:
    """Return the data that a result of these inputs is about; a dataset from elsewhere stands for itself."""

    def about(parent: Input) -> About:
        assert parent.origin is not None  # set by `inputs_of`
        return parent.origin.about or (parent.origin.dataset.mfid,)

    return about_inputs((parent.role, parent.in_list, about(parent)) for parent in inputs)


def slots_of(result: TaskResult, about: About) -> dict[str, SlotClaim]:
    slots, project = result.recording.slots, result.recording.destination.project
    return slots.claims(project, result.description.name, result.output, about)


def used_datasets(inputs: Iterable[Input]) -> list[UsedDataset]:
    """Return the parents."""
    used: dict[tuple[str, str], UsedDataset] = {}
    for parent in inputs:
        assert parent.origin is not None  # set by `inputs_of`
        dataset = parent.origin.dataset
        files = [file for file in dataset.files if file.name in parent.origin.files]
        known = used.get((parent.role, dataset.mfid))
        if known is not None:
            files = [file for file in dataset.files if file in known.files or file in files]
        used[parent.role, dataset.mfid] = UsedDataset(parent.role, dataset, tuple(files))
    return list(used.values())


def recipe_of(result: TaskResult, used: list[UsedDataset]) -> JsonObject:
    """Return the recipe of the result, which a task may return differently for equal arguments."""
    written = {name: result.arguments.paths[name].name for name in result.outputs}
    code = StepCode(result.description.name, result.code.digest, {})
    params = {**result.arguments.params, **written, RESULT: result.stored.digest}
    return step_recipe(result.recording.destination.project, code, result.output, params, used)


# ---------------------------------------------------------------- registration


def put_result(result: TaskResult) -> DatasetRef:
    """Put a result into the outbox: as a child of its inputs, or, if it has none, as files of the flow's own."""
    used = used_datasets(result.inputs)
    slots = slots_of(result, about_of(result.inputs)) if used else {}
    keyword = keyword_of("cache", result.key) if result.key else ""
    name, recording = result.description.name, result.recording
    arrival = Arrival(f"the result of {name}", result.logger, used, slots, keyword)
    if not used:
        return _put_root(result, arrival)
    recipe = recipe_of(result, used)
    new = replace(_new_dataset(result, used, recipe, derived_mfid(recipe)), slots=slots)
    result.logger.debug("%s is dataset %s", name, new.mfid)
    return recording.put(name, new, arrival)


def _new_dataset(result: TaskResult, used: list[UsedDataset], recipe: JsonObject, mfid: str) -> NewDataset:
    description, code = result.description, result.code.fingerprint
    session = result.recording.session
    support = KeptSupport()
    if code is not None and result.code.folder is not None:  # on another machine the files are not those that ran
        code_support = support_of_code(result.code.name, code.files, result.code.folder, session)
        support = code_support.register(result.recording.destination.project, session, result.recording.deliverer.add)
        if support.note:
            result.logger.warning("%s: %s", description.name, support.note)
    run = {"engine": "prefect", "run_id": result.recording.destination.run_id}
    ids = {"flow_run_id": result.flow_run_id, "task_run_id": result.task_run_id}
    activity = step_activity(
        step=description.name,
        function=result.code.name,
        fingerprint=result.code.digest,
        started=result.started.isoformat(),
        ended=result.ended,
        source=code.source if code else "",
        not_covered=code.not_covered if code else (),
        git=result.code.git,
        run={**run, **ids},
        archive=support.archive,
        left_out=support.left_out,
    )
    record = step_record(
        recipe=recipe,
        pipeline=None,
        used=used,
        generated=[file.ref for file in result.stored.files],
        activity=activity,
        software=software(code.packages if code else (), support.environment),
        who=session.agent,
        supersedes=None,
    )
    samples = tuple(sorted({sample for part in used for sample in part.dataset.samples}))
    return NewDataset(
        mfid=mfid,
        fields={
            "project_id": result.recording.destination.project,
            "dataset_name": _dataset_name(result, used),
            **({"timestamp": taken} if (taken := last_taken(part.dataset for part in used)) else {}),
            "public": False,
            **({"measurement": description.measurement} if description.measurement else {}),
            **({"data_type": description.data_type} if description.data_type else {}),
        },
        record=record,
        metadata=_metadata(result, {"inputs": _known_by(result.inputs)}),
        files=result.stored.files,
        keywords=(*result.keywords, *result.recording.slots.keywords),
        parents=tuple(part.dataset.mfid for part in used),
        samples=samples,
        ingest=False,
    )


def _put_root(result: TaskResult, arrival: Arrival) -> DatasetRef:
    """Put a result without parents, as measured files are: its bytes and its call identify it."""
    description, arguments = result.description, result.arguments.params
    call = canonical_json({"task": description.name, "output": result.output, "arguments": arguments})
    return result.recording.put_files(
        result.stored.files,
        f"returned by the task {result.code.name}{f'; {UNKNOWN_INPUTS}' if result.is_uncertain else ''}",
        arrival,
        salt=hashlib.sha256(call).hexdigest(),
        dataset_name=_dataset_name(result, []),
        keywords=result.keywords,
        metadata=_metadata(result, {"arguments": arguments}),
        ingest=False,
        measurement=description.measurement,
        data_type=description.data_type,
    )


def _dataset_name(result: TaskResult, used: list[UsedDataset]) -> str:
    names = {part.role: part.dataset.name for part in used}
    template = result.description.dataset_name
    if template is not None:
        with suppress(KeyError, IndexError, ValueError, AttributeError):
            return masked_text(template.format(**{**result.arguments.params, **names}))[:250]
        return template
    label = call_label(result)
    if not used:
        return label
    first = used[0].dataset
    about = without_step(first.name) if first.parents else first.name
    return f"{about} ({label})"[:250]


def _metadata(result: TaskResult, more: JsonMapping) -> JsonObject:
    """Return the metadata of a result without secrets: its dict, record or number, declared ones, those of the flow."""
    paths = {file.ref.name: file.path for file in result.stored.files}
    value = _searchable(result.stored.document, paths)
    fields = value if isinstance(value, dict) else {} if value is None else {"value": value}
    searchable = {**(fields if len(canonical_json(fields)) <= LONG_METADATA else {}), **result.description.metadata}
    metadata = {**searchable, METADATA: {**_flow_metadata(result), **more}}
    safe: JsonObject = hidden(metadata, "metadata", result.description.name)
    return safe


def _searchable(document: JsonMapping, files: Mapping[str, Path]) -> Any:
    """Return the JSON of a stored value; of a dict that also has files, the rest."""
    if "keys" in document and "parts" in document:
        pairs = zip(document["keys"], document["parts"], strict=True)
        parts = {str(name): _searchable(part, files) for name, part in pairs}
        return {name: part for name, part in parts.items() if part is not None} or None
    if document.get("kind") != "json":
        return None
    path = files[document["files"][0]]
    return json.loads(path.read_bytes()) if path.stat().st_size <= LONG_METADATA else None


NOT_SEEN = "files were written, and none was seen to be read"
FROM_CACHE = "Prefect's cache has it from a run that registered nothing"


def _flow_metadata(result: TaskResult) -> JsonObject:
    flow, arguments = result.recording.destination.flow, result.arguments
    return {
        "task": result.description.name,
        **({"flow": flow} if flow else {}),
        "value": result.stored.document,
        "digest": result.stored.digest,
        **({"addresses": list(result.addresses)} if result.addresses else {}),
        **({"unknown_inputs": NOT_SEEN} if result.is_uncertain else {}),
        **({"from_cache": FROM_CACHE} if result.is_cached else {}),
        **({"unknown_parents": arguments.unknown_parents} if arguments.unknown_parents else {}),
        **({"left_out": arguments.left_out} if arguments.left_out else {}),
    }


def _known_by(inputs: Iterable[Input]) -> dict[str, list[str]]:
    """Return, by argument, how its parents are known."""
    reasons: dict[str, list[str]] = {}
    for part in inputs:
        if part.known_by not in reasons.setdefault(part.role, []):
            reasons[part.role].append(part.known_by)
    return reasons
