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
from crucible_lineage.remake.attempts import known_to_vary
from crucible_lineage.remake.confine import RemakeError, files_in, unpack
from crucible_lineage.remake.driver import NOT_DETERMINISTIC, NOT_MADE, PLAN, Options, Outcome, remake
from crucible_lineage.remake.kit import MANIFEST, RECORDS, KitStep, kept_bytes, write_kit
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import standings
from crucible_lineage.statements.consent import Consent, RecordedCode, recorded_code

if TYPE_CHECKING:
    from crucible_lineage.provenance.schema import KeptFile

MOST_FINDINGS = 5  # chosen: in a message
MOST_SHOWN = 1 << 20  # chosen: bytes that are printed of a source file


def reproduce_datasets(
    session: Session,
    mfids: Sequence[str],
    options: Options,
    report: Callable[[str], None],
    keep: Path | None = None,
    consent: Consent | None = None,
) -> list[Outcome]:
    """Make these results again, with `options.is_all` all their ancestors, too.

    The new files stay in the folder `keep`, if given. Raises InputError if no step made one of the results, or if
    one is of others, without `consent`.
    """
    outputs, codes = _outputs(session, mfids, is_all=options.is_all)
    (consent or Consent()).require(session, codes)
    with _folder(session) as name:
        write_kit(
            *(name / "kit", mfids[0], outputs),
            lambda mfid, file: cached_file(DatasetRef(mfid, mfid, (file,)), file, session),
            lambda kept: kept_bytes(session, kept),
        )
        outcomes = _remake(name / "kit", mfids, options, keep or name / "made", report)
    _note_history(session, outcomes, {output.mfid: output.metadata for output in outputs})
    return outcomes


def reproduce_bundle(
    session: Session,
    bundle: Path,
    options: Options,
    report: Callable[[str], None],
    keep: Path | None = None,
    consent: Consent | None = None,
) -> list[Outcome]:
    """Make the result that a bundle is about again, with `options.is_all` all in it, by this program alone.

    Of the bundle only what its records name by SHA-256 is used. Raises InputError if it does not lead to its ids, or
    without consent to the code.
    """
    with _folder(session) as name:
        opened = open_bundle(bundle, name / "bundle")
        codes = [code for code in opened.codes if options.is_all or code.mfid == opened.about]
        (consent or Consent()).require(session, codes)
        files = opened.files
        write_kit(
            *(name / "kit", opened.about, opened.outputs, lambda _, file: files.get(file.sha256)), opened.kept_bytes
        )
        outcomes = _remake(name / "kit", [opened.about], options, keep or name / "made", report)
    for outcome in outcomes:
        outcome.compared_with = f"the bundle whose manifest has the SHA-256 {opened.sha256}"
    return outcomes


def code_to_show(session: Session, mfids: Sequence[str], bundle: Path | None) -> Iterator[str]:
    """Yield what making these results, or all of a bundle, again would run: its authors, its call, its source files."""
    with _folder(session) as name:
        opened = open_bundle(bundle, name / "bundle") if bundle else None
        outputs, codes = (opened.outputs, opened.codes) if opened else _outputs(session, mfids, is_all=False)
        for output, code in zip(outputs, codes, strict=True):
            yield f"{code}, with {json.dumps(output.record.recipe['params'], ensure_ascii=False)}"
            if (archive := output.record.activity.code.archive) is None:
                continue
            content = opened.kept_bytes(archive) if opened else kept_bytes(session, archive)
            with zipfile.ZipFile(io.BytesIO(content)) as source:
                for entry in source.infolist():
                    text = source.open(entry).read(MOST_SHOWN).decode(errors="replace")
                    yield f"# {entry.filename}, {entry.file_size} bytes\n{text}"


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
            (outcome,) = reproduce_datasets(session, [mfid], options, report, name / "made", consent)
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


def _note_history(session: Session, outcomes: Sequence[Outcome], metadata: Mapping[str, Mapping[str, object]]) -> None:
    """Add as the first cause of a difference that the step is known to be non-deterministic."""
    for outcome in outcomes:
        if (
            outcome.is_good
            or outcome.verdict == NOT_MADE
            or any(NOT_DETERMINISTIC in cause for cause in outcome.causes)
        ):
            continue
        reasons = (known_to_vary(session, mfid, {"scientific_metadata": metadata[mfid]}) for mfid in outcome.mfids)
        outcome.causes[:0] = [reason for reason in reasons if reason][:1]


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


def _outputs(session: Session, mfids: Sequence[str], *, is_all: bool) -> tuple[list[KitStep], list[RecordedCode]]:
    """Return these results, with `is_all` their ancestors, too, and the code that makes each again."""
    outputs: list[KitStep] = []
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
            outputs.append(KitStep(mfid, complete, dataset.scientific_metadata or {}))
            codes.append(recorded_code(dataset, complete))
            waiting += complete.parents if is_all else ()
    return outputs, codes


@dataclass(frozen=True)
class OpenedBundle:
    """A bundle whose files are those of its manifest, of which `sha256` is the SHA-256: its files by their own.

    `outputs` are its results of steps, whose recipes give their ids.
    """

    about: str
    sha256: str
    files: Mapping[str, Path]
    outputs: Sequence[KitStep]

    @property
    def codes(self) -> list[RecordedCode]:
        """The code of each output. A bundle proves no account: its maker answers for it."""
        return [
            RecordedCode(
                *(output.mfid, output.record.declared_step, output.record.activity.function, frozenset({self.sha256})),
                f"the maker of the bundle, who names {output.record.agent.username}",
            )
            for output in self.outputs
        ]

    def kept_bytes(self, kept: KeptFile) -> bytes:
        """Return source or environment by the hash in a record. InputError if it does not hold them."""
        if kept.sha256 not in self.files:
            raise InputError(f"the bundle has no file with the SHA-256 {kept.sha256}")
        return self.files[kept.sha256].read_bytes()


def open_bundle(bundle: Path, folder: Path) -> OpenedBundle:
    """Unpack a bundle into a folder, or take one that is a folder. InputError unless it leads to its ids."""
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
        outputs: list[KitStep] = []
        for name in [] if faults else [name for name in hashes if name.startswith(f"{RECORDS}/")]:
            mfid, metadata = Path(name).stem, json.loads(present[name].read_bytes()).get("scientific_metadata")
            record = read_record(metadata)
            if record is not None and record.is_whole:
                faults += [] if gives_id(record.recipe, mfid) else [f"{mfid} is not the id of its recipe"]
                faults += [f"{mfid}: its record contradicts itself in {part}" for part in contradictions(record)]
                outputs += [KitStep(mfid, step, metadata)] if (step := record.as_step) else []
    except (OSError, RemakeError, ValueError, KeyError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise InputError(f"reproduce {bundle}: it is no bundle: {error}") from error
    if faults:
        raise InputError(
            f"reproduce {bundle}: it does not lead to its ids, so nothing of it was run: "
            f"{shortened(faults, MOST_FINDINGS)}; get it from its maker again"
        )
    files = {sha256: present[name] for name, sha256 in hashes.items()}
    return OpenedBundle(about, hashlib.sha256(listed).hexdigest(), files, outputs)
