"""The dataset of a result: its name, record and metadata, and its registration."""

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

from crucible_lineage.errors import TRANSIENT, FileChangedError, NotFoundError
from crucible_lineage.ids import canonical_json
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.job.job import without_step
from crucible_lineage.pipeline.job.keeping import KeptSupport, support_of_code
from crucible_lineage.pipeline.logs import own_secrets
from crucible_lineage.pipeline.plan.files import hash_files
from crucible_lineage.provenance.environment import software
from crucible_lineage.provenance.recipe import UsedDataset, derived_mfid
from crucible_lineage.provenance.record import Activity, step_record
from crucible_lineage.refs import DatasetRef, last_taken
from crucible_lineage.registration.payload import NewDataset
from crucible_lineage.registration.read import recipe_keyword
from crucible_lineage.registration.register import RegistrationHooks, add_equal_parents, new_parents, register_output
from crucible_lineage.session import Session
from crucible_lineage.tasks.artifacts import tell_asset
from crucible_lineage.tasks.dropin.arguments import Input
from crucible_lineage.tasks.dropin.description import TaskDescription, cache_keyword
from crucible_lineage.tasks.dropin.origins import CALL
from crucible_lineage.tasks.dropin.output_paths import learn_output_roles
from crucible_lineage.tasks.dropin.recording import Recording
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

METADATA = "flow"  # the metadata key for what the flow records about a result
LONG_METADATA = 4000  # characters of JSON
IN_JSON = ("json", "spelled", "tuple", "set", "model", "dataclass", "scalar")  # kinds that are one file of JSON


def register_result(
    result: TaskResult, stored: Stored, inputs: list[Input], folder: Path, output_roles: set[str], ended: datetime
) -> DatasetRef:
    """Register a result: as a child of its inputs, or, if it has none, as files of the flow's own."""
    session = result.recording.session
    try:
        used = used_datasets(inputs)
        if used:
            dataset = _register_child(result, stored, inputs, used, output_roles, ended)
        else:
            dataset = _register_root(result, stored)
        if result.key and not result.recording.undelivered.is_kept(dataset.mfid):
            session.client.datasets.add_keyword(dataset.mfid, cache_keyword(result.key))
        for file in stored.files:
            with suppress(FileChangedError):
                session.cache.take(file.path, file.checksums)
        learn_output_roles(result, output_roles)
        return dataset
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _register_child(
    result: TaskResult,
    stored: Stored,
    inputs: list[Input],
    used: list[UsedDataset],
    output_roles: set[str],
    ended: datetime,
) -> DatasetRef:
    session, description = result.recording.session, result.description
    recipe = recipe_of(result, used, output_roles, stored.digest)
    call_mfid = derived_mfid(recipe_of(result, used, output_roles, None))
    mfid = derived_mfid(recipe)
    with session.turn(mfid):
        claims, completed = slots_of(result, about_of(inputs)), threading.Event()
        dataset = known_result(mfid, result.recording)
        if dataset is None:
            new = _new_dataset(result, stored, inputs, used, recipe, mfid, ended)
            by_call = (recipe_keyword(call_mfid),) if stored.exact else ()
            keys = (cache_keyword(result.key),) if result.key else ()
            new = replace(
                new, slots=claims, keywords=(*new.keywords, *result.recording.slots.keywords, *by_call, *keys)
            )

            def register() -> DatasetRef:
                return register_output(
                    session.client, new, session.machine, stages=RegistrationHooks(before_complete=completed.set)
                )

            dataset = result.recording.undelivered.register(description.name, new, register)
            if result.recording.undelivered.is_kept(dataset.mfid):
                result.recording.slots.rely(result.project, claims, dataset, made=True)
                result.logger.debug("%s is dataset %s, which waits in the outbox", description.name, dataset.mfid)
                return dataset
            payload = {"project": result.project, "flow": result.recording.destination.flow, "task": description.name}
            tell_asset(dataset, [part.dataset.mfid for part in used], payload)
    result.recording.slots.rely(result.project, claims, dataset, made=completed.is_set())
    dataset = link_equal_parents(dataset, used, session)
    session.mirror.trust({mfid: dataset, dataset.mfid: dataset})
    if stored.exact:  # makes it available to equal calls, here and on other machines
        session.client.datasets.add_keyword(dataset.mfid, recipe_keyword(call_mfid))
        session.mirror.trust({call_mfid: dataset})
    result.logger.debug("%s is dataset %s", description.name, dataset.mfid)
    return dataset


def known_result(mfid: str, recording: Recording) -> DatasetRef | None:
    """Return the result that is known under an id, unless Crucible has lost it or is to delete it since."""
    session = recording.session
    known = session.mirror.known(mfid)
    if known is None or recording.undelivered.is_away():
        return known
    try:
        if not session.client.datasets.get(known.mfid).is_to_be_deleted:
            return known
    except TRANSIENT as error:
        recording.undelivered.note_away(error)
        return known
    except NotFoundError:
        pass
    session.mirror.forget((mfid, known.mfid))
    return None


def link_equal_parents(dataset: DatasetRef, used: list[UsedDataset], session: Session) -> DatasetRef:
    """Link the dataset to all equal parents: parents of equal bytes and origin give equal results."""
    if not (equal := new_parents(dataset, used)):
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
    description, code = result.description, result.code.fingerprint
    session = result.recording.session
    support = KeptSupport()
    if code is not None and result.code.folder is not None:  # on another machine the files are not those that ran
        secrets = (*own_secrets(session.settings.api_key), *known_secrets())
        code_support = support_of_code(result.code.name, code.files, result.code.folder, session, secrets)
        support = code_support.register(result.project, session)
        if support.note:
            result.logger.warning("%s: %s", description.name, support.note)
    run = {"engine": "prefect", "run_id": result.recording.destination.run_id}
    ids = {"flow_run_id": result.flow_run_id, "task_run_id": result.task_run_id}
    activity = Activity(
        step=description.name,
        function=result.code.name,
        fingerprint=fingerprint(result),
        started=result.started.isoformat(),
        ended=ended.isoformat(),
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
        generated=[file.ref for file in stored.files],
        activity=activity,
        software=software(code.packages if code else (), support.environment),
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
            **_descriptive(description),
        },
        record=record,
        metadata=_metadata(result, stored, {"inputs": _known_by(inputs)}),
        files=stored.files,
        keywords=description.keywords,
        parents=tuple(part.dataset.mfid for part in used),
        samples=samples,
        ingest=description.ingest,
    )


def _register_root(result: TaskResult, stored: Stored) -> DatasetRef:
    """Register a result without parents, as measured files are: its bytes identify it."""
    session, description = result.recording.session, result.description
    paths = [*(file.path for file in stored.files), _write_call(result, stored)]
    raw = hash_files(result.project, paths, None, session)
    declared = FileInput(
        file=(str(stored.files[0].path),),
        dataset_name=_dataset_name(result, []),
        measurement=description.measurement,
        data_type=description.data_type,
        keywords=description.keywords,
        metadata=_metadata(result, stored, {"arguments": result.arguments.params}),
        ingest=description.ingest,
    )
    note = f"returned by the task {result.code.name}"
    return result.recording.undelivered.raw(raw, declared, description.name, note, is_new=False)


def _write_call(result: TaskResult, stored: Stored) -> Path:
    """Write the file that identifies the call, since equal bytes from another call are another result."""
    path = stored.files[0].path.with_name(CALL)
    call = {"task": result.description.name, "output": result.output, "arguments": result.arguments.params}
    path.write_bytes(canonical_json(call))
    return path


def _dataset_name(result: TaskResult, used: list[UsedDataset]) -> str:
    names = {part.role: part.dataset.name for part in used}
    template = result.description.dataset_name
    if template is not None:
        with suppress(KeyError, IndexError, ValueError, AttributeError):
            return hidden_text(template.format(**{**result.arguments.params, **names}))[:250]
        return template
    label = call_label(result)
    if not used:
        return label
    first = used[0].dataset
    about = without_step(first.name) if first.parents else first.name
    return f"{about} ({label})"[:250]


def _descriptive(description: TaskDescription) -> dict[str, str]:
    fields = {"measurement": description.measurement, "data_type": description.data_type}
    return {name: value for name, value in fields.items() if value is not None}


def _metadata(result: TaskResult, stored: Stored, more: JsonMapping) -> JsonObject:
    """Return the metadata of a result without secrets: its dict, record or number, declared ones, those of the flow."""
    value = _searchable(stored.document.get("value") or {}, {file.ref.name: file.path for file in stored.files})
    fields = value if isinstance(value, dict) else {} if value is None else {"value": value}
    searchable = {**(fields if len(canonical_json(fields)) <= LONG_METADATA else {}), **result.description.metadata}
    metadata = {**searchable, METADATA: {**_flow_metadata(result, stored), **more}}
    safe: JsonObject = hidden(metadata, "metadata", result.description.name)
    return safe


def _searchable(document: JsonMapping, files: Mapping[str, Path]) -> Any:
    """Return the JSON of a stored value; of a dict that also has files, the rest."""
    if document.get("kind") in ("dict", "fields"):
        pairs = zip(document["keys"], document["parts"], strict=True)
        parts = {str(name): _searchable(part, files) for name, part in pairs}
        return {name: part for name, part in parts.items() if part is not None} or None
    if document.get("kind") not in IN_JSON:
        return None
    path = files[document["files"][0]]
    return json.loads(path.read_bytes()) if path.stat().st_size <= LONG_METADATA else None


def _flow_metadata(result: TaskResult, stored: Stored) -> JsonObject:
    flow = result.recording.destination.flow
    return {
        "task": result.description.name,
        **({"flow": flow} if flow else {}),
        **stored.document,
        "digest": stored.digest,
        **({"addresses": list(result.addresses)} if result.addresses else {}),
        **{name: list(notes) for name, notes in _notes(result).items() if notes},
    }


def _notes(result: TaskResult) -> JsonObject:
    """Return notes about uncertain parents and omitted files."""
    arguments = result.arguments
    return {
        "possible_parents": arguments.possible,
        "left_out": arguments.left_out,
        "named_by_prefect_only": [f"{role}: {run}" for role, runs in arguments.unconfirmed.items() for run in runs],
    }


def _known_by(inputs: list[Input]) -> dict[str, list[str]]:
    """Return, by argument, how its parents are known."""
    reasons: dict[str, list[str]] = {}
    for part in inputs:
        if part.known_by not in reasons.setdefault(part.role, []):
            reasons[part.role].append(part.known_by)
    return reasons
