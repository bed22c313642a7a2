"""The dataset of a result: what it is called, what its record and metadata say, and its registration."""

from __future__ import annotations

import json
import shutil
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from crucible_lineage.errors import FileChangedError
from crucible_lineage.ids import canonical_json
from crucible_lineage.pipeline.inputs.existing import hash_files
from crucible_lineage.pipeline.job.job import without_step
from crucible_lineage.pipeline.job.keeping import KeptSupport, support_of_code
from crucible_lineage.pipeline.logs import own_secrets
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.provenance.environment import software
from crucible_lineage.provenance.recipe import UsedDataset, derived_mfid
from crucible_lineage.provenance.record import Activity, step_record
from crucible_lineage.refs import DatasetRef, last_taken
from crucible_lineage.registration.new_dataset import NewDataset
from crucible_lineage.registration.read import recipe_keyword
from crucible_lineage.registration.register import RegistrationHooks, register_output
from crucible_lineage.registration.reliance import add_equal_parents
from crucible_lineage.session import Session
from crucible_lineage.tasks.artifacts import tell_asset
from crucible_lineage.tasks.dropin.arguments import Input
from crucible_lineage.tasks.dropin.description import TaskDescription, cache_keyword
from crucible_lineage.tasks.dropin.origins import CALL
from crucible_lineage.tasks.dropin.output_paths import learn
from crucible_lineage.tasks.dropin.result import (
    TaskResult,
    about_of,
    call_label,
    fingerprint,
    recipe_of,
    slots_of,
    used_datasets,
)
from crucible_lineage.tasks.dropin.secret import hidden, hidden_text, known_secrets
from crucible_lineage.tasks.dropin.values.storing import Stored

METADATA = "flow"  # the key under which a dataset's metadata say how the flow knows it
LONG_METADATA = 4000  # characters of JSON
IN_JSON = ("json", "spelled", "tuple", "set", "model", "dataclass", "scalar")  # kinds that are one file of JSON


def registered(
    result: TaskResult, stored: Stored, inputs: list[Input], folder: Path, places: set[str], ended: datetime
) -> DatasetRef:
    """The dataset of a result, registered: as a child of its inputs, or, if it has none, as files of the flow's own."""
    session = result.recording.session
    try:
        used = used_datasets(inputs)
        dataset = _child(result, stored, inputs, used, places, ended) if used else _root(result, stored)
        if result.key and not result.recording.undelivered.is_kept(dataset.mfid):
            session.client.datasets.add_keyword(dataset.mfid, cache_keyword(result.key))
        for file in stored.files:
            with suppress(FileChangedError):
                session.cache.take(file.path, file.checksums)
        learn(result, places)
        return dataset
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _child(
    result: TaskResult,
    stored: Stored,
    inputs: list[Input],
    used: list[UsedDataset],
    places: set[str],
    ended: datetime,
) -> DatasetRef:
    session, described = result.recording.session, result.described
    recipe = recipe_of(result, used, places, stored.digest)
    key = derived_mfid(recipe_of(result, used, places, None))
    mfid = derived_mfid(recipe)
    with session.turn(mfid):
        filled, made = slots_of(result, about_of(inputs)), threading.Event()
        known = session.mirror.known(mfid)
        if known is None:
            new = _new_dataset(result, stored, inputs, used, recipe, mfid, ended)
            by_call = (recipe_keyword(key),) if stored.exact else ()
            keys = (cache_keyword(result.key),) if result.key else ()
            new = replace(
                new, slots=filled, keywords=(*new.keywords, *result.recording.slots.keywords, *by_call, *keys)
            )

            def register() -> DatasetRef:
                return register_output(
                    session.client, new, session.machine, stages=RegistrationHooks(before_complete=made.set)
                )

            known = result.recording.undelivered.registered(described.name, new, register)
            if result.recording.undelivered.is_kept(known.mfid):
                result.recording.slots.rely(result.project, filled, known, made=True)
                result.logger.debug("%s is dataset %s, which waits in the outbox", described.name, known.mfid)
                return known
            told = {"project": result.project, "flow": result.recording.destination.flow, "task": described.name}
            tell_asset(known, [part.dataset.mfid for part in used], told)
    result.recording.slots.rely(result.project, filled, known, made=made.is_set())
    known = linked(known, used, session)
    session.mirror.trust({mfid: known, known.mfid: known})
    if stored.exact:  # the same call may take it from now on, here and on other machines
        session.client.datasets.add_keyword(known.mfid, recipe_keyword(key))
        session.mirror.trust({key: known})
    result.logger.debug("%s is dataset %s", described.name, known.mfid)
    return known


def linked(dataset: DatasetRef, used: list[UsedDataset], session: Session) -> DatasetRef:
    """The dataset as a child of all that it is the same of: parents of equal bytes and origin give equal results."""
    if len(dataset.parents) != len(used):
        return dataset
    noted = {*dataset.parents, *dataset.equals}
    pairs = zip(used, dataset.parents, strict=True)
    equal = {part.dataset.mfid: was for part, was in pairs if part.dataset.mfid not in noted}
    if not equal:
        return dataset
    add_equal_parents(session.client, dataset.mfid, equal)
    return replace(dataset, equals=(*dataset.equals, *equal))


def _new_dataset(
    result: TaskResult,
    stored: Stored,
    inputs: list[Input],
    used: list[UsedDataset],
    recipe: Mapping[str, object],
    mfid: str,
    ended: datetime,
) -> NewDataset:
    described, found = result.described, result.code.fingerprint
    session = result.recording.session
    kept = KeptSupport()
    if found is not None and result.code.folder is not None:  # elsewhere its files are not those that ran
        secrets = (*own_secrets(session.settings.api_key), *known_secrets())
        rests = support_of_code(result.code.name, found.files, result.code.folder, session, secrets)
        kept = rests.register(result.project, session)
        if kept.note:
            result.logger.warning("%s: %s", described.name, kept.note)
    run = {"engine": "prefect", "run_id": result.recording.destination.run_id}
    ids = {"flow_run_id": result.flow_run_id, "task_run_id": result.task_run_id}
    activity = Activity(
        step=described.name,
        function=result.code.name,
        fingerprint=fingerprint(result),
        started=result.started.isoformat(),
        ended=ended.isoformat(),
        source=found.source if found else "",
        not_covered=found.not_covered if found else (),
        git=result.code.git,
        run={**run, **ids},
        archive=kept.archive,
        left_out=kept.left_out,
    )
    record = step_record(
        recipe=recipe,
        pipeline=None,
        used=used,
        generated=[file.ref for file in stored.files],
        activity=activity,
        software=software(found.packages if found else (), kept.environment),
        who=session.agent,
        supersedes=None,
    )
    samples = tuple(sorted({sample for part in used for sample in part.dataset.samples}))
    return NewDataset(
        mfid=mfid,
        fields={
            "project_id": result.project,
            "dataset_name": _dataset_name(result, used),
            **({"timestamp": taken} if (taken := last_taken(part.dataset for part in used)) else {}),
            "public": False,
            **_descriptive(described),
        },
        record=record,
        metadata=_safe(
            {**_metadata(result, stored), METADATA: {**_told(result, stored), "inputs": _known_by(inputs)}}, result
        ),
        files=stored.files,
        keywords=described.keywords,
        parents=tuple(part.dataset.mfid for part in used),
        samples=samples,
        ingest=described.ingest,
    )


def _root(result: TaskResult, stored: Stored) -> DatasetRef:
    """A result that comes from no dataset, as measured files are: found again by its bytes."""
    session, described = result.recording.session, result.described
    salt = result.recording.destination.salt
    paths = [*(file.path for file in stored.files), _call(result, stored)]
    raw = hash_files(result.project, paths, None, session, salt=salt)
    declared = FileInput(
        file=str(stored.files[0].path),
        dataset_name=_dataset_name(result, []),
        measurement=described.measurement,
        data_type=described.data_type,
        keywords=described.keywords,
        metadata=_safe(
            {
                **_metadata(result, stored),
                METADATA: {**_told(result, stored), "arguments": result.arguments.params},
            },
            result,
        ),
        ingest=described.ingest,
    )
    note = f"returned by the task {result.code.name}"
    return result.recording.undelivered.raw(raw, declared, described.name, note, is_new=False)


def _call(result: TaskResult, stored: Stored) -> Path:
    """A file that tells the call: equal bytes of another call are another result."""
    path = stored.files[0].path.with_name(CALL)
    told = {"task": result.described.name, "output": result.output, "arguments": result.arguments.params}
    path.write_bytes(canonical_json(told))
    return path


def _dataset_name(result: TaskResult, used: list[UsedDataset]) -> str:
    names = {part.role: part.dataset.name for part in used}
    told = result.described.dataset_name
    if told is not None:
        with suppress(KeyError, IndexError, ValueError, AttributeError):
            return hidden_text(told.format(**{**result.arguments.params, **names}))[:250]
        return told
    suffix = call_label(result)
    if not used:
        return suffix
    first = used[0].dataset
    about = without_step(first.name) if first.parents else first.name
    return f"{about} ({suffix})"[:250]


def _descriptive(described: TaskDescription) -> dict[str, str]:
    fields = {"measurement": described.measurement, "data_type": described.data_type}
    return {name: value for name, value in fields.items() if value is not None}


def _metadata(result: TaskResult, stored: Stored) -> dict[str, Any]:
    """Return what a result is searched by: its dict, record or number, and what was declared of it."""
    found = _searched(stored.document.get("value") or {}, {file.ref.name: file.path for file in stored.files})
    shown = found if isinstance(found, dict) else {} if found is None else {"value": found}
    return {**(shown if len(canonical_json(shown)) <= LONG_METADATA else {}), **result.described.metadata}


def _searched(document: Mapping[str, Any], files: Mapping[str, Path]) -> Any:
    """Return what is JSON in a stored value; of a dict that holds files too, what is beside them."""
    if document.get("kind") in ("dict", "fields"):
        pairs = zip(document["keys"], document["parts"], strict=True)
        parts = {str(name): _searched(part, files) for name, part in pairs}
        return {name: found for name, found in parts.items() if found is not None} or None
    if document.get("kind") not in IN_JSON:
        return None
    path = files[document["files"][0]]
    return json.loads(path.read_bytes()) if path.stat().st_size <= LONG_METADATA else None


def _safe(metadata: dict[str, Any], result: TaskResult) -> dict[str, Any]:
    """Metadata without secrets."""
    safe: dict[str, Any] = hidden(metadata, "metadata", result.described.name)
    return safe


def _told(result: TaskResult, stored: Stored) -> dict[str, Any]:
    flow = result.recording.destination.flow
    return {
        "task": result.described.name,
        **({"flow": flow} if flow else {}),
        **stored.document,
        "digest": stored.digest,
        **({"addresses": list(result.addresses)} if result.addresses else {}),
        **{name: list(told) for name, told in _notes(result).items() if told},
    }


def _notes(result: TaskResult) -> dict[str, Any]:
    """Return what is not certain, or not taken."""
    found = result.arguments
    unconfirmed = [f"{role}: {name}" for role, names in found.unconfirmed.items() for name in names]
    return {"possible_parents": found.possible, "left_out": found.left_out, "named_by_prefect_only": unconfirmed}


def _known_by(inputs: list[Input]) -> dict[str, list[str]]:
    """By argument, how it is known which datasets it is made of."""
    told: dict[str, list[str]] = {}
    for one in inputs:
        if one.known_by not in told.setdefault(one.role, []):
            told[one.role].append(one.known_by)
    return told
