"""A payload: the outputs of one step, made and not yet delivered, sealed in a folder of the outbox.

    STEP/result.json     all outputs of the step as they are to be registered, after their SHA-256: the seal
    STEP/SHA256          the files, named by their hashes

Nothing in it exists elsewhere. So a payload is verified by hashes (the seal, and those of the files), never by size or
time: a copied folder is as good as the original, a folder with one changed bit is not.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.core.journal import MADE, ResultRow
from crucible_lineage.core.slots import SlotClaim
from crucible_lineage.errors import InputError
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.records import SOURCE, SURROUNDINGS
from crucible_lineage.machine.checksums import FileChecksums, scan_file
from crucible_lineage.machine.disk import flush
from crucible_lineage.provenance.recipe import UsedDataset, origin_of
from crucible_lineage.refs import INHERITED, DatasetRef, FileRef, context_of, inherited_context, last_taken, utf8_name
from crucible_lineage.text.masking import WAY_OUT, learn, masked

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord


@dataclass(frozen=True)
class LocalFile:
    """A file on disk with its name in the dataset and its checksums, so that they are computed only once."""

    path: Path
    ref: FileRef
    checksums: FileChecksums

    @classmethod
    def of(cls, path: Path, checksums: FileChecksums, *, preview: bool = False) -> LocalFile:
        """Return the file under its own name; bytes that are not UTF-8 are escaped."""
        return cls(path, FileRef(utf8_name(path.name), checksums.sha256, checksums.size, preview), checksums)


@dataclass(frozen=True)
class NewDataset:
    """A dataset to be registered.

    `fields` are those of Crucible's dataset record (project_id, dataset_name, measurement ...), `record` is the
    provenance record, `metadata` the scientific metadata beside it, `slots` are those that it is to fill.
    """

    mfid: str
    fields: JsonMapping
    record: StepRecord | FilesRecord
    metadata: JsonMapping
    files: tuple[LocalFile, ...]
    keywords: tuple[str, ...] = ()
    slots: Mapping[str, SlotClaim] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    ingest: bool = True
    ingestor: str | None = None
    ingestion_timeout_s: float = 600.0
    waits_for_ingestion: bool = False

    def without_secrets(self) -> NewDataset:
        """Return it with secrets masked, which its record notes. Raises InputError for one that the id depends on."""
        learn()
        found: list[str] = []
        document = self.record.document()
        record = masked(document, "/record", found, by_name=False)
        fields, metadata = masked(self.fields, "/fields", found), masked(self.metadata, "/metadata", found)
        keywords = tuple(masked(self.keywords, "/keywords", found))
        fixed = ("/record/recipe", "/record/generated", "/fields/project_id")
        if places := ", ".join(place for place in found if place.startswith(fixed)):
            raise InputError(
                f"registering {fields['dataset_name']!r}: there is a secret in {places}, which cannot be masked there; "
                f"rename the file or the project, or {WAY_OUT}"
            )
        if not found:
            return self
        record["masked"] = sorted({*document.get("masked", ()), *found})
        safe = type(self.record).model_validate(record)
        return replace(self, fields=fields, record=safe, metadata=metadata, keywords=keywords)

    @property
    def name(self) -> str:
        """The dataset's name."""
        return str(self.fields["dataset_name"])

    @property
    def project(self) -> str:
        """The project that it belongs to."""
        return str(self.fields["project_id"])

    def ref(self, mfid: str) -> DatasetRef:
        """Return the dataset for use by steps, under the id that it has."""
        files = tuple(file.ref for file in self.files)
        samples, origin = tuple(sorted(set(self.samples))), origin_of(self.record.recipe)
        taken, context = str(self.fields.get("timestamp") or ""), context_of(self.fields)
        return DatasetRef(mfid, self.name, files, samples, origin, self.parents, taken=taken, context=context)


def derived(new: NewDataset, used: Sequence[UsedDataset], kinds: Collection[str] = INHERITED) -> NewDataset:
    """Return the dataset as a result of what it used: with parents, the time of its data, and what it inherits."""
    data = [part.dataset for part in used if part.chosen is None]  # inputs chosen by time do not describe a result
    data = data or [part.dataset for part in used]
    taken, context = last_taken(data), inherited_context(data, kinds, new.fields)
    inherited = {name: values[0] for name, values in context.items()}
    samples = sorted({sample for part in used for sample in part.dataset.samples}) if "samples" in kinds else ()
    return replace(
        new,
        fields={**new.fields, **({"timestamp": taken} if taken else {}), **inherited},
        record=new.record.model_copy(update={"inherited": context}) if context else new.record,
        parents=tuple(part.dataset.mfid for part in used),
        samples=tuple(samples),
    )


RESULT = "result.json"
COPIED_BYTES = 1 << 20  # chosen: copying so little costs no more than linking, and nobody else can write to the copy
_SEAL, _CONTENT = b'{"sha256": "', b'", "result": '
_START = len(_SEAL) + 64 + len(_CONTENT)


class DamageError(Exception):
    """A payload is not what was written; the message says how it differs."""


@dataclass(frozen=True)
class Payload:
    """The outputs of one step, made and not yet delivered. `datasets` have their files in `folder`.

    `run` made it; empty where that is not known.
    """

    folder: Path
    step: str
    project: str
    made: str
    datasets: tuple[NewDataset, ...]
    run: str

    @property
    def name(self) -> str:
        """The least id among the outputs."""
        return min(new.mfid for new in self.datasets)

    def row(self, account: str) -> ResultRow:
        """Return its row, which takes a tenth of the memory."""
        parents = frozenset(parent for new in self.datasets for parent in new.parents)
        about = (self.run, account, self.project, self.step, self.name, self.outputs)
        return ResultRow(*about, MADE, self.made, parents=parents)

    @property
    def outputs(self) -> dict[str, str]:
        """{output: id}; a dataset that no step made is listed under its id."""
        records = ((new.mfid, new.record.as_step) for new in self.datasets)
        return {record.output if record else mfid: mfid for mfid, record in records}

    @property
    def supports(self) -> bool:
        """Whether the payload supports results (source or environment) and is not one itself."""
        return all(getattr(new.record.activity, "kind", "") in (SOURCE, SURROUNDINGS) for new in self.datasets)

    @property
    def files(self) -> list[LocalFile]:
        """The files in its folder."""
        return [file for new in self.datasets for file in new.files]

    def with_files(self, change: Callable[[LocalFile], LocalFile]) -> Payload:
        """Return the payload with each of these files changed."""
        datasets = (replace(new, files=tuple(map(change, new.files))) for new in self.datasets)
        return replace(self, datasets=tuple(datasets))


def write_payload(payload: Payload, *, durable: bool, draft: Path | None = None) -> Payload:
    """Write a payload into its folder, completely or not at all, and return it with its files there.

    They are linked or copied, or moved if they lie in the `draft`: a folder beside that of the payload, which becomes
    it, unless an equal payload is there. With `durable`, all is on the disk on return.
    """
    given, files = draft, {file.ref.sha256: file for file in payload.files}
    if draft is None:
        draft = payload.folder.with_name(f".{payload.folder.name}-{secrets.token_hex(4)}")
        draft.mkdir(mode=0o700)
    for sha256, file in files.items():
        if file.path.parent == given:
            file.path.replace(draft / sha256)
        else:
            _link_or_copy(file.path, draft / sha256, file.checksums.mtime_ns)
    for left in [path for path in draft.iterdir() if path.name not in files] if given else ():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    kept = {name: vars(payload)[name] for name in ("step", "project", "made", "datasets", "run")}
    content = json.dumps(kept, default=_parts_of, ensure_ascii=False).encode()
    seal = hashlib.sha256(content).hexdigest().encode()
    (draft / RESULT).write_bytes(_SEAL + seal + _CONTENT + content + b"}")
    for name in (*files, RESULT) if durable else ():
        flush(draft / name)
    try:
        draft.replace(payload.folder)
    except OSError:  # an undelivered folder of an earlier attempt, or of another flow
        if not given or not (payload.folder / RESULT).exists():
            shutil.rmtree(payload.folder, ignore_errors=True)
            draft.replace(payload.folder)
    if durable:
        flush(payload.folder.parent)
    return _located(payload)


def read_payload(folder: Path) -> Payload:
    """Read a payload. Raises FileNotFoundError if there is none, DamageError if its seal or a file is wrong."""
    stored = (folder / RESULT).read_bytes()
    content = stored[_START:-1]
    if hashlib.sha256(content).hexdigest().encode() != stored[len(_SEAL) : len(_SEAL) + 64]:
        raise DamageError(f"{RESULT} does not match its seal")
    try:
        payload = _located(_payload_in(folder, json.loads(content)))
    except (ValueError, KeyError, TypeError) as error:
        raise DamageError(f"{RESULT} cannot be read: {type(error).__name__}") from error
    for file in payload.files:
        size = file.path.stat().st_size if file.path.exists() else None
        if size != file.ref.size:
            state = "is missing" if size is None else f"has {size} bytes"
            raise DamageError(f"the file {file.ref.name}, of {file.ref.size} bytes, {state}")
    return payload


def damaged_files(payload: Payload) -> tuple[Payload, list[str]]:
    """Hash all files of a payload; return it with their present times, and the names of damaged files."""
    scanned: dict[str, FileChecksums] = {}
    wrong = []
    for file in payload.files:
        if file.ref.sha256 not in scanned:
            try:
                checksums = scan_file(file.path)
            except OSError:
                checksums = None
            if checksums is None or checksums.sha256 != file.ref.sha256:
                wrong.append(file.ref.name)
                continue
            scanned[file.ref.sha256] = checksums
    if wrong:
        return payload, wrong
    return payload.with_files(lambda file: replace(file, checksums=scanned[file.ref.sha256])), []


def _located(payload: Payload) -> Payload:
    """Return the payload with the paths of its files in its folder, where files with equal bytes are stored once."""
    stored = {file.ref.sha256: file.checksums for file in payload.files}

    def located(file: LocalFile) -> LocalFile:
        return replace(file, path=payload.folder / file.ref.sha256, checksums=stored[file.ref.sha256])

    return payload.with_files(located)


def _link_or_copy(source: Path, target: Path, mtime_ns: int) -> None:
    """Link or copy a file; its modification time is that of the hashed bytes."""
    stat = source.stat()
    if stat.st_size > COPIED_BYTES and stat.st_mtime_ns == mtime_ns:
        with suppress(OSError):  # a file system without links, or another one
            target.hardlink_to(source)
            return
    shutil.copyfile(source, target)
    os.utime(target, ns=(stat.st_atime_ns, mtime_ns))


def _parts_of(part: Any) -> object:
    """Return the parts of a payload for JSON."""
    if isinstance(part, FileRef | FileChecksums | SlotClaim):
        return part.to_json()
    if isinstance(part, NewDataset | LocalFile):
        return vars(part)
    if isinstance(part, Path):
        return str(part)
    return {**part} if isinstance(part, Mapping) else part.document()


def _payload_in(folder: Path, stored: JsonMapping) -> Payload:
    from crucible_lineage.provenance.schema import new_record  # pydantic, which planning should not pay

    datasets = tuple(
        NewDataset(
            **{
                **new,
                "record": new_record(new["record"]),
                "files": tuple(
                    LocalFile(folder, FileRef.from_json(file["ref"]), FileChecksums.from_json(file["checksums"]))
                    for file in new["files"]
                ),
                "slots": {key: SlotClaim.from_json(claim) for key, claim in new["slots"].items()},
                **{name: tuple(new[name]) for name in ("keywords", "parents", "samples")},
            }
        )
        for new in stored["datasets"]
    )
    return Payload(folder, stored["step"], stored["project"], stored["made"], datasets, stored["run"])
