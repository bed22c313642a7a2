"""Make results again from their records, outside of any run, and compare. Only `restore` changes anything."""

from __future__ import annotations

import hashlib
import io
import json
import random
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.core.datasets import visible_dataset
from crucible_lineage.errors import ChecksumError, InputError, shortened
from crucible_lineage.lineage.model import CURRENT
from crucible_lineage.machine.checksums import file_sha256
from crucible_lineage.machine.disk import private_folder
from crucible_lineage.pipeline.job.keeping import present_environment
from crucible_lineage.pipeline.plan.fetch import LOST, cached_file, has_bytes, send_again
from crucible_lineage.provenance.recipe import gives_id
from crucible_lineage.provenance.record import contradictions, read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.read import whole_record
from crucible_lineage.remake.confine import RemakeError, files_in, unpack
from crucible_lineage.remake.driver import NOT_MADE, PLAN, Options, Outcome, remake
from crucible_lineage.remake.kit import MANIFEST, RECORDS, BytesOf, FileOf, KitStep, kept_bytes, write_kit
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import standings
from crucible_lineage.statements.consent import Consent, RecordedCode, recorded_code

if TYPE_CHECKING:
    from crucible_lineage.provenance.schema import KeptFile

MOST_FINDINGS = 5  # chosen: in a message
MOST_SHOWN = 1 << 20  # chosen: bytes that are printed of a source file


@dataclass(frozen=True)
class Remakable:
    """Results `mfids` with the steps to be made again for them, the code of each, and where what these need is."""

    mfids: Sequence[str]
    steps: Sequence[KitStep]
    codes: Sequence[RecordedCode]
    file_of: FileOf
    bytes_of: BytesOf
    compared_with: str


def reproduce(
    session: Session,
    asked: Sequence[str] | Path,
    options: Options,
    report: Callable[[str], None],
    keep: Path | None = None,
    consent: Consent | None = None,
) -> list[Outcome]:
    """Make results, or what a bundle is about, again, with `options.is_all` all their ancestors, too.

    The new files stay in the folder `keep`, if given. Of a bundle only what its records name by SHA-256 is used, by
    this program alone. Raises InputError if no step made one of the results, if the bundle does not lead to its ids,
    or for code of others without `consent`.
    """
    with _folder(session) as name:
        found = _found(session, asked, name, is_all=options.is_all)
        codes = [code for code in found.codes if options.is_all or code.mfid in found.mfids]
        (consent or Consent()).require(session, codes)
        write_kit(name / "kit", found.mfids[0], found.steps, found.file_of, found.bytes_of)
        outcomes = _remake(name / "kit", found.mfids, options, keep or name / "made", report)
    for outcome in outcomes:
        outcome.compared_with = found.compared_with
    return outcomes


def code_to_show(session: Session, asked: Sequence[str] | Path) -> Iterator[str]:
    """Yield what making these results, or all of a bundle, again would run: its authors, its call, its source files."""
    with _folder(session) as name:
        found = _found(session, asked, name, is_all=False)
        for step, code in zip(found.steps, found.codes, strict=True):
            yield f"{code}, with {json.dumps(step.record.recipe['params'], ensure_ascii=False)}"
            if (archive := step.record.activity.code.archive) is None:
                continue
            with zipfile.ZipFile(io.BytesIO(found.bytes_of(archive))) as source:
                for entry in source.infolist():
                    text = source.open(entry).read(MOST_SHOWN).decode(errors="replace")
                    yield f"# {entry.filename}, {entry.file_size} bytes\n{text}"


def _found(session: Session, asked: Sequence[str] | Path, scratch: Path, *, is_all: bool) -> Remakable:
    if isinstance(asked, Path):
        return _of_bundle(asked, scratch / "bundle")
    return _of_crucible(session, asked, is_all=is_all)


@contextmanager
def _folder(session: Session) -> Iterator[Path]:
    work = private_folder(session.settings.data / "work")
    with tempfile.TemporaryDirectory(dir=work, prefix="reproduce-") as name:
        yield Path(name)


@dataclass(frozen=True)
class RestoredFile:
    """A file of a dataset that Crucible lacked; `source` is where its bytes came from, empty if they were not found."""

    mfid: str
    filename: str
    sha256: str
    source: str = ""


def restore(
    session: Session, mfid: str, folders: Sequence[Path], options: Options, report: Callable[[str], None],
    consent: Consent,
) -> list[RestoredFile]:  # fmt: skip
    """Send the lost and damaged files of a dataset again: from copies here and in other data folders, else remade.

    Bytes count only by the recorded SHA-256. Raises InputError if a result cannot be remade, or is of others,
    without `consent`.
    """
    record = read_record(visible_dataset(session.client, mfid, "reproduce").scientific_metadata)
    lost = {file.filename: file.sha256_hash for file in session.client.files.list(mfid) if file.sha256_hash}
    with suppress(*LOST):  # an attached record that is damaged is restored itself
        lost |= {file.name: file.sha256 for file in whole_record(session.client, mfid, record).files} if record else {}
    lost = {name: sha256 for name, sha256 in lost.items() if not has_bytes(session.client, mfid, name, sha256)}
    restored = []

    def send(found: Mapping[str, Path], source: str = "") -> None:
        for name in [name for name, sha256 in lost.items() if sha256 in found]:
            path, sha256 = found[lost[name]], lost.pop(name)
            send_again(session.client, mfid, name, sha256, path)
            restored.append(RestoredFile(mfid, name, sha256, source or str(path)))

    with _folder(session) as name:
        copies = {sha256: _copy(session, sha256, folders, name) for sha256 in lost.values()}
        send({sha256: path for sha256, path in copies.items() if path})
        if lost and record is not None and record.as_step is not None:
            (outcome,) = reproduce(session, [mfid], options, report, name / "made", consent)
            if outcome.verdict == NOT_MADE:
                raise InputError(f"reproduce {mfid}: {outcome.note or next(outcome.lines(), '')}")
            report("\n".join(outcome.lines()))
            made = (path for path in (name / "made").rglob("*") if path.is_file() and not path.is_symlink())
            send({file_sha256(path): path for path in made}, "its step, run again")
    return [*restored, *(RestoredFile(mfid, name, sha256) for name, sha256 in lost.items())]


def _copy(session: Session, sha256: str, folders: Sequence[Path], scratch: Path) -> Path | None:
    """Return a copy of these bytes: in this data folder, in others and backups, or of the present environment."""
    head, tail = sha256[:2], sha256[2:]
    inside = (Path("cache", head, sha256), Path("crucible", "contents", head, tail), Path("contents", head, tail))
    paths = [folder / place for folder in (session.settings.data, *folders) for place in inside]
    for name, content in present_environment(session):
        paths.append(scratch / name)
        paths[-1].write_bytes(content)
    return next((path for path in paths if path.is_file() and file_sha256(path) == sha256), None)


def sampled(session: Session, project: str, count: int) -> list[str]:
    """Choose current results of a project's steps at random. Raises InputError if there is none."""
    found = standings(session, project).items()
    matching = sorted(mfid for mfid, standing in found if standing.summary.step and standing.state == CURRENT)
    if not matching:
        raise InputError(f"reproduce: project {project!r} has no current result of a step")
    return random.sample(matching, min(count, len(matching)))


def _remake(
    kit: Path, mfids: Sequence[str], options: Options, work: Path, report: Callable[[str], None]
) -> list[Outcome]:
    try:
        outcomes = remake(kit, mfids, options, work.absolute(), report)  # steps run in other folders
    except RemakeError as error:
        raise InputError(f"reproduce {', '.join(mfids)}: {error}") from error
    if not outcomes:
        raise InputError(f"reproduce {', '.join(mfids)}: no step that is recorded here made that")
    return outcomes


def _of_crucible(session: Session, mfids: Sequence[str], *, is_all: bool) -> Remakable:
    """Return these results, with `is_all` their ancestors, too."""
    steps: list[KitStep] = []
    codes: list[RecordedCode] = []
    waiting, seen = list(mfids), set[str]()
    while waiting:
        mfid = waiting.pop()
        if mfid in seen:
            continue
        seen.add(mfid)
        dataset = visible_dataset(session.client, mfid, "reproduce", include_owner=True)
        record = read_record(dataset.scientific_metadata)
        step = record.as_step if record is not None else None
        if step is None and mfid in mfids:
            raise InputError(f"reproduce {mfid}: it was not made by a step that is recorded; there is nothing to run")
        if step is not None:
            try:
                complete = whole_record(session.client, mfid, step)
            except ChecksumError as error:
                raise InputError(f"reproduce {mfid}: {error}") from error
            steps.append(KitStep(mfid, complete, dataset.scientific_metadata or {}))
            codes.append(recorded_code(dataset, complete))
            waiting += complete.parents if is_all else ()
    return Remakable(
        *(mfids, steps, codes, lambda mfid, file: cached_file(DatasetRef(mfid, mfid, (file,)), file, session)),
        *(lambda kept: kept_bytes(session, kept), Outcome.compared_with),
    )


def _of_bundle(bundle: Path, folder: Path) -> Remakable:
    """Return what a bundle is about and all its steps, unpacked into a folder unless it is one.

    A bundle proves no account: its maker, named by the SHA-256 of its manifest, answers for the code. Raises InputError
    unless the files are those of the manifest, and recipes and records agree and give the ids.
    """
    try:
        if bundle.is_file():
            unpack(bundle, folder)
        else:
            folder = bundle
        about = str(json.loads((folder / PLAN).read_bytes())["about"])
        listed = (folder / MANIFEST).read_bytes()
        hashes = {name: sha256 for sha256, _, name in (line.partition("  ") for line in listed.decode().splitlines())}
        present = {path.relative_to(folder).as_posix(): path for path in files_in(folder)}
        faults = [
            f"{name} is missing or holds other bytes"
            for name, sha256 in hashes.items()
            if name not in present or file_sha256(present[name]) != sha256
        ]
        steps: list[KitStep] = []
        for name in [] if faults else [name for name in hashes if name.startswith(f"{RECORDS}/")]:
            mfid, metadata = Path(name).stem, json.loads(present[name].read_bytes()).get("scientific_metadata")
            record = read_record(metadata)
            if record is not None and record.is_whole:
                faults += [] if gives_id(record.recipe, mfid) else [f"{mfid} is not the id of its recipe"]
                faults += [f"{mfid}: its record contradicts itself in {part}" for part in contradictions(record)]
                steps += [KitStep(mfid, step, metadata)] if (step := record.as_step) else []
    except (OSError, RemakeError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"reproduce {bundle}: it is no bundle: {error}") from error
    if faults:
        raise InputError(
            f"reproduce {bundle}: it does not lead to its ids, so nothing of it was run: "
            f"{shortened(faults, MOST_FINDINGS)}; get it from its maker again"
        )
    maker, files = hashlib.sha256(listed).hexdigest(), {sha256: present[name] for name, sha256 in hashes.items()}

    def kept(file: KeptFile) -> bytes:
        if file.sha256 not in files:
            raise InputError(f"the bundle has no file with the SHA-256 {file.sha256}")
        return files[file.sha256].read_bytes()

    codes = [
        RecordedCode(
            *(step.mfid, step.record.declared_step, step.record.activity.function, frozenset({maker})),
            f"the maker of the bundle, who names {step.record.agent.username}",
        )
        for step in steps
    ]
    compared_with = f"the bundle whose manifest has the SHA-256 {maker}"
    return Remakable([about], steps, codes, lambda _, file: files.get(file.sha256), kept, compared_with)
