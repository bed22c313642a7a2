"""What a task was called with, as parents and parameters: each argument is traced to the datasets that it is of."""

from __future__ import annotations

import hashlib
import inspect
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block, BlockNotSavedError
from prefect.futures import PrefectFuture

from crucible_lineage.errors import InputError, LineageError
from crucible_lineage.fingerprint.params import canonical_value
from crucible_lineage.ids import canonical_json, is_mfid
from crucible_lineage.pipeline.inputs.existing import existing_dataset, hash_files
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.pipeline.step_call import about_file
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.read import datasets_with
from crucible_lineage.registration.trust import lies_elsewhere
from crucible_lineage.tasks.dropin.description import TaskDescription
from crucible_lineage.tasks.dropin.folders import Stamp, files_at, is_folder, looks_like_path, stamp
from crucible_lineage.tasks.dropin.origins import CALL, LEAST_BYTES, MOST_ITEMS, Origin, items_of, settled
from crucible_lineage.tasks.dropin.recording import Recording, data_folder, run_logger, warn
from crucible_lineage.tasks.dropin.secret import hidden, hidden_text, is_secret_name, shown_secret
from crucible_lineage.tasks.dropin.values.as_json import NotJsonError, spelled
from crucible_lineage.tasks.dropin.values.kinds import is_plain, kind_of
from crucible_lineage.tasks.dropin.values.storing import NotStorableError, Stored, plain_digest, store_value
from crucible_lineage.tasks.dropin.views import is_constant, is_literal, taken_from

LONG_PARAMETER = 4000  # characters of JSON: more is data, and an input of its own

DESCRIBING = ("not finite", "tuple", "set", "number", "bytes", "model", "dataclass", "scalar")  # kinds, more than data

GIVEN = "a file that the flow was given"
PROVEN = "the result of a task run that was given"
RECORDED = "the result of a task run that Prefect's record names"
ITEM_RECORDED = "an item of the result of a task run that Prefect's record names"


@dataclass(frozen=True)
class Input:
    """A parent of what a task makes: the argument that it is in, its dataset, and how that is known.

    A file that the flow was `given` has no dataset yet: it may turn out to be one that the task writes over. `path` is
    where a file lies, `in_list` says that the argument is a list or a folder, `in_folder` that it is the file's folder.
    """

    role: str
    origin: Origin | None
    known_by: str
    given: Path | None = None
    in_list: bool = False
    path: Path | None = None
    in_folder: bool = False


@dataclass
class Arguments:
    """What a task run was given. `opaque` names arguments that have no stable spelling: with them nothing is reused.

    `unknown` are arguments of the flow's own making whose parents are not known, `objects` those that the function may
    change, with the digest of what they were.
    """

    inputs: list[Input] = field(default_factory=list)
    params: dict[str, Any] = field(default_factory=dict)
    opaque: list[str] = field(default_factory=list)
    places: dict[str, Path] = field(default_factory=dict)  # arguments that name files or folders
    before: dict[Path, Stamp | None] = field(default_factory=dict)  # files that stood there
    unknown: list[str] = field(default_factory=list)
    objects: dict[str, tuple[Any, str]] = field(default_factory=dict)
    given: frozenset[int] = frozenset()  # the ids of the values that were given, and of what is in them
    defaults: frozenset[str] = frozenset()  # arguments that nobody gave
    left_out: list[str] = field(default_factory=list)
    unconfirmed: dict[str, list[str]] = field(default_factory=dict)  # task runs of Prefect's record, by argument
    possible: list[str] = field(default_factory=list)

    def changed_files(self) -> dict[str, list[Path]]:
        """The files that were written since at the places that arguments name, by argument."""
        found = {}
        for role, place in self.places.items():
            changed = [path for path in files_at(place).paths if self.before.get(path) != stamp(path)]
            if changed:
                found[role] = changed
        return found

    def changed_objects(self, recording: Recording) -> dict[str, Any]:
        """The arguments that the function has changed in place."""
        return {
            role: value
            for role, (value, digest) in self.objects.items()
            if digest and (plain_digest(value) or digest_now(value, recording)) != digest
        }


@dataclass(frozen=True)
class ArgumentTrace:
    """Which task runs gave the arguments of a call, by argument: those of futures, those that they are items of, and
    those that Prefect's record of the run names.
    """

    futures: Mapping[str, tuple[str, ...]]
    mapped: Mapping[str, tuple[str, ...]]
    recorded: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def traced(
    bound: Mapping[str, object], runs: ArgumentTrace, recording: Recording, described: TaskDescription
) -> Arguments:
    """Trace the arguments of a call. Raises LineageError where a parent is not known and the flow is strict."""
    tracer = _Tracer(recording, described)
    tracer.found.given = frozenset(id(one) for value in bound.values() for one in (value, *items_of(value)))
    for role, value in bound.items():
        if role not in described.ignore:
            tracer.argument(role, value, runs)
    tracer.declared(bound)
    tracer.conclude()
    return tracer.found


def said_to_be_used(sources: Sequence[object], recording: Recording, described: TaskDescription) -> list[Input]:
    """Return what a task says that it has used, as inputs."""
    tracer = _Tracer(recording, described)
    for source in sources:
        tracer.source("used", source)
    return tracer.found.inputs


class _Tracer:
    def __init__(self, recording: Recording, described: TaskDescription) -> None:
        self.recording = recording
        self.described = described
        self.found = Arguments()
        self.in_list = False
        self.whole: Origin | None = None  # what the argument is an item of
        self.made: list[str] = []  # lists, tuples and dicts of the flow's own code

    def argument(self, role: str, value: object, runs: ArgumentTrace) -> None:
        """One argument becomes inputs, a parameter, or both."""
        if is_secret_name(role):
            self.found.params[role] = shown_secret(value, role, self.described.name)
            return
        self.in_list = isinstance(value, list) or (isinstance(value, (str, Path)) and is_folder(value))
        futures = runs.futures.get(role, ())
        proven = [self.recording.origins.of_run(run) for run in futures]
        for origin in proven:
            if origin is not None:
                self.add(role, origin, PROVEN)
        if futures and all(proven):
            self.found.params[role] = {"results": len(futures)}
            if len(proven) == 1 and proven[0] is not None and not _is_fixed(value):
                self.found.objects[role] = (value, proven[0].digest)
            return
        before = len(self.found.inputs)
        self.whole = next(filter(None, map(self.recording.origins.of_run, runs.mapped.get(role, ()))), None)
        shown = self.traced(role, value, 0)
        if shown is not _INPUT:
            self.found.params[role] = hidden(shown, role, self.described.name)
        if self.whole is not None and len(self.found.inputs) == before:
            self.add(role, self.whole, "an item of the result of a task run that was given")
        self.compare(role, value, runs.recorded.get(role, ()), before)
        if len(self.found.inputs) == before and isinstance(value, (list, tuple, dict)) and value:
            self.made.append(role)
            if digest := plain_digest(value):
                self.found.objects[role] = (value, digest)

    def compare(self, role: str, value: object, recorded: tuple[str, ...], before: int) -> None:
        """Take what Prefect's record of the run names beside what was traced, if the content agrees; else note it."""
        made = {id(one.origin.made) for one in self.found.inputs[before:] if one.origin is not None}
        for run in recorded:
            origin = self.recording.origins.of_run(run)
            if origin is None or id(origin.made) in made:
                continue
            is_untraced = len(self.found.inputs) == before and bool(origin.digest)
            if is_untraced and digest_now(value, self.recording) == origin.digest:
                self.found.params.pop(role, None)
                self.add(role, origin, RECORDED)
            elif is_untraced and self.recording.origins.is_word_of(run, value) and not is_literal(value):
                self.add(role, replace(origin, part=True), ITEM_RECORDED)
            else:
                self.found.unconfirmed.setdefault(role, []).append(origin.label or run)

    def declared(self, bound: Mapping[str, object]) -> None:
        """Note what the task declares that it reads, writes and is made of."""
        reads, writes, parents = self.described.reads, self.described.writes, self.described.parents
        for source in _listed(_asked(reads, bound)) if callable(reads) else ():
            self.source("reads", source)
        for source in _listed(_asked(parents, bound)) if callable(parents) else parents:
            self.source("parents", source)
        for index, target in enumerate(_listed(_asked(writes, bound))) if callable(writes) else ():
            place = Path(str(target))
            self.found.places[f"writes-{index}"] = place
            self.found.before |= {one: stamp(one) for one in files_at(place).paths}

    def source(self, role: str, what: object) -> None:
        """Data that a task is made of, by path, id or address. InputError if it is none of these."""
        if isinstance(what, Path) or (isinstance(what, str) and looks_like_path(what) and Path(what).exists()):
            found = files_at(Path(what))
            if not found.inputs:
                raise InputError(f"{self.described.name} says that it used {Path(what).name}, which holds no files")
            for path in found.inputs:
                self.file(role, path)
        elif isinstance(what, DatasetRef):
            self.traced(role, what, 0)
        elif isinstance(what, str) and is_mfid(what) and self.dataset(role, what) is not None:
            pass
        elif isinstance(what, str) and what:
            self.add(role, self.foreign(what), "an address that the task names")
        else:
            for origin in self.recording.origins.parents_of(what):
                self.add(role, origin, "a value that the task names")

    def foreign(self, address: str) -> Origin:
        """The dataset that stands for data of another catalogue; found again by their address."""
        address = hidden_text(address)
        session, destination = self.recording.session, self.recording.destination
        with tempfile.TemporaryDirectory(dir=data_folder(self.recording)) as folder:
            path = Path(folder) / "address.json"
            path.write_bytes(canonical_json({"address": address}))
            raw = hash_files(destination.project, [path], None, session)
            declared = FileInput(
                file=str(path), dataset_name=address[:250], metadata={"address": address}, ingest=False
            )
            note = "data of another catalogue, which lie at their address"
            dataset = self.recording.undelivered.raw(raw, declared, address[:250], note, is_new=False)
        return Origin(settled(dataset), ("address.json",), about=(address,))

    def conclude(self) -> None:
        """Report arguments without a known parent."""
        hand = self.recording.origins.in_hand()
        unknown = self.found.unknown or ([] if self.found.inputs else self.made)
        if hand and (unknown or not self.found.inputs):
            self.found.possible = hand
        if not unknown or not hand:
            return
        told = (
            f"no parent known for {', '.join(dict.fromkeys(unknown))} of {self.described.name}; "
            f"the flow's code had {', '.join(hand)} in hand"
        )
        self.recording.said.append(told)
        if not self.found.unknown:  # a list or dict of the flow's own, as of settings, may well come from nothing
            run_logger().info("%s", told)
            return
        if self.recording.destination.strict:
            raise LineageError(
                f"{told}. Nothing was run; pass the result itself, or name its sources: lineage.derived(value, result)"
            )
        warn("%s; lineage.derived(value, result) says what it was made of", told)

    def add(
        self, role: str, origin: Origin, known_by: str, path: Path | None = None, *, in_folder: bool = False
    ) -> Any:
        self.found.inputs.append(Input(role, origin, known_by, None, self.in_list, path, in_folder))
        if origin.described:  # others have the same files
            self.found.opaque.append(role)
        return _INPUT

    def traced(self, role: str, value: Any, depth: int) -> Any:
        """Return what stands for the value among the parameters; `_INPUT` if it is a dataset."""
        if isinstance(value, DatasetRef):
            names, about = tuple(file.name for file in value.data_files), self.recording.slots.about(value.mfid)
            return self.add(role, Origin(settled(value), names, about=about), "it is a dataset")
        if isinstance(value, PrefectFuture):  # quoted: the task is given the future itself
            origin = self.recording.origins.of_run(str(value.task_run_id))
            return self.add(role, origin, PROVEN) if origin is not None else self.opaque(role, value)
        if is_mfid(value) and (known := self.dataset(role, value)) is not None:
            return known
        if isinstance(value, Path) or (isinstance(value, str) and looks_like_path(value)):
            return self.path(role, Path(value), value)
        if (origin := self.recording.origins.of_object(value)) is not None and not is_literal(value):
            return self.object(role, value, origin)
        if parents := self.recording.origins.of_derived(value):
            return self.derived(role, value, parents)
        if isinstance(value, (list, tuple, dict)) and (not is_plain(value) or self.is_traced_inside(value)):
            return self.container(role, value, depth)
        if is_plain(value):
            if len(canonical_json(value)) > LONG_PARAMETER:
                return self.data(role, value)
            return deepcopy(value)  # what the task does with it comes later
        return self.other(role, value)

    def dataset(self, role: str, mfid: str) -> Any:
        """The dataset of that id; None, and a note, if Crucible has none: it is an id of something else."""
        try:
            dataset = existing_dataset(mfid, self.recording.session)
        except InputError as error:
            self.found.left_out.append(f"{role} looks like the id of a dataset and is taken as a parameter: {error}")
            return None
        names = tuple(file.name for file in dataset.data_files)
        about = self.recording.slots.about(dataset.mfid)
        return self.add(role, Origin(settled(dataset), names, about=about), "the id of a dataset was given")

    def is_traced_inside(self, value: Any, depth: int = 3) -> bool:
        """True if something in a plain list or dict is known, or is the path of a file."""
        items = value.values() if isinstance(value, dict) else value
        for _, item in zip(range(MOST_ITEMS), items, strict=False):
            if isinstance(item, str) and looks_like_path(item):
                return True
            if self.recording.origins.of_object(item) is not None and not is_literal(item):
                return True
            if self.recording.origins.of_derived(item):
                return True
            if depth and isinstance(item, (list, dict)) and self.is_traced_inside(item, depth - 1):
                return True
        return False

    def container(self, role: str, value: Any, depth: int) -> Any:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        if depth > 3 or len(value) > MOST_ITEMS:
            return self.opaque(role, value)
        shown = {str(key): self.item(role, str(key), item, depth + 1) for key, item in items}
        rest = {key: item for key, item in shown.items() if item is not _INPUT}
        if not rest and shown:
            return _INPUT
        return rest if isinstance(value, dict) or len(rest) < len(shown) else list(rest.values())

    def item(self, role: str, key: str, value: Any, depth: int) -> Any:
        if isinstance(value, str) and is_secret_name(key):
            return shown_secret(value, key, self.described.name)
        return self.traced(role, value, depth)

    def path(self, role: str, path: Path, given: object) -> Any:
        """A file or folder that is there is an input, unless it turns out to be written; one that is not, a name."""
        found = files_at(path)
        self.found.left_out += found.left_out
        self.found.places[role if role not in self.found.places else f"{role}-{len(self.found.places)}"] = path
        self.found.before |= {one: stamp(one) for one in found.paths}
        if not found.inputs or not self.described.reads_files(role):
            return given if isinstance(given, str) else path.name
        taken = [one for one in found.inputs if self.described.reads_file(one)]
        for one in taken:
            self.file(role, one, in_folder=one != path)
        return _INPUT if taken else path.name

    def file(self, role: str, path: Path, *, in_folder: bool = False) -> Any:
        checksums = self.recording.session.store.checksums(path)
        known = self.recording.origins.of_path(path, checksums.sha256)
        if known is not None:
            return self.add(role, known, "the path of a file that was made", path, in_folder=in_folder)
        digest = hashlib.sha256(checksums.sha256.encode()).hexdigest()
        if (same := self.recording.origins.of_content(digest)) is not None:
            return self.add(role, same, "the bytes of a file", path, in_folder=in_folder)
        self.found.inputs.append(Input(role, None, GIVEN, path, self.in_list, path, in_folder))
        return _INPUT

    def object(self, role: str, value: Any, origin: Origin) -> Any:
        """A known object, if it still is what it was; else a dataset made of that one by the flow's code."""
        if origin.described or not origin.digest or isinstance(value, (str, bytes, int, float, tuple)):
            return self.known(role, value, origin)
        try:
            with tempfile.TemporaryDirectory(dir=data_folder(self.recording)) as folder:
                stored = store_value(value, Path(folder))
                self.found.objects[role] = (value, stored.digest)
                if stored.digest == origin.digest:
                    return self.known(role, value, origin)
                changed = self.keep(role, stored, "changed in the flow's code", (origin,))
        except NotStorableError:
            return self.add(role, origin, "the same object")
        self.recording.origins.note_object(value, changed)
        return self.add(role, changed, "the same object, changed since it was made")

    def known(self, role: str, value: Any, origin: Origin) -> Any:
        """A known object: an input, and where it is an item of a larger value, a parameter that tells which."""
        self.add(role, origin, "the same object")
        if not origin.part:
            return _INPUT
        try:
            plain, _ = spelled(value)
        except NotJsonError:
            return _INPUT
        return deepcopy(plain) if len(canonical_json(plain)) <= LONG_PARAMETER else _INPUT

    def derived(self, role: str, value: Any, parents: tuple[Origin, ...]) -> Any:
        """A value that the flow's code says it has made of others: data as a dataset between, others as they are."""
        how = "a value that the flow's code says it has derived"
        kind = kind_of(value)
        if is_plain(value) or kind is None or kind.name in DESCRIBING:
            for origin in parents:
                self.add(role, origin, how)
            return self.other(role, value) if not is_plain(value) else deepcopy(value)
        try:
            with tempfile.TemporaryDirectory(dir=data_folder(self.recording)) as folder:
                stored = store_value(value, Path(folder))
                self.found.objects[role] = (value, stored.digest)
                origin = self.keep(role, stored, "derived in the flow's code", parents)
        except NotStorableError:
            for origin in parents:
                self.add(role, origin, how)
            return self.opaque(role, value)
        return self.add(role, origin, how)

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
        origins = self.recording.origins
        taken = None if self.whole else taken_from(value, origins)
        try:
            with tempfile.TemporaryDirectory(dir=data_folder(self.recording)) as folder:
                stored = store_value(value, Path(folder))
                self.found.objects[role] = (value, stored.digest)
                known = origins.of_content(stored.digest) or self.by_bytes(stored)
                if known is not None:
                    return self.add(role, known, "the same content")
                parents = tuple(one for one in (self.whole, taken) if one is not None)
                what = "an item of a result" if self.whole else "taken" if taken else "from the flow's code"
                if taken:
                    what = "taken from a result in the flow's code"
                elif not self.whole and not is_constant(value):
                    self.found.unknown.append(role)
                origin = self.keep(role, stored, what, parents)
        except NotStorableError:
            return self.opaque(role, value)
        origins.note_object(value, origin)
        if self.whole is not None:
            return self.add(role, origin, "an item of the result of a task run that was given")
        return self.add(role, origin, "a part of a known value" if taken else "a value of the flow's code")

    def by_bytes(self, stored: Stored) -> Origin | None:
        """The one result of the project that has these bytes, as another process or an earlier run registered it."""
        if sum(file.ref.size for file in stored.files) < LEAST_BYTES or self.recording.undelivered.is_away():
            return None
        session, project = self.recording.session, self.recording.destination.project
        wanted = {file.ref.sha256 for file in stored.files}
        found = []
        for mfid in sorted(datasets_with(session.client, session.mirror, project, stored.files[0].ref.sha256)):
            if not lies_elsewhere(session.client.datasets.get(mfid), project):
                dataset = existing_dataset(mfid, session)
                if {file.sha256 for file in dataset.data_files if file.name != CALL} == wanted:
                    found.append(dataset)
        if len(found) != 1:
            return None
        names = tuple(file.name for file in found[0].data_files if file.name != CALL)
        return Origin(settled(found[0]), names, stored.digest, self.recording.slots.about(found[0].mfid))

    def opaque(self, role: str, value: Any) -> Any:
        self.found.opaque.append(role)
        name = type(value).__qualname__
        if isinstance(value, Block):
            with suppress(BlockNotSavedError):
                name = f"{name} {value.get_block_placeholder().rpartition('.')[2]}"
        return {"object": f"{type(value).__module__}.{name}"}

    def keep(self, role: str, stored: Stored, what: str, parents: tuple[Origin, ...] = ()) -> Origin:
        """The dataset of a value that no task made, registered before anything is made of it."""
        session, project = self.recording.session, self.recording.destination.project
        flow = self.recording.destination.flow
        paths = [file.path for file in stored.files]
        above = [self.recording.dataset(parent.made) for parent in parents]
        raw = hash_files(project, paths, None, session, parents=above, salt=self.recording.destination.salt)
        name = f"{role} ({what}{f' of {flow}' if flow else ''})"
        declared = FileInput(file=str(paths[0]), dataset_name=name, metadata={"value": stored.document}, ingest=False)
        note = f"a value {what}, given to {self.described.name} as {role}"
        dataset = self.recording.undelivered.raw(raw, declared, name, note, is_new=bool(parents))
        about = parents[0].about if parents else (f"{role} {stored.digest[:16]}",)
        names = tuple(file.name for file in dataset.data_files)
        origin = Origin(settled(dataset), names, stored.digest, about)
        self.recording.origins.note_content(stored.digest, sum(file.ref.size for file in stored.files), origin)
        return origin


def _asked(function: Callable[..., Any], bound: Mapping[str, object]) -> Any:
    """Call a function of a task's arguments with those that it takes."""
    parameters = inspect.signature(function).parameters.values()
    if any(one.kind is one.VAR_KEYWORD for one in parameters):
        return function(**bound)
    return function(**{one.name: bound[one.name] for one in parameters if one.name in bound})


def _listed(found: Any) -> Sequence[object]:
    if found is None:
        return ()
    return found if isinstance(found, (list, tuple)) else (found,)


def _is_fixed(value: object) -> bool:
    """True of a value that cannot be changed in place."""
    kind = kind_of(value)
    if isinstance(value, (str, bytes, int, float, complex, tuple)):
        return True
    return not isinstance(value, (list, dict, set)) and (kind is None or kind.name in DESCRIBING)


def digest_now(value: object, recording: Recording) -> str:
    """The digest of what the value is now; nothing if it cannot be stored."""
    try:
        with tempfile.TemporaryDirectory(dir=data_folder(recording)) as folder:
            return store_value(value, Path(folder)).digest
    except NotStorableError:
        return ""


def given_file(path: Path, recording: Recording, logger: Any) -> Origin:
    """The dataset of a file that the flow was given, with the bytes that it has now; registered beside the flow."""
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
    return recording.undelivered.raw(raw, FileInput(file=str(path)), path.name, None, is_new=False)


class _Input:
    def __repr__(self) -> str:
        return "<an input>"


_INPUT: Any = _Input()
