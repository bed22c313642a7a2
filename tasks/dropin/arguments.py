"""What a task was called with, as parents and parameters: each argument is traced to the datasets that it is of."""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block

from crucible_lineage.errors import InputError
from crucible_lineage.fingerprint.params import canonical_value
from crucible_lineage.ids import canonical_json, is_mfid
from crucible_lineage.pipeline.called.flow_places import about_file
from crucible_lineage.pipeline.inputs.existing import existing_dataset, find_raw
from crucible_lineage.pipeline.inputs.raw import hash_files
from crucible_lineage.pipeline.inputs.register import register_raw
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.refs import DatasetRef
from crucible_lineage.tasks.dropin.origins import Origin, settled
from crucible_lineage.tasks.dropin.recording import Recording, data_folder
from crucible_lineage.tasks.dropin.values.kinds import is_plain, kind_of
from crucible_lineage.tasks.dropin.values.storing import Stored, UnstorableError, store_value

__all__ = ["GIVEN", "Arguments", "Input", "given_file", "traced"]

MOST_FILES = 200  # of a folder that is looked at
LONG_PARAMETER = 4000  # characters of JSON: more is data, and an input of its own

Stamp = tuple[int, int]

DESCRIBING = ("not finite", "tuple", "set", "number", "bytes", "model", "dataclass", "scalar")  # kinds, more than data

GIVEN = "a file that the flow was given"


@dataclass(frozen=True)
class Input:
    """A parent of what a task makes: the argument that it is in, its dataset, and how that is known.

    A file that the flow was `given` has no dataset yet: it may turn out to be one that the task writes over.
    `in_list` says that the argument is a list or a folder.
    """

    role: str
    origin: Origin | None
    known_by: str
    given: Path | None = None
    in_list: bool = False


@dataclass
class Arguments:
    """What a task run was given. `opaque` names arguments that have no stable spelling: with them nothing is reused."""

    inputs: list[Input] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    opaque: list[str] = field(default_factory=list)
    places: dict[str, Path] = field(default_factory=dict)  # arguments that name files or folders
    before: dict[Path, Stamp] = field(default_factory=dict)  # files that stood there

    def written(self) -> dict[str, list[Path]]:
        """The files that were written since at these places, by argument."""
        found = {}
        for role, place in self.places.items():
            changed = [path for path in _files_at(place) if self.before.get(path) != _stamp(path)]
            if changed:
                found[role] = changed
        return found


def traced(
    bound: Mapping[str, object],
    futures: Mapping[str, tuple[str, ...]],
    mapped: Mapping[str, tuple[str, ...]],
    recording: Recording,
    task: str,
) -> Arguments:
    """The arguments, traced. `futures` are the task runs whose results were given, by argument, `mapped` those that it
    is an item of.
    """
    tracer = _Tracer(recording, task)
    for role, value in bound.items():
        tracer.argument(role, value, futures.get(role, ()), mapped.get(role, ()))
    return tracer.found


class _Tracer:
    def __init__(self, recording: Recording, task: str) -> None:
        self.recording = recording
        self.task = task
        self.found = Arguments()
        self.in_list = False
        self.whole: Origin | None = None  # what the argument is an item of

    def argument(self, role: str, value: object, runs: tuple[str, ...], mapped: tuple[str, ...]) -> None:
        """One argument becomes inputs, a parameter, or both."""
        self.in_list = isinstance(value, list) or (isinstance(value, (str, Path)) and _is_folder(value))
        proven = [self.recording.origins.of_run(run) for run in runs]
        for origin in proven:
            if origin is not None:
                self.add(role, origin, "the result of a task run that was given")
        if runs and all(proven):
            self.found.params[role] = {"results": len(runs)}
            return
        before = len(self.found.inputs)
        self.whole = next(filter(None, map(self.recording.origins.of_run, mapped)), None)
        self.found.params[role] = self.traced(role, value, 0)
        if self.found.params[role] is _INPUT:
            del self.found.params[role]
        if self.whole is not None and len(self.found.inputs) == before:
            self.add(role, self.whole, "an item of the result of a task run that was given")

    def add(self, role: str, origin: Origin, known_by: str) -> Any:
        self.found.inputs.append(Input(role, origin, known_by, in_list=self.in_list))
        if origin.described:  # others have the same files
            self.found.opaque.append(role)
        return _INPUT

    def traced(self, role: str, value: Any, depth: int) -> Any:
        """What stands for the value among the parameters; `_INPUT` if it is a dataset."""
        if isinstance(value, DatasetRef):
            names, about = tuple(file.name for file in value.data_files), self.recording.places.about(value.mfid)
            return self.add(role, Origin(settled(value), names, about=about), "it is a dataset")
        if is_mfid(value):
            dataset = existing_dataset(value, self.recording.session)
            names = tuple(file.name for file in dataset.data_files)
            about = self.recording.places.about(dataset.mfid)
            return self.add(role, Origin(settled(dataset), names, about=about), "the id of a dataset was given")
        if isinstance(value, Path) or (isinstance(value, str) and _looks_like_path(value)):
            return self.path(role, Path(value), value)
        if (origin := self.recording.origins.of_object(value)) is not None:
            return self.object(role, value, origin)
        if isinstance(value, (list, tuple, dict)) and not is_plain(value):
            return self.container(role, value, depth)
        if is_plain(value):
            if len(canonical_json(value)) > LONG_PARAMETER:
                return self.data(role, value)
            return deepcopy(value)  # what the task does with it comes later
        return self.other(role, value)

    def container(self, role: str, value: Any, depth: int) -> Any:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        if depth > 3 or len(value) > 10_000:
            return self.opaque(role, value)
        shown = {str(key): self.traced(role, item, depth + 1) for key, item in items}
        rest = {key: item for key, item in shown.items() if item is not _INPUT}
        if not rest and shown:
            return _INPUT
        return rest if isinstance(value, dict) or len(rest) < len(shown) else list(rest.values())

    def path(self, role: str, path: Path, given: object) -> Any:
        """A file or folder that is there is an input, unless it turns out to be written; one that is not, a name."""
        self.found.places[role if role not in self.found.places else f"{role}-{len(self.found.places)}"] = path
        for one in _files_at(path):
            self.found.before[one] = _stamp(one)
        if path.is_file():
            return self.file(role, path)
        if path.is_dir() and (files := _files_at(path)):
            for one in files:
                self.file(role, one)
            return _INPUT
        return given if isinstance(given, str) else path.name

    def file(self, role: str, path: Path) -> Any:
        checksums = self.recording.session.store.checksums(path)
        known = self.recording.origins.of_path(path, checksums.sha256)
        if known is not None:
            return self.add(role, known, "the path of a file that was made")
        digest = hashlib.sha256(checksums.sha256.encode()).hexdigest()
        if (same := self.recording.origins.of_content(digest)) is not None:
            return self.add(role, same, "the bytes of a file")
        self.found.inputs.append(Input(role, None, GIVEN, path, self.in_list))
        return _INPUT

    def object(self, role: str, value: Any, origin: Origin) -> Any:
        """A known object, if it still is what it was; else a dataset made of that one by the flow's code."""
        if origin.described or not origin.digest or isinstance(value, (str, bytes, tuple)):
            return self.add(role, origin, "the same object")
        try:
            with tempfile.TemporaryDirectory(dir=data_folder(self.recording)) as folder:
                stored = store_value(value, Path(folder))
                if stored.digest == origin.digest:
                    return self.add(role, origin, "the same object")
                changed = self.keep(role, stored, "changed in the flow's code", parent=origin)
        except UnstorableError:
            return self.add(role, origin, "the same object")
        self.recording.origins.note_object(value, changed)
        return self.add(role, changed, "the same object, changed since it was made")

    def other(self, role: str, value: Any) -> Any:
        """A value of the flow's own code: data becomes an input that can be seen, what describes it a parameter."""
        kind = kind_of(value)
        if kind is not None and kind.name not in DESCRIBING:
            return self.data(role, value)
        try:
            plain = canonical_value(value, role)
        except InputError:
            return self.opaque(role, value)
        return plain if len(canonical_json(plain)) <= LONG_PARAMETER else self.data(role, value)

    def data(self, role: str, value: Any) -> Any:
        try:
            with tempfile.TemporaryDirectory(dir=data_folder(self.recording)) as folder:
                stored = store_value(value, Path(folder))
                if (known := self.recording.origins.of_content(stored.digest)) is not None:
                    return self.add(role, known, "the same content")
                what = "an item of a result" if self.whole else "from the flow's code"
                origin = self.keep(role, stored, what, parent=self.whole)
        except UnstorableError:
            return self.opaque(role, value)
        self.recording.origins.note_object(value, origin)
        known_by = "an item of the result of a task run that was given" if self.whole else "a value of the flow's code"
        return self.add(role, origin, known_by)

    def opaque(self, role: str, value: Any) -> Any:
        self.found.opaque.append(role)
        name = type(value).__qualname__
        if isinstance(value, Block) and getattr(value, "_block_document_name", None):
            name = f"{name} {value._block_document_name}"
        return {"object": f"{type(value).__module__}.{name}"}

    def keep(self, role: str, stored: Stored, what: str, parent: Origin | None = None) -> Origin:
        """The dataset of a value that no task made, registered before anything is made of it."""
        session, project = self.recording.session, self.recording.destination.project
        flow = self.recording.destination.flow
        paths = [file.path for file in stored.files]
        parents = [parent.made.result()] if parent else []
        raw = hash_files(project, paths, None, session, parents=parents, salt=self.recording.destination.salt)
        name = f"{role} ({what}{f' of {flow}' if flow else ''})"
        declared = FileInput(file=str(paths[0]), dataset_name=name, metadata={"value": stored.document}, ingest=False)
        note = f"a value {what}, given to {self.task} as {role}"
        dataset = (None if parent else find_raw(raw, session)) or register_raw(raw, declared, name, session, note)
        about = parent.about if parent else (f"{role} {stored.digest[:16]}",)
        names = tuple(file.name for file in dataset.data_files)
        origin = Origin(settled(dataset), names, stored.digest, about)
        self.recording.origins.note_content(stored.digest, sum(file.ref.size for file in stored.files), origin)
        return origin


def given_file(path: Path, recording: Recording, logger: Any) -> Origin:
    """The dataset of a file that the flow was given, with the bytes that it has now; being registered beside the flow."""
    session = recording.session
    checksums = session.store.checksums(path)
    if (known := recording.origins.of_path(path, checksums.sha256)) is not None:
        return known
    session.cache.add(path, checksums.sha256)  # before the flow does anything with the file

    def register() -> DatasetRef:
        if session.store.checksums(path).sha256 == checksums.sha256:
            return _registered_file(path, recording)
        with tempfile.TemporaryDirectory(dir=data_folder(recording)) as folder:
            was = Path(folder) / path.name
            shutil.copyfile(session.cache.path(checksums.sha256), was)
            return _registered_file(was, recording)

    made = recording.aside(register, logger, f"the file {path.name}")
    origin = Origin(made, (path.name,), about=about_file(path))
    recording.origins.note_path(path, checksums.sha256, origin)
    return origin


def _registered_file(path: Path, recording: Recording) -> DatasetRef:
    session, destination = recording.session, recording.destination
    raw = hash_files(destination.project, [path], None, session, salt=destination.salt)
    return find_raw(raw, session) or register_raw(raw, FileInput(file=str(path)), path.name, session)


class _Input:
    def __repr__(self) -> str:
        return "<an input>"


_INPUT: Any = _Input()


def _looks_like_path(text: str) -> bool:
    """True of the path of something that is there, or that may be written into a folder that is there."""
    if len(text) > 4096 or "\n" in text or "\0" in text or not ("/" in text or "\\" in text or "." in text):
        return False
    try:
        path = Path(text)
        return path.exists() or (len(path.parts) > 1 and path.parent.is_dir())
    except OSError:
        return False


def _is_folder(value: str | Path) -> bool:
    return (isinstance(value, Path) or _looks_like_path(value)) and Path(value).is_dir()


def _files_at(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    if not place.is_dir():
        return []
    return sorted(_bounded(place.rglob("*")))


def _bounded(paths: Iterator[Path]) -> Iterator[Path]:
    for count, path in enumerate(one for one in paths if one.is_file()):
        if count >= MOST_FILES:
            return
        yield path


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    return found.st_mtime_ns, found.st_size
