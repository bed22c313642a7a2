"""Arguments of a task call as parents and parameters: each argument is traced to the datasets that it came from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block, BlockNotSavedError
from prefect.futures import PrefectFuture

from crucible_lineage.errors import FileChangedError, InputError, LineageError
from crucible_lineage.fingerprint.walk import canonical_value
from crucible_lineage.ids import canonical_json, is_mfid
from crucible_lineage.json_types import JsonObject
from crucible_lineage.machine.checksums import FileStamp, scan_file, stamp_if_present
from crucible_lineage.machine.opened import FolderFiles, files_at, name_of, possible_path
from crucible_lineage.pipeline.plan.files import existing_dataset, raw_files
from crucible_lineage.pipeline.step_call import about_file
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.payload import LocalFile
from crucible_lineage.tasks.artifacts import ASSET
from crucible_lineage.tasks.origins import MOST_ITEMS, Origin, items_of
from crucible_lineage.tasks.recording import Arrival, Recording, warn
from crucible_lineage.tasks.secret import LARGEST_SCANNED, hidden, holds_secret, shown_secret
from crucible_lineage.tasks.values import (
    NotJsonError,
    Stored,
    described_only,
    fields_of,
    is_data,
    is_plain,
    json_text,
    plain_digest,
    spelled,
    store_value,
)
from crucible_lineage.text.masking import is_secret_name, masked, masked_text

MOST_TEXTS = 1000  # of one call that may be paths of files which it writes
METADATA = "flow"  # the metadata key for what the flow records about a result
FIXED = (str, bytes, int, float, complex, tuple, Path)  # values that cannot be changed in place
LONG_PARAMETER = 4000  # characters of JSON: more is data, and an input of its own

GIVEN = "a file that the flow was given"
PROVEN = "the result of a task run that was given"
ITEM = "an item of the result of a task run that was given"


@dataclass(frozen=True)
class Input:
    """A parent of a task's result: the argument with it, its dataset, and how that is known.

    A file that the flow was given has no origin yet, since the task may turn out to overwrite it. `path` is the path of
    a file, `in_list` says that the argument is a list or a folder, `folder` is the argument if it is the file's folder.
    A file that a `text` names is an input only if the call reads it.
    """

    role: str
    origin: Origin | None
    known_by: str
    in_list: bool = False
    path: Path | None = None
    folder: Path | None = None
    text: bool = False


Runs = Mapping[str, Sequence[str]]


@dataclass
class Arguments:
    """Traced arguments of the run of a task.

    `objects` are arguments that the function may change, with their digests from before the call; `unknown_parents`
    those whose parents are not known.
    """

    recording: Recording
    task: str
    inputs: list[Input] = field(default_factory=list)
    params: JsonObject = field(default_factory=dict)
    paths: dict[str, Path] = field(default_factory=dict)  # arguments that name files or folders
    texts: dict[str, str] = field(default_factory=dict)  # arguments by the paths that their texts might be
    before: dict[Path, FileStamp | None] = field(default_factory=dict)  # files below these paths before the call
    objects: dict[str, tuple[Any, str]] = field(default_factory=dict)
    ids: frozenset[int] = frozenset()  # object ids of the arguments and of the items in them
    defaults: frozenset[str] = frozenset()  # arguments left at their defaults
    left_out: list[str] = field(default_factory=list)
    unknown_parents: list[str] = field(default_factory=list)
    in_list: bool = False  # whether the argument that is traced is a list or a folder
    enclosing: Origin | None = None  # of the result that it is an item of

    def changed_files(self) -> dict[str, list[Path]]:
        """Return the files written since the call at paths that arguments name, by argument."""
        for name, role in self.texts.items():
            if Path(name).exists() and Path(name) not in self.paths.values():
                self.paths[self.free(role)] = Path(name)
        changed = {
            role: [path for path in files_at(root).paths if self.before.get(path) != stamp_if_present(path)]
            for role, root in self.paths.items()
        }
        return {role: paths for role, paths in changed.items() if paths}

    def free(self, role: str) -> str:
        """Return the role under which another path of the argument is known."""
        return role if role not in self.paths else f"{role}-{len(self.paths)}"

    def changed_object(self) -> Any:
        """Return the argument that the function has changed in place, or several by their names; None if none."""
        changed = {}
        for role, (value, digest) in self.objects.items():
            with self.recording.session.outbox.draft() as folder:
                now = store_value(value, folder)
            if digest and now.is_whole and now.digest != digest:
                changed[role] = value
        return next(iter(changed.values())) if len(changed) == 1 else changed or None

    def trace(self, named: Mapping[str, object], given: Runs, enclosing: Runs, assets: Sequence[str]) -> None:
        """Trace the arguments of a call. Raises LineageError if a parent is not known and the flow is strict.

        `given` are the task runs whose futures the flow has passed, by argument, `enclosing` those of which `map`
        passed an item to each call; `assets` are those that the task depends on.
        """
        self.ids = frozenset(id(item) for value in named.values() for item in (value, *items_of(value)))
        for role, value in named.items():
            runs = tuple(given.get(role, ()))
            self.argument(role, value, runs, [run for run in enclosing.get(role, ()) if run not in runs])
        self.in_list = False
        for key in assets:  # of a dataset of ours, one that was made as this asset, or an address
            self.source("asset", key.removeprefix(ASSET))
        # Until a task has a result, what the flow's own code passes cannot be made of one.
        unknown = list(dict.fromkeys(self.unknown_parents)) if self.recording.origins.runs else []
        no_inputs = bool(self.recording.origins.runs) and not self.inputs
        self.unknown_parents = unknown or (list(self.params) if no_inputs else [])
        if unknown:
            message = f"no parent known for {', '.join(unknown)} of {self.task}"
            self.recording.notices.append(message)
            remedy = "lineage.derived(value, result)"
            if self.recording.destination.strict:
                raise LineageError(f"{message}. Nothing was run; pass the result itself, or name its sources: {remedy}")
            warn("%s; %s says what it was made of", message, remedy)

    def argument(self, role: str, value: object, given: Sequence[str], around: Sequence[str]) -> None:
        """Record an argument as inputs, a parameter, or both."""
        origins = self.recording.origins
        if is_secret_name(role):
            self.params[role] = shown_secret(value, role, self.task)
            return
        path = value if isinstance(value, Path) else possible_path(value)
        self.in_list = isinstance(value, list) or (path is not None and path.is_dir())
        found = [origins.of_run(run) for run in given]
        for origin in filter(None, found):
            self.add(role, origin, PROVEN)
        if found and all(found):
            self.params[role] = {"results": len(found)}
            if len(found) == 1 and found[0] is not None and not isinstance(value, FIXED):
                self.objects[role] = (value, found[0].digest)
            return
        before = len(self.inputs)
        self.enclosing = next(filter(None, map(origins.of_run, around)), None)
        param = self.traced(role, value, 0)
        if param is not _INPUT:
            self.params[role] = hidden(param, role, self.task)
        if len(self.inputs) == before:
            if self.enclosing is not None:
                self.add(role, self.enclosing, ITEM)
            elif isinstance(value, (list, dict)) and (digest := plain_digest(value)):
                self.objects[role] = (value, digest)

    def source(self, role: str, source: object) -> None:
        """Add a declared source, by path, id, address or value. Raises InputError for a path without files."""
        path = source if isinstance(source, Path) else possible_path(source)
        if path is not None and (path is source or path.exists()):
            files = files_at(path)
            if not files.inputs:
                raise InputError(f"{self.task} says that it used {path.name}, which holds no files")
            for file in files.inputs:
                self.file(role, file)
        elif isinstance(source, DatasetRef):
            self.traced(role, source, 0)
        elif isinstance(source, str) and source:
            if not is_mfid(source) or self.dataset(role, source) is None:
                self.add(role, self.foreign(source), "an address that the task names")
        else:
            for origin in self.recording.origins.parents_of(source):
                self.add(role, origin, "a value that the task names")

    def foreign(self, address: str) -> Origin:
        """Return the dataset that was written to an address, or stands for data of another catalogue there."""
        address = masked_text(address)
        if (known := of_keyword(keyword_of("address", address), self.recording)) is not None:
            return known
        with self.recording.session.outbox.draft() as folder:
            stored = store_value({"address": address}, folder)
            dataset = self.recording.put_files(
                stored.files,
                "data of another catalogue, which lie at their address",
                Arrival(f"the address {address}"),
                dataset_name=address[:250],
                metadata={"address": address},
            )
        return Origin(dataset, tuple(file.ref.name for file in stored.files), about=(address,))

    def add(
        self, role: str, origin: Origin | None, known_by: str, path: Path | None = None, folder: Path | None = None
    ) -> Any:
        self.inputs.append(Input(role, origin, known_by, self.in_list, path, folder))
        return _INPUT

    def traced(self, role: str, value: Any, depth: int) -> Any:
        """Return the value's form as a parameter; `_INPUT` if it is a dataset."""
        if isinstance(value, DatasetRef):
            return self.add(role, origin_of(value, self.recording), "it is a dataset")
        if isinstance(value, PrefectFuture):  # quoted: the task receives the future itself
            origin = self.recording.origins.of_run(str(value.task_run_id))
            return self.add(role, origin, PROVEN) if origin is not None else opaque(value)
        if is_mfid(value) and (reference := self.dataset(role, value)) is not None:
            return reference
        if isinstance(value, Path):
            return self.path(role, value)
        shown = self.text(role, value) if isinstance(value, str) else value
        if shown is _INPUT:
            return shown
        if (origin := self.recording.origins.of_object(value)) is not None:
            return self.object(role, value, origin, "changed in", "the same object, changed since it was made")
        if (origin := self.recording.origins.of_view(value)) is not None:
            return self.object(role, value, origin, "taken in", "a view of its memory")
        if (fields := fields_of(value)) is not None and self.is_traced_inside(fields):  # made of items of results
            return self.container(role, fields, depth)
        if isinstance(value, (list, tuple, dict)) and (not is_plain(value) or self.is_traced_inside(value)):
            return self.container(role, value, depth)
        return self.other(role, shown)

    def dataset(self, role: str, mfid: str) -> Any:
        """Add the dataset of an id. Returns None, and notes it, if Crucible has none: it is an id of something else."""
        try:
            dataset = existing_dataset(mfid, self.recording.session)
        except InputError as error:
            note = f"{role} looks like the id of a dataset and is taken as a parameter: {error}"
            self.left_out.append(note)
            return None
        return self.add(role, origin_of(dataset, self.recording), "the id of a dataset was given")

    def is_traced_inside(self, value: Any) -> bool:
        """Return whether an item of a list, dict or record is known, or is the path of a file."""
        for item in items_of(value, 3):
            path = possible_path(item)
            if path is not None and (path.exists() or (len(path.parts) > 1 and path.parent.is_dir())):
                return True
            if self.recording.origins.of_object(item) is not None:
                return True
        return False

    def container(self, role: str, value: Any, depth: int) -> Any:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        if depth > 3 or len(value) > MOST_ITEMS:
            return opaque(value)
        params = {
            str(key): shown_secret(item, str(key), self.task)
            if isinstance(item, str) and is_secret_name(str(key))
            else self.traced(role, item, depth + 1)
            for key, item in items
        }
        remaining = {key: param for key, param in params.items() if param is not _INPUT}
        if params and not remaining:
            return _INPUT
        return remaining if isinstance(value, dict) or len(remaining) < len(params) else list(remaining.values())

    def text(self, role: str, text: str) -> Any:
        """Note a text that may be a path, watch what it names, and return the text as a parameter."""
        path = possible_path(text)
        if path is None:
            return text
        shown = path.name if path.is_absolute() and path.exists() else text  # the same on another machine
        if path.is_dir() and len(path.parts) > 1:
            return self.path(role, path, shown)
        files = files_at(path)
        if files.paths:
            self.watch(role, path, files)
        elif len(self.texts) < MOST_TEXTS:
            self.texts.setdefault(name_of(path), role)
        for file in files.inputs:
            folder = None if file == path else path
            self.inputs.append(Input(role, None, GIVEN, self.in_list, file, folder, text=True))
        return shown

    def watch(self, role: str, path: Path, files: FolderFiles) -> None:
        self.left_out += files.left_out
        self.paths[self.free(role)] = path
        self.before |= {file: stamp_if_present(file) for file in files.paths}

    def path(self, role: str, path: Path, text: str = "") -> Any:
        """Add existing files as inputs, unless they turn out to be written; return a name for other paths."""
        files = files_at(path)
        self.watch(role, path, files)
        if not files.inputs:
            return text or path.name
        traced = [self.file(role, file, None if file == path else path) for file in files.inputs]
        return _INPUT if any(traced) else path.name

    def file(self, role: str, path: Path, folder: Path | None = None) -> Any:
        """Add a file as an input; return None if it is gone. In a folder, another call may be writing it."""
        try:
            origin, known_by = origin_of_file(path, self.recording)
        except (FileChangedError, FileNotFoundError):
            if folder is None:
                raise
            if path.exists():
                self.left_out.append(f"{path.name} (it changed while it was being read)")
            return None
        return self.add(role, origin, known_by, path, folder)

    @contextmanager
    def stored(self, role: str, value: object) -> Iterator[Stored | None]:
        """Store a value for this block, and note its content from before the call; None if it cannot be stored."""
        with self.recording.session.outbox.draft() as folder:
            stored = store_value(value, folder)
            self.objects[role] = (value, stored.digest)
            named = is_plain(value) and hidden(value, role, self.task) != value
            what = f"argument {role} of {self.task}"
            stored = without_secret(stored, folder, what, self.recording, is_named=named)
            yield stored if stored.is_whole else None

    def object(self, role: str, value: Any, origin: Origin, how: str, known_by: str) -> Any:
        """Add a known object; if the flow's code has changed it, or taken a part, register that as a child dataset."""
        if not origin.digest or isinstance(value, FIXED):
            return self.known_object(role, value, origin)
        with self.stored(role, value) as stored:
            if stored is None or stored.digest == origin.digest:
                return self.known_object(role, value, origin)
            kept = keep_value(role, stored, f"{how} the flow's code", self.recording, (origin,), self.task)
        self.recording.origins.note_object(value, kept, owns=False)
        return self.add(role, kept, known_by)

    def known_object(self, role: str, value: Any, origin: Origin) -> Any:
        """Add a known object as an input; if it is an item of a larger value, return a parameter that tells which."""
        self.add(role, origin, "the same object")
        if not origin.part:
            return _INPUT
        try:
            plain = spelled(value)
        except NotJsonError:
            return _INPUT
        return deepcopy(plain) if len(canonical_json(plain)) <= LONG_PARAMETER else _INPUT

    def other(self, role: str, value: Any) -> Any:
        """Add a value of the flow's own code: data as an input of its own, descriptive values as a parameter."""
        if is_plain(value):
            plain = value
        elif is_data(value):
            return self.data(role, value)
        else:
            try:
                plain = canonical_value(value, role)
            except InputError:
                return opaque(value)
        # copied, since the task may change it later
        return deepcopy(plain) if len(canonical_json(plain)) <= LONG_PARAMETER else self.data(role, value)

    def data(self, role: str, value: Any) -> Any:
        origins = self.recording.origins
        with self.stored(role, value) as stored:
            if stored is None:
                return opaque(value)
            if (same := origins.of_content(stored.digest)) is not None:
                return self.add(role, same, "the same content")
            if self.enclosing is None:
                self.unknown_parents.append(role)
            label = "an item of a result" if self.enclosing else "from the flow's code"
            parents = [self.enclosing] if self.enclosing else []
            origin = keep_value(role, stored, label, self.recording, parents, self.task)
        origins.note_object(value, origin)
        return self.add(role, origin, ITEM if self.enclosing else "a value of the flow's code")


def keep_value(
    name: str, stored: Stored, label: str, recording: Recording, parents: Sequence[Origin] = (), task: str = ""
) -> Origin:
    """Register a value that no task made, before anything is made from it, such as the `task` that it is given to."""
    flow = recording.destination.flow
    dataset = recording.put_files(
        stored.files,
        f"a value {label}{f', given to {task}' if task else ''}",
        Arrival(f"the value {name}"),
        [parent.dataset for parent in parents],
        dataset_name=f"{name} ({label}{f' of {flow}' if flow else ''})",
        metadata={"value": stored.document},
    )
    about = parents[0].about if parents else (f"{name} {stored.digest[:16]}",)
    origin = Origin(dataset, tuple(file.name for file in dataset.data_files), stored.digest, about)
    recording.origins.note_content(stored.digest, sum(file.ref.size for file in stored.files), origin)
    return origin


def without_secret(stored: Stored, folder: Path, what: str, recording: Recording, *, is_named: bool = False) -> Stored:
    """Return what was stored of a value: masked in JSON, also by the names of keys; described if it holds a secret
    elsewhere, or one that only its name tells. A warning says so, once in a flow.
    """
    found: list[str] = []
    files = tuple(_masked(file, found) if file.ref.name not in stored.paths.values() else file for file in stored.files)
    holds = is_named or any(holds_secret(file.path) for file in files)
    if not holds and files == stored.files:
        return stored
    note = f"{what} holds a secret; it is {'described, not stored' if holds else 'stored without it'}"
    if note not in recording.not_stored:
        recording.not_stored.add(note)
        warn("%s", note)
    if holds:
        for file in files:
            file.path.unlink()
        return described_only("", folder, "a value that holds a secret")
    changed = {file.ref.name: "a text that is a secret" for file in set(files) - set(stored.files)}
    document = {**stored.document, "masked": found}
    return replace(stored, document=document, files=files, described={**stored.described, **changed})


def _masked(file: LocalFile, found: list[str]) -> LocalFile:
    """Mask the texts in a file of JSON that are secrets, and add where they were to `found`."""
    if file.path.suffix != ".json" or file.ref.size > LARGEST_SCANNED:
        return file
    plain = json.loads(file.path.read_bytes())
    if (safe := masked(plain, file.ref.name, found)) == plain:
        return file
    file.path.write_text(json_text(safe), encoding="utf-8")
    return LocalFile.of(file.path, scan_file(file.path))


def origin_of(dataset: DatasetRef, recording: Recording, digest: str = "") -> Origin:
    """Return a dataset of an earlier run as an origin."""
    names = tuple(file.name for file in dataset.data_files)
    return Origin(dataset, names, digest, recording.slots.about(dataset.mfid))


def opaque(value: Any) -> JsonObject:
    """Return the parameter for an object without a stable spelling: its class, and the name of a block."""
    name = type(value).__qualname__
    if isinstance(value, Block):
        with suppress(BlockNotSavedError):
            name = f"{name} {value.get_block_placeholder().rpartition('.')[2]}"
    return {"object": f"{type(value).__module__}.{name}"}


def keyword_of(kind: str, key: str) -> str:
    """Return the keyword of datasets that have this key: in Prefect's cache (`cache`), or as an `address`."""
    return f"{kind}:{hashlib.sha256(key.encode()).hexdigest()[:32]}"


def of_keyword(keyword: str, recording: Recording, digest: str = "") -> Origin | None:
    """Return the dataset of this run, else the last one of the project, with a keyword and, if given, this content."""
    known, session = recording.origins.keywords.get(keyword), recording.session
    if (known is not None and digest in ("", known.digest)) or recording.is_away():
        return known
    found = session.client.datasets.list(
        project_id=recording.destination.project, keyword=keyword, include_metadata=True, limit=None
    )
    stored = {
        dataset.unique_id: (dataset.scientific_metadata or {}).get(METADATA, {}).get("digest") for dataset in found
    }
    same = [mfid for mfid, known_digest in stored.items() if digest in ("", known_digest)]
    return origin_of(existing_dataset(same[-1], session), recording, digest) if same else None


def origin_of_file(path: Path, recording: Recording) -> tuple[Origin | None, str]:
    """Return the origin of a file's bytes in this run, if they have one there, and how the file is known."""
    sha256 = recording.session.store.checksums(path).sha256
    if (origin := recording.origins.of_path(path, sha256)) is not None:
        return origin, "the path of a file that was made"
    same = recording.origins.of_content(hashlib.sha256(sha256.encode()).hexdigest())
    return same, "the bytes of a file" if same else GIVEN


def find_file(path: Path, recording: Recording) -> Origin | None:
    """Return the origin of a file that the flow was given; None if it is not registered."""
    found = recording.find(raw_files(recording.destination.project, [_local_file(path, recording)]))
    return Origin(found, (path.name,), about=about_file(path)) if found else None


def register_file(path: Path, recording: Recording) -> Origin:
    """Register a file that the flow was given, with its current bytes."""
    file, session = _local_file(path, recording), recording.session
    sha256 = file.ref.sha256
    session.cache.add(path, sha256)  # from where it is sent: the flow may change it
    copy = replace(file, path=session.cache.path(sha256))
    arrival = Arrival(f"the file {path.name}", cached=sha256)
    origin = Origin(recording.put_files([copy], None, arrival, ingest=True), (path.name,), about=about_file(path))
    recording.origins.note_path(path, sha256, origin)
    return origin


def _local_file(path: Path, recording: Recording) -> LocalFile:
    return LocalFile.of(path, recording.session.store.checksums(path))


_INPUT: Any = object()  # instead of a parameter
