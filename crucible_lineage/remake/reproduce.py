"""Make results again from their records, outside of any run, and compare: nothing in Crucible is changed."""

from __future__ import annotations

import json
import random
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from crucible_lineage.checksums import file_sha256
from crucible_lineage.disk import private_folder
from crucible_lineage.errors import ChecksumError, InputError, NotFoundError
from crucible_lineage.lineage.model import CURRENT
from crucible_lineage.pipeline.plan.fetch import cached_file
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.registration.read import whole_record
from crucible_lineage.remake.driver import NOT_DETERMINISTIC, NOT_MADE, PLAN, Options, Outcome, RemakeError, remake
from crucible_lineage.remake.kit import KitStep, write_kit
from crucible_lineage.remake.receipts import known_to_vary
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import standings
from crucible_lineage.times import seconds_in, utc

ENVIRONMENTS = "environments"  # folder of built environments in the data folder


def reproduce_datasets(
    session: Session, mfids: Sequence[str], options: Options, report: Callable[[str], None], keep: Path | None = None
) -> list[Outcome]:
    """Make these results again, with `options.is_all` all their ancestors, too.

    The new files stay in the folder `keep`, if given. Raises InputError if no step made one of the results.
    """
    outputs = _outputs(session, mfids, is_all=options.is_all)
    with tempfile.TemporaryDirectory(dir=private_folder(session.settings.data / "work"), prefix="reproduce-") as name:
        kit = Path(name) / "kit"

        def path_of(mfid: str, file: FileRef) -> str | None:
            path = f"data/{mfid}/{file.sha256}"
            if not (kit / path).exists():
                source = cached_file(DatasetRef(mfid, mfid, (file,)), file, session)
                (kit / path).parent.mkdir(parents=True, exist_ok=True)
                (kit / path).write_bytes(source.read_bytes())
            return path

        write_kit(session, kit, mfids[0], outputs, path_of)
        outcomes = _remake(kit, mfids, options, keep or Path(name) / "made", report)
    _note_history(session, outcomes, {output.mfid: output.metadata for output in outputs})
    return outcomes


@contextmanager
def remade_files(session: Session, mfid: str) -> Iterator[dict[str, Path]]:
    """Make a result again and yield its files by SHA-256, in a folder that is removed afterwards.

    Uses the present environment, and one of the recorded versions if that gives other bytes. Raises InputError if the
    result cannot be made.
    """
    work = private_folder(session.settings.data / "work")
    with tempfile.TemporaryDirectory(dir=work, prefix="again-") as name:
        files: dict[str, Path] = {}
        for here in (True, False):
            options = Options(here=here, environments=session.settings.data / ENVIRONMENTS)
            folder = Path(name) / ("here" if here else "as-recorded")
            (outcome,) = reproduce_datasets(session, [mfid], options, lambda _: None, folder)
            if outcome.verdict == NOT_MADE:
                raise InputError(outcome.note or next(outcome.lines(), ""))
            files |= {file_sha256(path): path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()}
            recorded = [file["sha256"] for own in outcome.recorded.values() for file in own if not file.get("log")]
            if all(sha256 in files for sha256 in recorded):
                break
        yield files


def _note_history(session: Session, outcomes: Sequence[Outcome], metadata: Mapping[str, Mapping[str, object]]) -> None:
    """Add as the first cause of a difference that the step is known to be non-deterministic."""
    for outcome in outcomes:
        if outcome.is_good or not outcome.is_tried or any(NOT_DETERMINISTIC in cause for cause in outcome.causes):
            continue
        session.mirror.sync_statements()
        reasons = (known_to_vary(session, mfid, {"scientific_metadata": metadata[mfid]}) for mfid in outcome.mfids)
        outcome.causes[:0] = [reason for reason in reasons if reason][:1]


def reproduce_bundle(
    bundle: Path, mfids: Sequence[str], options: Options, report: Callable[[str], None], keep: Path | None = None
) -> list[Outcome]:
    """Make the result that a bundle is about again, or others in it. Raises InputError if the bundle is unsuitable."""
    with tempfile.TemporaryDirectory(prefix="reproduce-") as name:
        kit = bundle
        if bundle.is_file():
            kit = Path(name) / "kit"
            try:
                with zipfile.ZipFile(bundle) as archive:
                    archive.extractall(kit)
            except (OSError, zipfile.BadZipFile) as error:
                raise InputError(f"reproduce {bundle}: it is no bundle: {error}") from error
        if not (kit / PLAN).is_file():
            raise InputError(f"reproduce {bundle}: it has no {PLAN}; bundle the result again with this version")
        about = json.loads((kit / PLAN).read_text(encoding="utf-8"))["about"]
        return _remake(kit, mfids or [about], options, keep or Path(name) / "made", report)


def sampled(session: Session, project: str, count: int, older_than: str | None = None) -> list[str]:
    """Choose current results of a project's steps at random.

    Raises InputError if there is none, or `older_than` (as in 30d, 12h) is not an age.
    """
    until = datetime.now(UTC) - _age(older_than) if older_than else datetime.now(UTC)
    found = standings(session, project).items()
    matching = sorted(
        mfid for mfid, one in found if one.summary.step and one.state == CURRENT and utc(one.summary.created) <= until
    )
    if not matching:
        raise InputError(f"reproduce: project {project!r} has no current result of a step that is old enough")
    return random.sample(matching, min(count, len(matching)))


def _age(text: str) -> timedelta:
    try:
        return timedelta(seconds=seconds_in(text))
    except ValueError as error:
        raise InputError(f"--older-than {text}: give an age, as in 30d or 12h") from error


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


def _outputs(session: Session, mfids: Sequence[str], *, is_all: bool) -> list[KitStep]:
    """Return these results, with `is_all` their ancestors, too."""
    outputs: dict[str, KitStep] = {}
    waiting, seen = list(mfids), set[str]()
    while waiting:
        mfid = waiting.pop()
        if mfid in seen:
            continue
        seen.add(mfid)
        output = _output(session, mfid)
        if output is None and mfid in mfids:
            raise InputError(f"reproduce {mfid}: it was not made by a step that is recorded; there is nothing to run")
        if output is not None:
            outputs[mfid] = output
            waiting += output.record.parents if is_all else ()
    return list(outputs.values())


def _output(session: Session, mfid: str) -> KitStep | None:
    try:
        dataset = session.client.datasets.get(mfid, include_metadata=True)
    except NotFoundError as error:
        raise InputError(f"reproduce {mfid}: the dataset does not exist, or is not visible to this key") from error
    record = read_record(dataset.scientific_metadata)
    step = record.as_step if record is not None else None
    if step is None:
        return None
    try:
        complete = whole_record(session.client, mfid, step)
    except ChecksumError as error:
        raise InputError(f"reproduce {mfid}: {error}") from error
    return KitStep(mfid, complete, dataset.scientific_metadata or {})
