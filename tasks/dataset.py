"""One result of a task run as a dataset: stored at once, with its inputs, recipe, name, record and metadata.

What Prefect's cache has is linked again to the dataset of the run that stored it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.core.slots import SlotClaim
from crucible_lineage.ids import canonical_json
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.records import UNKNOWN_INPUTS
from crucible_lineage.machine.opened import (
    MOST_INPUTS,
    OpenedFiles,
    files_at,
    is_data_file,
    is_under,
    name_of,
)
from crucible_lineage.pipeline.job.keeping import Support, support_of_code
from crucible_lineage.pipeline.step_call import About, about_inputs
from crucible_lineage.provenance.environment import software
from crucible_lineage.provenance.recipe import StepCode, UsedDataset, derived_mfid, step_recipe
from crucible_lineage.provenance.record import step_activity, step_record
from crucible_lineage.refs import DatasetRef, without_step
from crucible_lineage.registration.payload import NewDataset, derived
from crucible_lineage.tasks.arguments import (
    GIVEN,
    METADATA,
    Arguments,
    Input,
    find_file,
    keyword_of,
    of_keyword,
    origin_of_file,
    register_file,
    without_secret,
)
from crucible_lineage.tasks.lineage import TaskCode
from crucible_lineage.tasks.origins import Origin, items_of
from crucible_lineage.tasks.recording import Arrival, Recording, warn
from crucible_lineage.tasks.secret import holds_secret
from crucible_lineage.tasks.values import Stored, copy_file, digest_of, flat, parts_of, plain_digest, store_value
from crucible_lineage.text.masking import is_key_file

LONG_METADATA = 4000  # characters of JSON
LONGEST_LABEL = 60  # characters of the arguments in a name
RESULT = "result_sha256"
NOT_SEEN = "files were written, and none was seen to be read"
FROM_CACHE = "Prefect's cache has it from a run that registered nothing"


@dataclass(frozen=True)
class TaskResult:
    """One result of the run of a task, with everything that describes its dataset."""

    task: str
    code: TaskCode
    recording: Recording
    arguments: Arguments
    run: Mapping[str, str]  # the ids of flow run and task run
    opened: OpenedFiles  # the files that the call opened
    output: str = "out"
    key: str = ""  # in Prefect's cache, if stored there
    is_uncertain: bool = False  # whether the call has written files, and was not seen to read any
    is_cached: bool = False  # whether it is from Prefect's cache
    started: datetime = field(default_factory=lambda: datetime.now(UTC))
    stored: Stored = field(default_factory=lambda: Stored({}, ()))
    inputs: tuple[Input, ...] = ()  # all of a known origin
    outputs: frozenset[str] = frozenset()  # arguments that name what the call has written

    @property
    def keywords(self) -> tuple[str, ...]:
        """The keywords by which the dataset is found again: those of its cache key and addresses."""
        keys = (keyword_of("cache", self.key),) if self.key else ()
        return (*keys, *(keyword_of("address", address) for address in self.opened.declared.addresses))

    @property
    def described(self) -> JsonObject:
        """The declared fields of the dataset but its name."""
        return {name: text for name, text in self.opened.declared.fields.items() if text and name != "dataset_name"}

    def take_effects(self) -> None:
        """Add what the call has declared, and the files that it has written where no argument leads."""
        arguments, declared = self.arguments, self.opened.declared
        for source in declared.used:
            arguments.source("used", source)
        declared.used.clear()
        known = [*arguments.paths.values(), *map(Path, arguments.texts), self.recording.session.settings.data]
        wrote = [Path(name) for name in sorted(self.opened.wrote) if is_data_file(name)]
        roots = [Path(name_of(path)) for path in known]
        elsewhere = [path for path in wrote if not is_under(path, roots)]
        arguments.paths |= {f"wrote-{index}": path for index, path in enumerate([*declared.paths, *elsewhere])}
        for path in (path for target in declared.paths for path in files_at(target).paths):
            self.opened.wrote.add(name_of(path))
            arguments.before[path] = None

    def read_elsewhere(self) -> list[Input]:
        """Return the files that the call has read where no argument leads."""
        known = {name_of(parent.path) for parent in self.arguments.inputs if parent.path is not None}
        own = (self.recording.session.settings.data,)
        read = filter(is_data_file, sorted(self.opened.read - self.opened.wrote - known))
        paths = [path for path in map(Path, read) if not is_under(path, own)]
        return [Input("opened", None, GIVEN, in_list=True, path=path) for path in paths[:MOST_INPUTS]]

    def claims(self, inputs: Iterable[Input]) -> dict[str, SlotClaim]:
        """Return the slots of a result of these inputs."""
        slots, project = self.recording.slots, self.recording.destination.project
        return slots.claims(project, self.task, self.output, about_of(inputs))


def record_result(result: TaskResult, value: object) -> None:
    """Store what a call has returned, else what it has written or changed, and put it into the outbox."""
    result.take_effects()
    recording, arguments = result.recording, result.arguments
    with recording.session.outbox.draft() as folder:
        stored = _stored(result, value, folder) if value is not None else Stored({}, ())
        changed = arguments.changed_files()
        written = files_written(result.task, changed, result.opened, stored.paths)
        if value is None and not written:
            if result.opened.declared.addresses:
                stored = store_value({"addresses": result.opened.declared.addresses}, folder)
            elif (value := arguments.changed_object()) is not None:
                stored = _stored(result, value, folder)
        files, known = list(stored.files), dict(stored.paths)
        for role, paths in written.items():
            root = arguments.paths[role]
            for path in (path for path in paths if path not in known):
                name = flat(path.relative_to(root)) if path != root else path.name
                known[path] = name if name not in {file.ref.name for file in files} else f"{role}-{name}"
                files.append(copy_file(path, folder, known[path]))
        if not files:
            return
        stored = replace(stored, files=tuple(files), paths=known)
        inputs = inputs_of(result, written)
        is_uncertain = bool(written) and (not inputs or (result.opened.has_children and not result.opened.is_seen))
        outputs = frozenset(written)
        result = replace(result, stored=stored, inputs=inputs, outputs=outputs, is_uncertain=is_uncertain)
        dataset = put_result(result, folder)
    _note_result(result, dataset, value)


def _note_result(result: TaskResult, dataset: DatasetRef, value: object) -> None:
    """Note the origin of what a call has returned, of its parts, and of the files that it has written."""
    origins, stored = result.recording.origins, result.stored
    about = about_of(result.inputs) or (f"{result.task} {stored.digest[:16]}",)
    by_name = {file.ref.name: file.ref.sha256 for file in stored.files}
    origin = Origin(dataset, tuple(by_name), "" if stored.described else stored.digest, about)
    if result.output == "out":
        origins.note_run(result.run["task_run_id"], origin)
        origins.keywords |= dict.fromkeys(result.keywords, origin)
    for part, names in parts_of(stored.document, value):
        _note_part(result, part, {name: by_name[name] for name in names} or by_name, origin)
    for path, name in stored.paths.items():
        origins.note_path(path, by_name[name], replace(origin, files=(name,), digest=""))


def _note_part(result: TaskResult, part: object, files: Mapping[str, str], whole: Origin) -> None:
    """Note the origin of a result, or of a part of it, which is in these files."""
    origins, stored = result.recording.origins, result.stored
    digest = "" if any(name in stored.described for name in files) else digest_of(files.values())
    origin = replace(whole, files=tuple(files), digest=digest)
    if not (id(part) in result.arguments.ids and isinstance(part, (str, bytes, int, float))):
        origins.note_object(part, origin)
    for item in items_of(part):
        if id(item) not in result.arguments.ids:  # nor from elsewhere
            origins.note_object(item, replace(origin, digest=plain_digest(item), part=True))
    if digest:
        origins.note_content(digest, sum(file.ref.size for file in stored.files if file.ref.name in files), origin)


def link_cached(result: TaskResult, value: object) -> None:
    """Link a value from Prefect's cache to the result that was stored under its key."""
    recording, origins, keyword = result.recording, result.recording.origins, keyword_of("cache", result.key)
    origin = origins.of_object(value)
    if origin is None:
        with recording.session.outbox.draft() as folder:
            origin = of_keyword(keyword, recording, store_value(value, folder).digest)
    if origin is None:
        warn(
            "no parent known for the result of %s: Prefect's cache has it from a run that registered nothing; "
            "run it once with refresh_cache=True",
            result.task,
        )
        names = {
            parent.role: parent.path.name if parent.path else parent.known_by for parent in result.arguments.inputs
        }
        arguments = replace(result.arguments, inputs=[], paths={}, params={**names, **result.arguments.params})
        record_result(replace(result, arguments=arguments), value)
        return
    recording.reused += 1
    origins.note_run(result.run["task_run_id"], origin)
    origins.note_object(value, origin)
    origins.keywords[keyword] = origin
    claims = result.claims(known_inputs(result))
    recording.slots.rely(recording.destination.project, claims, origin.dataset, made=False)
    recording.note(origin.dataset)


def _stored(result: TaskResult, value: object, folder: Path) -> Stored:
    """Store a value without secrets; a warning says what is only described."""
    stored = store_value(value, folder, given=result.arguments.paths.values())
    if new := set(stored.described.values()) - result.recording.not_stored:
        result.recording.not_stored |= new
        warn(
            "the result of %s is%s %s, which is described and not stored; crucible_lineage.tasks.add_kind says how to "
            "store it",
            result.task,
            " or holds" if stored.is_whole else "",
            ", ".join(dict.fromkeys(stored.described.values())),
        )
    return without_secret(stored, folder, f"the result of {result.task}", result.recording)


def files_written(
    task: str,
    changed: Mapping[str, Collection[Path]],
    opened: OpenedFiles,
    returned: Collection[Path],
) -> dict[str, list[Path]]:
    """Return those of the changed files that the call wrote, by argument; never those of other calls.

    If several calls wrote to one folder at once, a file that no call was seen to open belongs to the call that returns
    its path; other such files cause a warning.
    """
    written: dict[str, list[Path]] = {}
    unsure: list[str] = []
    for role, paths in changed.items():
        for path in paths:
            is_own = True if path in returned else opened.is_own(path)
            if is_own is None:
                unsure.append(path.name)
            elif is_own and (is_key_file(path) or holds_secret(path)):
                warn("%s is left out of the result of %s: it holds keys or a secret", path.name, task)
            elif is_own:
                written.setdefault(role, []).append(path)
    if unsure:
        warn(
            "cannot tell which call wrote %s: several wrote there at once, by a library that opens files by itself; "
            "return the paths, or say lineage.wrote(path)",
            ", ".join(unsure[:5]),
        )
    return written


def inputs_of(result: TaskResult, written: Mapping[str, Sequence[Path]]) -> tuple[Input, ...]:
    """Return what the call has used: files that it has read, with their content from before it, and values.

    Files that it has overwritten are left out, and those in its output folders that it was not seen to read. Files that
    the flow was given are registered.
    """
    inputs = [*result.arguments.inputs, *result.read_elsewhere()]
    return tuple(_with_origin(parent, result, register_file) for parent in _used(inputs, result, written))


def known_inputs(result: TaskResult) -> list[Input]:
    """Return the inputs before the call. Those with a file that is not registered have no origin."""
    return [_with_origin(parent, result, find_file) for parent in _used(result.arguments.inputs, result, {})]


def _with_origin(parent: Input, result: TaskResult, find: Callable[[Path, Recording], Origin | None]) -> Input:
    """Return the input with the origin of its file: known in this run, else found so."""
    if parent.origin or parent.path is None:
        return parent
    origin, known_by = origin_of_file(parent.path, result.recording)
    return replace(parent, origin=origin or find(parent.path, result.recording), known_by=known_by)


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
    read = {parent.folder for parent in inputs if parent.folder and parent.path and opened.has_read(parent.path)}
    for parent in inputs:
        path = parent.path
        if path in changed:  # its earlier content has to be known; it may have been opened by a library in C
            is_used = parent.origin is not None and opened.has_read(path) is not False
        elif path is None:
            is_used = True
        elif parent.text or (parent.folder is not None and is_under(path, outputs)):
            is_used = _is_read(path, opened, is_text=parent.text)
        else:
            is_used = parent.folder not in read or bool(opened.has_read(path))
        if is_used:
            yield parent


def _is_read(path: Path, opened: OpenedFiles, *, is_text: bool) -> bool:
    """Return whether a call has read a file that a text names, or a file in a folder that it has also written to."""
    if is_text:  # where reading is not seen, the text names a folder too
        may_be_read = not opened.is_seen and len(path.parts) > 1 and name_of(path) not in opened.wrote
        return bool(opened.has_read(path)) or may_be_read
    is_only = opened.is_alone and opened.is_local  # else other calls may read their own there
    return name_of(path) in opened.read or (is_only and bool(opened.has_read(path)))


def about_of(inputs: Iterable[Input]) -> About:
    """Return the data that a result of these inputs is about; a dataset from elsewhere stands for itself."""

    def about(parent: Input) -> About:
        assert parent.origin is not None  # set by `inputs_of`
        return parent.origin.about or (parent.origin.dataset.mfid,)

    return about_inputs((parent.role, parent.in_list, about(parent)) for parent in inputs)


def used_datasets(inputs: Iterable[Input]) -> list[UsedDataset]:
    """Return the parents with their files, each dataset once for an argument."""
    names: dict[tuple[str, str], set[str]] = {}
    datasets: dict[str, DatasetRef] = {}
    for parent in inputs:
        assert parent.origin is not None  # set by `inputs_of`
        dataset = datasets.setdefault(parent.origin.dataset.mfid, parent.origin.dataset)
        names.setdefault((parent.role, dataset.mfid), set()).update(parent.origin.files)
    return [
        UsedDataset(role, datasets[mfid], tuple(file for file in datasets[mfid].files if file.name in own))
        for (role, mfid), own in names.items()
    ]


# ---------------------------------------------------------------- registration


def put_result(result: TaskResult, draft: Path) -> DatasetRef:
    """Put a result into the outbox: as a child of its inputs, or, if it has none, as files of the flow's own."""
    used, arguments, recording = used_datasets(result.inputs), result.arguments, result.recording
    slots = result.claims(result.inputs) if used else {}
    keyword = keyword_of("cache", result.key) if result.key else ""
    arrival = Arrival(f"the result of {result.task}", used, slots, keyword)
    if not used:  # as measured files are put: its bytes and its call identify it
        call = canonical_json({"task": result.task, "output": result.output, "arguments": arguments.params})
        return recording.put_files(
            result.stored.files,
            f"returned by the task {result.code.name}{f'; {UNKNOWN_INPUTS}' if result.is_uncertain else ''}",
            arrival,
            salt=hashlib.sha256(call).hexdigest(),
            draft=draft,
            dataset_name=_dataset_name(result, []),
            keywords=result.keywords,
            metadata=_metadata(result, {"arguments": arguments.params}),
            **result.described,
        )
    written = {name: arguments.paths[name].name for name in result.outputs}
    params = {**arguments.params, **written, RESULT: result.stored.digest}  # which equal arguments may not determine
    code = StepCode(result.task, result.code.digest, {})
    recipe = step_recipe(recording.destination.project, code, result.output, params, used)
    with recording.describing:  # source and packages are read once, not by all threads of the flow
        new = replace(_new_dataset(result, used, recipe), slots=slots)
    return recording.put(result.task, new, arrival, draft)


def _new_dataset(result: TaskResult, used: list[UsedDataset], recipe: JsonObject) -> NewDataset:
    code, recording = result.code.fingerprint, result.recording
    project, session = recording.destination.project, recording.session
    support = _support(result)
    activity = step_activity(
        step=result.task,
        function=result.code.name,
        fingerprint=result.code.digest,
        started=result.started.isoformat(),
        ended=datetime.now(UTC).isoformat(),
        source=code.source if code else "",
        not_covered=code.not_covered if code else (),
        git=result.code.git,
        run={"engine": "prefect", "run_id": recording.destination.run_id, **result.run},
        archive=support.archive,
        left_out=support.left_out,
    )
    record = step_record(
        recipe=recipe,
        used=used,
        generated=[file.ref for file in result.stored.files],
        activity=activity,
        software=software(code.packages if code else (), support.environment),
        who=session.agent,
    )
    new = NewDataset(
        mfid=derived_mfid(recipe),
        fields={
            "project_id": project,
            "dataset_name": _dataset_name(result, used),
            "public": False,
            **result.described,
        },
        record=record,
        metadata=_metadata(result, {"inputs": _known_by(result.inputs)}),
        files=result.stored.files,
        keywords=(*result.keywords, *recording.slots.keywords),
        ingest=False,
    )
    return derived(new, used)


def _support(result: TaskResult) -> Support:
    """Return the source of the task and the environment, which are registered once in a flow."""
    code, recording = result.code, result.recording
    if code.fingerprint is None or code.folder is None:  # on another machine the files are not those that ran
        return Support()
    if (known := recording.supports.get(code.digest)) is None:
        found = support_of_code(code.name, code.fingerprint.files, code.folder, recording.session)
        known = found.registered(recording.destination.project, recording.session, recording.deliverer.add)
        recording.supports[code.digest] = known
        if known.note:
            warn("%s: %s", result.task, known.note)
    return known


def _dataset_name(result: TaskResult, used: list[UsedDataset]) -> str:
    """Return the declared name, else the data that it is about and the call: its task and short arguments."""
    arguments, template = result.arguments, result.opened.declared.fields.get("dataset_name")
    if template is not None:
        with suppress(KeyError, IndexError, ValueError, AttributeError):
            names = {part.role: part.dataset.name for part in used}
            return str(template.format(**{**arguments.params, **names}))[:250]
        return str(template)
    label = result.task if result.output == "out" else f"{result.task}, {result.output}"
    omitted = arguments.defaults | arguments.paths.keys()
    params = [value for name, value in arguments.params.items() if name not in omitted]
    if shown := ", ".join(str(value) for value in params if isinstance(value, (str, int, float)) and str(value)):
        label += f" [{shown if len(shown) <= LONGEST_LABEL else shown[:LONGEST_LABEL] + '...'}]"
    if not used:
        return label
    first = used[0].dataset
    about = without_step(first.name) if first.parents else first.name
    return f"{about} ({label})"[:250]


def _metadata(result: TaskResult, more: JsonMapping) -> JsonObject:
    """Return the metadata of a result: its dict, record or number, declared ones, and those of the flow."""
    stored, arguments = result.stored, result.arguments
    value = _searchable(stored.document, {file.ref.name: file.path for file in stored.files})
    fields = value if isinstance(value, dict) else {} if value is None else {"value": value}
    flow = {
        "task": result.task,
        "flow": result.recording.destination.flow,
        "value": stored.document,
        "digest": stored.digest,
        "addresses": result.opened.declared.addresses,
        "unknown_inputs": NOT_SEEN if result.is_uncertain else "",
        "from_cache": FROM_CACHE if result.is_cached else "",
        "unknown_parents": arguments.unknown_parents,
        "left_out": arguments.left_out,
    }
    return {
        **(fields if len(canonical_json(fields)) <= LONG_METADATA else {}),
        **result.opened.declared.metadata,
        METADATA: {**{name: found for name, found in flow.items() if found}, **more},
    }


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


def _known_by(inputs: Iterable[Input]) -> dict[str, list[str]]:
    """Return, by argument, how its parents are known."""
    reasons: dict[str, dict[str, None]] = {}
    for parent in inputs:
        reasons.setdefault(parent.role, {})[parent.known_by] = None
    return {role: list(known) for role, known in reasons.items()}
