"""The provenance record of a dataset, in its scientific metadata under the keys of marks.py.

schema.py defines its content, and is slow to import: it is imported only to read or write a record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from crucible_lineage.errors import ChecksumError
from crucible_lineage.ids import canonical_json
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.marks import KEY, record_in
from crucible_lineage.provenance.recipe import UsedDataset, generated_sha256, recipe_inputs
from crucible_lineage.refs import DatasetRef, FileRef

if TYPE_CHECKING:
    from crucible_lineage.provenance.schema import FilesRecord, ProvenanceRecord, StepRecord


SCHEMA = "crucible-lineage/provenance/1"
COMPLETE = "complete"
INCOMPLETE = "incomplete"


T = TypeVar("T", bound="ProvenanceRecord")


ATTACHED_NAME = "crucible-lineage-provenance.json"
MAX_RECORD_BYTES = 256 << 10  # chosen: a thousand records of a project's list fit into one answer
MOVED = ("recipe", "used", "generated")
OF_CODE = ("pieces", "read", "archive", "left_out", "program")  # known about code beside what is always known


def step_activity(
    step: str,
    function: str,
    fingerprint: str,
    started: str,
    ended: str,
    *,
    source: str = "",
    git: Mapping[str, object] | None = None,
    run: Mapping[str, object] | None = None,
    not_covered: Sequence[str] = (),
    **others: Sequence[str] | Mapping[str, object] | None,
) -> JsonObject:
    """Return the `activity` part of a record; of `others` those that are not empty, in their places of the schema."""
    known: JsonObject = {
        name: list(value) if isinstance(value, Sequence) else dict(value) for name, value in others.items() if value
    }
    code: JsonObject = {name: known.pop(name) for name in OF_CODE if name in known}
    code |= {"fingerprint": fingerprint, "source": source[:20_000], "not_covered": list(not_covered)}
    code["git"] = dict(git) if git else None
    times = {"started": started, "ended": ended, "run": dict(run) if run else None}
    return {"step": step, "function": function, "code": code, **times, **known}


def step_record(
    *,
    recipe: Mapping[str, object],
    used: Sequence[UsedDataset],
    generated: Sequence[FileRef],
    activity: JsonMapping,
    software: Mapping[str, object],
    who: Mapping[str, object],
    pipeline: Mapping[str, object] | None = None,
    supersedes: str | None = None,
) -> StepRecord:
    """Return the incomplete record of an output of a step. Raises InputError if it does not fit the schema."""
    from crucible_lineage.provenance.schema import StepRecord, new_record

    record = new_record(
        {
            "schema": SCHEMA,
            "status": INCOMPLETE,
            "pipeline": dict(pipeline) if pipeline else None,
            "step": recipe["step"],
            "output": recipe["output"],
            "attempt": recipe.get("attempt", 0),
            "recipe": dict(recipe),
            "used": [
                {**_used(part.role, part.dataset, part.files), **({"chosen": dict(part.chosen)} if part.chosen else {})}
                for part in used
            ],
            "generated": [file.to_json() for file in generated],
            "activity": activity,
            "agent": dict(who),
            "software": dict(software),
            "supersedes": supersedes,
        }
    )
    assert isinstance(record, StepRecord)
    return record


def files_record(
    recipe: Mapping[str, object],
    files: Sequence[FileRef],
    who: Mapping[str, object],
    parents: Sequence[DatasetRef] = (),
    **others: object,
) -> FilesRecord:
    """Return the incomplete record of registered files; `others` are its activity and what it supersedes, if known."""
    from crucible_lineage.provenance.schema import FilesRecord, new_record

    record = new_record(
        {
            "schema": SCHEMA,
            "status": INCOMPLETE,
            "recipe": dict(recipe),
            "used": [_used("parent", parent, ()) for parent in parents],
            "generated": [file.to_json() for file in files],
            "agent": dict(who),
            **{name: value for name, value in others.items() if value},
        }
    )
    assert isinstance(record, FilesRecord)
    return record


def read_record(scientific_metadata: Mapping[str, object] | None) -> StepRecord | FilesRecord | None:
    """Return the provenance record in a dataset's metadata; None if there is none, or it does not fit the schema."""
    record = _parsed(scientific_metadata)
    return None if isinstance(record, str) else record


def unreadable(scientific_metadata: Mapping[str, object] | None) -> str:
    """Return why the value under the record's key is not a readable record; empty if it is, or if there is none."""
    fault = _parsed(scientific_metadata)
    return fault if isinstance(fault, str) else ""


def _used(role: str, dataset: DatasetRef, files: Sequence[FileRef]) -> dict[str, object]:
    origin = {"origin": dataset.origin} if dataset.origin else {}
    return {"role": role, "mfid": dataset.mfid, **origin, "files": [file.to_json() for file in files]}


def _parsed(scientific_metadata: Mapping[str, object] | None) -> StepRecord | FilesRecord | str | None:
    """Return the record, or why it is unreadable; None if there is none."""
    stored = record_in(scientific_metadata)
    if stored is None and KEY not in (scientific_metadata or {}):
        return None
    from crucible_lineage.provenance.schema import parse_record

    schema = stored.get("schema") if isinstance(stored, Mapping) else None
    if isinstance(schema, str) and schema != SCHEMA:
        return f"it is of schema {schema}, this version reads {SCHEMA}"
    return parse_record(stored)


def contradictions(record: StepRecord | FilesRecord) -> list[str]:
    """Return the parts that a record has twice, mostly in its recipe, and that do not agree."""
    return [part for part, is_same in _repeated_parts(record) if not is_same]


def _repeated_parts(record: StepRecord | FilesRecord) -> Iterator[tuple[str, bool]]:
    recipe = record.recipe
    if record.result:
        generated = (file.document() for file in record.generated or ())
        yield "the list of its files", generated_sha256(generated) == record.result.generated_sha256
    used = (
        (part.role, part.origin or part.mfid, {file.name: file.sha256 for file in part.files or ()})
        for part in record.used
    )
    yield "what was used", _sources(used, recipe) == _sources(recipe_inputs(recipe), recipe)
    step = record.as_step
    if step is None:
        yield "its files", {file.name: file.sha256 for file in record.files} == (recipe.get("files") or {})
        return
    recorded = [step.step, step.activity.step, step.output]
    yield "the step", recorded == [recipe["step"]] * 2 + [recipe["output"]]
    yield "the code", step.activity.code.fingerprint == recipe["code"]
    yield "the attempt", step.attempt == recipe.get("attempt", 0)


def _sources(inputs: Iterable[tuple[str, str, Mapping[str, str]]], recipe: JsonMapping) -> list[Any]:
    """Return the inputs sorted; for a dataset made manually, each origin once."""
    found = [(role, source, sorted(files.items())) for role, source, files in inputs]
    if recipe["kind"] == "files":
        return sorted({(role, source) for role, source, _ in found})
    return sorted(found)


# Long provenance records: Crucible returns the records of a whole project at once, so each must stay small. A long one
# keeps agent, times and parents. The recipe and the lists of files move to a file of the dataset, whose hash is in the
# record; if that is not enough, so does the list of parents. Lineages are drawn without these parts.


def compact(record: T, limit_bytes: int = MAX_RECORD_BYTES) -> tuple[T, bytes | None]:
    """Return the record for the metadata, and the bytes of ATTACHED_NAME if it is too long for these."""
    document = record.document()
    if _size(document) <= limit_bytes:
        return record, None
    content = canonical_json({name: document[name] for name in MOVED})
    short: dict[str, object] = {name: value for name, value in document.items() if name not in MOVED}
    short["used"] = [{"role": entry["role"], "mfid": entry["mfid"]} for entry in document["used"]]
    short["attached"] = {
        "name": ATTACHED_NAME,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "recipe_sha256": record.recipe_sha256,
        "used": len(document["used"]),
        "generated": len(document["generated"]),
    }
    if _size(short) > limit_bytes:
        short["used"] = []
    return type(record).model_validate(short), content


def expand(record: T, content: bytes) -> T:
    """Return the record with the content of its attached file. Raises ChecksumError if the file was changed."""
    attached = record.attached
    if attached is None or hashlib.sha256(content).hexdigest() != attached.sha256:
        name = attached.name if attached else ATTACHED_NAME
        raise ChecksumError(f"{name} does not match the provenance record")
    return type(record).model_validate({**record.document(), **json.loads(content)})


def _size(document: Mapping[str, object]) -> int:
    return len(json.dumps(document, ensure_ascii=False).encode())
